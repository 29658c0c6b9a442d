"""The neurons and arguments that snnTorch's presets share with those of its fork for the IPU."""

import math
from typing import Any, Dict, Optional, Tuple, Union

import torch
from torch import Tensor, nn

from snn_core.errors import ConfigError
from snn_core.neurons import LIF
from snn_core.neurons.base import Coefficients, Number, State, widen
from snn_core.neurons.recurrent import OneToOne, Recurrent
from snn_core.neurons.spiking import SpikingNeuron
from snn_core.neurons.synaptic import Synaptic as CoreSynaptic
from snn_core.presets._shared import dtype_of, feed, no_gradient, refuse
from snn_core.surrogate import ATan

__all__ = [
    "HearingLeaky",
    "HearingSynaptic",
    "LeakyParallel",
    "SameStepHearingLeaky",
    "SameStepLeaky",
    "SameStepSynaptic",
    "SnnTorchAlpha",
    "SnnTorchLapicque",
    "SnnTorchRecurrent",
    "circuit",
    "clearing",
    "connection_of",
    "firing_of",
    "graded",
    "one_to_one",
]

KernelSize = Union[None, int, Tuple[int, int]]
HEARD = "heard"
REASONS = {
    "init_hidden": "the state is an argument of unroll() and never kept on the module; drop the argument",
    "output": "a layer returns its output, and unroll() the state too; drop the argument",
    "inhibition": "it compares the neurons of a layer with each other, where a step is one neuron's own",
    "state_quant": "a quantised state is not part of the declared dynamics",
}


def firing_of(
    neuron: str, options: Dict[str, Any], fire_op: str = ">", reset_mechanism: str = "subtract"
) -> Dict[str, Any]:
    """Turn snnTorch's arguments on firing into those of `Firing`. Raises ConfigError for the others."""
    given = {"spike_grad": None, "surrogate_disable": False, "reset_mechanism": reset_mechanism, **options}
    surrogate = given.pop("spike_grad") or ATan(2.0)
    if given.pop("surrogate_disable"):
        surrogate = no_gradient()
    taken = [name for name in ("threshold", "learn_threshold", "reset_mechanism") if name in given]
    firing: Dict[str, Any] = {name: given.pop(name) for name in taken}
    refuse(neuron, given, REASONS)
    return {"surrogate": surrogate, "fire_op": fire_op, "reset_delay": True, "detach_reset": True, **firing}


def clearing(firing: Dict[str, Any]) -> Dict[str, Any]:
    """The same, where a reset to zero clears the whole update with the input of its step."""
    return {**firing, "reset_clears_input": firing["reset_mechanism"] == "zero"}


class _SameStep(SpikingNeuron):
    """snnTorch's reset_delay=False: fire on the membrane after the late reset, then exchange that for an early one.

    With R of the last step's membrane and s of this step's, m - (s - R) threshold, or m - (s - R) m: not a reset at
    once where a membrane stays above the threshold after its reset. The gradient flows through s and not through R.
    """

    def dynamics(self, x: Tensor, state: State, c: Coefficients) -> Tuple[Tensor, State]:
        earlier = self.fire(state[0], c).detach()
        out, (mem, *rest) = super().dynamics(x, state, c)
        correction = (out / c["gain"] if "gain" in c else out) - earlier
        if self.firing.reset_mechanism == "subtract":
            mem = mem - correction * c["threshold"]
        elif self.firing.reset_mechanism == "zero":
            mem = mem - correction * mem
        return out, (mem, *rest)


class _Hears(SpikingNeuron):
    """Adds what a recurrent connection says after the input, not to it: snnTorch's rounding."""

    def hear(self, value: Tensor, c: Coefficients) -> Tensor:
        return value + c[HEARD] if HEARD in c else value


class HearingLeaky(_Hears, LIF):
    """The neuron inside `RLeaky`: mem = beta mem + x + heard."""

    def charge(self, x: Tensor, state: State, c: Coefficients) -> State:
        return (self.hear(super().charge(x, state, c)[0], c),)


class HearingSynaptic(_Hears, CoreSynaptic):
    """The neuron inside `RSynaptic`: syn = alpha syn + x + heard; mem = beta mem + syn."""

    def charge(self, x: Tensor, state: State, c: Coefficients) -> State:
        mem, syn = state
        syn = self.hear(c["alpha_syn"] * syn + x, c)
        return c["beta"] * mem + syn, syn


