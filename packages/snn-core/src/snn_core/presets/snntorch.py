"""snnTorch 1.0.0's neurons (Eshraghian et al. 2023): firing on `mem > threshold`, resets one step late, ATan(2).

Every function takes snnTorch's arguments. `spike_grad` is a surrogate of `snn_core.surrogate`; decays and thresholds
are scalars or one per channel (dimension 1 of `[B, C, ...]`). State is passed in and out of `unroll`, never kept on
the module, so `init_hidden` and `output` have no counterpart; they, `inhibition` and `state_quant` raise ConfigError.
"""

from typing import Any, Optional, Tuple, Union

import torch

from snn_core.errors import ConfigError
from snn_core.neurons import LIF
from snn_core.neurons.base import Number
from snn_core.neurons.memory import SLSTM as CoreSLSTM
from snn_core.neurons.memory import SConv2dLSTM as CoreSConv2dLSTM
from snn_core.neurons.parallel import ParallelLIF
from snn_core.neurons.recurrent import Recurrent
from snn_core.neurons.spiking import SpikingNeuron
from snn_core.neurons.synaptic import Synaptic as CoreSynaptic
from snn_core.presets._shared import dtype_of, refuse
from snn_core.presets._snntorch import (
    HearingLeaky,
    HearingSynaptic,
    LeakyParallel,
    SameStepHearingLeaky,
    SameStepLeaky,
    SameStepSynaptic,
    SnnTorchAlpha,
    SnnTorchLapicque,
    SnnTorchRecurrent,
    circuit,
    clearing,
    connection_of,
    firing_of,
    graded,
)

__all__ = [
    "SLSTM",
    "Alpha",
    "Lapicque",
    "Leaky",
    "LeakyParallel",
    "RLeaky",
    "RSynaptic",
    "SConv2dLSTM",
    "StateLeaky",
    "Synaptic",
]

KernelSize = Union[None, int, Tuple[int, int]]


def Leaky(
    beta: Number,
    threshold: Number = 1.0,
    *,
    learn_beta: bool = False,
    graded_spikes_factor: Number = 1.0,
    learn_graded_spikes_factor: bool = False,
    reset_delay: bool = True,
    **options: Any,
) -> LIF:
    """snntorch.Leaky: mem = beta mem + x - reset. `[T, B, ...]` current -> spikes.

    Further arguments of all neurons here: spike_grad, surrogate_disable, learn_threshold, reset_mechanism.
    """
    firing = firing_of("Leaky", {"threshold": threshold, **options})
    kind = LIF if reset_delay else SameStepLeaky
    return kind(beta, learn_beta=learn_beta, **firing, **graded(graded_spikes_factor, learn_graded_spikes_factor))


def Synaptic(
    alpha: Number,
    beta: Number,
    threshold: Number = 1.0,
    *,
    learn_alpha: bool = False,
    learn_beta: bool = False,
    reset_delay: bool = True,
    **options: Any,
) -> CoreSynaptic:
    """snntorch.Synaptic: syn = alpha syn + x; mem = beta mem + syn - reset. `[T, B, ...]` current -> spikes."""
    firing = clearing(firing_of("Synaptic", {"threshold": threshold, **options}))
    kind = CoreSynaptic if reset_delay else SameStepSynaptic
    return kind(alpha, beta, learn_alpha_syn=learn_alpha, learn_beta=learn_beta, **firing)


def Alpha(
    alpha: Number, beta: Number, threshold: Number = 1.0, *, learn_beta: bool = False, **options: Any
) -> SpikingNeuron:
    """snntorch.Alpha: the difference of two decaying currents, reset to zero by default.

    `[T, B, ...]` current -> spikes.

    learn_alpha raises ConfigError: snnTorch 1.0.0 cannot construct it.
    """
    if options.pop("learn_alpha", False):
        raise ConfigError(
            "Alpha got learn_alpha=True, which is not reproduced here: snnTorch 1.0.0 cannot construct it"
        )
    firing = firing_of("Alpha", {"threshold": threshold, **options}, reset_mechanism="zero")
    return SnnTorchAlpha(alpha, beta, learn_beta, **firing)


def Lapicque(
    beta: Optional[Number] = None,
    R: Optional[Number] = None,
    C: Optional[Number] = None,
    time_step: float = 1.0,
    threshold: Number = 1.0,
    **options: Any,
) -> SpikingNeuron:
    """snntorch.Lapicque: an RC circuit; R and C, or beta with at most one of them. `[T, B, ...]` current -> spikes.

    From beta snnTorch derives RC = dt / ln(1 / beta), so that the decay of one step is 1 + ln(beta), not beta.
    learn_beta raises ConfigError: R and C are computed once, and a second backward pass fails in snnTorch.
    """
    if options.pop("learn_beta", False):
        raise ConfigError(
            "Lapicque got learn_beta=True, which is not reproduced here: snnTorch derives C from beta once only"
        )
    firing = clearing(firing_of("Lapicque", {"threshold": threshold, **options}))
    return SnnTorchLapicque(*circuit(beta, R, C, time_step), **firing)


