"""What terms share: means over the valid samples, and the checks of their numbers."""

import math
from typing import Any, Iterable, Optional

import torch
from torch import Tensor

from snn_core.errors import ConfigError

__all__ = ["mean_of_samples", "require_choice", "require_number", "wide"]


def mean_of_samples(values: Tensor, valid: Optional[Tensor]) -> Tensor:
    """The mean over the batch, the last dimension. values: `[..., B]` -> `[...]`. valid: `[B]` of 0 and 1, or None."""
    if valid is None:
        return values.mean(-1)
    weights = valid.to(values.dtype)
    return (values * weights).sum(-1) / weights.sum()


def wide(x: Tensor) -> torch.dtype:
    """The type that sums of x are taken in: a half-precision sum stops growing long before it overflows."""
    return torch.promote_types(x.dtype, torch.float32)


def require_number(what: str, value: Any, low: float, *, open_end: bool = False) -> None:
    """Raise ConfigError unless `value` is a finite number of `low` or more; above it with open_end."""
    good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not good or value < low or (open_end and value == low):
        raise ConfigError(f"{what} is {value!r}; it must be a number {'above' if open_end else 'of at least'} {low:g}")


def require_choice(what: str, value: Any, allowed: Iterable[str]) -> None:
    """Raise ConfigError unless `value` is one of the allowed."""
    names = tuple(allowed)
    if value not in names:
        raise ConfigError(f"{what} is {value!r}; it must be one of {', '.join(map(repr, names))}")
