"""The arithmetic of the benchmarks: medians, ratios turn by turn, and what makes two sides incomparable."""

import math

import pytest
from coordinator import Outcome
from ratios import bandwidth_rows, differences, memory_row, overhead_row, row

FACTS = {"parameters": 10, "output": [2, 3, 4]}


def outcome(*step_ms: float, **changed) -> Outcome:
    settings = {"loss": 1.0, "later_loss": 0.5, "facts": dict(FACTS), "turns_ms": {"step": list(step_ms)}}
    return Outcome(**{**settings, **changed})


def test_a_turn_that_slows_both_sides_alike_leaves_the_ratio_and_its_quartiles() -> None:
    found = row("a", "case", 1, {"cpu": outcome(10, 90, 10), "peer": outcome(20, 180, 20)}, base="cpu")
    peer = found.cells["peer"]
    assert (peer.low, peer.ratio, peer.high) == (2, 2, 2)
    assert peer.value == 20
    assert found.cells["cpu"].ratio == 1


def test_a_ratio_is_the_median_over_turns_with_their_quartiles() -> None:
    found = row("a", "case", 1, {"cpu": outcome(1, 1, 1, 1, 1), "peer": outcome(9, 2, 4, 3, 1)}, base="cpu")
    peer = found.cells["peer"]
    assert (peer.low, peer.ratio, peer.high) == (2, 3, 4)


def test_seconds_are_a_thousandth_of_the_measured_milliseconds() -> None:
    found = row("f", "first", 1, {"cpu": outcome(1500.0)}, base="cpu", unit="s")
    assert found.cells["cpu"].value == pytest.approx(1.5)


def test_another_part_s_time_stands_beside_the_base_s_of_that_part() -> None:
    sides = {name: outcome(9.0, turns_ms={"step": [9.0], "network": [t]}) for name, t in (("cpu", 2.0), ("peer", 6.0))}
    found = row("f", "first", 1, sides, base="cpu", part="network")
    assert (found.cells["peer"].value, found.cells["peer"].ratio) == (6.0, 3.0)


def test_without_the_base_there_are_times_and_no_ratios() -> None:
    failed = Outcome(error="RuntimeError: no")
    found = row("a", "case", 1, {"cpu": failed, "peer": outcome(3.0)}, base="cpu")
    assert found.cells["cpu"].error == "RuntimeError: no"
    assert found.cells["cpu"].value is None
    assert (found.cells["peer"].value, found.cells["peer"].ratio) == (3.0, None)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"facts": {**FACTS, "parameters": 11}}, "parameters: 11, not 10"),
        ({"facts": {**FACTS, "output": [3, 2, 4]}}, "output: [3, 2, 4], not [2, 3, 4]"),
        ({"loss": math.nan}, "the loss is nan, then 0.5"),
        ({"later_loss": math.inf}, "the loss is 1.0, then inf"),
        ({"later_loss": 1.0}, "the loss is the same after training steps"),
        ({"facts": {**FACTS, "gradient": 0.0}}, "the gradient's norm is 0.0"),
        ({"facts": {**FACTS, "gradient": math.nan}}, "the gradient's norm is nan"),
    ],
)
def test_a_side_that_does_other_work_has_no_ratio(changed: dict, reason: str) -> None:
    found = row("a", "case", 1, {"cpu": outcome(1.0), "peer": outcome(2.0, **changed)}, base="cpu")
    assert found.cells["peer"].error == reason
    assert found.cells["peer"].ratio is None


def test_other_spikes_are_remarked_and_still_compared() -> None:
    found = row("a", "case", 1, {"cpu": outcome(1.0), "peer": outcome(2.0, loss=1.01)}, base="cpu")
    assert found.cells["peer"].remark == "other spikes: first loss 1.01, not 1"
    assert found.cells["peer"].ratio == 2


def test_losses_that_differ_by_rounding_alone_are_the_same_work() -> None:
    assert differences(outcome(1.0), outcome(1.0, loss=1.0 + 5e-4)) == (None, None)


def test_a_forward_that_takes_as_long_as_a_copy_has_its_bandwidth() -> None:
    # with backward 5 arrays move where a copy moves 2: in 5 times the copy's time that is one half
    turns = {"copy": [2.0, 4.0], "forward": [2.0, 4.0], "both": [10.0, 20.0]}
    forward, both = bandwidth_rows("LIF", 2, 16, {"cpu": outcome(turns_ms=turns)}, base="cpu")
    assert (forward.title, both.title) == ("LIF, T = 16, forward", "LIF, T = 16, both")
    assert forward.cells["cpu"].value == 1.0
    assert both.cells["cpu"].value == 0.5


def test_memory_is_a_ratio_of_peaks() -> None:
    found = memory_row(
        "e", "T = 10", 1, {"cpu": outcome(1.0, peak_mb=50.0), "peer": outcome(1.0, peak_mb=200.0)}, "cpu"
    )
    assert (found.cells["peer"].value, found.cells["peer"].ratio) == (200.0, 4.0)


def test_what_counting_adds_is_against_the_side_s_own_step() -> None:
    turns = {"plain": [10.0, 20.0, 30.0], "counted": [11.0, 22.0, 33.0]}
    found = overhead_row("g", "tutorial", 1, {"cpu": outcome(turns_ms=turns)})
    assert found.cells["cpu"].value == pytest.approx(0.1)