def RLeaky(
    beta: Number,
    V: Number = 1.0,
    all_to_all: bool = True,
    linear_features: Optional[int] = None,
    conv2d_channels: Optional[int] = None,
    kernel_size: KernelSize = None,
    threshold: Number = 1.0,
    *,
    learn_beta: bool = False,
    learn_recurrent: bool = True,
    reset_delay: bool = True,
    **options: Any,
) -> Recurrent:
    """snntorch.RLeaky: mem = beta mem + x + connection(spk[t-1]) - reset. `[T, B, ...]` current -> spikes.

    The connection is linear (linear_features), convolutional (conv2d_channels, kernel_size), or with all_to_all=False
    one weight V for each neuron. A reset to zero clears the input of its step.
    """
    firing = clearing(firing_of("RLeaky", {"threshold": threshold, **options}))
    kind = HearingLeaky if reset_delay else SameStepHearingLeaky
    connection = connection_of("RLeaky", V, all_to_all, linear_features, conv2d_channels, kernel_size, learn_recurrent)
    return SnnTorchRecurrent(kind(beta, learn_beta=learn_beta, **firing), connection)


def RSynaptic(
    alpha: Number,
    beta: Number,
    V: Number = 1.0,
    all_to_all: bool = True,
    linear_features: Optional[int] = None,
    conv2d_channels: Optional[int] = None,
    kernel_size: KernelSize = None,
    threshold: Number = 1.0,
    *,
    learn_alpha: bool = False,
    learn_beta: bool = False,
    learn_recurrent: bool = True,
    reset_delay: bool = True,
    **options: Any,
) -> Recurrent:
    """snntorch.RSynaptic: syn = alpha syn + x + connection(spk[t-1]); mem = beta mem + syn - reset.

    `[T, B, ...]` -> spikes.

    reset_delay=False raises ConfigError: snnTorch 1.0.0 fails on it.
    """
    if not reset_delay:
        raise ConfigError(
            "RSynaptic got reset_delay=False, which is not reproduced here: snnTorch 1.0.0 fails on its first step"
        )
    firing = clearing(firing_of("RSynaptic", {"threshold": threshold, **options}))
    neuron = HearingSynaptic(alpha, beta, learn_alpha_syn=learn_alpha, learn_beta=learn_beta, **firing)
    connection = connection_of(
        "RSynaptic", V, all_to_all, linear_features, conv2d_channels, kernel_size, learn_recurrent
    )
    return SnnTorchRecurrent(neuron, connection)


def SLSTM(input_size: int, hidden_size: int, bias: bool = True, threshold: Number = 1.0, **options: Any) -> CoreSLSTM:
    """snntorch.SLSTM: an LSTM cell whose hidden state fires above the threshold.

    `[T, B, input_size]` -> `[T, B, hidden_size]`.

    The hidden state stays below 1, so that the default threshold of 1 never fires, in snnTorch too. snnTorch 1.0.0
    forgets both states at every step unless input_size equals hidden_size; this one never does.
    """
    firing = clearing(firing_of("SLSTM", {"threshold": threshold, **options}, reset_mechanism="none"))
    return CoreSLSTM(input_size, hidden_size, bias=bias, **firing)


def SConv2dLSTM(
    in_channels: int,
    out_channels: int,
    kernel_size: Union[int, Tuple[int, int]],
    bias: bool = True,
    max_pool: Union[int, Tuple[int, int]] = 0,
    avg_pool: Union[int, Tuple[int, int]] = 0,
    threshold: Number = 1.0,
    **options: Any,
) -> CoreSConv2dLSTM:
    """snntorch.SConv2dLSTM: a convolutional LSTM that fires on its pooled hidden state. `[T, B, C, H, W]` -> spikes.

    kernel_size is odd. The hidden state stays below 1, so that the default threshold of 1 never fires, in snnTorch too.
    """
    firing = clearing(firing_of("SConv2dLSTM", {"threshold": threshold, **options}, reset_mechanism="none"))
    return CoreSConv2dLSTM(
        in_channels,
        out_channels,
        kernel_size,
        bias=bias,
        max_pool=max_pool or None,
        avg_pool=avg_pool or None,
        **firing,
    )


def StateLeaky(
    beta: Number,
    channels: Optional[int] = None,
    threshold: Number = 1.0,
    *,
    graded_spikes_factor: Number = 1.0,
    **options: Any,
) -> ParallelLIF:
    """snntorch.StateLeaky: LIF without reset, over all steps at once. `[T, B, C]` current -> spikes.

    snnTorch makes tau = 1 / (1 - beta) of beta and decays by exp(-1 / tau) = exp(beta - 1) a step, and multiplies
    spikes by the factor twice. learn_beta, kernel_truncation_steps and learn_graded_spikes_factor raise ConfigError.
    """
    reasons = {
        "learn_beta": "snnTorch learns tau there, not beta; use snn.ParallelLIF(learn_beta=True)",
        "kernel_truncation_steps": "a decay that ends after some steps has no state to hand on",
        "learn_graded_spikes_factor": "snnTorch multiplies by the factor twice; use snn.ParallelLIF(learn_gain=True)",
    }
    refuse("StateLeaky", {name: options.pop(name) for name in reasons if name in options}, reasons)
    firing = firing_of("StateLeaky", {"threshold": threshold, **options}, reset_mechanism="none")
    firing.pop("reset_delay")
    factor = torch.as_tensor(graded_spikes_factor)
    tau = 1 / (1 - torch.as_tensor(beta, dtype=dtype_of(beta)) + 1e-12)
    return ParallelLIF(torch.exp(-1 / tau), **firing, **graded(factor * factor, False))
