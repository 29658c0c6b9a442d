"""sinabs 3.1.3's neurons (Sheik et al.): several spikes in one step, reset in the same step, learnt time constants.

Every class takes sinabs' arguments; time is first here, `[T, B, ...]`, and second there. `tau_*` are in steps and are
parameters, as in sinabs; `train_alphas` makes the decays exp(-1/tau) the parameters instead. `spike_threshold` never
learns. `shape` and `record_states` have no counterpart.
"""

from typing import Any, Optional, Tuple, Union

import torch
from torch import Tensor, nn

from snn_core.errors import ConfigError
from snn_core.neurons.base import Coefficients, Neuron, Number, State
from snn_core.neurons.recurrent import Recurrent
from snn_core.neurons.stateless import NeuromorphicReLU as CoreNeuromorphicReLU
from snn_core.neurons.stateless import SumPool2d as CoreSumPool2d
from snn_core.presets._shared import dtype_of, feed, refuse
from snn_core.presets._sinabs import (
    Heaviside,
    MaxSpike,
    MembraneReset,
    MembraneSubtract,
    MultiSpike,
    PeriodicExponential,
    Reset,
    SingleExponential,
    SingleSpike,
    Spikes,
    ThresholdSurrogate,
)
from snn_core.surrogate import Gaussian, MultiGaussian, Surrogate, attach

__all__ = [
    "ALIF",
    "IAF",
    "LIF",
    "ALIFRecurrent",
    "ExpLeak",
    "Gaussian",
    "Heaviside",
    "IAFRecurrent",
    "LIFRecurrent",
    "MaxSpike",
    "MembraneReset",
    "MembraneSubtract",
    "MultiGaussian",
    "MultiSpike",
    "NeuromorphicReLU",
    "PeriodicExponential",
    "SingleExponential",
    "SingleSpike",
    "SumPool2d",
]

REASONS = {
    "shape": "a state takes its shape from the input; drop the argument",
    "record_states": "unroll() and the step record any state by name; drop the argument",
}
SUBTRACT = MembraneSubtract()
EXPONENTIAL = SingleExponential()
Size = Union[int, Tuple[int, int]]


class LIF(Neuron):
    """sinabs.layers.LIF: i = a_syn (i + x), with tau_syn only; v = a v + (1 - a) i; fire; reset; clamp.

    `[T, B, ...]` current -> spike counts. norm_input=False leaves (1 - a) out. min_v_mem: the lowest membrane.
    Time constants and thresholds: one for the layer or one per channel (dimension 1).
    """

    states: Tuple[str, ...] = ("mem", "syn")
    spike_threshold: Tensor

    def __init__(
        self,
        tau_mem: Optional[Number],
        tau_syn: Optional[Number] = None,
        spike_threshold: Number = 1.0,
        spike_fn: Optional[Spikes] = MultiSpike,
        reset_fn: Reset = SUBTRACT,
        surrogate_grad_fn: Surrogate = EXPONENTIAL,
        min_v_mem: Optional[float] = None,
        train_alphas: bool = False,
        norm_input: bool = True,
        **options: Any,
    ) -> None:
        super().__init__()
        refuse(type(self).__name__, options, REASONS)
        self.spike_fn, self.reset_fn, self.surrogate = spike_fn, reset_fn, surrogate_grad_fn
        self.min_v_mem, self.train_alphas, self.norm_input = min_v_mem, train_alphas, norm_input
        self.fires = spike_fn is not None
        self.decays: Tuple[str, ...] = ()
        self.add_value("spike_threshold", spike_threshold)
        self.add_decay("mem", tau_mem)
        self.add_decay("syn", tau_syn)

    def add_decay(self, name: str, tau: Optional[Number]) -> None:
        """Register one time constant, or the decay that it makes; None is no decay."""
        if tau is None:
            return
        steps = torch.as_tensor(tau, dtype=dtype_of(tau))
        if not bool((steps > 0).all()):
            raise ConfigError(f"{type(self).__name__}.tau_{name} is {tau!r}; a time constant in steps must be above 0")
        self.decays = (*self.decays, name)
        if self.train_alphas:
            self.add_value(f"alpha_{name}", torch.exp(-1.0 / steps), learn=True)
        else:
            self.add_value(f"tau_{name}", steps, learn=True)

    def coefficients(self) -> Coefficients:
        kind = "alpha" if self.train_alphas else "tau"
        given = {name: getattr(self, f"{kind}_{name}") for name in self.decays}
        decays = given if self.train_alphas else {name: torch.exp(-1.0 / tau) for name, tau in given.items()}
        return {"threshold": self.spike_threshold, **decays}

    def dynamics(self, x: Tensor, state: State, c: Coefficients) -> Tuple[Tensor, State]:
        mem, syn = state
        syn = c["syn"] * (syn + x) if "syn" in c else x
        current = (1 - c["mem"]) * syn if self.norm_input else syn
        mem = c["mem"] * mem + current if "mem" in c else mem + current
        if self.spike_fn is None:
            return mem, (self.clamp(mem), syn)
        spikes = self.fire(mem, c["threshold"])
        return spikes, (self.clamp(self.reset_fn.reset(mem, spikes, c["threshold"])), syn)

    def fire(self, mem: Tensor, threshold: Tensor) -> Tensor:
        """Spike counts of a membrane `[B, ...]`; as in sinabs the threshold gets no gradient here."""
        if self.spike_fn is None:
            raise ConfigError(f"{type(self).__name__} has no spike_fn and cannot fire")
        still, threshold = mem.detach(), threshold.detach()
        spikes = self.spike_fn.count(still, threshold)
        if isinstance(self.surrogate, ThresholdSurrogate):
            return spikes + self.surrogate.at(still, threshold) * (mem - still)
        return attach(spikes, mem - threshold, self.surrogate)

    def clamp(self, mem: Tensor) -> Tensor:
        """The membrane `[B, ...]`, not below min_v_mem."""
        return mem if self.min_v_mem is None else torch.relu(mem - self.min_v_mem) + self.min_v_mem


