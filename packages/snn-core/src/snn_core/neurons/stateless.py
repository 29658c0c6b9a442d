"""Layers beside neurons that keep nothing from step to step: plain modules, folded over time by the containers."""

from typing import Optional, Tuple, Union

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snn_core.errors import ConfigError, ShapeError
from snn_core.neurons.base import widen
from snn_core.surrogate import StraightThrough, attach

__all__ = ["NeuromorphicReLU", "SumPool2d"]

Size = Union[int, Tuple[int, int]]


class NeuromorphicReLU(nn.Module):
    """floor(relu(x)) with the gradient of relu: an integrate-and-fire neuron's count of spikes. Any shape.

    Sorbaro et al. 2020. It rounds down always, never at random, and it counts nothing: what its output costs in
    operations is for a metric to say.

    quantize: False leaves a plain ReLU.
    """

    deterministic = True

    def __init__(self, quantize: bool = True) -> None:
        super().__init__()
        self.quantize = quantize

    def forward(self, x: Tensor) -> Tensor:
        positive = torch.relu(x)
        return attach(positive.detach().floor(), positive, StraightThrough()) if self.quantize else positive


class SumPool2d(nn.Module):
    """The sum of each window, which is how a chip that only adds pools spikes. `[B, C, H, W]` -> `[B, C, H', W']`.

    A true sum: negative inputs count negative, whole numbers give exact whole numbers, and a silent window has a
    gradient. An `nn.LPPool2d` of order 1 has none there, since it goes through an absolute value.

    kernel_size, stride: an integer or a pair; the stride is the window unless given.
    ceil_mode: keep windows that reach over the edge. Raises ShapeError for another rank.
    """

    deterministic = True

    def __init__(self, kernel_size: Size, stride: Optional[Size] = None, *, ceil_mode: bool = False) -> None:
        super().__init__()
        self.kernel_size = _pair("kernel_size", kernel_size)
        self.stride = self.kernel_size if stride is None else _pair("stride", stride)
        self.ceil_mode = ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim != 4:
            raise ShapeError(f"SumPool2d got x of shape {tuple(x.shape)}; it takes [B, C, H, W]")
        height, width = self.kernel_size
        wide = widen(x)
        if self.ceil_mode:
            down = _overhang(x.shape[2], height, self.stride[0])
            right = _overhang(x.shape[3], width, self.stride[1])
            wide = F.pad(wide, (0, right, 0, down))
        # multiplied before the mean divides, whole numbers come out exact; poptorch ignores a divisor_override
        return F.avg_pool2d(wide * (height * width), self.kernel_size, self.stride).to(x.dtype)


def _pair(name: str, size: Size) -> Tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise ConfigError(f"SumPool2d.{name} is {size!r}; it must be 1 or more")
    return height, width


def _overhang(size: int, window: int, stride: int) -> int:
    missing = -(size - window) % stride
    # as in torch, a window that would begin beyond the edge is left out
    return missing if missing < window else 0
