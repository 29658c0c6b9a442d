"""Losses on spike counts."""

from dataclasses import dataclass

from torch import Tensor

from snn_core.losses.base import Traces
from snn_core.losses.labels import PopulationLoss, cross_entropy
from snn_core.losses.rate import RateTargets
from snn_core.losses.readout import spike_count

__all__ = ["CountCrossEntropy", "CountMSE"]


@dataclass(frozen=True)
class CountCrossEntropy(PopulationLoss):
    """Cross entropy of the spike counts: CE(sum_t s[t], y). Labels `[B]`. snnTorch's ce_count_loss.

    With a population, a class's count is the sum over its neurons. Accuracy: the highest count.
    """

    def per_sample(self, output: Tensor, target: Tensor, traces: Traces) -> Tensor:
        return cross_entropy(spike_count(output, self.population).log_softmax(-1), target)


@dataclass(frozen=True)
class CountMSE(RateTargets):
    """Squared error of spike counts: mean over classes of (sum_t s[t] - T r)^2 / T. Labels `[B]`. Shrestha and Orchard
    2018.

    r is `correct_rate` for the label and `incorrect_rate` for the others; with a population of p neurons a class's
    count is their sum and its goal T r p. T r is not rounded, where snnTorch's mse_count_loss cuts it. Accuracy: the
    highest count.
    """

    def per_sample(self, output: Tensor, target: Tensor, traces: Traces) -> Tensor:
        steps = output.shape[0]
        counts = spike_count(output, self.population)
        goal = self.wanted(target, counts) * (steps * self.population)
        return (counts - goal).square().mean(-1) / steps
