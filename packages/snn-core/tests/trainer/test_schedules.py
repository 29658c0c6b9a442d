"""Schedules against torch's own, and what they refuse."""

from typing import List

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim import lr_scheduler

from snn_core.errors import ConfigError
from snn_core.schedules import CosineDecay, OneCycle, Schedule, StepDecay, Warmup

LR = st.floats(1e-5, 1.0)


def torchs(make: object, lr: float, steps: int) -> List[float]:
    """The learning rates that a scheduler of torch sets for each of `steps` steps."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = make(optimizer)  # type: ignore[operator]
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def ours(schedule: Schedule, lr: float, total: int, steps: int) -> List[float]:
    return [schedule.lr(step, total, lr) for step in range(steps)]


@settings(deadline=None, max_examples=25)
@given(lr=LR, every=st.integers(1, 20), factor=st.floats(0.05, 1.0))
def test_step_decay_equals_torchs_step_lr(lr: float, every: int, factor: float) -> None:
    expected = torchs(lambda o: lr_scheduler.StepLR(o, every, factor), lr, 45)
    assert ours(StepDecay(every, factor), lr, 45, 45) == pytest.approx(expected, rel=1e-9)


@settings(deadline=None, max_examples=25)
@given(lr=LR, total=st.integers(1, 60), low=st.floats(0.0, 1e-5))
def test_cosine_decay_equals_torchs_cosine_annealing(lr: float, total: int, low: float) -> None:
    expected = torchs(lambda o: lr_scheduler.CosineAnnealingLR(o, total, low), lr, total)
    # torch's is recursive, and loses digits where the rate is nearly zero
    assert ours(CosineDecay(low), lr, total, total) == pytest.approx(expected, rel=1e-6, abs=1e-9 * lr)


@settings(deadline=None, max_examples=25)
@given(lr=LR, total=st.integers(10, 80), rise=st.floats(0.2, 0.9), start=st.floats(2, 50), end=st.floats(2, 1e5))
def test_one_cycle_equals_torchs(lr: float, total: int, rise: float, start: float, end: float) -> None:
    expected = torchs(
        lambda o: lr_scheduler.OneCycleLR(
            o, lr, total, pct_start=rise, div_factor=start, final_div_factor=end, cycle_momentum=False
        ),
        lr,
        total - 1,  # torch refuses to step beyond the last
    )
    assert ours(OneCycle(rise, start, end), lr, total, total - 1) == pytest.approx(expected, rel=1e-9)


@settings(deadline=None, max_examples=25)
@given(lr=LR, steps=st.integers(1, 20), start=st.floats(0.01, 1.0))
def test_warmup_equals_torchs_linear_lr(lr: float, steps: int, start: float) -> None:
    expected = torchs(lambda o: lr_scheduler.LinearLR(o, start, 1.0, steps), lr, 30)
    assert ours(Warmup(steps, start=start), lr, 30, 30) == pytest.approx(expected, rel=1e-6)


def test_warmup_hands_over_to_a_schedule_that_begins_there() -> None:
    composed, decay = Warmup(10, then=CosineDecay()), CosineDecay()
    assert ours(composed, 0.1, 60, 60)[10:] == ours(decay, 0.1, 50, 50)


@pytest.mark.parametrize("schedule", [OneCycle(), OneCycle(rise=0.0), CosineDecay(), Warmup(5, then=OneCycle())])
@pytest.mark.parametrize("total", [1, 2, 3])
def test_runs_of_few_steps_have_finite_rates(schedule: Schedule, total: int) -> None:
    assert all(0 <= rate <= 0.1 for rate in ours(schedule, 0.1, total, total + 2))


def test_a_schedule_says_whether_it_needs_the_runs_length() -> None:
    assert not StepDecay(5).needs_total
    assert not Warmup(5).needs_total
    assert CosineDecay().needs_total
    assert OneCycle().needs_total
    assert Warmup(5, then=CosineDecay()).needs_total


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StepDecay(0), "StepDecay.every is 0; it must be a whole number of 1 or more"),
        (lambda: StepDecay(5, 1.5), "StepDecay.factor is 1.5"),
        (lambda: CosineDecay(-1.0), "CosineDecay.minimum is -1.0"),
        (lambda: CosineDecay(float("nan")), "CosineDecay.minimum is nan"),
        (lambda: OneCycle(rise=2.0), "OneCycle.rise is 2.0"),
        (lambda: OneCycle(start_divisor=0.5), "OneCycle.start_divisor is 0.5"),
        (lambda: Warmup(2.5), "Warmup.steps is 2.5"),  # type: ignore[arg-type]
        (lambda: Warmup(5, then=0.1), "Warmup.then is 0.1; it must be a schedule"),  # type: ignore[arg-type]
    ],
)
def test_a_setting_out_of_range_is_refused(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]
