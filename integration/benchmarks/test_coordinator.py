"""Turns and the protocol, with workers that only pretend: a script that answers as its mode tells it to."""

import json
import sys
from pathlib import Path
from typing import Dict, Iterator

import coordinator
import pytest
from coordinator import Outcome, Side, Worker, first_steps, take_turns

PRETENDER = """
import json, os, sys, time
name, mode, threads = sys.argv[1:]
for line in sys.stdin:
    message = json.loads(line)
    with open(os.environ["CALLS"], "a") as calls:
        calls.write(json.dumps([name, mode, threads, message, os.environ.get("SNN_CACHE_DIR")]) + "\\n")
    if mode == "hangs" and message["do"] == "run":
        time.sleep(60)
    if mode == "dies" and message["do"] == "run" and message["steps"] > 1:
        os._exit(3)
    if message["do"] == "about":
        answer = {"versions": {}}
    elif message["do"] == "prepare":
        answer = {"first_s": 0.25, "loss": 1.0, "facts": {"parameters": 1}}
        if mode == "refuses":
            answer = {"error": "ValueError: not here"}
    else:
        slow = 500.0 if mode == "slow" else 10.0
        answer = {"times_ms": {"step": [slow] * message["steps"]}, "loss": 0.5, "peak_mb": 7.0}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    script = tmp_path / "pretender.py"
    script.write_text(PRETENDER, encoding="utf-8")
    monkeypatch.setattr(coordinator, "WORKER", script)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path / "calls"


@pytest.fixture
def workers(calls: Path, tmp_path: Path) -> Iterator[Dict[str, Worker]]:
    """One worker for each way to behave."""
    modes = ("well", "slow", "dies", "refuses")
    made = {mode: Worker(Side(mode, f"side-{mode}", mode, sys.executable), 2, tmp_path) for mode in modes}
    yield made
    for worker in made.values():
        worker.close()
        assert not worker.alive


def made_calls(calls: Path) -> list:
    return [json.loads(line) for line in calls.read_text(encoding="utf-8").splitlines()]


def test_every_side_has_every_turn_and_the_first_to_run_changes(calls: Path, workers: Dict[str, Worker]) -> None:
    some = {name: workers[name] for name in ("well", "slow")}
    found = take_turns(some, "seed", {"steps": 3}, turns=4, patience_s=30)
    runs = [mode for _, mode, _, message, _ in made_calls(calls) if message["do"] == "run"]
    # the warm-up of each, then four turns
    assert runs == ["well", "slow"] + ["well", "slow", "slow", "well"] * 2
    assert found["well"].turns_ms == {"step": [10.0] * 4}
    assert found["slow"].turns_ms == {"step": [500.0] * 4}
    assert (found["well"].loss, found["well"].later_loss, found["well"].peak_mb) == (1.0, 0.5, 7.0)


def test_short_steps_are_repeated_after_one_that_is_not_counted(calls: Path, workers: Dict[str, Worker]) -> None:
    take_turns({name: workers[name] for name in ("well", "slow")}, "seed", {}, turns=1, patience_s=30)
    turns = {mode: message for _, mode, _, message, _ in made_calls(calls) if message["do"] == "run"}
    assert (turns["well"]["steps"], turns["well"]["untimed"]) == (10, 1)
    assert (turns["slow"]["steps"], turns["slow"]["untimed"]) == (1, 0)


def test_a_side_that_fails_says_why_and_the_others_go_on(calls: Path, workers: Dict[str, Worker]) -> None:
    found = take_turns(workers, "seed", {}, turns=3, patience_s=30)
    assert found["refuses"].error == "ValueError: not here"
    assert found["dies"].error == "the process ended with status 3; its output is in dies.log"
    assert found["well"].turns_ms == {"step": [10.0] * 3}
    assert found["well"].error is None
    # a process that has ended answers at once, however often it is asked
    assert workers["dies"].ask(30, do="about") == {"error": found["dies"].error}


def test_a_side_that_hangs_is_ended(calls: Path, tmp_path: Path) -> None:
    with Worker(Side("hangs", "peer", "hangs", sys.executable), 1, tmp_path) as worker:
        found = take_turns({"hangs": worker}, "seed", {}, turns=1, patience_s=0.5)
        assert found["hangs"].error == "no answer within 0 s"
        assert not worker.alive


def test_a_worker_is_told_its_threads(calls: Path, workers: Dict[str, Worker]) -> None:
    workers["well"].ask(30, do="about")
    assert made_calls(calls)[0][:3] == ["side-well", "well", "2"]


def test_a_warm_start_takes_the_caches_of_the_first_cold_one(calls: Path, tmp_path: Path) -> None:
    side = Side("well", "peer", "well", sys.executable)
    found = first_steps([side], {}, 1, {"cold": 2, "warm": 2}, tmp_path, 30)
    caches = [cache for *_, message, cache in made_calls(calls) if message["do"] == "prepare"]
    assert len(caches) == 4
    assert len(set(caches[:2])) == 2
    assert set(caches[2:]) == {caches[0]}
    for kind in ("cold", "warm"):
        outcome: Outcome = found[kind]["well"]
        assert len(outcome.turns_ms["step"]) == 2
        # from the start of the process to the end of the first step
        for whole, start in zip(outcome.turns_ms["step"], outcome.turns_ms["start"]):
            assert whole == pytest.approx(start + 250)
