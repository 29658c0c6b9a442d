"""A weight layer's arithmetic apart from autograd: forward, and its two gradients."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules import module as modules

from snn_core.recording import LayerTap

__all__ = ["Product", "is_plain", "obeys_hooks", "product_dtype", "product_of"]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Product(NamedTuple):
    """forward(x, weight, bias?); to_input(grad, like, weight), the gradient of x `[B, ...]`, of which only the shape
    counts; to_weights(grad, x, weight), those of weight and bias over a sequence `[T, B, ...]`.
    """

    forward: Callable[..., Tensor]
    to_input: Callable[[Tensor, Tensor, Tensor], Tensor]
    to_weights: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def is_plain(layer: nn.Module) -> bool:
    """Whether it is `nn.Linear` or a convolution itself, whose product is known, and not a class made of one."""
    return type(layer) is nn.Linear or (type(layer) in _CONVOLUTIONS and layer.padding_mode == "zeros")


def obeys_hooks(layer: nn.Module) -> bool:
    """Whether calling it calls somebody else too, who may change what it returns: any hook but a step's taps."""
    of_all = (modules._global_forward_hooks, modules._global_forward_pre_hooks, modules._global_backward_hooks)
    own = (layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    hooks = layer._forward_hooks.values()
    return any((*of_all, modules._global_backward_pre_hooks, *own)) or any(not isinstance(h, LayerTap) for h in hooks)


def product_dtype(layer: Any) -> torch.dtype:
    """In which type it multiplies: autocast's, or that of its weights."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else layer.weight.dtype


def product_of(layer: nn.Module) -> Product:
    """The product of a plain layer, for weights of any number of input and output channels."""
    return _LINEAR if isinstance(layer, nn.Linear) else _convolution(layer)


def _linear_gradients(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    rows = grad.flatten(0, -2)
    return rows.T @ x.flatten(0, -2), rows.sum(0)


_LINEAR = Product(F.linear, lambda grad, like, weight: grad @ weight, _linear_gradients)


def _convolution(layer: Any) -> Product:
    function = (F.conv1d, F.conv2d, F.conv3d)[len(layer.stride) - 1]
    before, after = _padding(layer)
    even = before == after
    # convolution_backward knows one padding for both sides: what differs is put on, and taken off, by itself
    sides = [side for pair in zip(reversed(before), reversed(after), strict=True) for side in pair]
    settings = (layer.stride, before if even else (0,) * len(before), layer.dilation)

    def forward(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        return function(x, weight, bias, layer.stride, layer.padding, layer.dilation, layer.groups)

    def gradients(grad: Tensor, x: Tensor, weight: Tensor, which: list[bool]) -> tuple[Tensor, ...]:
        rest = (*settings, False, (0,) * len(layer.stride), layer.groups, which)
        padded = x if even else F.pad(x, sides)
        return torch.ops.aten.convolution_backward(grad, padded, weight, [weight.shape[0]], *rest)

    def to_weights(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        _, by_weight, by_bias = gradients(grad.flatten(0, 1), x.flatten(0, 1), weight, [False, True, True])
        return by_weight, by_bias

    def to_input(grad: Tensor, like: Tensor, weight: Tensor) -> Tensor:
        by_padded = gradients(grad, like, weight, [True, False, False])[0]
        return by_padded if even else F.pad(by_padded, [-side for side in sides])

    return Product(forward, to_input, to_weights)


def _padding(layer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How many zeros stand before and after each axis; of an odd number torch puts one more after."""
    if not isinstance(layer.padding, str):
        return tuple(layer.padding), tuple(layer.padding)
    sizes = zip(layer.dilation, layer.kernel_size, strict=True)
    both = [d * (k - 1) if layer.padding == "same" else 0 for d, k in sizes]
    return tuple(n // 2 for n in both), tuple(n - n // 2 for n in both)
