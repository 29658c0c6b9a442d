"""What counts as a number in a setting."""

import math
from numbers import Integral, Real
from typing import Any

__all__ = ["is_count", "is_number"]


def is_number(value: Any) -> bool:
    """Whether the value is a finite real number; True and False are none."""
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def is_count(value: Any) -> bool:
    """Whether the value is a whole number of 1 or more; True is none."""
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1
