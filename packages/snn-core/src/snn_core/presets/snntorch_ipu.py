"""snntorch-ipu 0.5.18's neurons (Sun and Eshraghian 2022): resets one step late, firing on `mem >= threshold`.

They take that fork's arguments and default to its surrogate, the fast sigmoid of slope 1. Where the fork's two forms
of a neuron compute different things, `init_hidden` chooses the form, and only that: state is passed in and out of
`unroll` here. Of a `spike_grad` the fork's LIF family takes no notice and fires with the derivative of `Heaviside()`;
here it is used.
"""

from dataclasses import dataclass
from typing import Any, Dict, Optional, Tuple, Union

from torch import Tensor

from snn_core.errors import ConfigError
from snn_core.neurons import LIF
from snn_core.neurons.base import Coefficients, Number, State
from snn_core.neurons.memory import SLSTM as CoreSLSTM
from snn_core.neurons.memory import SConv2dLSTM as CoreSConv2dLSTM
from snn_core.neurons.recurrent import Recurrent
from snn_core.neurons.spiking import SpikingNeuron
from snn_core.neurons.synaptic import Synaptic as CoreSynaptic
from snn_core.presets._snntorch import (
    HearingLeaky,
    HearingSynaptic,
    SnnTorchAlpha,
    SnnTorchLapicque,
    SnnTorchRecurrent,
    circuit,
    clearing,
    firing_of,
    one_to_one,
)
from snn_core.surrogate import FastSigmoid, StraightThrough, Surrogate

Size = Union[int, Tuple[int, int]]

__all__ = ["SLSTM", "Alpha", "Heaviside", "Lapicque", "Leaky", "RLeaky", "RSynaptic", "SConv2dLSTM", "Synaptic"]


@dataclass(frozen=True)
class Heaviside(Surrogate):
    """1 where u >= 0, else 0: the fork's derivative for a given spike_grad."""

    def derivative(self, u: Tensor) -> Tensor:
        return (u >= 0).to(u.dtype)


def _firing(
    neuron: str, threshold: Number, options: Dict[str, Any], reset_mechanism: str = "subtract"
) -> Dict[str, Any]:
    if "surrogate_disable" in options:
        raise ConfigError(f"{neuron} has no argument 'surrogate_disable' in snntorch-ipu")
    options = {"threshold": threshold, **options}
    options["spike_grad"] = options.get("spike_grad") or FastSigmoid(1.0)
    return firing_of(neuron, options, fire_op=">=", reset_mechanism=reset_mechanism)


class _ResetFirst(SpikingNeuron):
    """A late reset by subtraction that decays with the membrane: beta (mem - R threshold) + x."""

    def charge(self, x: Tensor, state: State, c: Coefficients) -> State:
        mem, *rest = state
        if self.firing.reset_mechanism == "subtract":
            mem = mem - self.fire(mem, c).detach() * c["threshold"]
        return super().charge(x, (mem, *rest), c)

    def reset(self, mem: Tensor, spk: Tensor, c: Coefficients) -> Tensor:
        return mem if self.firing.reset_mechanism == "subtract" else super().reset(mem, spk, c)


class ResetFirstLeaky(_ResetFirst, LIF):
    """`Leaky(init_hidden=False)`."""


class ResetFirstHearingLeaky(_ResetFirst, HearingLeaky):
    """The neuron inside `RLeaky(init_hidden=False)`."""


class ClearingHearingSynaptic(HearingSynaptic):
    """The neuron inside `RSynaptic(init_hidden=True)`: a reset to zero clears the synaptic current too."""

    def settle(self, state: State, spk: Tensor, c: Coefficients) -> State:
        mem, syn = state
        if self.firing.reset_mechanism == "zero":
            syn = syn - syn * self.resetting(spk)
        return self.reset(mem, spk, c), syn


def Leaky(
    beta: Number, threshold: Number = 1.0, *, init_hidden: bool = False, learn_beta: bool = False, **options: Any
) -> LIF:
    """mem = beta (mem - R threshold) + x, or with init_hidden=True beta mem + x - R threshold. `[T, B, ...]` -> spikes.

    A reset to zero clears the input of its step. Further arguments: spike_grad, learn_threshold, reset_mechanism.
    """
    firing = clearing(_firing("Leaky", threshold, options))
    kind = LIF if init_hidden else ResetFirstLeaky
    return kind(beta, learn_beta=learn_beta, **firing)


def Synaptic(
    alpha: Number,
    beta: Number,
    threshold: Number = 1.0,
    *,
    learn_alpha: bool = False,
    learn_beta: bool = False,
    **options: Any,
) -> CoreSynaptic:
    """syn = alpha syn + x; mem = beta mem + syn - R threshold. `[T, B, ...]` current -> spikes.

    init_hidden=True raises ConfigError: the fork's membrane takes the input there and leaves syn without effect.
    """
    firing = clearing(_firing("Synaptic", threshold, options))
    return CoreSynaptic(alpha, beta, learn_alpha_syn=learn_alpha, learn_beta=learn_beta, **firing)