class IAF(LIF):
    """sinabs.layers.IAF: LIF without leak and without norm_input. `[T, B, ...]` current -> spike counts."""

    def __init__(self, spike_threshold: Number = 1.0, *, tau_syn: Optional[Number] = None, **options: Any) -> None:
        for name in ("tau_mem", "train_alphas", "norm_input"):
            if name in options:
                raise ConfigError(f"IAF has no argument {name!r}: it does not leak")
        super().__init__(None, tau_syn, spike_threshold, norm_input=False, **options)


class ExpLeak(LIF):
    """sinabs.layers.ExpLeak: v = a v + x, a readout that never fires. `[T, B, ...]` current -> membrane."""

    def __init__(
        self,
        tau_mem: Number,
        train_alphas: bool = False,
        min_v_mem: Optional[float] = None,
        norm_input: bool = False,
        **options: Any,
    ) -> None:
        refuse("ExpLeak", options, REASONS)
        super().__init__(tau_mem, spike_fn=None, train_alphas=train_alphas, min_v_mem=min_v_mem, norm_input=norm_input)


class ALIF(LIF):
    """sinabs.layers.ALIF: LIF with the threshold b0 + adapt_scale b, b a decaying mean of the spikes.

    `[T, B, ...]` -> spikes.

    As in sinabs, norm_input scales the synaptic state itself. Bellec et al. 2018.
    """

    states = ("mem", "syn", "adapt")

    def __init__(
        self,
        tau_mem: Number,
        tau_adapt: Number,
        tau_syn: Optional[Number] = None,
        adapt_scale: float = 1.8,
        spike_threshold: Number = 1.0,
        spike_fn: Spikes = SingleSpike,
        **options: Any,
    ) -> None:
        super().__init__(tau_mem, tau_syn, spike_threshold, spike_fn, **options)
        self.add_decay("adapt", tau_adapt)
        self.adapt_scale = adapt_scale

    def dynamics(self, x: Tensor, state: State, c: Coefficients) -> Tuple[Tensor, State]:
        mem, syn, adapt = state
        syn = c["syn"] * (syn + x) if "syn" in c else x
        if self.norm_input:
            syn = (1 - c["mem"]) * syn
        mem = c["mem"] * mem + syn
        threshold = c["threshold"] + self.adapt_scale * adapt
        spikes = self.fire(mem, threshold)
        mem = self.clamp(self.reset_fn.reset(mem, spikes, threshold))
        return spikes, (mem, syn, c["adapt"] * adapt + (1 - c["adapt"]) * spikes)


