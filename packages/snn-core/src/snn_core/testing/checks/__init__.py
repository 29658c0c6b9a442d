"""The claims of the conformance kit, one module for each theme; `EVERY` is all of them in their order."""

from typing import Tuple

from snn_core.testing.check import Check
from snn_core.testing.checks import (
    batches,
    contract,
    evaluation,
    losses,
    model,
    networks,
    neurons,
    processes,
    randomness,
    refusals,
    state,
    terms,
    training,
)

__all__ = ["EVERY"]

_THEMES = (
    contract,
    refusals,
    batches,
    training,
    networks,
    neurons,
    losses,
    terms,
    evaluation,
    state,
    model,
    randomness,
    processes,
)

EVERY: Tuple[Check, ...] = tuple(check for theme in _THEMES for check in theme.CHECKS)
"""Every check; a function's name is unique in the kit."""
