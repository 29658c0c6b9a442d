"""Losses that look at every step: spike rates and temporal efficient training."""

from dataclasses import dataclass

import torch
from torch import Tensor

from snn_core._check import is_number
from snn_core.errors import ConfigError
from snn_core.losses.base import Traces
from snn_core.losses.labels import PopulationLoss, cross_entropy
from snn_core.losses.readout import is_class, population_mean, widen

__all__ = ["TET", "RateCrossEntropy", "RateMSE", "RateTargets"]


@dataclass(frozen=True)
class RateCrossEntropy(PopulationLoss):
    """Cross entropy of the spikes at every step: (1/T) sum_t CE(s[t], y). Labels `[B]`. snnTorch's ce_rate_loss.

    With a population, a step's score of a class is the mean over the class's neurons. Accuracy: the highest count.
    """

    def per_sample(self, output: Tensor, target: Tensor, traces: Traces) -> Tensor:
        return cross_entropy(population_mean(output, self.population).log_softmax(-1).mean(0), target)


@dataclass(frozen=True)
class TET(PopulationLoss):
    """Temporal efficient training: (1 - lam) (1/T) sum_t CE(o[t], y) + lam mean((o - level)^2). Deng et al. 2022.

    For a model that ends without spikes, with a linear layer or `LI`. lam: the regulariser's share, in [0, 1]. level:
    what it draws the outputs to, the threshold of the model's neurons. Labels `[B]`. Accuracy: the highest mean output.
    """

    lam: float = 1e-3
    level: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (is_number(self.lam) and 0 <= self.lam <= 1):
            raise ConfigError(f"TET.lam is {self.lam!r}; it must be in [0, 1]")
        if not is_number(self.level):
            raise ConfigError(f"TET.level is {self.level!r}; it must be a finite number, such as the threshold")

    def per_sample(self, output: Tensor, target: Tensor, traces: Traces) -> Tensor:
        classified = cross_entropy(population_mean(output, self.population).log_softmax(-1).mean(0), target)
        spread = (widen(output) - self.level).square().mean((0, 2))
        return (1 - self.lam) * classified + self.lam * spread


@dataclass(frozen=True)
class RateTargets(PopulationLoss):
    """A loss that wants `correct_rate` spikes a step of the label's neurons and `incorrect_rate` of the others.

    Both in [0, 1], the first above the second; else ConfigError. Accuracy: the highest count.
    """

    correct_rate: float = 1.0
    incorrect_rate: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        right, wrong = self.correct_rate, self.incorrect_rate
        if not (is_number(right) and is_number(wrong) and 0 <= wrong < right <= 1):
            raise ConfigError(
                f"{type(self).__name__} has correct_rate {right!r} and incorrect_rate {wrong!r}; "
                "they must be spikes for each step, 0 <= incorrect_rate < correct_rate <= 1"
            )

    def wanted(self, target: Tensor, like: Tensor) -> Tensor:
        """The rate that each class should have. target: `[B]`; like: `[B, classes]` -> `[B, classes]`."""
        return torch.full_like(like, self.incorrect_rate).masked_fill(is_class(target, like), self.correct_rate)


@dataclass(frozen=True)
class RateMSE(RateTargets):
    """Squared error of firing rates: mean over classes of ((1/T) sum_t s[t] - r)^2. Labels `[B]`.

    r is `correct_rate` for the label and `incorrect_rate` for the others; a population fires at its neurons' mean rate.
    Its size does not depend on T, unlike that of `CountMSE`, which is T times this. Accuracy: the highest count.
    """

    def per_sample(self, output: Tensor, target: Tensor, traces: Traces) -> Tensor:
        rates = population_mean(output, self.population).mean(0)
        return (rates - self.wanted(target, rates)).square().mean(-1)
