"""What one forward of a step leaves behind for its loss and terms: hook objects, no globals, nothing alive after the
step.
"""

import warnings
from contextlib import contextmanager
from typing import Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

__all__ = [
    "WEIGHT_LAYERS",
    "CarriedStates",
    "Clock",
    "LayerCall",
    "LayerTap",
    "Layout",
    "NeuronCall",
    "Recorder",
    "State",
    "Tap",
    "static_shape",
]

State = Tuple[Tensor, ...]
CarriedStates = Sequence[Sequence[State]]
"""For each temporal layer of a step, in its order, the state of each of its calls; empty is rest for all."""

WEIGHT_LAYERS = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
"""Layers whose inputs cost synaptic operations, one for each weight that they meet."""


def static_shape(x: Tensor) -> Tuple[int, ...]:
    """The shape as plain integers, while `torch.jit` traces too, whose graphs are made for one shape."""
    if not torch.jit.is_tracing():
        return tuple(x.shape)
    with warnings.catch_warnings():
        # sizes are tensors there, and to make constants of them is what is meant here
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return tuple(int(size) for size in x.shape)


class Layout(NamedTuple):
    """How a layer's input holds time. kind: "first" is `[T, B, ...]`, "folded" `[T * B, ...]`, "static" `[B, ...]`
    that stands for
    `steps` equal steps, "step" `[B, ...]`, one call for each step. `steps`: T (1 for "step")."""

    kind: str
    steps: int


class Clock:
    """Where containers tell the taps below them how time lies in what they pass on; None is unknown."""

    def __init__(self) -> None:
        self.layout: Optional[Layout] = None

    @contextmanager
    def showing(self, layout: Layout) -> Iterator[None]:
        before, self.layout = self.layout, layout
        try:
            yield
        finally:
            self.layout = before


class LayerCall(NamedTuple):
    """One call of a weight layer: its input, with gradient, how time lies in it, and the shape of its output."""

    x: Tensor
    layout: Optional[Layout]
    out_shape: Tuple[int, ...]


class LayerTap:
    """A forward hook that keeps a weight layer's inputs, positional or by keyword, until the step has used them."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.calls: List[LayerCall] = []
        self.fired = False

    def __call__(self, module: nn.Module, args: Tuple[Tensor, ...], kwargs: Dict[str, Tensor], output: Tensor) -> None:
        self.fired = True
        x = args[0] if args else kwargs["input"]
        self.calls.append(LayerCall(x, self.clock.layout, static_shape(output)))


class NeuronCall(NamedTuple):
    """One call of a temporal layer: output `[T, B, ...]`, last state, and the recorded states by name, each `[T, B,
    ...]`.
    """

    out: Tensor
    state: State
    traces: Dict[str, Tensor]


class Tap:
    """What a step asks of one temporal layer, and what the layer left there in this forward.

    wanted: names of states to record.   initials: a state to start from for each call; None is rest.
    log: shared by all taps of a step; it tells in which order layers ran.
    """

    def __init__(self, name: str, wanted: Sequence[str], log: "List[Tap]") -> None:
        self.name = name
        self.wanted = tuple(wanted)
        self.log = log
        self.initials: Optional[Sequence[State]] = None
        self.calls: List[NeuronCall] = []

    def initial(self) -> Optional[State]:
        return None if self.initials is None else self.initials[len(self.calls)]

    def keep(self, out: Tensor, state: State, traces: Dict[str, Tensor]) -> None:
        self.calls.append(NeuronCall(out, state, traces))
        self.log.append(self)


class Recorder:
    """All taps of one step. `begin` before the model runs, `end` when the step has used what they hold."""

    def __init__(self, temporal: Mapping[str, Sequence[str]], layers: Sequence[str]) -> None:
        self.clock = Clock()
        self.ran: List[Tap] = []
        self.neurons = {name: Tap(name, wanted, self.ran) for name, wanted in temporal.items()}
        self.layers = {name: LayerTap(self.clock) for name in layers}
        self.readout: Optional[str] = None

    def begin(self, states: CarriedStates) -> None:
        self.end()
        for index, tap in enumerate(self.neurons.values()):
            tap.initials = states[index] if states else None

    def end(self) -> None:
        self.ran.clear()
        for neuron in self.neurons.values():
            neuron.calls.clear()
            neuron.initials = None
        for layer in self.layers.values():
            layer.calls.clear()

    def states(self) -> CarriedStates:
        """The last state of each call of each temporal layer, in the order of `neurons`."""
        return tuple(tuple(call.state for call in tap.calls) for tap in self.neurons.values())

    def readout_traces(self) -> Dict[str, Tensor]:
        """The recorded states of the temporal layer that ran last, each `[T, B, ...]`."""
        self.readout = self.ran[-1].name if self.ran else None
        return self.ran[-1].calls[-1].traces if self.ran else {}

    def narrow(self, readout: Optional[str], for_loss: Sequence[str], for_terms: Sequence[str]) -> None:
        """Record the loss's states of the readout alone, once a trial run has shown which layer that is."""
        for name, tap in self.neurons.items():
            kept = (*for_terms, *(for_loss if name == readout else ()))
            tap.wanted = tuple(state for state in tap.wanted if state in kept)