class SnnTorchRecurrent(Recurrent):
    """`Recurrent` in snnTorch's order of sums: the same equation, with the last bits of float32 the same too."""

    def dynamics(self, x: Tensor, state: State, c: Coefficients) -> Tuple[Tensor, State]:
        heard = self._hear(state[0], c)
        self._require_shape("its connection", heard, x)
        out, inner = self.neuron.dynamics(x, state[1:], {**c, HEARD: heard.to(x.dtype)})
        return out, (out, *inner)


class SameStepLeaky(_SameStep, LIF):
    """`Leaky(reset_delay=False)`."""


class SameStepHearingLeaky(_SameStep, HearingLeaky):
    """The neuron inside `RLeaky(reset_delay=False)`."""


class SameStepSynaptic(_SameStep, CoreSynaptic):
    """`Synaptic(reset_delay=False)`."""


class SnnTorchAlpha(SpikingNeuron):
    """The difference of two decaying currents, scaled; the membrane keeps no state of its own.

    exc = alpha exc + x; inh = beta inh - x; mem = tau (exc + inh), tau = ln alpha / (ln beta - ln alpha) + 1. A reset
    by subtraction takes the threshold off exc, clears inh, and adds the last inh to the membrane where
    `moves_membrane`.
    """

    states = ("mem", "syn_exc", "syn_inh")
    alpha: Tensor
    beta: Tensor

    def __init__(
        self, alpha: Number, beta: Number, learn_beta: bool, moves_membrane: bool = True, **firing: Any
    ) -> None:
        super().__init__(**firing)
        self.moves_membrane = moves_membrane
        self.add_value("alpha", alpha)
        self.add_value("beta", beta, learn_beta)
        if not bool((self.alpha > self.beta).all()) or bool((self.beta == 1).any()):
            raise ConfigError(f"Alpha got alpha={alpha!r} and beta={beta!r}; it needs 1 > alpha > beta")

    def coefficients(self) -> Coefficients:
        alpha, beta = self.alpha.clamp(0, 1), self.beta.clamp(0, 1)
        tau = torch.log(alpha) / (torch.log(beta) - torch.log(alpha)) + 1
        return {**super().coefficients(), "alpha": alpha, "beta": beta, "tau": tau}

    def dynamics(self, x: Tensor, state: State, c: Coefficients) -> Tuple[Tensor, State]:
        mem, exc, inh = state
        reset = self.fire(mem, c).detach()
        inh_before = inh
        exc, inh = c["alpha"] * exc + x, c["beta"] * inh - x
        mem = c["tau"] * (exc + inh)
        if self.firing.reset_mechanism == "zero":
            mem, exc, inh = mem - mem * reset, exc - exc * reset, inh - inh * reset
        elif self.firing.reset_mechanism == "subtract":
            mem = mem + inh_before * reset if self.moves_membrane else mem
            exc, inh = exc - c["threshold"] * reset, inh - inh * reset
        return self.fire(mem, c), (mem, exc, inh)


class SnnTorchLapicque(SpikingNeuron):
    """mem = x dt/C + (1 - dt/(R C)) mem, with snnTorch's order of the factors. Lapicque 1907."""

    R: Tensor
    C: Tensor
    time_step: Tensor

    def __init__(self, R: Tensor, C: Tensor, time_step: Tensor, **firing: Any) -> None:
        super().__init__(**firing)
        for name, value in (("R", R), ("C", C), ("time_step", time_step)):
            self.add_value(name, value)

    def coefficients(self) -> Coefficients:
        rc = self.R * self.C
        return {
            **super().coefficients(),
            "R": self.R,
            "rate": 1 / rc,
            "time_step": self.time_step,
            "decay": 1 - self.time_step / rc,
        }

    def charge(self, x: Tensor, state: State, c: Coefficients) -> State:
        return (x * c["R"] * c["rate"] * c["time_step"] + c["decay"] * state[0],)


