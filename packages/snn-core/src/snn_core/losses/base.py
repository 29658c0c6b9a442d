"""What every loss is: a frozen value with one loss for each sample, and one way to make a batch's loss of them.

Losses are traced into the compiled step, so they are plain tensor functions: no branch on a tensor's values, no copy to
or from the host, fixed shapes, and neither a custom backward nor torch's own loss functions, since PopTorch ignores the
one and adds the other to what it minimises.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Callable, ClassVar, Mapping, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from snn_core._check import is_number
from snn_core.errors import ConfigError, DataError, ShapeError

__all__ = ["CallableLoss", "Loss", "Traces", "WeightedSum", "as_loss"]

Traces = Mapping[str, Tensor]


@dataclass(frozen=True)
class Loss(ABC):
    """A loss on a model's output `[T, B, C]`. A subclass is a frozen dataclass and writes `per_sample`.

    `needs` names the states of the model's last neuron that are recorded and passed in as `traces`, each `[T, B, C]`.
    Losses add up: `CountCrossEntropy() + 1e-5 * SpikeRateL1()`.
    """

    needs: ClassVar[Tuple[str, ...]] = ()

    @abstractmethod
    def per_sample(self, output: Tensor, target: Tensor, traces: Traces) -> Tensor:
        """One loss for each sample. output: `[T, B, C]`; target: batch first unless it has time -> `[B]`. Pure."""

    def weights(self, target: Tensor) -> Optional[Tensor]:
        """What each sample counts in the batch's mean, `[B]`; None counts each once."""
        return None

    def correct(self, output: Tensor, target: Tensor, traces: Traces) -> Optional[Tensor]:
        """1.0 for each sample that the model classed rightly, else 0.0: `[B]`; None for a loss without classes."""
        return None

    def batch_axis(self, target: Tensor) -> int:
        """The target's batch dimension: 0, or 1 for a target that varies in time, `[T, B, ...]`."""
        return 0

    def check_target(self, target: Tensor, output_shape: Sequence[int]) -> None:
        """Check one batch's targets on the host against the model's output shape (T, B, C). Raises DataError."""
        check_batch(self, target, output_shape)

    def reduce(
        self, output: Tensor, target: Tensor, traces: Optional[Traces] = None, valid: Optional[Tensor] = None
    ) -> Tuple[Tensor, Tensor]:
        """The batch's loss and its denominator, both 0-d: sum(w l valid) / sum(w valid), and 0 where nothing counts.

        valid: `[B]`, 0 or False for a sample that only fills up the batch. Whatever such a sample holds, labels out of
        range and NaN included, reaches neither the loss nor its gradient.
        """
        traces = {} if traces is None else traces
        if valid is None:
            losses = self.per_sample(output, target, traces)
            weights = self.weights(target)
            mass = torch.ones_like(losses) if weights is None else weights.to(losses.dtype)
        else:
            kept = valid != 0
            output = _without_padding(output, kept, 1)
            target = _without_padding(target, kept, self.batch_axis(target))
            traces = {name: _without_padding(trace, kept, 1) for name, trace in traces.items()}
            losses = _without_padding(self.per_sample(output, target, traces), kept, 0)
            weights = self.weights(target)
            mass = kept.to(losses.dtype)
            mass = mass if weights is None else mass * weights.to(losses.dtype)
        denominator = mass.sum()
        safe = torch.where(denominator > 0, denominator, torch.ones_like(denominator))
        return (losses * mass).sum() / safe, denominator

    def __call__(
        self, output: Tensor, target: Tensor, traces: Optional[Traces] = None, valid: Optional[Tensor] = None
    ) -> Tensor:
        """The batch's loss, 0-d, for a training loop of one's own."""
        return self.reduce(output, target, traces, valid)[0]

    def __add__(self, other: "Loss") -> "WeightedSum":
        if not isinstance(other, Loss):
            return NotImplemented
        return WeightedSum(_parts(self) + _parts(other))

    def __mul__(self, scale: float) -> "WeightedSum":
        if isinstance(scale, bool) or not isinstance(scale, (int, float)):
            return NotImplemented
        return WeightedSum(tuple((factor * scale, loss) for factor, loss in _parts(self)))

    __rmul__ = __mul__


