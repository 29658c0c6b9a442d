"""Reports added up exactly, and looked at only when somebody asks: until then their values stay on the device."""

import math
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

import torch
from torch import Tensor

from snn_core.backend import Report
from snn_core.errors import NonFiniteError

__all__ = ["REMEDY", "Sums", "combined"]

REMEDY = "lower the learning rate or set clip_norm=1.0; under another precision than fp32, try that"
"""What to do about numbers that grew beyond all bounds."""

# So many reports may wait on the device: more would only hold memory.
_PENDING = 1024


class _Row(NamedTuple):
    """One report's values on the host."""

    objective: float
    loss: float
    weight: float
    samples: float
    penalty: float
    correct: Optional[float]
    measures: List[float]


class _Waiting(NamedTuple):
    """One report's values on the device, without the output, and the number that it goes by."""

    number: int
    has_correct: bool
    values: List[Tensor]


class Sums:
    """Loss, accuracy and measures over many reports: each an exact mean over samples, whatever the batches' sizes.

    where: how an error names a report, with its number in place of "{}", such as "step {} (epoch 3)".
    """

    def __init__(self, measure_names: Sequence[str], where: str) -> None:
        self._names = tuple(measure_names)
        self._where = where
        self._waiting: List[_Waiting] = []
        self._loss = self._weight = self._samples = 0.0
        self._correct: Optional[float] = None
        self._measures = [0.0] * len(self._names)
        self._last: Optional[_Row] = None
        self._last_finite: Optional[str] = None

    def add(self, report: Report, number: int) -> None:
        """Take a report's values as tensors. number: which it is, for errors."""
        self._waiting.append(_Waiting(number, report.correct is not None, _tensors(report)))
        if len(self._waiting) >= _PENDING:
            self.fold()

    def fold(self) -> None:
        """Copy what waits to the host, in one transfer. Raises NonFiniteError for the first that is not finite."""
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        flat = torch.stack([value for item in waiting for value in item.values]).cpu().tolist()
        width = len(waiting[0].values)
        for index, item in enumerate(waiting):
            row = _row(flat[index * width : (index + 1) * width], item.has_correct)
            self._require_finite(row, self._where.format(item.number))
            self._take(row)

    def _require_finite(self, row: _Row, where: str) -> None:
        wrong = next((name for name in ("loss", "objective") if not math.isfinite(getattr(row, name))), None)
        if wrong is not None:
            raise NonFiniteError(
                f"the {wrong} is {getattr(row, wrong)} at {where}; "
                f"the last finite loss: {self._last_finite or 'none'}; {REMEDY}"
            )
        self._last_finite = f"{row.loss:.6g} at {where}"

    def _take(self, row: _Row) -> None:
        self._last = row
        self._loss += row.loss * row.weight
        self._weight += row.weight
        self._samples += row.samples
        if row.correct is not None:
            self._correct = (self._correct or 0.0) + row.correct
        for index, measure in enumerate(row.measures):
            self._measures[index] += measure * row.samples

    def metrics(self) -> Dict[str, float]:
        """Everything added so far: "loss", "accuracy" where the loss has one, and each measure by its name."""
        self.fold()
        samples = self._samples or math.nan
        means = [total / samples for total in self._measures]
        correct = None if self._correct is None else self._correct / samples
        return self._named(self._loss / (self._weight or math.nan), correct, means)

    def last(self) -> Dict[str, float]:
        """The same, of the last report alone, and where there are terms "penalty", what they add to the loss."""
        self.fold()
        row = self._last
        if row is None:
            return {}
        correct = None if row.correct is None else row.correct / (row.samples or math.nan)
        named = self._named(row.loss, correct, row.measures)
        return {**named, "penalty": row.penalty} if self._names else named

    def _named(self, loss: float, correct: Optional[float], measures: Sequence[float]) -> Dict[str, float]:
        accuracy = {} if correct is None else {"accuracy": correct}
        return {"loss": loss, **accuracy, **dict(zip(self._names, measures))}

    def state(self) -> Dict[str, Any]:
        """What a checkpoint must hold to go on adding."""
        self.fold()
        return {
            "loss": self._loss,
            "weight": self._weight,
            "samples": self._samples,
            "correct": self._correct,
            "measures": list(self._measures),
            "last_finite": self._last_finite,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state()`."""
        self._loss, self._weight, self._samples = state["loss"], state["weight"], state["samples"]
        self._correct, self._measures = state["correct"], list(state["measures"])
        self._last_finite = state["last_finite"]


def combined(parts: Sequence[Mapping[str, Any]]) -> Dict[str, Any]:
    """The state of all reports together, of the states of `Sums` that each had a part of them."""
    totals: Dict[str, Any] = {name: sum(part[name] for part in parts) for name in ("loss", "weight", "samples")}
    correct = [part["correct"] for part in parts if part["correct"] is not None]
    totals["correct"] = sum(correct) if correct else None
    totals["measures"] = [sum(values) for values in zip(*(part["measures"] for part in parts))]
    totals["last_finite"] = next((part["last_finite"] for part in parts), None)
    return totals


def _tensors(report: Report) -> List[Tensor]:
    penalty = torch.stack(list(report.penalties)).sum() if report.penalties else torch.zeros_like(report.loss)
    values = [report.objective, report.loss, report.weight, report.samples, penalty]
    values += [] if report.correct is None else [report.correct]
    return [value.detach() for value in (*values, *report.measures)]


def _row(values: List[float], has_correct: bool) -> _Row:
    objective, loss, weight, samples, penalty, *rest = values
    return _Row(objective, loss, weight, samples, penalty, rest[0] if has_correct else None, rest[has_correct:])
