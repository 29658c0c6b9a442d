"""Neurons whose threshold remembers their spikes: ALIF, the unit of the LSNN."""

from typing import Any, Optional, Tuple

from torch import Tensor

from snn_core.errors import ConfigError
from snn_core.neurons.base import Coefficients, Number, State
from snn_core.neurons.decay import decay_per_step
from snn_core.neurons.spiking import SpikingNeuron

__all__ = ["ALIF"]


class ALIF(SpikingNeuron):
    """Adaptive LIF: m[t] = beta m[t-1] + x[t] fires at A[t] = threshold + scale b[t-1]; b[t] = rho b[t-1] + (1 - rho)
    s[t].

    `[T, B, ...]` current -> spikes. Bellec et al. 2018, section 2 (the LSNN's adaptive unit). A reset by subtraction
    takes A[t] off. The adaptation keeps its gradient under `detach_reset`, which concerns the membrane.

    beta, rho: decays per step of the membrane and of the adaptation, in [0, 1], each a scalar or one per channel; or
    `tau_mem_s`, `tau_adapt_s` with `dt_s`, in seconds.   scale: how far one unit of adaptation lifts the threshold.
    learn_beta, learn_rho, learn_scale: make them parameters; decays are clamped to [0, 1].
    Other keyword arguments: those of `Firing`, without `reset_delay`: the threshold would have moved by then.
    """

    states = ("mem", "adaptation")
    beta: Tensor
    rho: Tensor
    scale: Tensor

    def __init__(
        self,
        beta: Optional[Number] = None,
        rho: Optional[Number] = None,
        scale: Number = 1.8,
        *,
        tau_mem_s: Optional[Number] = None,
        tau_adapt_s: Optional[Number] = None,
        dt_s: Optional[float] = None,
        learn_beta: bool = False,
        learn_rho: bool = False,
        learn_scale: bool = False,
        **firing: Any,
    ) -> None:
        super().__init__(**firing)
        if self.firing.reset_delay:
            raise ConfigError("ALIF's threshold moves with each spike, so it resets at once; reset_delay must be False")
        self.add_value("beta", decay_per_step("beta", beta, tau_mem_s, dt_s, default=0.9), learn_beta)
        self.add_value("rho", decay_per_step("rho", rho, tau_adapt_s, dt_s, default=0.99), learn_rho)
        self.add_value("scale", scale, learn_scale)

    def coefficients(self) -> Coefficients:
        decays = {"beta": self.beta.clamp(0, 1), "rho": self.rho.clamp(0, 1)}
        return {**super().coefficients(), **decays, "scale": self.scale}

    def dynamics(self, x: Tensor, state: State, c: Coefficients) -> Tuple[Tensor, State]:
        lifted = c["threshold"] + c["scale"] * state[1]
        return super().dynamics(x, state, {**c, "threshold": lifted})

    def charge(self, x: Tensor, state: State, c: Coefficients) -> State:
        mem, adaptation = state
        return c["beta"] * mem + x, adaptation

    def settle(self, state: State, spk: Tensor, c: Coefficients) -> State:
        mem, adaptation = super().settle(state, spk, c)
        return mem, c["rho"] * adaptation + (1 - c["rho"]) * spk
