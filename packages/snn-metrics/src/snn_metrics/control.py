"""Callbacks that steer a term while a run goes on: multipliers and budgets are inputs of the compiled step."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Dict, List

from snn_core import hookimpl
from snn_core.errors import ConfigError, nearest

if TYPE_CHECKING:
    from snn_core.backend import Report
    from snn_core.trainer import Run

__all__ = ["BudgetSchedule", "Lagrangian"]


@dataclass(frozen=True)
class BudgetSchedule:
    """Lower (or raise) a budget while a run goes on: from `start` to the term's own target, along a geometric curve.

    The budget of optimiser step k is start (target / start)^(k / end) with end = over x the run's steps, then the
    target. It is set at the run's start and after every `log_every` steps, and follows from the step alone, so that a
    resumed run has the same.

    start: the first budget, in the target's unit.   over: the part of the run until the target is reached, in (0, 1].
    term, control: which control of which term. Raises ConfigError for numbers out of range or a control that the run
    does not have.
    """

    start: float
    over: float = 0.5
    term: str = "synops_budget"
    control: str = "target"

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start) and self.start > 0):
            raise ConfigError(f"BudgetSchedule.start is {self.start!r}; it must be a number above 0")
        if not 0 < self.over <= 1:
            raise ConfigError(
                f"BudgetSchedule.over is {self.over!r}; it must be a part of the run, above 0 and up to 1"
            )

    @hookimpl
    def snn_run_start(self, run: "Run") -> None:
        name = _require_control(run, "BudgetSchedule", self.term, self.control)
        if not run.plan.controls[name] > 0:
            raise ConfigError(f"BudgetSchedule: {name} is {run.plan.controls[name]!r}; it must be above 0")
        self._set(run)

    @hookimpl
    def snn_step_end(self, run: "Run", report: "Report", metrics: Dict[str, float]) -> None:
        self._set(run)

    def _set(self, run: "Run") -> None:
        name = f"{self.term}.{self.control}"
        target = run.plan.controls[name]
        part = min(1.0, run.step / (self.over * run.total_steps))
        run.set_control(name, self.start * (target / self.start) ** part)


@dataclass(frozen=True)
class Lagrangian:
    """Find the weight of a budget by dual ascent, so that nobody has to: it grows while the budget is exceeded.

    After every `log_every` steps: weight = clip(weight + rate log(measure / target), 0, maximum), with the measure of
    the last step. The weight is the Lagrange multiplier of the constraint measure <= target (Bertsekas 1982, section
    2.2, in the logarithm of both); it is a control of the compiled step and part of its state, so that a resumed run
    goes on with it.

    rate: gain of an update; larger is quicker, and swings more.   maximum: the largest weight.
    term: a `SynOpsBudget` with a target. Raises ConfigError for numbers out of range, or a run without that term.
    """

    rate: float = 0.1
    maximum: float = 100.0
    term: str = "synops_budget"

    def __post_init__(self) -> None:
        for name in ("rate", "maximum"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"Lagrangian.{name} is {value!r}; it must be a number above 0")

    @hookimpl
    def snn_run_start(self, run: "Run") -> None:
        for control in ("weight", "target"):
            _require_control(run, "Lagrangian", self.term, control)

    @hookimpl
    def snn_step_end(self, run: "Run", report: "Report", metrics: Dict[str, float]) -> None:
        measure = metrics.get(self.term, metrics.get(f"{self.term}.total", math.nan))
        target = run.controls[f"{self.term}.target"]
        # of a network that is silent the logarithm is infinite: that is one unit below any budget
        excess = math.log(measure / target) if measure > 0 else -1.0
        weight = run.controls[f"{self.term}.weight"] + self.rate * excess
        run.set_control(f"{self.term}.weight", min(max(weight, 0.0), self.maximum))


def _require_control(run: "Run", what: str, term: str, control: str) -> str:
    name = f"{term}.{control}"
    if name not in run.controls:
        known: List[str] = list(run.controls)
        has = f"its controls are {', '.join(known)}" if known else "its terms have no controls"
        raise ConfigError(
            f"{what} needs the control {name!r}, which the run does not have{nearest(name, known)}; {has}: add "
            "SynOpsBudget(target=...) to its terms, or name another term"
        )
    return name
