"""Current-based neurons: a synapse with its own decay in front of the membrane. Synaptic and Alpha."""

from typing import Any, Optional

import torch
from torch import Tensor

from snn_core.errors import ConfigError
from snn_core.neurons.base import Coefficients, Number, State
from snn_core.neurons.decay import decay_per_step
from snn_core.neurons.spiking import SpikingNeuron

__all__ = ["Alpha", "Synaptic"]

_LEAST_GAP = 1e-3


class Synaptic(SpikingNeuron):
    """Current-based LIF: i[t] = alpha_syn i[t-1] + x[t]; m[t] = beta m[t-1] + i[t].

    `[T, B, ...]` current -> spikes. Neftci et al. 2019, eqs. 4 and 5. A reset leaves the synaptic current alone.

    alpha_syn, beta: decays per step in [0, 1], each a scalar or one per channel; or `tau_syn_s`, `tau_mem_s` with
    `dt_s`, in seconds.   learn_alpha_syn, learn_beta: make them parameters, clamped to [0, 1].
    Other keyword arguments: those of `Firing`.
    """

    states = ("mem", "syn")
    alpha_syn: Tensor
    beta: Tensor

    def __init__(
        self,
        alpha_syn: Optional[Number] = None,
        beta: Optional[Number] = None,
        *,
        tau_syn_s: Optional[Number] = None,
        tau_mem_s: Optional[Number] = None,
        dt_s: Optional[float] = None,
        learn_alpha_syn: bool = False,
        learn_beta: bool = False,
        **firing: Any,
    ) -> None:
        super().__init__(**firing)
        synapse = decay_per_step("alpha_syn", alpha_syn, tau_syn_s, dt_s, default=0.8)
        self.add_value("alpha_syn", synapse, learn_alpha_syn)
        self.add_value("beta", decay_per_step("beta", beta, tau_mem_s, dt_s, default=0.9), learn_beta)

    def coefficients(self) -> Coefficients:
        decays = {"alpha_syn": self.alpha_syn.clamp(0, 1), "beta": self.beta.clamp(0, 1)}
        return {**super().coefficients(), **decays}

    def charge(self, x: Tensor, state: State, c: Coefficients) -> State:
        mem, syn = state
        syn = c["alpha_syn"] * syn + x
        return c["beta"] * mem + syn, syn


class Alpha(SpikingNeuron):
    """Membrane as a difference of exponentials, m = k (e + i).

    e[t] = alpha_syn e[t-1] + x[t];  i[t] = beta i[t-1] - x[t];  m[t] = k (e[t] + i[t]).
    `[T, B, ...]` current -> spikes. k = ln(beta) / (ln(beta) - ln(alpha_syn)). Gerstner et al. 2014, section 3.1.
    The membrane is a function of the two currents, so a reset acts through them: "subtract" takes threshold / k off
    the excitatory one, "zero" clears both and sets the excitatory one to v_reset / k.

    alpha_syn, beta: decays per step of the excitatory (slow) and the inhibitory (fast) current,
    0 < beta < alpha_syn <= 1, each a scalar or one per channel; or `tau_exc_s`, `tau_inh_s` with `dt_s`, in seconds.
    learn_alpha_syn, learn_beta: make them parameters; beta is kept 1e-3 or more below alpha_syn.
    Other keyword arguments: those of `Firing`.
    """

    states = ("mem", "syn_exc", "syn_inh")
    alpha_syn: Tensor
    beta: Tensor

    def __init__(
        self,
        alpha_syn: Optional[Number] = None,
        beta: Optional[Number] = None,
        *,
        tau_exc_s: Optional[Number] = None,
        tau_inh_s: Optional[Number] = None,
        dt_s: Optional[float] = None,
        learn_alpha_syn: bool = False,
        learn_beta: bool = False,
        **firing: Any,
    ) -> None:
        super().__init__(**firing)
        excitatory = decay_per_step("alpha_syn", alpha_syn, tau_exc_s, dt_s, default=0.9)
        self.add_value("alpha_syn", excitatory, learn_alpha_syn)
        self.add_value("beta", decay_per_step("beta", beta, tau_inh_s, dt_s, default=0.8), learn_beta)
        ordered = (self.beta >= _LEAST_GAP) & (self.alpha_syn - self.beta >= _LEAST_GAP)
        if not bool(ordered.all()):
            raise ConfigError(
                f"Alpha.alpha_syn is {self.alpha_syn.tolist()} and beta {self.beta.tolist()}; the excitatory current "
                f"must decay more slowly: {_LEAST_GAP} <= beta <= alpha_syn - {_LEAST_GAP}"
            )

    def coefficients(self) -> Coefficients:
        alpha_syn = self.alpha_syn.clamp(2 * _LEAST_GAP, 1)
        # the two may meet while they are learnt, where k has a pole
        beta = torch.minimum(self.beta.clamp(min=_LEAST_GAP), alpha_syn - _LEAST_GAP)
        scale = torch.log(beta) / (torch.log(beta) - torch.log(alpha_syn))
        return {**super().coefficients(), "alpha_syn": alpha_syn, "beta": beta, "scale": scale}

    def charge(self, x: Tensor, state: State, c: Coefficients) -> State:
        _, exc, inh = state
        exc = c["alpha_syn"] * exc + x
        inh = c["beta"] * inh - x
        return c["scale"] * (exc + inh), exc, inh

    def settle(self, state: State, spk: Tensor, c: Coefficients) -> State:
        mem, exc, inh = state
        after = self.reset(mem, spk, c)
        if self.firing.reset_mechanism == "none":
            return after, exc, inh
        spk = self.resetting(spk)
        if self.firing.reset_mechanism == "subtract":
            return after, exc - spk * c["threshold"] / c["scale"], inh
        kept = exc * (1 - spk)
        exc = kept if self.firing.v_reset == 0.0 else kept + spk * self.firing.v_reset / c["scale"]
        return after, exc, inh * (1 - spk)
