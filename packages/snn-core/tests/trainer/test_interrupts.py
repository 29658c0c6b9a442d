"""Ctrl-C, SIGTERM and SIGKILL, sent for real."""

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from snn_core import checkpoint
from snn_core.errors import TrainingInterrupted
from snn_core.hookspecs import hookimpl
from snn_core.trainer.signals import Interrupted, Interrupts

PROGRAM = """
import hashlib, sys, time
import torch
from pathlib import Path
from torch import nn
import snn_core as snn
from snn_core.trainer import EarlyStopping, Trainer

torch.set_num_threads(1)

class Data(torch.utils.data.Dataset):
    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(96, 6, generator=generator)
    def __len__(self):
        return 96
    def __getitem__(self, index):
        time.sleep({delay})
        return self.x[index], int(self.x[index].sum() > 0)

torch.manual_seed(0)
net = snn.Sequential(snn.Constant(steps=4), nn.Linear(6, 300), nn.Dropout(0.2), snn.LIF(), nn.Linear(300, 2), snn.LIF())
folder = Path(sys.argv[1])
trainer = Trainer(
    net, loss=snn.CountCrossEntropy(), optimizer=snn.Adam(lr=1e-3), backend={backend},
    batch_size=8, deterministic=True, checkpoint_every=1, log_every=1, folder=folder.parent, name=folder.name,
    callbacks=[EarlyStopping(monitor="train_loss", patience=50)], plots=False,
)
print("begin", flush=True)
result = trainer.fit(Data(), epochs=3, resume=folder if folder.exists() else None)
digest = hashlib.sha256(b"".join(value.numpy().tobytes() for value in net.state_dict().values())).hexdigest()
print("digest", digest, len((folder / "metrics.jsonl").read_text().splitlines()), flush=True)
"""


def started(program: Path, folder: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(program), str(folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def write_program(path: Path, delay: float = 0.0, backend: str = "'eager'") -> Path:
    path.write_text(textwrap.dedent(PROGRAM.format(delay=delay, backend=backend)))
    return path


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.slow
def test_runs_killed_at_random_moments_end_as_one_never_killed(tmp_path: Path) -> None:
    program = write_program(tmp_path / "program.py")
    whole = started(program, tmp_path / "whole").communicate(timeout=300)[0].splitlines()[-1]
    moments, folder, kills = random.Random(4), tmp_path / "killed", 0
    while kills < 4:
        process = started(program, folder)
        wait_for(folder / "checkpoints" / "last.safetensors", process)
        if kills:
            assert process.stdout is not None
            process.stdout.readline()
        time.sleep(moments.uniform(0.0, 0.5))
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        if process.returncode == 0:
            break  # it was quicker than the signal
        kills += 1
        checkpoint.load(folder / "checkpoints" / "last.safetensors")  # whole, whatever was going on
    last = started(program, folder).communicate(timeout=300)[0].splitlines()[-1]
    assert kills >= 2
    assert last == whole
    assert [path.name for path in (folder / "checkpoints").iterdir() if path.name.endswith(".tmp")] == []


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_process_and_its_data_workers_saves_and_says_how_to_resume(tmp_path: Path, number: int) -> None:
    backend = "snn.EagerBackend(snn.EagerOptions(num_workers=2))"
    program = write_program(tmp_path / "program.py", delay=0.01, backend=backend)
    folder = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, str(program), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a group of its own, as a terminal gives it
    )
    wait_for(folder / "metrics.jsonl", process)
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    output, errors = process.communicate(timeout=60)
    assert process.returncode not in (0, None), (output, errors)
    assert "TrainingInterrupted" in errors
    assert f"fit(..., resume={str(folder)!r})" in errors
    assert "finishing this step and saving" in errors
    state, _ = checkpoint.load(folder / "checkpoints" / "last.safetensors")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert state["loop"]["step"] == len([line for line in lines if '"step", "epoch"' in line])


class KillAt:
    def __init__(self, step: int, number: int) -> None:
        self.step, self.number = step, number

    @hookimpl
    def snn_step_end(self, run: Any) -> None:
        if run.step == self.step:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")])
def test_a_signal_finishes_the_step_saves_and_syncs(trainer: Any, samples: Any, number: int, name: str) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    subject = trainer(log_every=1, callbacks=[KillAt(3, number)])
    with pytest.raises(TrainingInterrupted) as caught:
        subject.fit(samples(64), epochs=2)
    folder = next(Path(subject.settings.folder).iterdir())
    assert f"interrupted by {name} after step 3 (epoch 1 of 2)" in str(caught.value)
    assert str(caught.value).endswith(f"go on with fit(..., resume={str(folder)!r})")
    assert isinstance(caught.value, KeyboardInterrupt)
    state, _ = checkpoint.load(folder / "checkpoints" / "last.safetensors")
    assert state["loop"]["step"] == 3
    saved = state["program"]["model"]
    assert all(torch.equal(value, saved[key]) for key, value in subject.model.state_dict().items())
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_run_of_the_command_names_the_command_that_resumes_it(trainer: Any, samples: Any) -> None:
    class Configured:
        @hookimpl
        def snn_run_start(self, run: Any) -> None:
            (run.folder / "config.toml").write_text("")

    with pytest.raises(TrainingInterrupted, match=r"go on with `snn resume .*runs/.*` or fit\("):
        trainer(log_every=1, callbacks=[KillAt(1, signal.SIGINT), Configured()]).fit(samples(64), epochs=2)


def test_without_a_run_folder_the_message_promises_no_resume(trainer: Any, samples: Any) -> None:
    with pytest.raises(
        TrainingInterrupted, match="the model holds the weights of that step; folder=None saved nothing"
    ):
        trainer(folder=None, log_every=1, callbacks=[KillAt(3, signal.SIGINT)]).fit(samples(64), epochs=2)


def test_a_signal_at_the_very_end_is_not_swallowed(trainer: Any, samples: Any) -> None:
    class Late:
        @hookimpl
        def snn_run_end(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    subject = trainer(callbacks=[Late()])
    with pytest.raises(TrainingInterrupted, match="SIGTERM arrived when training had ended"):
        subject.fit(samples(16), epochs=1)
    assert (next(Path(subject.settings.folder).iterdir()) / "summary.json").exists()


def test_the_second_signal_aborts_at_once() -> None:
    with pytest.raises(KeyboardInterrupt), Interrupts() as interrupts:  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.requested == "Ctrl-C"
        with pytest.raises(Interrupted):
            interrupts.check()
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts:
            os.kill(os.getpid(), signal.SIGTERM)
            assert interrupts.requested is None
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_training_in_another_thread_installs_no_handlers(trainer: Any, samples: Any) -> None:
    before, found = signal.getsignal(signal.SIGINT), []  # type: Any, List[Any]

    class Look:
        @hookimpl
        def snn_epoch_end(self) -> None:
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=lambda: trainer(callbacks=[Look()]).fit(samples(16), epochs=1))
    thread.start()
    thread.join()
    assert found == [before]
