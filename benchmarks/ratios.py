"""From turns to rows: medians, ratios turn by turn, and whether two sides did the same work. Plain arithmetic."""

import math
import statistics
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Mapping, Optional, Sequence

from coordinator import Outcome

__all__ = ["Cell", "Row", "bandwidth_rows", "differences", "memory_row", "overhead_row", "row"]

SAME_LOSS = 1e-3
"""Relative; the libraries' sums are rounded in different orders, and a rounding now and then decides a spike."""


@dataclass
class Cell:
    """One side's result. value: in the row's unit.   ratio: to the base, the median over turns; low, high: quartiles.

    remark: how its work differs.   error: why there is no value.
    """

    value: Optional[float] = None
    ratio: Optional[float] = None
    low: Optional[float] = None
    high: Optional[float] = None
    remark: Optional[str] = None
    error: Optional[str] = None
    raw: Dict[str, Any] = field(default_factory=dict)


@dataclass
class Row:
    """One case with a number of threads. unit: "ms", "s", "MB", "share" or "added"."""

    letter: str
    title: str
    threads: int
    unit: str
    cells: Dict[str, Cell] = field(default_factory=dict)

    def as_json(self) -> Dict[str, Any]:
        return asdict(self)


def quartiles(values: Sequence[float]) -> "tuple[float, float, float]":
    """The lower quartile, the median and the upper quartile; of one value, that value three times."""
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


def differences(base: Outcome, other: Outcome) -> "tuple[Optional[str], Optional[str]]":
    """Why the other side's result cannot stand beside the base's, and what is to be said of it where it can."""
    for name in ("parameters", "output"):
        if other.facts.get(name) != base.facts.get(name):
            return f"{name}: {other.facts.get(name)}, not {base.facts.get(name)}", None
    for outcome in (base, other):
        if not all(value is None or math.isfinite(value) for value in (outcome.loss, outcome.later_loss)):
            return f"the loss is {outcome.loss}, then {outcome.later_loss}", None
        gradient = outcome.facts.get("gradient")
        if gradient is not None and not (math.isfinite(gradient) and gradient > 0):
            return f"the gradient's norm is {gradient}", None
    if "gradient" not in other.facts and other.loss == other.later_loss:
        return "the loss is the same after training steps", None
    if base.loss is None or other.loss is None or math.isclose(base.loss, other.loss, rel_tol=SAME_LOSS):
        return None, None
    return None, f"other spikes: first loss {other.loss:.6g}, not {base.loss:.6g}"


def row(
    letter: str,
    title: str,
    threads: int,
    outcomes: Mapping[str, Outcome],
    base: str,
    unit: str = "ms",
    part: str = "step",
) -> Row:
    """The time of a step, or of another part, on each side, and its ratio to the base's."""
    made = Row(letter, title, threads, unit)
    scale = 1e-3 if unit == "s" else 1.0
    reference = outcomes.get(base)
    for label, outcome in outcomes.items():
        cell = made.cells[label] = _cell(outcome, reference)
        if cell.error is not None:
            continue
        times = [scale * ms for ms in outcome.turns_ms[part]]
        cell.value = statistics.median(times)
        if reference is not None and reference.error is None:
            against = [scale * ms for ms in reference.turns_ms[part]]
            cell.low, cell.ratio, cell.high = quartiles([own / other for own, other in zip(times, against)])
    return made


def _cell(outcome: Outcome, base: Optional[Outcome]) -> Cell:
    """A cell with all but the numbers."""
    cell = Cell(error=outcome.error, raw=asdict(outcome))
    if cell.error is None and base is not None and base.error is None and outcome.facts:
        cell.error, cell.remark = differences(base, outcome)
    return cell


def memory_row(letter: str, title: str, threads: int, outcomes: Mapping[str, Outcome], base: str) -> Row:
    """The most memory that a process held up to then, beyond what it held with its libraries imported."""
    made = Row(letter, f"{title}, memory", threads, "MB")
    reference = outcomes.get(base)
    for label, outcome in outcomes.items():
        cell = made.cells[label] = _cell(outcome, reference)
        if cell.error is None:
            cell.value = outcome.peak_mb
            if cell.value and reference is not None and reference.peak_mb:
                cell.ratio = cell.value / reference.peak_mb
    return made


def bandwidth_rows(title: str, threads: int, steps: int, outcomes: Mapping[str, Outcome], base: str) -> List[Row]:
    """Which share of a copy's bandwidth a neuron reaches, forward and with backward: the bytes that must move.

    A copy reads and writes, 2 arrays; so does forward; backward reads x and the output's gradient and writes x's, 3.
    """
    made = []
    for part, arrays in (("forward", 2), ("both", 5)):
        found = Row("c", f"{title}, T = {steps}, {part}", threads, "share")
        for label, outcome in outcomes.items():
            cell = found.cells[label] = _cell(outcome, outcomes.get(base))
            if cell.error is None:
                pairs = zip(outcome.turns_ms["copy"], outcome.turns_ms[part])
                cell.low, cell.value, cell.high = quartiles([copy * arrays / 2 / own for copy, own in pairs])
        made.append(found)
    return made


def overhead_row(letter: str, title: str, threads: int, outcomes: Mapping[str, Outcome]) -> Row:
    """What counting adds to each side's own step, as a share of it."""
    made = Row(letter, title, threads, "added")
    for label, outcome in outcomes.items():
        cell = made.cells[label] = Cell(error=outcome.error, raw=asdict(outcome))
        if cell.error is None:
            pairs = zip(outcome.turns_ms["counted"], outcome.turns_ms["plain"])
            low, median, high = quartiles([counted / plain for counted, plain in pairs])
            cell.low, cell.value, cell.high = low - 1, median - 1, high - 1
    return made
