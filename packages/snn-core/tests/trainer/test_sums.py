"""Reports add up to what one computation over all samples gives."""

import math
from typing import List, Optional

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_core.backend import Report
from snn_core.errors import NonFiniteError
from snn_core.trainer.sums import Sums


def report(losses: List[float], weights: List[float], correct: Optional[float] = None, term: float = 0.0) -> Report:
    """What a program reports of samples with these losses and class weights."""
    loss, weight = torch.tensor(losses), torch.tensor(weights)
    mean = (loss * weight).sum() / weight.sum()
    return Report(
        objective=mean + 1,
        loss=mean,
        weight=weight.sum(),
        samples=torch.tensor(len(losses)),
        correct=None if correct is None else torch.tensor(correct),
        measures=[torch.tensor(term)],
        penalties=[torch.tensor(1.0)],
        optimizer_steps=1,
    )


samples = st.lists(st.tuples(st.floats(0, 10, width=32), st.floats(0.125, 4, width=32)), min_size=1, max_size=9)


@settings(deadline=None, max_examples=50)
@given(batches=st.lists(samples, min_size=1, max_size=5), fold_each=st.booleans())
def test_loss_is_the_weighted_mean_over_all_samples(batches: list, fold_each: bool) -> None:
    sums = Sums(["term"], "step {}")
    for number, batch in enumerate(batches):
        losses, weights = [list(part) for part in zip(*batch)]
        sums.add(report(losses, weights), number)
        if fold_each:
            sums.fold()
    everything = [pair for batch in batches for pair in batch]
    expected = sum(loss * weight for loss, weight in everything) / sum(weight for _, weight in everything)
    # float32 means of each batch
    assert sums.metrics()["loss"] == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_accuracy_and_measures_are_means_over_samples_not_over_batches() -> None:
    sums = Sums(["synops"], "step {}")
    sums.add(report([1.0] * 6, [1.0] * 6, correct=3.0, term=10.0), 1)
    sums.add(report([1.0] * 2, [1.0] * 2, correct=2.0, term=30.0), 2)
    assert sums.metrics() == pytest.approx({"loss": 1.0, "accuracy": 5 / 8, "synops": 120 / 8})
    assert sums.last() == pytest.approx({"loss": 1.0, "accuracy": 1.0, "synops": 30.0, "penalty": 1.0})


def test_a_loss_without_classes_has_no_accuracy() -> None:
    sums = Sums(["term"], "step {}")
    sums.add(report([1.0], [1.0]), 1)
    assert "accuracy" not in sums.metrics()


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("part", ["loss", "objective"])
def test_the_first_value_that_is_not_finite_is_named(wrong: float, part: str) -> None:
    sums = Sums(["term"], "step {} (epoch 2)")
    for number in range(1, 6):
        values = report([0.5], [1.0])
        if number >= 4:
            setattr(values, part, torch.tensor(wrong))
        sums.add(values, number)
    with pytest.raises(NonFiniteError) as caught:
        sums.fold()
    text = str(caught.value)
    assert f"the {part} is {wrong} at step 4 (epoch 2)" in text
    assert "0.5 at step 3" in text
    assert "lower the learning rate" in text
    assert "clip_norm" in text


def test_a_restored_sum_goes_on_exactly() -> None:
    reports = [report([0.1 * i, 0.3], [1.0, 0.7], correct=1.0, term=i) for i in range(7)]
    whole, first, second = (Sums(["term"], "step {}") for _ in range(3))
    for number, item in enumerate(reports):
        whole.add(item, number)
        (first if number < 3 else second).add(item, number)
        if number == 2:
            second.restore(first.state())
    assert second.metrics() == whole.metrics()
