"""`snn train`, `snn eval` and `snn resume` on the bundled digits, run for real."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence

import pytest
import torch

from snn_core import checkpoint
from snn_core.cli import main
from snn_core.config import load_run

ARGUMENTS = ("train.epochs=4", "data.limit=640", "model.args.hidden=40", "train.batch_size=32", "train.log_every=1",
             "train.deterministic=true", "callbacks.early_stopping.monitor=train_loss")  # fmt: skip


def command(*arguments: str) -> List[str]:
    return [sys.executable, "-m", "snn_core", *arguments]


def sets(*changes: str) -> List[str]:
    return [word for change in changes for word in ("--set", change)]


def start(folder: Path, *arguments: str) -> "subprocess.Popen[str]":
    # one thread: sums of another number of threads may round otherwise
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command(*arguments), cwd=str(folder), env=environment, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def weights(run: Path) -> Dict[str, torch.Tensor]:
    return checkpoint.load(run / "checkpoints" / "last.safetensors")[0]["program"]["model"]


class Whole:
    """A run that nothing interrupted: its folder, and what it printed."""

    def __init__(self, folder: Path) -> None:
        process = start(folder, "train", *sets(*ARGUMENTS, "train.name=whole"))
        self.stdout, self.stderr = process.communicate(timeout=120)
        self.code = process.returncode
        self.run = folder / "runs" / "whole"

    def metrics(self) -> Dict[str, Any]:
        lines = (self.run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [metrics for metrics in map(json.loads, lines) if metrics["kind"] == "epoch"][-1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(tmp_path_factory.mktemp("whole"))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_run_prints_its_epochs_and_ends_with_a_test_accuracy_its_folder_and_plots(whole: Whole) -> None:
    assert (whole.code, whole.stderr) == (0, "")
    lines = whole.stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("epoch ")] == ["1/4", "2/4", "3/4", "4/4"]
    assert lines[-5:] == [
        f"test accuracy {100 * whole.metrics()['val_accuracy']:.2f} % after epoch 4",
        "run folder   runs/whole",
        "plot         runs/whole/plots/curves.png",
        "plot         runs/whole/plots/output.png",
        "evaluate it  snn eval runs/whole",
    ]


def test_a_run_learns(whole: Whole) -> None:
    assert whole.metrics()["val_accuracy"] > 0.5  # 10 classes: chance is 0.1


def test_the_run_folder_holds_the_whole_configuration_with_the_backend_that_was_taken(whole: Whole) -> None:
    config = load_run(whole.run)
    assert (config.train.epochs, config.data.limit, config.model.args["hidden"]) == (4, 640, 40)
    assert config.backend.name == json.loads((whole.run / "summary.json").read_text(encoding="utf-8"))["backend"]


def test_eval_of_the_last_checkpoint_gives_the_last_epoch_s_figures(whole: Whole, capsys: Any) -> None:
    assert main(["eval", str(whole.run / "checkpoints" / "last.safetensors"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    metrics = whole.metrics()
    assert document["accuracy"] == metrics["val_accuracy"]
    assert document["loss"] == pytest.approx(metrics["val_loss"], rel=1e-6)  # other threads may round otherwise
    assert (document["samples"], document["split"], document["data"], document["terms"]) == (640, "test", "digits", {})


def test_eval_of_a_run_takes_its_best_checkpoint_and_prints_a_table(whole: Whole, capsys: Any) -> None:
    where = ("--data", "digits", "--split", "train", "--backend", "auto", "--set", "data.limit=100")
    assert main(["eval", str(whole.run), *where]) == 0
    rows = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert rows["checkpoint"].endswith("best.safetensors")
    assert (rows["data"], rows["split"], rows["samples"]) == ("digits", "train", "100")
    assert float(rows["accuracy"].split()[0]) > 50
    assert float(rows["loss"]) > 0


def test_resuming_a_finished_run_says_so_and_how_to_train_on(whole: Whole, capsys: Any) -> None:
    before = (whole.run / "checkpoints" / "last.safetensors").stat().st_mtime_ns
    assert main(["resume", str(whole.run)]) == 0
    text = capsys.readouterr().out
    assert f"the run {whole.run} is finished (4 of 4 epochs), test accuracy " in text
    assert f"to train on: snn resume {whole.run} --set train.epochs=8" in text
    assert (whole.run / "checkpoints" / "last.safetensors").stat().st_mtime_ns == before


def test_a_resumed_run_refuses_settings_that_would_make_it_another(whole: Whole, capsys: Any) -> None:
    before = (whole.run / "config.toml").read_bytes()
    assert main(["resume", str(whole.run), *sets("train.epochs=5", "optimizer.lr=0.5")]) == 2
    assert "cannot be resumed with other settings: optimizer was Adam(lr=0.001" in capsys.readouterr().err
    assert (whole.run / "config.toml").read_bytes() == before


@pytest.mark.slow
def test_a_run_interrupted_and_resumed_ends_bit_for_bit_as_one_never_interrupted(whole: Whole, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "cut"
    process = start(tmp_path, "train", *sets(*ARGUMENTS, "train.name=cut"))
    wait_for_steps(process, run / "metrics.jsonl", 27)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "interrupted by Ctrl-C after step " in stderr
    assert "`snn resume runs/cut`" in stderr
    assert "Traceback" not in stderr

    resumed = start(tmp_path, "resume", "runs/cut")
    stdout, stderr = resumed.communicate(timeout=120)
    assert (resumed.returncode, stderr) == (0, "")
    assert "resumed after step " in stdout
    ours, theirs = weights(run), weights(whole.run)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert stdout.splitlines()[-5] == whole.stdout.splitlines()[-5]


def wait_for_steps(process: "subprocess.Popen[str]", log: Path, steps: int) -> None:
    deadline = time.monotonic() + 120
    while not log.exists() or log.read_bytes().count(b"\n") < steps:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_folder_without_a_finished_epoch_is_evaluated_at_its_last_checkpoint(whole: Whole, capsys: Any) -> None:
    best = whole.run / "checkpoints" / "best.safetensors"
    aside = best.with_name("aside")
    best.rename(aside)
    try:
        assert main(["eval", str(whole.run), "--json"]) == 0
    finally:
        aside.rename(best)
    assert json.loads(capsys.readouterr().out)["checkpoint"].endswith("last.safetensors")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "gone.toml"], "there is no configuration file gone.toml"),
        (["train", *sets("train.epoch=3")], "there is no setting train.epoch (did you mean 'epochs'?)"),
        (["train", "--backend", "kuda"], "no backend 'kuda' is installed (did you mean 'cuda'?); installed: "),
        (["train", *sets("train.folder=file/below", "data.limit=128")], "cannot write file/below"),
        (["eval", "gone"], "there is no run folder or checkpoint gone"),
        (["eval", "file"], "file does not lie in the checkpoints of a run folder"),
        (["resume", "gone"], "the run folder gone does not exist"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_exit_code_2(
    arguments: Sequence[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert main(arguments) == 2
    stderr = capsys.readouterr().err
    assert message in stderr
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_help_needs_no_torch() -> None:
    program = (
        "import sys; from snn_core.cli import main\n"
        "for name in ('train', 'eval', 'resume'): main([name, '--help'])\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    usages = [line.split()[2] for line in done.stdout.splitlines() if line.startswith("Usage: snn ")]
    assert usages == ["train", "eval", "resume"]
    assert done.stdout.endswith("\nFalse\n")
