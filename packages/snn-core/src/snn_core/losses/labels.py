"""Losses of classification: what they share of labels, class weights and accuracy."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Optional, Sequence, Tuple

import torch
from torch import Tensor

from snn_core._check import is_count, is_number
from snn_core.errors import ConfigError, DataError, ShapeError
from snn_core.losses.base import Loss, Traces, check_batch
from snn_core.losses.readout import hits, pick, spike_count

__all__ = ["LabelLoss", "PopulationLoss", "check_values", "cross_entropy"]

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def cross_entropy(log_p: Tensor, target: Tensor) -> Tensor:
    """-log p of each sample's label. log_p: `[B, C]`, log-softmax; target: `[B]` -> `[B]`."""
    return -pick(log_p, target)


@dataclass(frozen=True)
class LabelLoss(Loss):
    """A loss on labels `[B]`, whole numbers from 0 to C - 1. A subclass writes `per_sample` and `scores`.

    class_weights: one number >= 0 for each class; the batch's loss is then sum(w l) / sum(w), as torch's cross entropy
    has it. A class of weight 0 is left out. Raises ConfigError for weights that are negative, not finite or all 0.
    """

    class_weights: Optional[Sequence[float]] = None
    takes_values: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.class_weights is None:
            return
        name = f"{type(self).__name__}.class_weights"
        try:
            weights: Tuple[float, ...] = tuple(float(w) for w in self.class_weights)
        except (TypeError, ValueError) as exc:
            raise ConfigError(
                f"{name} is {self.class_weights!r}; it must be one number for each class, or None"
            ) from exc
        if not all(is_number(w) and w >= 0 for w in weights) or not any(weights):
            raise ConfigError(f"{name} is {weights}; weights must be finite, >= 0, and one of them above 0")
        object.__setattr__(self, "class_weights", weights)

    @abstractmethod
    def scores(self, output: Tensor, traces: Traces) -> Tensor:
        """One score for each class, of which the highest is the model's answer. output: `[T, B, C]` -> `[B, classes]`.
        Pure.
        """

    def classes(self, outputs: int) -> int:
        """The number of classes that a model with so many output neurons has."""
        return outputs

    def labelled(self, target: Tensor) -> bool:
        """Whether the target holds labels, not values; only a loss with `takes_values` ever says no."""
        return not self.takes_values or (target.dim() == 1 and not target.is_floating_point())

    def weights(self, target: Tensor) -> Optional[Tensor]:
        if self.class_weights is None or not self.labelled(target):
            return None
        # one class after the other: a tensor made of Python numbers is a copy from the host, refused in a CUDA graph
        weights = torch.ones_like(target, dtype=torch.float32)
        for label, weight in enumerate(self.class_weights):
            weights = weights.masked_fill(target == label, weight)
        return weights

    def correct(self, output: Tensor, target: Tensor, traces: Traces) -> Optional[Tensor]:
        return hits(self.scores(output, traces), target) if self.labelled(target) else None

    def check_target(self, target: Tensor, output_shape: Sequence[int]) -> None:
        name = type(self).__name__
        if len(output_shape) != 3:
            raise ShapeError(
                f"{name} got a model output of shape {tuple(output_shape)}; it takes [T, B, C]: flatten or pool what "
                "follows the channels, fold pixels into the batch, or write a loss function (output, target) -> [B]"
            )
        classes = self.classes(output_shape[2])
        if self.class_weights is not None and len(self.class_weights) != classes:
            raise ConfigError(
                f"{name} has {len(self.class_weights)} class weights and the model {classes} classes; give one for each"
            )
        if isinstance(target, Tensor) and not self.labelled(target):
            if self.class_weights is not None:
                raise ConfigError(
                    f"{name} has class weights and the target holds values, not labels; leave the weights out"
                )
            check_values(self, target, output_shape)
            return
        check_batch(self, target, output_shape)
        _check_labels(name, target, output_shape[1], classes)


@dataclass(frozen=True)
class PopulationLoss(LabelLoss):
    """A loss on labels whose classes may have several output neurons each; the highest count wins.

    population: neurons for each class; class k has the neurons k * population to (k + 1) * population - 1.
    """

    population: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_count(self.population):
            raise ConfigError(
                f"{type(self).__name__}.population is {self.population!r}; it must be a whole number of 1 or more: "
                "output neurons for each class"
            )

    def classes(self, outputs: int) -> int:
        if outputs % self.population:
            raise ConfigError(
                f"{type(self).__name__}.population is {self.population} and the model has {outputs} outputs; "
                "the outputs must be a multiple of the population: population times the number of classes"
            )
        return outputs // self.population

    def scores(self, output: Tensor, traces: Traces) -> Tensor:
        return spike_count(output, self.population)


def check_values(loss: Loss, target: Tensor, output_shape: Sequence[int]) -> None:
    """Raise DataError unless the target holds finite real numbers in the output's shape, `[B, C]` or `[T, B, C]`.

    `[B]` and `[T, B]` will do for a model with one output. Whether there is time is for `loss.batch_axis` to say.
    """
    check_batch(loss, target, output_shape)
    name, shape = type(loss).__name__, tuple(output_shape[1 - loss.batch_axis(target) :])
    allowed = [shape, shape[:-1]] if shape[-1] == 1 and len(shape) > 1 else [shape]
    if tuple(target.shape) not in allowed:
        raise DataError(
            f"{name} got values of shape {tuple(target.shape)} and the model's output is {tuple(output_shape)}; "
            f"they must have the shape {' or '.join(map(str, allowed))}"
        )
    if target.dtype == torch.bool or target.is_complex():
        raise DataError(f"{name} got values of {target.dtype}; it takes real numbers: call .float() on them")
    if not bool(torch.isfinite(target).all()):
        raise DataError(f"{name} got NaN or infinite values in the target; they must be finite: clean the data first")


def _check_labels(name: str, target: Tensor, batch: int, classes: int) -> None:
    if target.dtype not in INTEGERS:
        raise DataError(
            f"{name} got labels of {target.dtype}; labels are whole numbers, such as torch.int64: "
            "call .long() on them, or .argmax(-1) on one-hot vectors"
        )
    if target.dim() != 1:
        raise DataError(
            f"{name} got labels of shape {tuple(target.shape)}; it takes one for each sample, [B] = ({batch},): "
            "squeeze the last dimension, or call .argmax(-1) on one-hot vectors"
        )
    low, high = int(target.min()), int(target.max())
    if low < 0 or high >= classes:
        raise DataError(
            f"{name} got the label {low if low < 0 else high}, and the model has {classes} classes, "
            f"0 to {classes - 1}; renumber the labels from 0, or give the last layer an output for each class"
        )
