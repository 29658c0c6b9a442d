"""What a user might write: a neuron, a layer over time, a container, a surrogate, losses and terms, each as small as it
can be.
"""

from typing import Dict, Mapping, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from snn_core.containers import Sequential
from snn_core.errors import ConfigError
from snn_core.neurons import LIF, Neuron, SequenceLayer
from snn_core.neurons.base import Coefficients, State, Temporal, Unrolled
from snn_core.recording import LayerCall
from snn_core.surrogate import ATan, spike
from snn_core.terms import BoundTerm, Recorded, Term

__all__ = ["Activity", "Difference", "Drive", "Resonator", "Shares", "StateProbe", "TwoPaths", "bump", "projection"]


def bump(u: Tensor) -> Tensor:
    """A surrogate's derivative that is not even in u, so that a sign mistaken for its opposite shows."""
    return torch.exp(-u.square()) * (1 + 0.5 * torch.tanh(u))


def projection(output: Tensor, target: Tensor) -> Tensor:
    """sum over time and neurons of output * target, `[T, B, ...]` -> `[B]`: a loss whose gradient by the output is the
    target.
    """
    return (output * target).transpose(0, 1).flatten(1).sum(1)


class Resonator(Neuron):
    """A user's neuron: a damped oscillator that fires on its first state and is pushed back in its second."""

    states = ("x", "y")
    damping: Tensor
    angle: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_value("damping", 0.9, learn=True)
        self.add_value("angle", [0.3, 0.5, 0.8, 1.0], learn=True)

    def coefficients(self) -> Coefficients:
        return {"along": self.damping * torch.cos(self.angle), "across": self.damping * torch.sin(self.angle)}

    def dynamics(self, x: Tensor, state: State, c: Coefficients) -> Tuple[Tensor, State]:
        real = c["along"] * state[0] - c["across"] * state[1] + x
        imaginary = c["across"] * state[0] + c["along"] * state[1]
        spk = spike(real - 1.0, ATan())
        return spk, (real, imaginary - spk)


class Difference(SequenceLayer):
    """A user's layer over the whole sequence: a learnt multiple of each step's change. `[T, B, ...]` -> the same."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(1.5))

    def run(
        self, x: Tensor, state: Optional[State] = None, steps: Optional[int] = None, wanted: Sequence[str] = ()
    ) -> Unrolled:
        count = self.check_input(x, steps)
        x = x if steps is None else x.unsqueeze(0).expand(count, *x.shape)
        before = torch.cat((torch.zeros_like(x[:1]), x[:-1]))
        return self.gain * (x - before), (), {}


class TwoPaths(nn.Module):
    """A user's container with a forward of its own: one body run twice, a skip connection and a bare parameter.

    `[T, B, inputs]` -> `[T, B, outputs]`.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.enter = nn.Linear(inputs, hidden)
        self.body = Sequential(nn.Linear(hidden, hidden), LIF(0.8))
        self.leave = nn.Linear(hidden, outputs)
        self.fire = LIF(0.9)
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor) -> Tensor:
        first = self.body(self.enter(x))
        second = self.body(first + self.scale * first)
        return self.fire(self.leave(first + second))


class _BoundActivity(BoundTerm):
    def measure(self, recorded: Recorded, valid: Optional[Tensor]) -> Tensor:
        rates = [_of_samples(call.out) for calls in recorded.neurons.values() for call in calls]
        return _mean(torch.stack(rates).sum(0), valid)

    def penalty(self, measure: Tensor, controls: Mapping[str, Tensor]) -> Tensor:
        return controls["weight"] * (measure - controls["target"]).square()


class Activity(Term):
    """The mean output of each temporal layer, summed; penalty: weight (measure - target)^2.

    Its controls are exact in float32, which is how a device may keep them.
    """

    name = "activity"

    def __init__(self, weight: float = 2.0, target: float = 0.125) -> None:
        self._controls = {"weight": weight, "target": target}

    @property
    def controls(self) -> Dict[str, float]:
        return dict(self._controls)

    def bind(self, model: nn.Module) -> BoundTerm:
        if not any(isinstance(module, Temporal) for module in model.modules()):
            raise ConfigError("the model has no temporal layer, so it has no activity; add a neuron")
        return _BoundActivity()


