"""SpikingJelly 2.0.0's neurons (Fang et al. 2023): firing on `v >= v_threshold`, reset in the same step, Sigmoid(4).

Every class takes SpikingJelly's arguments. `surrogate_function` is a surrogate of `snn_core.surrogate`.
`v_reset=None` takes the threshold off; a number is a reset to it, the value at the start and the value that the
membrane leaks to. The reset is part of the gradient unless `detach_reset`. `step_mode`, `store_v_seq` and `backend`
have no counterpart.
"""

import math
from typing import Any, Optional, Tuple

import torch
from torch import Tensor

from snn_core.errors import ConfigError
from snn_core.neurons.base import Coefficients, Neuron, State
from snn_core.neurons.parallel import PSN as CorePSN
from snn_core.neurons.parallel import MaskedPSN as CoreMaskedPSN
from snn_core.neurons.parallel import SlidingPSN as CoreSlidingPSN
from snn_core.neurons.spiking import SpikingNeuron
from snn_core.presets._shared import refuse
from snn_core.surrogate import ATan, Rectangular, Sigmoid, Surrogate

__all__ = [
    "PSN",
    "CUBALIFNode",
    "EIFNode",
    "IFNode",
    "ILIFNode",
    "IzhikevichNode",
    "LIFNode",
    "MaskedPSN",
    "NonSpikingLIFNode",
    "ParametricLIFNode",
    "QIFNode",
    "SlidingPSN",
]

DEFAULT = ATan(2.0)
"""The surrogate of the parallel neurons; the others have Sigmoid(4)."""

REASONS = {
    "step_mode": "a layer takes the whole sequence, and step() one step of it; drop the argument",
    "store_v_seq": "unroll() and the step record any state by name; drop the argument",
    "backend": "the backend is chosen for the whole model, by the Trainer; drop the argument",
    "decode": "reading out a sequence is the loss's matter; take the maximum, mean or last of the output",
}


class _Node(SpikingNeuron):
    """A membrane that starts at v_reset, fires on `>=` and is reset in the same step."""

    def __init__(
        self,
        *,
        v_threshold: float = 1.0,
        v_reset: Optional[float] = 0.0,
        surrogate_function: Optional[Surrogate] = None,
        detach_reset: bool = False,
        **options: Any,
    ) -> None:
        refuse(type(self).__name__, options, REASONS)
        super().__init__(
            threshold=v_threshold,
            reset_mechanism="subtract" if v_reset is None else "zero",
            v_reset=0.0 if v_reset is None else v_reset,
            surrogate=surrogate_function or Sigmoid(4.0),
            detach_reset=detach_reset,
        )

    def initial(self, x: Tensor, c: Coefficients) -> State:
        return (torch.full_like(x, self.firing.v_reset), *(torch.zeros_like(x) for _ in self.states[1:]))

    def above_rest(self, v: Tensor) -> Tensor:
        """How far the membrane `[B, ...]` is from where it leaks to."""
        return v - self.firing.v_reset if self.firing.v_reset != 0.0 else v


class IFNode(_Node):
    """Integrate-and-fire: h = v + x. `[T, B, ...]` current -> spikes."""

    def charge(self, x: Tensor, state: State, c: Coefficients) -> State:
        return (state[0] + x,)


