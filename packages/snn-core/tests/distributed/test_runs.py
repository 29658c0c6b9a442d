"""Runs of several processes: as one with the joint batch, killed, resumed, interrupted, and failing in one of them.

Weights of different numbers of processes agree within 1e-12 in float64: the sums over a batch are rounded in another
order. Two runs of the same number of processes agree bit for bit.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Tuple

import pytest
import torch

from snn_core import checkpoint
from snn_core.backend import Tolerance
from snn_core.testing.compare import require_same_tensors

pytestmark = pytest.mark.slow
WITHIN = Tolerance(1e-12, 1e-15)


@pytest.fixture(scope="session")
def start(processes: Any, here: Path) -> Callable[..., Any]:
    """start(count, name, folder): the run `name`; how each process ended."""

    def run(count: int, name: str, folder: Path, **more: Any) -> Any:
        return processes(count, here / "runs.py", name, folder, **more)

    return run


@pytest.fixture(scope="session")
def whole(start: Any, tmp_path_factory: Any) -> Dict[int, Path]:
    """The plain run of one and of two processes, by their number."""
    folders = {count: tmp_path_factory.mktemp("whole") / "run" for count in (1, 2)}
    for count, folder in folders.items():
        succeeded(start(count, "plain", folder))
    return folders


@pytest.fixture(scope="session")
def undisturbed(start: Any, tmp_path_factory: Any) -> Path:
    """The run with dropout of two processes."""
    folder: Path = tmp_path_factory.mktemp("undisturbed") / "run"
    succeeded(start(2, "dropout", folder))
    return folder


@pytest.fixture(scope="session")
def interrupted(start: Any, tmp_path_factory: Any) -> Tuple[Path, Any]:
    """A run of two processes, one of which got SIGTERM in step 5; and how they ended."""
    folder: Path = tmp_path_factory.mktemp("interrupted") / "run"
    return folder, start(2, "terminated", folder)


def succeeded(done: Any) -> None:
    assert [one.code for one in done] == [0] * len(done), done


def found(folder: Path, rank: int = 0) -> Dict[str, Any]:
    loaded: Dict[str, Any] = torch.load(f"{folder}-{rank}.pt")
    return loaded


def torchrun(here: Path, name: str, folder: Path, *options: str, **changes: str) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", **changes}
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", *options]
    return subprocess.run(
        [*command, str(here / "runs.py"), name, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_two_processes_under_torchrun_end_as_one_with_the_joint_batch(
    whole: Dict[int, Path], here: Path, tmp_path: Path
) -> None:
    done = torchrun(here, "plain", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    alone, joint = found(whole[1]), found(tmp_path / "run")
    require_same_tensors("weight", joint["weights"], alone["weights"], WITHIN)
    for row, expected in zip(joint["history"], alone["history"]):
        assert row == pytest.approx(expected, rel=1e-12)


def test_every_process_has_the_same_weights_history_and_folder(whole: Dict[int, Path]) -> None:
    one, other = (found(whole[2], rank) for rank in (0, 1))
    require_same_tensors("weight", one["weights"], other["weights"])
    assert (one["history"], one["folder"]) == (other["history"], other["folder"])


def test_the_log_is_written_once(whole: Dict[int, Path]) -> None:
    lines = [(whole[count] / "metrics.jsonl").read_text().splitlines() for count in (1, 2)]
    assert [len(part) for part in lines] == [3 * 6 + 3] * 2
    logged = [[json.loads(line).get("loss") for line in part if '"step", "epoch"' in line] for part in lines]
    assert logged[1] == pytest.approx(logged[0], rel=1e-12)


def test_settings_say_how_many_processes_there_were(whole: Dict[int, Path]) -> None:
    assert [json.loads((whole[n] / "settings.json").read_text())["processes"] for n in (1, 2)] == [1, 2]


@pytest.mark.parametrize("victim", [0, 1])
def test_a_run_whose_worker_was_killed_goes_on_by_itself_to_the_same_bits(
    victim: int, undisturbed: Path, here: Path, tmp_path: Path
) -> None:
    done = torchrun(here, "dropout", tmp_path / "killed", "--max-restarts", "1", VICTIM=str(victim))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "killed.killed").exists()
    assert "resumed after step" in done.stdout
    for rank in (0, 1):
        killed, expected = found(tmp_path / "killed", rank), found(undisturbed, rank)
        require_same_tensors("weight", killed["weights"], expected["weights"])
        assert killed["history"] == expected["history"]


def test_a_signal_to_one_process_ends_all_after_the_same_step_and_saves(
    interrupted: Tuple[Path, Any],
) -> None:
    folder, done = interrupted
    for one in done:
        assert one.code != 0
        assert "TrainingInterrupted: interrupted by SIGTERM after step 5 (epoch 1 of 3)" in one.err
        assert f"fit(..., resume={str(folder)!r})" in one.err
    state, _ = checkpoint.load(folder / "checkpoints" / "last.safetensors")
    assert state["loop"]["step"] == 5


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_checkpoint_of_two_processes_goes_on_in_any_number(
    count: int, start: Any, whole: Dict[int, Path], interrupted: Tuple[Path, Any], tmp_path: Path
) -> None:
    shutil.copytree(interrupted[0], tmp_path / "run")
    succeeded(start(count, "resumed", tmp_path / "run"))
    got, expected = found(tmp_path / "run"), found(whole[1])
    require_same_tensors("weight", got["weights"], expected["weights"], WITHIN)
    for row, want in zip(got["history"], expected["history"]):
        assert row == pytest.approx(want, rel=1e-12)


def test_a_checkpoint_of_one_process_goes_on_in_two(start: Any, whole: Dict[int, Path], tmp_path: Path) -> None:
    start(1, "terminated_alone", tmp_path / "run")
    succeeded(start(2, "resumed", tmp_path / "run"))
    require_same_tensors("weight", found(tmp_path / "run")["weights"], found(whole[1])["weights"], WITHIN)


def test_a_process_reads_its_own_samples_alone(start: Any, tmp_path: Path) -> None:
    succeeded(start(2, "shares", tmp_path / "run"))
    # sample 0 tells every process what a sample looks like
    one, other = (set(json.loads(Path(f"{tmp_path}/run-{rank}.json").read_text())) - {0} for rank in (0, 1))
    assert one & other == set()
    assert len(one | other) in (47, 48)  # 6 batches of 8 of 52 samples


def test_evaluation_and_prediction_are_whole_in_every_process(start: Any, tmp_path: Path) -> None:
    succeeded(start(1, "evaluation", tmp_path / "alone"))
    succeeded(start(4, "evaluation", tmp_path / "joint"))
    metrics, outputs = torch.load(f"{tmp_path}/alone-0.pt")
    for rank in range(4):
        got, predicted = torch.load(f"{tmp_path}/joint-{rank}.pt")
        assert got == pytest.approx(metrics, rel=1e-13)
        torch.testing.assert_close(predicted, outputs, rtol=0, atol=0)


FAILURES = {
    "unreadable": ("process 0 of 2: DataError: sample 20", "process 1 of 2: DataError: sample 20", "the disk says no"),
    "callback_fails": ("process 1 of 2: KeyError", "", "KeyError: 'nothing'"),
    "step_fails": ("process 1 of 2: ValueError: it does not fit", "", "ValueError: it does not fit"),
}


@pytest.mark.parametrize("name", list(FAILURES))
def test_what_fails_in_one_process_ends_the_others_with_its_words(name: str, start: Any, tmp_path: Path) -> None:
    *told, cause = FAILURES[name]
    begun = time.monotonic()
    done = start(2, name, tmp_path / "run")
    assert time.monotonic() - begun < 45  # sooner than the 60 s that they would wait for one another
    assert all(one.code == 1 for one in done)
    others = [one.err for one in done if "snn_core.errors.ProcessFailed" in one.err]
    assert len(others) == 1
    assert any(words and words in others[0] for words in told), others
    assert sum(cause in one.err and "ProcessFailed" not in one.err for one in done) == 1


def test_one_process_that_stops_stops_all_after_the_same_epoch(start: Any, tmp_path: Path) -> None:
    succeeded(start(2, "stops_in_one", tmp_path / "run"))
    for rank in (0, 1):
        end = found(tmp_path / "run", rank)
        assert (len(end["history"]), end["stopped"]) == (1, "the second has had enough")


def test_controls_are_as_the_first_process_sets_them(start: Any, tmp_path: Path) -> None:
    succeeded(start(2, "controls_differ", tmp_path / "run"))
    seen = [json.loads(Path(f"{tmp_path}/run-{rank}.json").read_text())["activity.weight"] for rank in (0, 1)]
    assert seen == [1.0, 1.0]


def all_say(done: Any, words: str) -> None:
    assert all(one.code == 1 and words in one.err for one in done), done


def test_processes_that_were_started_otherwise_are_refused(start: Any, tmp_path: Path) -> None:
    done = start(2, "started_otherwise", tmp_path / "run")
    all_say(done, "ConfigError: process 1 of 2 was started otherwise than the first: training samples was 52 and is")
    assert not (tmp_path / "run").exists()


def test_fewer_samples_in_a_batch_than_processes_are_refused(start: Any, tmp_path: Path) -> None:
    all_say(start(2, "batch_too_small", tmp_path / "run"), "ConfigError: batch_size is 1, fewer samples than the 2")


def test_a_process_that_stands_still_is_given_up_after_the_time_out(processes: Any, here: Path, tmp_path: Path) -> None:
    first, second = processes.begin(2, here / "runs.py", "stands_still", tmp_path / "run")
    errors = first.communicate(timeout=60)[1]
    second.kill()
    second.communicate()
    assert first.returncode == 1
    assert "ProcessFailed: process 0 of 2 lost the others, or waited for them too long" in errors


def test_processes_that_do_not_come_are_given_up_after_the_time_out(processes: Any, here: Path, tmp_path: Path) -> None:
    first, second = processes.begin(2, here / "runs.py", "nobody_comes", tmp_path / "run")
    second.kill()
    errors = first.communicate(timeout=60)[1]
    second.communicate()
    assert first.returncode == 1
    assert "ProcessFailed: process 0 of 2 did not meet the others at 127.0.0.1:" in errors