class _BoundDrive(BoundTerm):
    def measure(self, recorded: Recorded, valid: Optional[Tensor]) -> Tensor:
        inputs = [_input_of_samples(call) for calls in recorded.layers.values() for call in calls]
        return _mean(torch.stack(inputs).sum(0), valid)

    def penalty(self, measure: Tensor, controls: Mapping[str, Tensor]) -> Tensor:
        return controls["weight"] * torch.log(1 + measure)


class Drive(Term):
    """The mean magnitude of each weight layer's input, summed; penalty: weight log(1 + measure). Layers see `[T * B,
    ...]`.
    """

    name = "drive"
    layers = True

    @property
    def controls(self) -> Dict[str, float]:
        return {"weight": 0.5}

    def bind(self, model: nn.Module) -> BoundTerm:
        return _BoundDrive()


class _BoundProbe(BoundTerm):
    def measure(self, recorded: Recorded, valid: Optional[Tensor]) -> Tensor:
        parts = []
        for calls in recorded.neurons.values():
            for call in calls:
                # by name, each with a factor of its own: two states exchanged, or two steps, must show
                for number, name in enumerate(sorted(call.traces), start=1):
                    trace = call.traces[name]
                    # 0.5 to 1.5; no linspace, which not every device has
                    steps = torch.arange(trace.shape[0], dtype=trace.dtype, device=trace.device)
                    late = 0.5 + steps / max(trace.shape[0] - 1, 1)
                    parts.append(number * _of_samples(trace * late.reshape(-1, *([1] * (trace.ndim - 1)))))
        return _mean(torch.stack(parts).sum(0), valid)

    def penalty(self, measure: Tensor, controls: Mapping[str, Tensor]) -> Tensor:
        return controls["weight"] * measure


class StateProbe(Term):
    """A weighted mean over time of every recorded state; penalty: weight times it. Its gradient reaches every state and
    step.
    """

    name = "states"

    def __init__(self, traces: Sequence[str]) -> None:
        self._traces = tuple(traces)

    @property
    def controls(self) -> Dict[str, float]:
        return {"weight": 0.7}

    @property
    def traces(self) -> Tuple[str, ...]:
        return self._traces

    def bind(self, model: nn.Module) -> BoundTerm:
        return _BoundProbe()


class _BoundShares(BoundTerm):
    def __init__(self, parts: Tuple[str, ...]) -> None:
        self.parts = parts

    def measure(self, recorded: Recorded, valid: Optional[Tensor]) -> Tensor:
        return torch.stack([_mean(_of_samples(recorded.neurons[name][0].out), valid) for name in self.parts])

    def penalty(self, measure: Tensor, controls: Mapping[str, Tensor]) -> Tensor:
        # the parts count differently, so that two of them exchanged must show
        return sum(number * part.square() for number, part in enumerate(measure.unbind(), start=1)) * controls["weight"]


class Shares(Term):
    """The mean output of each temporal layer, a part each; penalty: weight times the sum of number times square."""

    name = "shares"

    @property
    def controls(self) -> Dict[str, float]:
        return {"weight": 0.5}

    def bind(self, model: nn.Module) -> BoundTerm:
        return _BoundShares(tuple(name for name, module in model.named_modules() if isinstance(module, Temporal)))


def _of_samples(x: Tensor) -> Tensor:
    """The mean over time and neurons, `[T, B, ...]` -> `[B]`."""
    return x.transpose(0, 1).flatten(1).mean(1)


def _input_of_samples(call: LayerCall) -> Tensor:
    """The mean magnitude of a layer's input for each sample, `[B]`, however time lies in it."""
    x, layout = call.x.abs(), call.layout
    kind = "first" if layout is None else layout.kind
    if kind == "folded" and layout is not None:
        return _of_samples(x.unflatten(0, (layout.steps, -1)))
    return _of_samples(x) if kind == "first" else x.flatten(1).mean(1)


def _mean(values: Tensor, valid: Optional[Tensor]) -> Tensor:
    return values.mean() if valid is None else (values * valid).sum() / valid.sum()