class LIFNode(_Node):
    """LIF: h = v + (x - (v - v_reset)) / tau, or with `decay_input=False` v - (v - v_reset) / tau + x.

    tau: the time constant in steps, above 1. `[T, B, ...]` current -> spikes.
    """

    def __init__(self, tau: float = 2.0, decay_input: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.tau, self.decay_input = _time_constant(type(self).__name__, tau), decay_input

    def charge(self, x: Tensor, state: State, c: Coefficients) -> State:
        (v,) = state
        if self.decay_input:
            return (v + (x - self.above_rest(v)) / self.tau,)
        return (v - self.above_rest(v) / self.tau + x,)


class ParametricLIFNode(_Node):
    """LIFNode with a learnt 1 / tau = sigmoid(w), one for the layer. Fang et al. 2021."""

    w: Tensor

    def __init__(self, init_tau: float = 2.0, decay_input: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.add_value("w", -math.log(_time_constant("ParametricLIFNode", init_tau) - 1.0), learn=True)
        self.decay_input = decay_input

    def coefficients(self) -> Coefficients:
        return {**super().coefficients(), "leak": self.w.sigmoid()}

    def charge(self, x: Tensor, state: State, c: Coefficients) -> State:
        (v,) = state
        if self.decay_input:
            return (v + (x - self.above_rest(v)) * c["leak"],)
        return (v - self.above_rest(v) * c["leak"] + x,)


class ILIFNode(_Node):
    """h = (1 - 1/tau) v + x fires round(clamp(h / v_threshold, 0, D)) spikes, and loses as many thresholds.

    In the order of sums of SpikingJelly's multi-step mode, whose last bits differ from its single-step mode's.
    max_spike_count: D. grad_window: the range of h / v_threshold where the gradient is 1, 0 to D by default. Luo et
    al. 2024.
    """

    def __init__(
        self,
        tau: float = 4.0 / 3.0,
        v_threshold: float = 1.0,
        max_spike_count: int = 4,
        grad_window: Optional[Tuple[float, float]] = None,
        **options: Any,
    ) -> None:
        super().__init__(v_threshold=v_threshold, v_reset=None, **options)
        if max_spike_count < 1:
            raise ConfigError(f"ILIFNode.max_spike_count is {max_spike_count}; it must be 1 or more")
        self.decay = 1.0 - 1.0 / _time_constant("ILIFNode", tau)
        self.most = float(max_spike_count)
        self.lower, self.upper = (0.0, self.most) if grad_window is None else grad_window

    def charge(self, x: Tensor, state: State, c: Coefficients) -> State:
        return (self.decay * state[0] + x,)

    def fire(self, mem: Tensor, c: Coefficients) -> Tensor:
        scaled = mem / c["threshold"]
        inside = ((scaled >= self.lower) & (scaled <= self.upper)).to(scaled.dtype)
        # scaled - scaled.detach() is an exact zero with gradient 1
        return scaled.clamp(0.0, self.most).round().detach() + inside * (scaled - scaled.detach())


class QIFNode(_Node):
    """Quadratic integrate-and-fire: h = v + (x + a0 (v - v_rest) (v - v_c)) / tau. `[T, B, ...]` current -> spikes."""

    def __init__(
        self,
        tau: float = 2.0,
        v_c: float = 0.8,
        a0: float = 1.0,
        v_threshold: float = 1.0,
        v_rest: float = 0.0,
        v_reset: Optional[float] = -0.1,
        **options: Any,
    ) -> None:
        super().__init__(v_threshold=v_threshold, v_reset=v_reset, **options)
        self.tau, self.v_c, self.a0, self.v_rest = _time_constant("QIFNode", tau), v_c, a0, v_rest

    def charge(self, x: Tensor, state: State, c: Coefficients) -> State:
        (v,) = state
        return (v + (x + self.a0 * (v - self.v_rest) * (v - self.v_c)) / self.tau,)


class EIFNode(_Node):
    """Exponential integrate-and-fire: h = v + (x + v_rest - v + delta_T exp((v - theta_rh) / delta_T)) / tau."""

    def __init__(
        self,
        tau: float = 2.0,
        delta_T: float = 1.0,
        theta_rh: float = 0.8,
        v_threshold: float = 1.0,
        v_rest: float = 0.0,
        v_reset: Optional[float] = -0.1,
        **options: Any,
    ) -> None:
        super().__init__(v_threshold=v_threshold, v_reset=v_reset, **options)
        self.tau, self.delta_t, self.theta_rh, self.v_rest = _time_constant("EIFNode", tau), delta_T, theta_rh, v_rest

    def charge(self, x: Tensor, state: State, c: Coefficients) -> State:
        (v,) = state
        steep = self.delta_t * torch.exp((v - self.theta_rh) / self.delta_t)
        return (v + (x + self.v_rest - v + steep) / self.tau,)


class IzhikevichNode(_Node):
    """Quadratic integrate-and-fire with a recovery variable w. `[T, B, ...]` current -> spikes.

    h = v + (x + a0 (v - v_rest) (v - v_c) - w) / tau; w = w + (a (h - v_rest) - w) / tau_w + b s; then the reset of v.
    """

    states = ("mem", "recovery")

    def __init__(
        self,
        tau: float = 2.0,
        v_c: float = 0.8,
        a0: float = 1.0,
        v_threshold: float = 1.0,
        v_reset: Optional[float] = 0.0,
        v_rest: float = -0.1,
        w_rest: float = 0.0,
        tau_w: float = 2.0,
        a: float = 0.0,
        b: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(v_threshold=v_threshold, v_reset=v_reset, **options)
        self.tau, self.v_c, self.a0, self.v_rest = _time_constant("IzhikevichNode", tau), v_c, a0, v_rest
        self.w_rest, self.tau_w, self.a, self.b = w_rest, tau_w, a, b

    def initial(self, x: Tensor, c: Coefficients) -> State:
        return torch.full_like(x, self.firing.v_reset), torch.full_like(x, self.w_rest)

    def dynamics(self, x: Tensor, state: State, c: Coefficients) -> Tuple[Tensor, State]:
        v, w = state
        h = v + (x + self.a0 * (v - self.v_rest) * (v - self.v_c) - w) / self.tau
        spk = self.fire(h, c)
        w = w + (self.a * (h - self.v_rest) - w) / self.tau_w + self.b * spk
        return spk, (self.reset(h, spk, c), w)


class CUBALIFNode(_Node):
    """Current-based LIF: c = c_decay c + x; h = v_decay v + c. Threshold 0.5 and Rectangular(1).

    `[T, B, ...]` current -> spikes.
    """

    states = ("mem", "syn")

    def __init__(
        self,
        c_decay: float = 0.5,
        v_decay: float = 0.75,
        v_threshold: float = 0.5,
        v_reset: Optional[float] = 0.0,
        surrogate_function: Optional[Surrogate] = None,
        **options: Any,
    ) -> None:
        options["surrogate_function"] = surrogate_function or Rectangular(1.0)
        super().__init__(v_threshold=v_threshold, v_reset=v_reset, **options)
        self.c_decay, self.v_decay = c_decay, v_decay

    def charge(self, x: Tensor, state: State, c: Coefficients) -> State:
        v, syn = state
        syn = syn * self.c_decay + x
        return v * self.v_decay + syn, syn


class NonSpikingLIFNode(Neuron):
    """A readout that never fires: v = v + (x - v) / tau. `[T, B, ...]` current -> membrane."""

    states = ("mem",)
    fires = False

    def __init__(self, tau: float = 2.0, **options: Any) -> None:
        super().__init__()
        refuse("NonSpikingLIFNode", options, REASONS)
        self.tau = float(tau)

    def dynamics(self, x: Tensor, state: State, c: Coefficients) -> Tuple[Tensor, State]:
        mem = state[0] + (x - state[0]) / self.tau
        return mem, (mem,)


def PSN(T: int, surrogate_function: Surrogate = DEFAULT) -> CorePSN:
    """spikingjelly PSN: `snn_core.neurons.PSN`, whose threshold is minus SpikingJelly's bias.

    `[T, B, ...]` -> spikes.
    """
    return CorePSN(T, surrogate=surrogate_function)


def MaskedPSN(
    k: int, T: int, lambda_init: float = 0.0, surrogate_function: Surrogate = DEFAULT, **options: Any
) -> CoreMaskedPSN:
    """spikingjelly MaskedPSN: PSN that sees the last k inputs, the more so the nearer `masking` (lambda) is to 1."""
    refuse("MaskedPSN", options, REASONS)
    return CoreMaskedPSN(T, k, masking=lambda_init, surrogate=surrogate_function)


def SlidingPSN(
    k: int, exp_init: bool = True, surrogate_function: Surrogate = DEFAULT, **options: Any
) -> CoreSlidingPSN:
    """spikingjelly SlidingPSN: one filter of the last k inputs for all steps. `[T, B, ...]` current -> spikes."""
    refuse("SlidingPSN", options, REASONS)
    return CoreSlidingPSN(k, exponential=exp_init, surrogate=surrogate_function)


def _time_constant(neuron: str, tau: float) -> float:
    if not tau > 1.0:
        raise ConfigError(f"{neuron} got a time constant of {tau!r} steps; it must be above 1")
    return float(tau)
