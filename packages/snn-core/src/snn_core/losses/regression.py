"""Losses of regression: the output itself against values."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Sequence

import torch
from torch import Tensor

from snn_core.errors import ConfigError, ShapeError, nearest
from snn_core.losses.base import Loss, Traces
from snn_core.losses.labels import check_values
from snn_core.losses.readout import widen

__all__ = ["OutputMAE", "OutputMSE", "Regression"]

READOUTS = ("mean", "sum", "last", "max", "steps")


@dataclass(frozen=True)
class Regression(Loss):
    """A loss between a readout of the output and values.

    readout: how time is taken out of the output `[T, B, ...]`: "mean", "sum", "last" or "max", against values `[B,
    ...]`; or "steps", which compares every step, against values `[T, B, ...]`. With one output, `[T, B, 1]`, the
    values' last dimension may be left out: `[B]` or `[T, B]`. Raises ConfigError for another readout.
    """

    readout: str = "mean"

    def __post_init__(self) -> None:
        if self.readout not in READOUTS:
            raise ConfigError(
                f"{type(self).__name__}.readout is {self.readout!r}{nearest(self.readout, READOUTS)}; "
                f"it must be one of {', '.join(READOUTS)}"
            )

    @abstractmethod
    def error(self, difference: Tensor) -> Tensor:
        """What a difference costs, element by element. Pure."""

    def batch_axis(self, target: Tensor) -> int:
        return 1 if self.readout == "steps" else 0

    def check_target(self, target: Tensor, output_shape: Sequence[int]) -> None:
        check_values(self, target, output_shape)

    def value(self, output: Tensor) -> Tensor:
        """What is compared with the target. output: `[T, B, ...]` -> `[B, ...]`, or as it is for "steps"."""
        output = widen(output)
        if self.readout == "mean":
            return output.mean(0)
        if self.readout == "sum":
            return output.sum(0)
        if self.readout == "last":
            return output[-1]
        return output.amax(0) if self.readout == "max" else output

    def per_sample(self, output: Tensor, target: Tensor, traces: Traces) -> Tensor:
        value = self.value(output)
        goal = target.unsqueeze(-1) if target.dim() == value.dim() - 1 else target
        # while jit traces, sizes are tensors, and comparing them would warn
        if not torch.jit.is_tracing() and goal.shape != value.shape:
            raise ShapeError(
                f"{type(self).__name__} got values of shape {tuple(target.shape)} and reads {tuple(value.shape)} off "
                "the output; they must agree, for else one would be spread over the other"
            )
        cost = self.error(value - goal.to(value.dtype))
        cost = cost.mean(0) if self.readout == "steps" else cost
        return cost.reshape(cost.shape[0], -1).mean(1)


@dataclass(frozen=True)
class OutputMSE(Regression):
    """Mean squared error of the output: mean (readout(output) - y)^2. target: values, see `readout`."""

    def error(self, difference: Tensor) -> Tensor:
        return difference.square()


@dataclass(frozen=True)
class OutputMAE(Regression):
    """Mean absolute error of the output: mean |readout(output) - y|. target: values, see `readout`."""

    def error(self, difference: Tensor) -> Tensor:
        return difference.abs()
