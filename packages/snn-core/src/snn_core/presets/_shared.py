"""What the presets share: refusing what cannot be reproduced, and small conversions."""

from typing import Any, Mapping, Union

import torch
from torch import Tensor, nn

from snn_core.errors import ConfigError, nearest
from snn_core.neurons.base import widen
from snn_core.surrogate import Custom, Surrogate

__all__ = ["as_float", "dtype_of", "feed", "no_gradient", "refuse"]


def refuse(neuron: str, given: Mapping[str, Any], reasons: Mapping[str, str]) -> None:
    """Raise ConfigError for an argument that the other library does not have, or that is set and not reproduced."""
    for name, value in given.items():
        if name not in reasons:
            raise ConfigError(f"{neuron} has no argument {name!r}{nearest(name, reasons)}")
        if value is not None and value is not False:
            raise ConfigError(f"{neuron} got {name}={value!r}, which is not reproduced here: {reasons[name]}")


def no_gradient() -> Surrogate:
    """A surrogate whose derivative is 0 everywhere: the bare step function."""
    return Custom(torch.zeros_like)


def as_float(neuron: str, name: str, value: Union[float, Tensor]) -> float:
    """A number given as a number or as a tensor of one element. Raises ConfigError for more elements."""
    tensor = torch.as_tensor(value)
    if tensor.numel() != 1:
        raise ConfigError(f"{neuron}.{name} has shape {tuple(tensor.shape)}; it must be one number")
    return float(tensor)


def dtype_of(value: Any) -> torch.dtype:
    """The precision in which a neuron keeps a number: float64 for a float64 tensor, else torch's default."""
    return torch.float64 if isinstance(value, Tensor) and value.dtype == torch.float64 else torch.get_default_dtype()


def feed(connection: nn.Module, x: Tensor) -> Tensor:
    """What a connection makes of float32 spikes or membranes `[B, ...]`, whatever its weights' precision."""
    weight = next((p for p in connection.parameters() if p.is_floating_point()), None)
    return widen(connection(x if weight is None else x.to(weight.dtype)))
