"""The kit can fail: every wrong backend is caught, by the check that is about its mistake, and right ones are not."""

from typing import Callable, Dict

import pytest
import wrong_backends
import wrong_batches
import wrong_processes
import wrong_state
import wrong_updates
from wrong_backends import Mistake, PadsEvaluation, RoundsOtherwise, SeveralStepsACall, backend_of

from snn_core.backend import Backend
from snn_core.eager import EagerProgram
from snn_core.testing import EVERY, Check

CHECKS: Dict[str, Check] = {check.name: check for check in EVERY}
MISTAKES: Dict[str, Mistake] = {
    mistake.name: mistake
    for module in (wrong_backends, wrong_updates, wrong_batches, wrong_state, wrong_processes)
    for kind in vars(module).values()
    if isinstance(kind, type)
    for mistake in vars(kind).get("mistakes", ())
}


@pytest.mark.parametrize("name", list(MISTAKES))
def test_the_kit_catches(name: str) -> None:
    mistake = MISTAKES[name]
    result = CHECKS[mistake.check].result(mistake.make(), mistake.case)
    assert result.status in ("failed", "broken")
    assert mistake.says in result.detail


@pytest.mark.parametrize("name", list(MISTAKES))
def test_the_same_case_passes_without_the_mistake(name: str) -> None:
    mistake = MISTAKES[name]
    right = backend_of(SeveralStepsACall, steps_per_call=True)
    assert CHECKS[mistake.check].result(right, mistake.case).status == "passed"


@pytest.mark.parametrize("name", list(CHECKS))
def test_every_check_catches_some_mistake(name: str) -> None:
    assert name in {mistake.check for mistake in MISTAKES.values()}


NOTHING = {
    **dict.fromkeys(
        ("recurrence", "carried_state", "recomputation", "ragged_batches", "accumulation", "clipping"), False
    ),
    "random": False,
    "deterministic": False,
    "distributed": False,
    "dtypes": frozenset({"float32"}),
    "optimizers": frozenset({"sgd"}),
    "precisions": frozenset({"fp32"}),
}
FLOAT32 = {"dtypes": frozenset({"float32"}), "precisions": frozenset({"fp32"})}
RIGHT: Dict[str, Callable[[], Backend]] = {
    "padding with a mask": lambda: backend_of(PadsEvaluation),
    "several steps a call": lambda: backend_of(SeveralStepsACall, steps_per_call=True),
    "float32 that rounds otherwise": lambda: backend_of(RoundsOtherwise, distributed=False, **FLOAT32),
    "as little declared as may be": lambda: backend_of(EagerProgram, **NOTHING),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(RIGHT))
def test_the_kit_lets_pass(name: str) -> None:
    backend = RIGHT[name]()
    failed = [(check.name, case) for check in EVERY for case in check.names() if not check.result(backend, case).ok]
    assert failed == []