class _Hearing(LIF):
    """A neuron that adds what `rec_connect` made of its last spikes to its input: x + rec, rec = 0 at the start."""

    recurrence = True

    def __init__(self, *args: Any, rec_connect: nn.Module, **options: Any) -> None:
        super().__init__(*args, **options)
        self.rec_connect = rec_connect
        self.states = (*self.states, "rec")

    def dynamics(self, x: Tensor, state: State, c: Coefficients) -> Tuple[Tensor, State]:
        *inner, rec = state
        out, after = super().dynamics(x + rec, tuple(inner), c)
        # the state is the connection's output, not the spikes: in sinabs a bias does not act before the first spikes
        return out, (*after, feed(self.rec_connect, out).reshape(out.shape))


class HearingLIF(_Hearing, LIF):
    """`LIFRecurrent` with a connection that has a bias or changes the shape."""


class HearingIAF(_Hearing, IAF):
    """`IAFRecurrent` with a connection that has a bias or changes the shape."""


class HearingALIF(_Hearing, ALIF):
    """`ALIFRecurrent` with a connection that has a bias or changes the shape."""


def LIFRecurrent(tau_mem: Number, rec_connect: nn.Module, *args: Any, **options: Any) -> Neuron:
    """sinabs.layers.LIFRecurrent: LIF whose last spikes join the input through `rec_connect`.

    `[T, B, ...]` -> spike counts.

    rec_connect: any module that makes as many currents of the spikes `[B, ...]`. `snn_core.neurons.Recurrent` where a
    linear or convolutional one has no bias; sinabs leaves a bias out of the first step, so that another class must
    then do.
    """
    if _is_plain(rec_connect):
        return Recurrent(LIF(tau_mem, *args, **options), rec_connect)
    return HearingLIF(tau_mem, *args, rec_connect=rec_connect, **options)


def IAFRecurrent(rec_connect: nn.Module, *args: Any, **options: Any) -> Neuron:
    """sinabs.layers.IAFRecurrent: IAF with `rec_connect`, as in `LIFRecurrent`."""
    if _is_plain(rec_connect):
        return Recurrent(IAF(*args, **options), rec_connect)
    return HearingIAF(*args, rec_connect=rec_connect, **options)


def ALIFRecurrent(tau_mem: Number, tau_adapt: Number, rec_connect: nn.Module, *args: Any, **options: Any) -> Neuron:
    """sinabs.layers.ALIFRecurrent: ALIF with `rec_connect`, as in `LIFRecurrent`."""
    if _is_plain(rec_connect):
        return Recurrent(ALIF(tau_mem, tau_adapt, *args, **options), rec_connect)
    return HearingALIF(tau_mem, tau_adapt, *args, rec_connect=rec_connect, **options)


def NeuromorphicReLU(quantize: bool = True, fanout: int = 1, stochastic_rounding: bool = False) -> CoreNeuromorphicReLU:
    """sinabs.layers.NeuromorphicReLU: floor(relu(x)) with the gradient of relu; all else is refused."""
    reasons = {
        "fanout": "it scales a count of operations, which is a metric's matter",
        "stochastic_rounding": "it draws at random, which snn.NeuromorphicReLU never does",
    }
    refuse("NeuromorphicReLU", {"fanout": fanout != 1, "stochastic_rounding": stochastic_rounding}, reasons)
    return CoreNeuromorphicReLU(quantize)


def SumPool2d(kernel_size: Size, stride: Optional[Size] = None, ceil_mode: bool = False) -> CoreSumPool2d:
    """sinabs.layers.SumPool2d: the sum of each window, `[B, C, H, W]` -> `[B, C, H', W']`. ceil_mode is refused.

    sinabs, which takes a mean and multiplies, scales the sum of a window that reaches over the edge up to a whole
    window's, and passes no gradient into a window whose sum is 0; this one passes it.
    """
    reason = "sinabs scales the windows at the edge; use snn.SumPool2d(ceil_mode=True) for their sums"
    refuse("SumPool2d", {"ceil_mode": ceil_mode}, {"ceil_mode": reason})
    return CoreSumPool2d(kernel_size, stride)


def _is_plain(connection: nn.Module) -> bool:
    known = isinstance(connection, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))
    return known and connection.bias is None