class LeakyParallel(SpikingNeuron):
    """snntorch.LeakyParallel: mem = relu(W x + b + beta mem + b'), no reset.

    `[T, B, input_size]` -> `[T, B, hidden_size]`.

    beta: one decay for all neurons, or None for one at random for each. weight_hh_enable: a full matrix in place of
    beta.
    learn_beta: learn beta, or the matrix. Further arguments: bias, threshold, spike_grad, surrogate_disable,
    learn_threshold, graded_spikes_factor, learn_graded_spikes_factor.
    """

    recurrence = True

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        beta: Optional[float] = None,
        bias: bool = True,
        threshold: Number = 1.0,
        *,
        learn_beta: bool = False,
        weight_hh_enable: bool = False,
        graded_spikes_factor: Number = 1.0,
        learn_graded_spikes_factor: bool = False,
        **options: Any,
    ) -> None:
        firing = firing_of("LeakyParallel", {"threshold": threshold, **options}, reset_mechanism="none")
        super().__init__(**firing, **graded(graded_spikes_factor, learn_graded_spikes_factor))
        self.input_weights = nn.Linear(input_size, hidden_size, bias=bias)
        self.recurrent_weights = nn.Linear(hidden_size, hidden_size, bias=bias)
        bound = 1 / math.sqrt(hidden_size)
        for parameter in (*self.input_weights.parameters(), *self.recurrent_weights.parameters()):
            nn.init.uniform_(parameter, -bound, bound)
        if beta is not None:
            nn.init.constant_(self.recurrent_weights.weight, min(max(float(beta), 0.0), 1.0))
        self.recurrent_weights.weight.requires_grad_(learn_beta)
        self.diagonal = not weight_hh_enable

    def aligned_coefficients(self, x: Tensor) -> Coefficients:
        c = self.coefficients()
        return {**c, "decay": widen(self.recurrent_weights.weight.diagonal())} if self.diagonal else c

    def initial(self, x: Tensor, c: Coefficients) -> State:
        return (x.new_zeros((x.shape[0], self.recurrent_weights.weight.shape[0])),)

    def charge(self, x: Tensor, state: State, c: Coefficients) -> State:
        (mem,) = state
        drive = feed(self.input_weights, x)
        if not self.diagonal:
            return (torch.relu(drive + feed(self.recurrent_weights, mem)),)
        kept = c["decay"] * mem
        bias = self.recurrent_weights.bias
        return (torch.relu(drive + (kept if bias is None else kept + widen(bias))),)


def graded(factor: Number, learn: bool) -> Dict[str, Any]:
    """What `Firing` takes for snnTorch's graded spikes; nothing for a factor of 1 that does not learn."""
    if not learn and bool((torch.as_tensor(factor) == 1).all()):
        return {}
    return {"gain": factor, "learn_gain": learn}


def connection_of(
    neuron: str,
    V: Number,
    all_to_all: bool,
    linear_features: Optional[int],
    conv2d_channels: Optional[int],
    kernel_size: KernelSize,
    learn: bool,
) -> nn.Module:
    """The connection of `RLeaky` and `RSynaptic`. Raises ConfigError unless it is described once."""
    connection: nn.Module
    if not all_to_all:
        if linear_features or conv2d_channels or kernel_size:
            raise ConfigError(
                f"{neuron} got all_to_all=False and the shape of a connection; V is all the connection there is"
            )
        return one_to_one(V, learn)
    if linear_features and not (conv2d_channels or kernel_size):
        connection = nn.Linear(linear_features, linear_features)
    elif conv2d_channels and kernel_size and not linear_features:
        size = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        connection = nn.Conv2d(conv2d_channels, conv2d_channels, size, padding=(size[0] // 2, size[1] // 2))
    else:
        raise ConfigError(
            f"{neuron} got linear_features={linear_features!r}, conv2d_channels={conv2d_channels!r}, "
            f"kernel_size={kernel_size!r}; give linear_features, or conv2d_channels with kernel_size, or "
            "all_to_all=False with V"
        )
    return connection if learn else connection.requires_grad_(False)


def one_to_one(V: Number, learn: bool) -> OneToOne:
    """A connection of each neuron to itself with the weight V, one number or one per channel."""
    weight = torch.as_tensor(V, dtype=dtype_of(V))
    if weight.ndim > 1:
        raise ConfigError(f"V has shape {tuple(weight.shape)}; it must be one number or one per channel")
    connection = OneToOne(weight.shape[0] if weight.ndim else None, learn=learn)
    connection.weight.data = weight.clone()
    return connection


def circuit(
    beta: Optional[Number], R: Optional[Number], C: Optional[Number], time_step: float
) -> Tuple[Tensor, Tensor, Tensor]:
    """R, C and the time step of `Lapicque`, the missing one of R and C derived from beta."""
    dt = torch.as_tensor(time_step, dtype=torch.get_default_dtype())
    if R is not None and C is not None and not beta:
        return torch.as_tensor(R), torch.as_tensor(C), dt
    if beta is None or (R is not None and C is not None):
        raise ConfigError(
            f"Lapicque got beta={beta!r}, R={R!r}, C={C!r}; give R and C, or beta with at most one of them"
        )
    rate = torch.log(1 / torch.as_tensor(beta))
    if C is not None:
        return dt / (torch.as_tensor(C) * rate), torch.as_tensor(C), dt
    resistance = torch.as_tensor(1.0 if R is None else R)
    return resistance, dt / (resistance * rate), dt