def Alpha(
    alpha: Number,
    beta: Number,
    threshold: Number = 1.0,
    *,
    init_hidden: bool = False,
    learn_beta: bool = False,
    **options: Any,
) -> SpikingNeuron:
    """The difference of two decaying currents, reset to zero by default. `[T, B, ...]` current -> spikes.

    A reset by subtraction adds the last inhibitory current to the membrane with init_hidden=True only.
    """
    firing = _firing("Alpha", threshold, options, reset_mechanism="zero")
    return SnnTorchAlpha(alpha, beta, learn_beta, moves_membrane=init_hidden, **firing)


def Lapicque(
    beta: Optional[Number] = None,
    R: Optional[Number] = None,
    C: Optional[Number] = None,
    time_step: float = 1.0,
    threshold: Number = 1.0,
    **options: Any,
) -> SpikingNeuron:
    """An RC circuit; R and C, or beta with at most one of them, as in `snn_core.presets.snntorch`.

    `[T, B, ...]` -> spikes.
    """
    return SnnTorchLapicque(*circuit(beta, R, C, time_step), **clearing(_firing("Lapicque", threshold, options)))


def RLeaky(
    beta: Number,
    V: Number,
    threshold: Number = 1.0,
    *,
    init_hidden: bool = False,
    learn_beta: bool = False,
    learn_V: bool = True,
    **options: Any,
) -> Recurrent:
    """mem = beta (mem - R threshold) + x + V spk[t-1], or with init_hidden=True without beta on R.

    `[T, B, ...]` -> spikes.

    V: one weight for each neuron, or one for all. reset_mechanism="zero" needs init_hidden=True: the other form fails
    there.
    """
    if options.get("reset_mechanism") == "zero" and not init_hidden:
        raise ConfigError(
            "RLeaky got reset_mechanism='zero' with init_hidden=False, where the fork fails; set init_hidden=True"
        )
    kind = HearingLeaky if init_hidden else ResetFirstHearingLeaky
    neuron = kind(beta, learn_beta=learn_beta, **clearing(_firing("RLeaky", threshold, options)))
    return SnnTorchRecurrent(neuron, one_to_one(V, learn_V))


def RSynaptic(
    alpha: Number,
    beta: Number,
    V: Number,
    threshold: Number = 1.0,
    *,
    init_hidden: bool = False,
    learn_alpha: bool = False,
    learn_beta: bool = False,
    learn_V: bool = True,
    **options: Any,
) -> Recurrent:
    """syn = alpha syn + x + V spk[t-1]; mem = beta mem + syn - R threshold. `[T, B, ...]` current -> spikes.

    A reset to zero clears the membrane, and with init_hidden=True the synaptic current too.
    """
    kind = ClearingHearingSynaptic if init_hidden else HearingSynaptic
    firing = clearing(_firing("RSynaptic", threshold, options))
    neuron = kind(alpha, beta, learn_alpha_syn=learn_alpha, learn_beta=learn_beta, **firing)
    return SnnTorchRecurrent(neuron, one_to_one(V, learn_V))


def SLSTM(input_size: int, hidden_size: int, bias: bool = True, threshold: Number = 1.0, **options: Any) -> CoreSLSTM:
    """An LSTM cell whose hidden state fires: by default with the straight-through derivative and on `mem > threshold`.

    `[T, B, input_size]` -> spikes `[T, B, hidden_size]`.
    """
    return CoreSLSTM(input_size, hidden_size, bias=bias, **_lstm_firing("SLSTM", threshold, options))


def SConv2dLSTM(
    in_channels: int,
    out_channels: int,
    kernel_size: Size,
    bias: bool = True,
    max_pool: Size = 0,
    avg_pool: Size = 0,
    threshold: Number = 1.0,
    **options: Any,
) -> CoreSConv2dLSTM:
    """A convolutional LSTM that fires on its pooled hidden state, as `SLSTM` does. `[T, B, C, H, W]` -> spikes."""
    firing = _lstm_firing("SConv2dLSTM", threshold, options)
    pools = {"max_pool": max_pool or None, "avg_pool": avg_pool or None}
    return CoreSConv2dLSTM(in_channels, out_channels, kernel_size, bias=bias, **pools, **firing)


def _lstm_firing(neuron: str, threshold: Number, options: Dict[str, Any]) -> Dict[str, Any]:
    firing = clearing(_firing(neuron, threshold, options, reset_mechanism="none"))
    # the fork's straight-through op fires above 0, its other two from 0 upwards
    return firing if options.get("spike_grad") else {**firing, "surrogate": StraightThrough(), "fire_op": ">"}