@dataclass(frozen=True)
class WeightedSum(Loss):
    """A sum of losses, made by `+` and by `*` with a number: per sample, sum_i factor_i loss_i.

    Samples are weighted by the first part that has class weights, and counted right by the first that has classes.
    Raises ConfigError for a factor that is not finite, or for two different sets of class weights.
    """

    parts: Tuple[Tuple[float, Loss], ...]

    def __post_init__(self) -> None:
        for factor, loss in self.parts:
            if not is_number(factor):
                raise ConfigError(f"the factor of {loss} is {factor!r}; it must be a finite number")
        weights = {w for _, loss in self.parts for w in [getattr(loss, "class_weights", None)] if w is not None}
        if len(weights) > 1:
            raise ConfigError(
                f"losses with different class weights are added: {sorted(weights)}; "
                "a sample has one weight: give class_weights to one loss of the sum"
            )

    @property
    def needs(self) -> Tuple[str, ...]:  # type: ignore[override]
        return tuple(dict.fromkeys(name for _, loss in self.parts for name in loss.needs))

    def per_sample(self, output: Tensor, target: Tensor, traces: Traces) -> Tensor:
        factor, loss = self.parts[0]
        total = factor * loss.per_sample(output, target, traces)
        for factor, loss in self.parts[1:]:
            total = total + factor * loss.per_sample(output, target, traces)
        return total

    def weights(self, target: Tensor) -> Optional[Tensor]:
        for _, loss in self.parts:
            weights = loss.weights(target)
            if weights is not None:
                return weights
        return None

    def correct(self, output: Tensor, target: Tensor, traces: Traces) -> Optional[Tensor]:
        for _, loss in self.parts:
            correct = loss.correct(output, target, traces)
            if correct is not None:
                return correct
        return None

    def batch_axis(self, target: Tensor) -> int:
        return max(loss.batch_axis(target) for _, loss in self.parts)

    def check_target(self, target: Tensor, output_shape: Sequence[int]) -> None:
        for _, loss in self.parts:
            loss.check_target(target, output_shape)


@dataclass(frozen=True)
class CallableLoss(Loss):
    """A user's function (output, target) -> `[B]` as a loss. It must obey the rules at the head of this module.

    target_axis: the target's batch dimension: 0, or 1 for a target `[T, B, ...]`.
    """

    function: Callable[[Tensor, Tensor], Tensor]
    target_axis: int = 0

    def __post_init__(self) -> None:
        if self.target_axis not in (0, 1):
            raise ConfigError(f"CallableLoss.target_axis is {self.target_axis!r}; it must be 0, or 1 for [T, B, ...]")

    def batch_axis(self, target: Tensor) -> int:
        return self.target_axis

    def per_sample(self, output: Tensor, target: Tensor, traces: Traces) -> Tensor:
        losses = self.function(output, target)
        shape = tuple(losses.shape) if isinstance(losses, Tensor) else type(losses).__name__
        fits = isinstance(losses, Tensor) and losses.dim() == 1
        # while jit traces, sizes are tensors, and comparing them would warn
        if not fits or (not torch.jit.is_tracing() and losses.shape[0] != output.shape[1]):
            raise ShapeError(
                f"the loss function {self.function!r} returned {shape}; it must return one loss for each sample, "
                f"[B] = ({int(output.shape[1])},): use reduction='none' and average over what is not the batch"
            )
        return losses


def as_loss(loss: Any, target_axis: int = 0) -> Loss:
    """Return `loss` if it is a Loss, or wrap a function (output, target) -> `[B]`. Raises ConfigError for anything
    else.
    """
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, type):
        raise ConfigError(f"the loss is the class {loss.__name__}; give an object: {loss.__name__}()")
    if isinstance(loss, nn.Module) and any(True for _ in loss.parameters()):
        raise ConfigError(
            f"the loss {type(loss).__name__} has parameters, which no optimiser would see; make it a part of the model"
        )
    if not callable(loss):
        raise ConfigError(
            f"the loss is {loss!r}; it must be an object such as CountCrossEntropy(), "
            "or a function (output, target) -> [B]"
        )
    return CallableLoss(loss, target_axis)


def check_batch(loss: Loss, target: Tensor, output_shape: Sequence[int]) -> None:
    """Raise DataError unless the target is a tensor with the output's batch size and at least one sample."""
    name = type(loss).__name__
    if not isinstance(target, Tensor):
        raise DataError(f"{name} got a target of type {type(target).__name__}; it takes a torch.Tensor")
    batch, axis = output_shape[1], loss.batch_axis(target)
    if target.dim() <= axis or target.shape[axis] != batch:
        raise DataError(
            f"{name} got a target of shape {tuple(target.shape)} for {batch} samples; "
            f"its dimension {axis} must be the batch, {batch}"
        )
    if target.numel() == 0:
        raise DataError(f"{name} got an empty target of shape {tuple(target.shape)}; a batch needs 1 sample or more")


def _parts(loss: Loss) -> Tuple[Tuple[float, Loss], ...]:
    return loss.parts if isinstance(loss, WeightedSum) else ((1.0, loss),)


def _without_padding(x: Tensor, kept: Tensor, axis: int) -> Tensor:
    # where, not a product: 0 * NaN is NaN, forwards and backwards
    shape = [1] * x.dim()
    shape[axis] = -1
    return torch.where(kept.reshape(shape), x, torch.zeros_like(x))
