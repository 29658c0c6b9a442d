"""Run folders: fresh, held by one process, and harmless when the disk refuses."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest
import torch

from snn_core import checkpoint
from snn_core.errors import RunFolderError
from snn_core.hookspecs import hookimpl
from snn_core.trainer.folder import RunFolder


def test_each_run_has_a_folder_of_its_own(trainer: Any, samples: Any) -> None:
    folders = {trainer().fit(samples(16), epochs=1).folder for _ in range(3)}
    assert len(folders) == 3
    for folder in folders:
        assert {path.name for path in folder.iterdir()} == {
            "checkpoints",
            "lock",
            "metrics.jsonl",
            "plots",
            "settings.json",
            "summary.json",
        }


def test_a_named_run_is_never_overwritten(trainer: Any, samples: Any) -> None:
    first = trainer(name="seed").fit(samples(16), epochs=1)
    files = {path: path.read_bytes() for path in first.folder.rglob("*") if path.is_file()}
    with pytest.raises(RunFolderError, match="seed exists; runs are never overwritten: choose another name"):
        trainer(name="seed").fit(samples(16), epochs=1)
    assert {path: path.read_bytes() for path in first.folder.rglob("*") if path.is_file()} == files


def test_no_folder_writes_nothing(trainer: Any, samples: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert trainer(folder=None, plots=True).fit(samples(16), epochs=1).folder is None
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_said_before_training(trainer: Any, samples: Any, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "runs"):
        with pytest.raises(RunFolderError, match=r"cannot write .*file.*; a file stands where a folder should"):
            trainer(folder=folder).fit(samples(16), epochs=1)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture
def small_files() -> Iterator[Any]:
    """small_files(bytes): from now on no file of this process may grow beyond that, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_loses_neither_the_training_nor_the_earlier_checkpoint(
    trainer: Any, samples: Any, small_files: Any
) -> None:
    class Fill:
        @hookimpl
        def snn_epoch_end(self, run: Any) -> None:
            if run.epoch == 2:
                small_files(2500)  # the log fits, a checkpoint does not

    subject = trainer(callbacks=[Fill()])
    with pytest.raises(RunFolderError, match=r"cannot save the checkpoint .*best.safetensors"):
        subject.fit(samples(32), samples(9), epochs=3)
    small_files(resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    folder = next(Path(subject.settings.folder).iterdir())
    state, _ = checkpoint.load(folder / "checkpoints" / "last.safetensors")
    assert len(state["loop"]["history"]) == 1
    assert not list((folder / "checkpoints").glob(".*"))
    line = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    assert subject.evaluate(samples(9))["loss"] == line["val_loss"]  # the model has epoch 2
    resumed = trainer(model=subject.model).fit(samples(32), samples(9), epochs=3, resume=folder)
    assert resumed.epochs == 3


def test_a_log_that_cannot_grow_is_a_run_folder_error(trainer: Any, samples: Any, small_files: Any) -> None:
    class Fill:
        @hookimpl
        def snn_step_end(self, run: Any) -> None:
            small_files(10)

    subject = trainer(log_every=3, callbacks=[Fill()])
    before = subject.model[1].weight.detach().clone()
    with pytest.raises(RunFolderError, match=r"cannot write .*metrics.jsonl.*; free some space"):
        subject.fit(samples(32), epochs=1)
    assert not torch.equal(subject.model[1].weight, before)  # the three steps are not lost


def test_a_run_that_never_began_leaves_no_folder(trainer: Any, samples: Any) -> None:
    class Refuse:
        @hookimpl
        def snn_run_start(self) -> None:
            raise ValueError("no")

    subject = trainer(callbacks=[Refuse()])
    with pytest.raises(ValueError, match="no"):
        subject.fit(samples(16), epochs=1)
    assert list(Path(subject.settings.folder).iterdir()) == []


def test_two_processes_cannot_write_to_one_run(trainer: Any, samples: Any, tmp_path: Path) -> None:
    folder = trainer().fit(samples(16), epochs=1).folder
    program = (
        "import sys; from snn_core.trainer.folder import RunFolder; held = RunFolder.open(sys.argv[1]);"
        " print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(RunFolderError, match="is in use by another process"):
            trainer().fit(samples(16), epochs=2, resume=folder)
        holder.kill()
    assert trainer().fit(samples(16), epochs=2, resume=folder).epochs == 2


def test_a_closed_folder_can_be_opened_again_by_its_process(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "run")
    folder.close()
    RunFolder.open(tmp_path / "run").close()
