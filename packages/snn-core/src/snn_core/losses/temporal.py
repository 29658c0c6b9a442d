"""Losses on the time of the first spike."""

from dataclasses import dataclass
from typing import ClassVar, Sequence

import torch
from torch import Tensor

from snn_core._check import is_number
from snn_core.errors import ConfigError
from snn_core.losses.base import Traces
from snn_core.losses.labels import LabelLoss, cross_entropy
from snn_core.losses.readout import first_spike_time, is_class

__all__ = ["TemporalCrossEntropy", "TemporalMSE"]


@dataclass(frozen=True)
class TemporalCrossEntropy(LabelLoss):
    """Cross entropy of early firing: CE(-t1, y), or CE(1 / (t1 + 1), y). Labels `[B]`. snnTorch's ce_temporal_loss.

    t1: the step of the first spike, T - 1 for a silent neuron; its gradient is -1 at that step (`first_spike_time`).
    inverse: "negate" or "reciprocal". Accuracy: the earliest first spike.
    """

    inverse: str = "negate"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inverse not in ("negate", "reciprocal"):
            raise ConfigError(f"TemporalCrossEntropy.inverse is {self.inverse!r}; it must be 'negate' or 'reciprocal'")

    def per_sample(self, output: Tensor, target: Tensor, traces: Traces) -> Tensor:
        return cross_entropy(self.scores(output, traces).log_softmax(-1), target)

    def scores(self, output: Tensor, traces: Traces) -> Tensor:
        time = first_spike_time(output)
        return -time if self.inverse == "negate" else (time + 1).reciprocal()


@dataclass(frozen=True)
class TemporalMSE(LabelLoss):
    """Squared error of first spike times: mean_c ((t1 - goal) / T)^2. snnTorch's mse_temporal_loss.

    target: labels `[B]`, for which the goal is step `on_target` at the label and `off_target` elsewhere; or the goals
    themselves, `[B, C]` steps (floating-point `[B]` will do for one output). A negative goal counts from the end: -1 is
    T - 1. A time closer to its goal than `tolerance` steps costs nothing. t1: see `first_spike_time`. Raises
    ConfigError unless on_target is before off_target. Accuracy, with labels: the earliest first spike.
    """

    on_target: int = 0
    off_target: int = -1
    tolerance: float = 0
    takes_values: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        on, off = self.on_target, self.off_target
        for name, value in (("on_target", on), ("off_target", off)):
            if isinstance(value, bool) or not isinstance(value, int):
                raise ConfigError(f"TemporalMSE.{name} is {value!r}; it must be a whole number of steps")
        if (on < 0 <= off) or ((on < 0) == (off < 0) and on >= off):
            raise ConfigError(
                f"TemporalMSE has on_target {on} and off_target {off}; the label's neuron must fire first"
            )
        if not (is_number(self.tolerance) and self.tolerance >= 0):
            raise ConfigError(f"TemporalMSE.tolerance is {self.tolerance!r}; it must be a number of steps >= 0")

    def check_target(self, target: Tensor, output_shape: Sequence[int]) -> None:
        super().check_target(target, output_shape)
        steps = output_shape[0]
        if isinstance(target, Tensor) and self.labelled(target) and min(self.on_target, self.off_target) < -steps:
            raise ConfigError(
                f"TemporalMSE has on_target {self.on_target} and off_target {self.off_target} and the model {steps} "
                f"steps; a negative goal counts from the end and must be {-steps} or more"
            )

    def per_sample(self, output: Tensor, target: Tensor, traces: Traces) -> Tensor:
        time, steps = first_spike_time(output), output.shape[0]
        if self.labelled(target):
            goal = torch.full_like(time, self.off_target).masked_fill(is_class(target, time), self.on_target)
        else:
            goal = target.to(time.dtype).unsqueeze(-1) if target.dim() == 1 else target.to(time.dtype)
        late = time - torch.where(goal < 0, goal + steps, goal)
        if self.tolerance > 0:
            late = torch.where(late.abs() < self.tolerance, torch.zeros_like(late), late)
        return (late / steps).square().mean(-1)

    def scores(self, output: Tensor, traces: Traces) -> Tensor:
        return -first_spike_time(output)
