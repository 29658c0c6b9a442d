"""Fan-out: how many weights of a layer each element of its input meets, exactly.

A convolution's fan-out is a product over its dimensions, so that a few integers for each dimension tell all of it.
"""

import functools
import math
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple, Union

from torch import Tensor, nn

from snn_core.errors import ConfigError
from snn_metrics._compiling import is_compiling

__all__ = ["Fanout", "Taps", "fan_out"]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Taps(NamedTuple):
    """One spatial dimension of a layer's fan-out.

    each: for each kernel tap, and each position of the input, how many output positions the tap joins it to.
    all: the same, over all taps.
    """

    each: Tuple[Tuple[int, ...], ...]
    all: Tuple[int, ...]


class Fanout(NamedTuple):
    """A layer's fan-out for inputs of one shape.

    channels: output channels, or features, that each input channel reaches.
    taps: one for each spatial dimension; none for a linear layer.
    """

    channels: int
    taps: Tuple[Taps, ...]

    @property
    def total(self) -> int:
        """The sum over the elements of one channel: what the layer costs for each channel when all elements are 1."""
        return self.channels * math.prod([sum(taps.all) for taps in self.taps])

    def map(self, like: Tensor) -> Tensor:
        """The fan-out of every element of one channel: the input's spatial shape, 0-d for a linear layer."""
        product = like.new_tensor(float(self.channels))
        for taps in self.taps:
            product = product.unsqueeze(-1) * like.new_tensor(taps.all)
        return product

    def map_of(self, weights: Tensor) -> Tensor:
        """What every element meets of `weights`, `[channels in, *kernel]` -> `[channels in, *spatial]`.

        weights: for each input channel and kernel tap a number, such as how many weights are not zero there.
        """
        for taps in self.taps:
            # the first kernel dimension is used up, and its positions come last
            weights = weights.movedim(1, -1) @ weights.new_tensor(taps.each)
        return weights


def fan_out(layer: nn.Module, in_size: Sequence[int], out_size: Sequence[int]) -> Fanout:
    """The fan-out of a weight layer for inputs and outputs of these spatial sizes, both empty for `nn.Linear`.

    Exact for every stride, padding, padding mode, dilation and number of groups; an element that circular, reflecting
    or replicating padding repeats is counted once more for each copy. Raises ConfigError for another kind of layer.
    """
    if isinstance(layer, nn.Linear):
        return Fanout(layer.out_features, ())
    if not isinstance(layer, (*_CONVOLUTIONS, *_TRANSPOSED)):
        raise ConfigError(
            f"{type(layer).__name__} has no fan-out; it must be nn.Linear, or a convolution or transposed convolution "
            "of one to three dimensions"
        )
    kernel, stride, dilation = layer.kernel_size, layer.stride, layer.dilation
    taps: List[Taps] = []
    for d, (size, out) in enumerate(zip(in_size, out_size)):
        start = _padded_before(layer, d)
        if isinstance(layer, _TRANSPOSED):
            taps.append(_uncached(_transposed)(size, out, kernel[d], stride[d], dilation[d], start))
        else:
            mode = layer.padding_mode
            taps.append(_uncached(_convolution)(size, out, kernel[d], stride[d], dilation[d], start, mode))
    return Fanout(layer.out_channels // layer.groups, tuple(taps))


def _padded_before(layer: nn.modules.conv._ConvNd, dimension: int) -> int:
    """How many elements of padding precede the first one."""
    padding: Union[str, Tuple[int, ...]] = layer.padding
    if padding == "valid":
        return 0
    if padding == "same":
        # of an odd number torch puts the larger half behind
        return layer.dilation[dimension] * (layer.kernel_size[dimension] - 1) // 2
    return int(padding[dimension])


def _uncached(function: Any) -> Any:
    # torch.compile traces the function and leaves the cache out, and warns of that each time
    return function.__wrapped__ if is_compiling() else function


# Plain integers are kept, not tensors: a tensor that was made while a graph is traced must not outlive the trace.
@functools.lru_cache(maxsize=1024)
def _convolution(size: int, out: int, kernel: int, stride: int, dilation: int, padding: int, mode: str) -> Taps:
    each = [[0] * size for _ in range(kernel)]
    for tap, counts in enumerate(each):
        for position in range(out):
            index = _source(position * stride + tap * dilation - padding, size, mode)
            if index is not None:
                counts[index] += 1
    return _taps(each)


def _source(index: int, size: int, mode: str) -> Optional[int]:
    """The element that stands at `index` of the padded input, which may lie outside; None for a zero."""
    if 0 <= index < size:
        return index
    if mode == "circular":
        return index % size
    if mode == "replicate":
        return min(max(index, 0), size - 1)
    if mode == "reflect":
        return -index if index < 0 else 2 * (size - 1) - index
    return None


@functools.lru_cache(maxsize=1024)
def _transposed(size: int, out: int, kernel: int, stride: int, dilation: int, padding: int) -> Taps:
    offsets = [tap * dilation - padding for tap in range(kernel)]
    return _taps([[int(0 <= index * stride + offset < out) for index in range(size)] for offset in offsets])


def _taps(each: Sequence[Sequence[int]]) -> Taps:
    return Taps(tuple(map(tuple, each)), tuple(map(sum, zip(*each))))
