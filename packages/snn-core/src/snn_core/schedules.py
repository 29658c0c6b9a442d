"""Learning-rate schedules as frozen values: each is a closed form of the optimiser step, so resuming needs no state."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Optional

from snn_core._check import is_count, is_number
from snn_core.errors import ConfigError

__all__ = ["CosineDecay", "OneCycle", "Schedule", "StepDecay", "Warmup"]


@dataclass(frozen=True)
class Schedule(ABC):
    """The learning rate of each optimiser step of a run."""

    @abstractmethod
    def lr(self, step: int, total_steps: int, base_lr: float) -> float:
        """The rate of the step that follows `step` earlier ones. total_steps: the run's; base_lr: the optimiser's."""

    @property
    def needs_total(self) -> bool:
        """Whether the rate depends on the run's length, so that a resumed run must keep its number of epochs."""
        return False


@dataclass(frozen=True)
class StepDecay(Schedule):
    """base_lr * factor^floor(step / every): a drop each `every` optimiser steps. As torch's StepLR."""

    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        _require_count("StepDecay.every", self.every)
        _require_between("StepDecay.factor", self.factor, 0.0, 1.0)

    def lr(self, step: int, total_steps: int, base_lr: float) -> float:
        return base_lr * self.factor ** (step // self.every)


@dataclass(frozen=True)
class CosineDecay(Schedule):
    """From base_lr along half a cosine to `minimum` at the run's end. Loshchilov and Hutter 2017, eq. 5, one cycle."""

    minimum: float = 0.0

    def __post_init__(self) -> None:
        _require_between("CosineDecay.minimum", self.minimum, 0.0)

    @property
    def needs_total(self) -> bool:
        return True

    def lr(self, step: int, total_steps: int, base_lr: float) -> float:
        return _cosine(base_lr, self.minimum, step / max(total_steps, 1))


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up along half a cosine to base_lr over a part `rise` of the run, then down. Smith and Topin 2018.

    It starts at base_lr / start_divisor and ends at that divided by end_divisor. As torch's OneCycleLR.
    """

    rise: float = 0.3
    start_divisor: float = 25.0
    end_divisor: float = 1e4

    def __post_init__(self) -> None:
        _require_between("OneCycle.rise", self.rise, 0.0, 1.0)
        _require_between("OneCycle.start_divisor", self.start_divisor, 1.0)
        _require_between("OneCycle.end_divisor", self.end_divisor, 1.0)

    @property
    def needs_total(self) -> bool:
        return True

    def lr(self, step: int, total_steps: int, base_lr: float) -> float:
        first = base_lr / self.start_divisor
        top, last = self.rise * total_steps - 1, total_steps - 1
        # a run too short for a rise, or with rise=0, starts at the top
        if step <= top:
            return _cosine(first, base_lr, step / top if top > 0 else 1.0)
        top = max(top, 0.0)
        return _cosine(base_lr, first / self.end_divisor, (step - top) / (last - top) if last > top else 1.0)


@dataclass(frozen=True)
class Warmup(Schedule):
    """A straight rise from start * base_lr to base_lr over `steps` optimiser steps. Goyal et al. 2017, section 2.2.

    then: the schedule that follows, as if the run began there; None keeps base_lr. As torch's LinearLR.
    """

    steps: int
    then: Optional[Schedule] = None
    start: float = 0.01

    def __post_init__(self) -> None:
        _require_count("Warmup.steps", self.steps)
        _require_between("Warmup.start", self.start, 0.0, 1.0)
        if self.then is not None and not isinstance(self.then, Schedule):
            raise ConfigError(f"Warmup.then is {self.then!r}; it must be a schedule such as CosineDecay(), or None")

    @property
    def needs_total(self) -> bool:
        return self.then is not None and self.then.needs_total

    def lr(self, step: int, total_steps: int, base_lr: float) -> float:
        if step < self.steps:
            return base_lr * (self.start + (1.0 - self.start) * step / self.steps)
        return base_lr if self.then is None else self.then.lr(step - self.steps, total_steps - self.steps, base_lr)


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * (1.0 + math.cos(math.pi * min(part, 1.0))) / 2.0


def _require_count(what: str, value: Any) -> None:
    if not is_count(value):
        raise ConfigError(f"{what} is {value!r}; it must be a whole number of 1 or more")


def _require_between(what: str, value: Any, low: float, high: float = math.inf) -> None:
    if not is_number(value) or not low <= value <= high:
        bound = f"a number in [{low:g}, {high:g}]" if math.isfinite(high) else f"a finite number of {low:g} or more"
        raise ConfigError(f"{what} is {value!r}; it must be {bound}")
