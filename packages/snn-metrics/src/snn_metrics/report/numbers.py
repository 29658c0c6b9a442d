"""How counts and energies are written for people."""

import math
from typing import Optional

__all__ = ["count", "joules", "percent"]

_PREFIXES = ((1.0, "J"), (1e-3, "mJ"), (1e-6, "uJ"), (1e-9, "nJ"), (1e-12, "pJ"))


def count(value: Optional[float]) -> str:
    """A number of operations: 12,345 or 1.23e7; three digits of what is smaller than 100 and no whole number."""
    if value is None or not math.isfinite(value):
        return "not finite"
    if abs(value) >= 999_999.5:
        digits, _, exponent = f"{value:.2e}".partition("e")
        return f"{digits}e{int(exponent)}"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"


def joules(value: float) -> str:
    """An energy with the prefix that keeps it short: 12.3 uJ."""
    scale, unit = next(((s, u) for s, u in _PREFIXES if value >= s), _PREFIXES[-1])
    return f"{value / scale:.3g} {unit}"


def percent(value: float) -> str:
    """A share of 1 as a percentage with two decimals."""
    return f"{100 * value:.2f} %"
