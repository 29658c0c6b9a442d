"""Integrate-and-fire neurons with one membrane: IF, LIF, ParametricLIF and the non-spiking readout LI."""

from typing import Any, Optional, Tuple

import torch
from torch import Tensor

from snn_core.errors import ConfigError
from snn_core.neurons.base import Coefficients, Neuron, Number, State
from snn_core.neurons.decay import decay_per_step
from snn_core.neurons.spiking import SpikingNeuron

__all__ = ["IF", "LI", "LIF", "ParametricLIF"]


class IF(SpikingNeuron):
    """Integrate-and-fire without leak: m[t] = m[t-1] + x[t]. `[T, B, ...]` current -> spikes. Lapicque 1907.

    Keyword arguments: those of `Firing` (threshold, reset_mechanism, surrogate, ...).
    """

    def charge(self, x: Tensor, state: State, c: Coefficients) -> State:
        (mem,) = state
        return (mem + x,)


class LIF(SpikingNeuron):
    """Leaky integrate-and-fire: m[t] = beta m[t-1] + x[t]. `[T, B, ...]` current -> spikes. Neftci et al. 2019, eq. 5.

    beta: decay per step in [0, 1], a scalar or one per channel; or `tau_mem_s` with `dt_s`, in seconds.
    learn_beta: make it a parameter, clamped to [0, 1]. Other keyword arguments: those of `Firing`.
    """

    beta: Tensor

    def __init__(
        self,
        beta: Optional[Number] = None,
        *,
        tau_mem_s: Optional[Number] = None,
        dt_s: Optional[float] = None,
        learn_beta: bool = False,
        **firing: Any,
    ) -> None:
        super().__init__(**firing)
        self.add_value("beta", decay_per_step("beta", beta, tau_mem_s, dt_s, default=0.9), learn_beta)

    def coefficients(self) -> Coefficients:
        return {**super().coefficients(), "beta": self.beta.clamp(0, 1)}

    def charge(self, x: Tensor, state: State, c: Coefficients) -> State:
        (mem,) = state
        return (c["beta"] * mem + x,)


class ParametricLIF(SpikingNeuron):
    """LIF with a learnt leak k = sigmoid(w): m[t] = m[t-1] + k (x[t] - m[t-1]), or without k on x.

    `[T, B, ...]` current -> spikes. Fang et al. 2021, eq. 10.

    init_tau: the time constant in steps at the start, above 1, a scalar or one per channel; k = 1 / init_tau.
    decay_input: scale the input by k too. Other keyword arguments: those of `Firing`.
    """

    w: Tensor

    def __init__(self, init_tau: Number = 2.0, *, decay_input: bool = True, **firing: Any) -> None:
        super().__init__(**firing)
        tau = torch.as_tensor(init_tau, dtype=torch.float64)
        if not bool((tau > 1).all()):
            raise ConfigError(f"init_tau is {init_tau!r}; a time constant in steps must be above 1")
        self.decay_input = decay_input
        self.add_value("w", (-torch.log(tau - 1)).to(torch.get_default_dtype()), learn=True)

    def coefficients(self) -> Coefficients:
        return {**super().coefficients(), "leak": torch.sigmoid(self.w)}

    def charge(self, x: Tensor, state: State, c: Coefficients) -> State:
        (mem,) = state
        if self.decay_input:
            return (mem + (x - mem) * c["leak"],)
        return (mem - mem * c["leak"] + x,)


class LI(Neuron):
    """Leaky integrator, a readout that never fires: m[t] = beta m[t-1] + x[t].

    `[T, B, ...]` current -> membrane `[T, B, ...]`. Bellec et al. 2018, eq. 4.

    beta: decay per step in [0, 1], a scalar or one per channel; or `tau_mem_s` with `dt_s`, in seconds.
    learn_beta: make it a parameter, clamped to [0, 1].
    """

    states = ("mem",)
    fires = False
    beta: Tensor

    def __init__(
        self,
        beta: Optional[Number] = None,
        *,
        tau_mem_s: Optional[Number] = None,
        dt_s: Optional[float] = None,
        learn_beta: bool = False,
    ) -> None:
        super().__init__()
        self.add_value("beta", decay_per_step("beta", beta, tau_mem_s, dt_s, default=0.9), learn_beta)

    def coefficients(self) -> Coefficients:
        return {"beta": self.beta.clamp(0, 1)}

    def dynamics(self, x: Tensor, state: State, c: Coefficients) -> Tuple[Tensor, State]:
        mem = c["beta"] * state[0] + x
        return mem, (mem,)
