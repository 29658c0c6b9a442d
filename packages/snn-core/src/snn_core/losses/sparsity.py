"""A penalty on the output's spikes, to be added to a loss."""

from dataclasses import dataclass
from typing import Sequence

import torch
from torch import Tensor

from snn_core.losses.base import Loss, Traces
from snn_core.losses.readout import widen

__all__ = ["SpikeRateL1"]


@dataclass(frozen=True)
class SpikeRateL1(Loss):
    """The output's activity: sum over steps and neurons of |s[t]|, for each sample. The target is not used.

    Add it with a small factor: `CountCrossEntropy() + 1e-5 * SpikeRateL1()`. It is a mean over the batch, where
    snnTorch's l1_rate_sparsity sums over it, so that the factor need not change with the batch size.
    """

    def per_sample(self, output: Tensor, target: Tensor, traces: Traces) -> Tensor:
        spikes = widen(output)
        # not abs(), whose gradient at 0 is 0: a neuron about to fire must feel the penalty too
        activity = torch.where(spikes < 0, -spikes, spikes).sum(0)
        return activity.reshape(activity.shape[0], -1).sum(1)

    def check_target(self, target: Tensor, output_shape: Sequence[int]) -> None:
        """Accept any target: it is the other losses' of the sum."""
