"""Operations of one weight layer, from its input: exact, differentiable, of every sample by itself.

An operation is one weight that meets one element of the input in one time step. Kinds:

| kind        | an element of value x counts                                      |
|-------------|-------------------------------------------------------------------|
| "synops"    | absolute x: a graded spike of 3 costs three operations; its slope at 0 is 1 |
| "dense"     | 1: what a machine does that multiplies by zero too                |
| "effective" | 1 where x is not 0                                                |
| "sparse"    | 1 where x is not 0, and only for weights that are not 0           |
| "acs"       | 1 where x is 1 or -1: the weight is accumulated (AC)              |
| "macs"      | 1 where x is another number but 0: multiplied and accumulated (MAC) |
"""

import math
from typing import Any, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from snn_core.errors import ConfigError, ShapeError
from snn_core.neurons import OneToOne
from snn_core.recording import LayerCall, Layout, static_shape
from snn_metrics.fanout import Fanout, fan_out

__all__ = ["KINDS", "amounts", "magnitude", "one_to_one", "operations", "operations_of_samples", "spatial_dims"]

KINDS = ("synops", "dense", "effective", "sparse", "acs", "macs")


def operations_of_samples(layer: nn.Module, call: LayerCall, layout: Layout, kind: str = "synops") -> Tensor:
    """Operations of one call of a layer, summed over time: `[B]`. layout: how time lies in the call's input."""
    if layout.kind == "first":
        return operations(layer, call.x, call.out_shape, kind, keep=2).sum(0)
    counts = operations(layer, call.x, call.out_shape, kind)
    if layout.kind == "folded":
        return counts.unflatten(0, (layout.steps, -1)).sum(0)
    return counts * layout.steps if layout.kind == "static" else counts


def operations(layer: nn.Module, x: Tensor, out_shape: Tuple[int, ...], kind: str = "synops", keep: int = 1) -> Tensor:
    """Operations that a layer's input costs, for each index of its first `keep` dimensions, summed over the others.

    x: the layer's input, with out_shape the shape of its output. -> x.shape[:keep]; float32, or float64 where x is.
    Raises ShapeError where x has no such dimensions, ConfigError for an unknown kind or layer.
    """
    if kind not in KINDS:
        raise ConfigError(f"kind is {kind!r}; it must be one of {', '.join(KINDS)}")
    dims = spatial_dims(layer)
    if x.ndim < keep + dims + 1 or (dims and x.ndim > keep + dims + 1):
        axes = "positions" if not dims else "size of every spatial dimension"
        raise ShapeError(
            f"{type(layer).__name__} got x of shape {static_shape(x)}; with {keep} leading dimensions to keep it must "
            f"be [{', '.join(['...'] * keep)}, {axes}, features or channels]"
        )
    split, shape = x.ndim - dims, static_shape(x)
    fanout = fan_out(layer, shape[split:], out_shape[len(out_shape) - dims :])
    # a half-precision sum overflows at 65504, and stops growing long before
    wide = torch.promote_types(x.dtype, torch.float32)
    if kind == "dense":
        channels = math.prod(shape[keep:split])
        return torch.full(shape[:keep], float(channels * fanout.total), dtype=wide, device=x.device)
    each = amounts(x, kind)
    if kind == "sparse":
        weighted = each.to(wide) * fanout.map_of(_nonzero_weights(layer).to(wide))
        return weighted.flatten(keep).sum(-1)
    if not dims:
        return each.flatten(keep).sum(-1, dtype=wide) * fanout.channels
    return _sum_with(fanout, each.sum(keep, dtype=wide), keep)


def one_to_one(connection: OneToOne, x: Tensor, kind: str = "synops", keep: int = 1) -> Tensor:
    """As `operations`, of a connection of each neuron to itself. x: `[B, ...]`, or `[T, B, ...]` with keep=2."""
    each = amounts(x, kind).to(torch.promote_types(x.dtype, torch.float32))
    if kind == "sparse":
        weight = connection.weight.detach()
        # one weight in all, or one for each channel
        each = each * (weight != 0).reshape(tuple(weight.shape) + (1,) * (x.ndim - keep - 1 if weight.ndim else 0))
    return each.flatten(keep).sum(-1)


def spatial_dims(layer: nn.Module) -> int:
    """How many spatial dimensions a layer's input has: 0 for a linear layer, 2 for `nn.Conv2d`."""
    return len(layer.kernel_size) if isinstance(layer, nn.modules.conv._ConvNd) else 0


def amounts(x: Tensor, kind: str) -> Tensor:
    """What each element counts under a kind, for a fan-out of 1; "sparse" as "effective". x: any shape -> the same."""
    if kind == "dense":
        return torch.ones_like(x)
    if kind == "synops":
        return magnitude(x)
    size = x.abs()
    if kind == "acs":
        return size == 1
    return (size != 0) & (size != 1) if kind == "macs" else size != 0


def magnitude(x: Tensor) -> Tensor:
    """|x| with the slope 1 at 0, in single precision at least. x: any shape -> the same.

    `abs` has the slope 0 there, which would take the surrogate's gradient away from every step without a spike.
    """
    return functional.leaky_relu(-x.to(torch.promote_types(x.dtype, torch.float32)), negative_slope=-1.0)


def _sum_with(fanout: Fanout, sizes: Tensor, keep: int) -> Tensor:
    return (sizes * fanout.map(sizes)).flatten(keep).sum(-1)


def _nonzero_weights(layer: Any) -> Tensor:
    """How many weights that are not 0 each input channel has, for each kernel tap: `[channels in, *kernel]`."""
    weight: Tensor = layer.weight
    nonzero = weight.ne(0)
    if isinstance(layer, nn.Linear):
        return nonzero.sum(0)
    if isinstance(layer, nn.modules.conv._ConvTransposeNd):
        return nonzero.sum(1)  # [in, out / groups, *kernel]
    return nonzero.unflatten(0, (int(layer.groups), -1)).sum(1).flatten(0, 1)  # [out, in / groups, *kernel]
