"""Coefficients and states between torch's shapes and a kernel's lanes, the values of one step `[B, ...]`."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["lanes", "or_zeros", "smallest", "spread", "summed", "written"]

Shape = Sequence[int]


def lanes(coefficient: Tensor, shape: Shape) -> Tensor:
    """A coefficient as a kernel takes it: one number, or one for each lane."""
    return coefficient if coefficient.numel() == 1 else spread(coefficient, shape)


def summed(by_lane: Tensor, coefficient: Tensor) -> Tensor:
    """The gradient of a coefficient from that of each lane, `[B, ...]`."""
    if coefficient.numel() == 1:
        return by_lane.sum().reshape(coefficient.shape)
    return by_lane.sum_to_size(coefficient.shape)


def or_zeros(cotangent: Tensor | None, like: Tensor, shape: Shape) -> Tensor:
    """A gradient, next to each other in memory; zeros of the type of `like` where there is none."""
    return like.new_zeros(tuple(shape)) if cotangent is None else cotangent.contiguous()


def written(cotangent: Tensor | None, like: Tensor, shape: Shape) -> Tensor:
    """The same in memory of its own, which a kernel writes over."""
    if cotangent is None:
        return like.new_zeros(tuple(shape))
    return cotangent.clone(memory_format=torch.contiguous_format)


def smallest(state: Tensor) -> Tensor:
    """A state that `spread` restores, with size 1 along each axis along which its values do not change.

    So a state at rest is kept as one number, or one for each channel, and any other as it is.
    """
    values = state.detach().numpy()  # which compares faster than torch
    ones = (slice(0, 1),) * values.ndim
    if not values.any():
        return state[ones].clone()
    for axis in range(values.ndim):
        first = values[(slice(None),) * axis + ones[:1]]
        if (values == first).all():
            values = first
    return state if values.shape == state.shape else torch.from_numpy(values.copy())


def spread(value: Tensor, shape: Shape) -> Tensor:
    """One number for each lane, next to each other in memory."""
    return value.expand(tuple(shape)).contiguous()
