"""Containers that know time: each child gets the axis it works on, and what does not change over time is computed
once.
"""

from typing import Optional, Tuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from snn_core.encoders import Constant, Encoder
from snn_core.errors import ConfigError, ShapeError
from snn_core.neurons.base import Temporal
from snn_core.recording import Clock, Layout, static_shape

__all__ = ["Sequential", "contains_temporal", "is_deterministic", "refuse_misread_time"]


class Sequential(nn.Sequential):
    """Layers in order on `[T, B, ...]`; after a leading `Constant(steps)` (or another encoder) on `[B, ...]`.

    A child that contains a neuron gets the time axis; any other has time folded into the batch, `[T * B, ...]`. What a
    constant input meets before the first neuron is computed once instead of T times, for deterministic layers; dropout,
    batch norm in training and modules of unknown kind (unless they say `deterministic = True`) see all T steps.
    """

    clock: Optional[Clock] = None

    def forward(self, x: Tensor, steps: Optional[int] = None) -> Tensor:
        """x: `[T, B, ...]`, or `[B, ...]` before an encoder or with `steps` -> `[T, B, ...]`. Raises ShapeError."""
        x, steps = self.propagate(x, steps)
        return x if steps is None else _expand(x, steps)

    def propagate(self, x: Tensor, steps: Optional[int]) -> Tuple[Tensor, Optional[int]]:
        """Run the children on a value that is constant over `steps` steps, or has time first when `steps` is None."""
        for child in self:
            x, steps = self._advance(child, x, steps)
        return x, steps

    def _advance(self, child: nn.Module, x: Tensor, steps: Optional[int]) -> Tuple[Tensor, Optional[int]]:
        if isinstance(child, Sequential):
            return child.propagate(x, steps)
        if isinstance(child, Constant):
            if steps is not None:
                raise ConfigError("a network has two snn.Constant layers in a row; keep one")
            return x, child.steps
        if isinstance(child, Encoder):
            return child(x if steps is None else _expand(x, steps)), None
        if isinstance(child, Temporal):
            return self._call(child, "step", 1, x, steps), None
        if steps is not None and not is_deterministic(child):
            x, steps = _expand(x, steps), None
        if contains_temporal(child):
            x = x if steps is None else _expand(x, steps)
            return self._call(child, "first", static_shape(x)[0], x), None
        if steps is not None:
            return self._call(child, "static", steps, x), steps
        if x.ndim < 3:
            raise ShapeError(
                f"snn.Sequential got x of shape {tuple(x.shape)} at {type(child).__name__}; it takes [T, B, ...] "
                "with time first: start the network with snn.Constant(steps=...) for an input without time"
            )
        folded = self._call(child, "folded", static_shape(x)[0], x.flatten(0, 1))
        return folded.unflatten(0, x.shape[:2]), None

    def _call(self, child: nn.Module, kind: str, steps: int, *args: object) -> Tensor:
        if self.clock is None:
            return child(*args)
        with self.clock.showing(Layout(kind, steps)):
            return child(*args)


def contains_temporal(module: nn.Module) -> bool:
    """Whether the module is, or contains, a layer that owns the time axis."""
    return any(isinstance(m, (Temporal, Encoder)) for m in module.modules())


def is_deterministic(module: nn.Module) -> bool:
    """Whether running the module once on a constant input equals running it on every step: no draw, no statistic of
    the batch.

    torch's own layers are known; another module says so with a class attribute `deterministic = True`.
    """
    return all(_is_deterministic_alone(m) for m in module.modules())


def _is_deterministic_alone(module: nn.Module) -> bool:
    if isinstance(module, (_DropoutNd, _BatchNorm, nn.RReLU, nn.AlphaDropout)):
        return not module.training
    if isinstance(module, (nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)):
        return False
    known = type(module).__module__.startswith("torch.nn.modules.")
    return known or bool(getattr(module, "deterministic", False))


_READS_DIMENSIONS = (
    _BatchNorm,
    nn.modules.conv._ConvNd,
    nn.Flatten,
    nn.modules.pooling._MaxPoolNd,
    nn.modules.pooling._AvgPoolNd,
)


def refuse_misread_time(model: nn.Module) -> None:
    """Raise ConfigError for a plain container in which a layer would take the time axis for something else."""
    for name, module in model.named_modules():
        if type(module) is not nn.Sequential or not contains_temporal(module):
            continue
        for index, child in module.named_children():
            if isinstance(child, _READS_DIMENSIONS):
                raise ConfigError(
                    f"layer {index} of nn.Sequential{f' {name!r}' if name else ''}, {type(child).__name__}, stands "
                    "beside neurons and would read [T, B, ...] as something else; use snn.Sequential, which folds time "
                    "into the batch for it"
                )


def _expand(x: Tensor, steps: int) -> Tensor:
    return x.unsqueeze(0).expand(steps, *x.shape)
