"""A run that was interrupted and resumed is the run that was never interrupted."""

import json
import os
import random
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from snn_core import checkpoint
from snn_core.backend import Report
from snn_core.capabilities import require_declared
from snn_core.eager import EagerBackend, EagerProgram
from snn_core.errors import CheckpointError, ConfigError, RunFolderError, TrainingInterrupted
from snn_core.hookspecs import hookimpl
from snn_core.optimizers import SGD, AdamW, RMSprop
from snn_core.schedules import CosineDecay, OneCycle, StepDecay, Warmup
from snn_core.trainer import EarlyStopping, RunResult, load_weights

STEPS = 4  # of an epoch of 70 samples in batches of 2 * 8


class InterruptAt:
    """Sends this process a real signal in the middle of step `step`, or of the validation that follows it."""

    def __init__(self, step: int, number: int = signal.SIGINT) -> None:
        self.step, self.number = step, number

    @hookimpl
    def snn_step_end(self, run: Any) -> None:
        if run.step == self.step:
            os.kill(os.getpid(), self.number)


def flat(model: nn.Module) -> Tensor:
    return torch.cat([value.reshape(-1).float() for value in model.state_dict().values()])


def without_times(history: Any) -> List[Dict[str, float]]:
    return [{name: value for name, value in metrics.items() if name != "seconds"} for metrics in history]


def log_of(folder: Path) -> List[Dict[str, Any]]:
    return without_times(json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())


@pytest.fixture
def job(trainer: Any, network: Any) -> Callable[..., Any]:
    """A trainer with everything that has state: dropout, momentum, schedule, accumulation, early stopping."""

    def make(callbacks: Any = (), **changes: Any) -> Any:
        return trainer(
            model=network(dropout=0.3),
            schedule=Warmup(3, then=CosineDecay()),
            accumulation=2,
            clip_norm=1.0,
            deterministic=True,
            log_every=1,
            callbacks=[EarlyStopping(patience=2), *callbacks],
            **changes,
        )

    return make


def interrupted(job: Any, data: Any, val: Any, step: int, **changes: Any) -> Path:
    """Run until `step` and return the run folder of what was interrupted there."""
    subject = job(callbacks=[InterruptAt(step)], **changes)
    with pytest.raises(TrainingInterrupted):
        subject.fit(data, val, epochs=3)
    return max(Path(subject.settings.folder).iterdir(), key=lambda path: path.stat().st_mtime_ns)


@pytest.mark.parametrize("step", [1, 3, STEPS, STEPS + 1, 3 * STEPS])
def test_an_interrupted_and_resumed_run_equals_a_whole_one_bit_for_bit(job: Any, samples: Any, step: int) -> None:
    data, val = samples(70), samples(20, seed=1)
    whole = job()
    expected = whole.fit(data, val, epochs=3)
    folder = interrupted(job, data, val, step)
    second = job()
    found: RunResult = second.fit(data, val, epochs=3, resume=folder)
    assert torch.equal(flat(second.model), flat(whole.model))
    assert without_times(found.history) == without_times(expected.history)
    assert (found.epochs, found.steps, found.best) == (expected.epochs, expected.steps, expected.best)
    assert found.folder == folder
    assert log_of(folder) == log_of(expected.folder)
    for which in ("last", "best"):
        files = [checkpoint.load(f / "checkpoints" / f"{which}.safetensors")[0] for f in (folder, expected.folder)]
        assert files[0]["plugins"] == files[1]["plugins"]
        ours, theirs = (checkpoint.pack(state["program"])[0] for state in files)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize("optimizer", [SGD(lr=0.05, momentum=0.9), AdamW(), RMSprop(momentum=0.5)])
@pytest.mark.parametrize("schedule", [OneCycle(), StepDecay(3)])
def test_every_optimizer_and_schedule_resumes(trainer: Any, samples: Any, optimizer: Any, schedule: Any) -> None:
    def make(*callbacks: object) -> Any:
        return trainer(optimizer=optimizer, schedule=schedule, deterministic=True, callbacks=callbacks, log_every=1)

    whole, first, second = make(), make(InterruptAt(5)), make()
    whole.fit(samples(32), epochs=2)
    with pytest.raises(TrainingInterrupted):
        first.fit(samples(32), epochs=2)
    folder = max(Path(first.settings.folder).iterdir(), key=lambda path: path.stat().st_mtime_ns)
    second.fit(samples(32), epochs=2, resume=folder)
    assert torch.equal(flat(second.model), flat(whole.model))


def test_a_run_may_be_interrupted_again_and_again(job: Any, samples: Any) -> None:
    data, val = samples(70), samples(20, seed=1)
    whole = job()
    whole.fit(data, val, epochs=3)
    folder = interrupted(job, data, val, 1)
    for step in range(2, 3 * STEPS + 1):
        part = job(callbacks=[InterruptAt(step)])
        with pytest.raises(TrainingInterrupted):
            part.fit(data, val, epochs=3, resume=folder)
    last = job()
    last.fit(data, val, epochs=3, resume=folder)
    assert torch.equal(flat(last.model), flat(whole.model))


def test_a_signal_during_validation_repeats_the_validation_alone(job: Any, samples: Any) -> None:
    data, val = samples(70), Signalling(samples(20, seed=1))
    whole = job()
    whole.fit(data, samples(20, seed=1), epochs=3)
    first = job()
    with pytest.raises(TrainingInterrupted, match=f"after step {STEPS} "):
        first.fit(data, val, epochs=3)
    folder = max(Path(first.settings.folder).iterdir(), key=lambda path: path.stat().st_mtime_ns)
    second = job()
    result = second.fit(data, samples(20, seed=1), epochs=3, resume=folder)
    assert torch.equal(flat(second.model), flat(whole.model))
    assert result.steps == 3 * STEPS


class Signalling(Dataset):
    """A dataset that interrupts the process that reads its ninth sample."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Any:
        if index == 9:
            os.kill(os.getpid(), signal.SIGINT)
        return self.inner[index]


def test_early_stopping_counts_on_across_a_resume(trainer: Any, samples: Any, network: Any) -> None:
    def make(*callbacks: object) -> Any:
        # a rate of zero: the validation loss of epoch 1 is never improved upon
        stop = EarlyStopping(patience=3)
        return trainer(optimizer=SGD(lr=0.0), callbacks=[stop, *callbacks], log_every=1, deterministic=True)

    first = make(InterruptAt(3 * 4 + 1))
    with pytest.raises(TrainingInterrupted):
        first.fit(samples(32), samples(9), epochs=10)
    folder = next(Path(first.settings.folder).iterdir())
    result = make().fit(samples(32), samples(9), epochs=10, resume=folder)
    assert result.epochs == 4
    assert "early stopping: val_loss was not better than" in result.stopped


def test_a_finished_run_resumes_to_its_own_result(job: Any, samples: Any) -> None:
    data, val = samples(70), samples(20, seed=1)
    whole = job()
    result = whole.fit(data, val, epochs=2)
    again = job()
    repeated = again.fit(data, val, epochs=2, resume=result.folder)
    assert repeated == result
    assert torch.equal(flat(again.model), flat(whole.model))


def test_a_stopped_run_resumes_to_its_end_and_goes_on_only_for_more_epochs(trainer: Any, samples: Any) -> None:
    class Stop:
        @hookimpl
        def snn_epoch_end(self, run: Any) -> None:
            if run.epoch == 2:
                run.stop("enough")

    result = trainer(callbacks=[Stop()]).fit(samples(32), epochs=5)
    assert trainer().fit(samples(32), epochs=5, resume=result.folder) == result
    assert trainer().fit(samples(32), epochs=6, resume=result.folder).epochs == 6


def test_more_epochs_can_be_asked_for_where_the_schedule_has_no_end(trainer: Any, samples: Any) -> None:
    def make() -> Any:
        return trainer(schedule=StepDecay(5), deterministic=True)

    whole, first, second = make(), make(), make()
    whole.fit(samples(32), epochs=4)
    folder = first.fit(samples(32), epochs=2).folder
    assert second.fit(samples(32), epochs=4, resume=folder).epochs == 4
    assert torch.equal(flat(second.model), flat(whole.model))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 4}, "batch_size was 8 and is now 4"),
        ({"seed": 1}, "seed was 0 and is now 1"),
        ({"accumulation": 1}, "accumulation was 2 and is now 1"),
        ({"clip_norm": None}, "clip_norm was 1.0 and is now None"),
        ({"drop_last": False}, "drop_last was True and is now False"),
        ({"optimizer": SGD(lr=0.01)}, r"optimizer was Adam\(.* and is now SGD\("),
        ({"schedule": None}, r"schedule was Warmup\(.* and is now None"),
        ({"loss": lambda output, target: output.sum((0, 2))}, "loss was CountCrossEntropy"),
    ],
)
def test_other_settings_that_decide_the_weights_are_refused(
    job: Any, trainer: Any, network: Any, samples: Any, change: Dict[str, Any], message: str
) -> None:
    folder = interrupted(job, samples(70), samples(20, seed=1), 1)
    settings: Dict[str, Any] = {
        "schedule": Warmup(3, then=CosineDecay()),
        "accumulation": 2,
        "clip_norm": 1.0,
        "deterministic": True,
        **change,
    }
    before = (folder / "metrics.jsonl").read_bytes()
    with pytest.raises(ConfigError, match=message):
        trainer(model=network(dropout=0.3), **settings).fit(samples(70), samples(20, seed=1), epochs=3, resume=folder)
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_other_data_and_another_length_under_a_schedule_are_refused(job: Any, samples: Any) -> None:
    folder = interrupted(job, samples(70), samples(20, seed=1), 1)
    with pytest.raises(ConfigError, match="training samples was 70 and is now 64"):
        job().fit(samples(64), samples(20, seed=1), epochs=3, resume=folder)
    with pytest.raises(ConfigError, match="validation samples was 20 and is now None"):
        job().fit(samples(70), epochs=3, resume=folder)
    with pytest.raises(ConfigError, match="epochs was 3 and is now 4"):
        job().fit(samples(70), samples(20, seed=1), epochs=4, resume=folder)


class Several(EagerProgram):
    """Takes all optimiser steps of a call, one after the other."""

    def __init__(self, step: Any, optimizer: Any, batch: Any, train: Any, options: Any) -> None:
        super().__init__(step, optimizer, batch, replace(train, steps_per_call=1, precision="fp32"), options)
        self._together = train.steps_per_call

    def _samples_per_batch(self, training: bool) -> int:
        return super()._samples_per_batch(training) * (self._together if training else 1)

    def train_step(self, batch: Any) -> Report:
        x, target = batch
        size = len(x) // self._together
        reports = [super(Several, self).train_step(pair) for pair in zip(x.split(size), target.split(size))]
        return replace(reports[-1], optimizer_steps=len(reports))


class Device(EagerBackend):
    """One that offers what `eager` does not."""

    name = "device"
    capabilities = replace(EagerBackend.capabilities, steps_per_call=True, precisions=frozenset({"fp32", "fp16"}))

    def compile(self, step: Any, optimizer: Any, batch: Any, train: Any) -> Several:
        require_declared(self, step, optimizer, batch, train)
        return Several(step, optimizer, batch, train, self.options)


def test_a_run_goes_on_at_the_same_sample_where_a_device_takes_fewer_steps_at_once(trainer: Any, samples: Any) -> None:
    data = samples(70)  # 8 optimiser steps of an epoch, and a batch that is left out
    whole, other = trainer(deterministic=True), trainer(deterministic=True)
    whole.fit(data, epochs=2)
    settings = {"backend": Device(), "steps_per_call": 2, "precision": "fp16", "deterministic": True}
    with pytest.raises(TrainingInterrupted):
        trainer(**settings, log_every=1, callbacks=[InterruptAt(4)]).fit(data, epochs=2)
    folder = max(Path(other.settings.folder).iterdir(), key=lambda path: path.stat().st_mtime_ns)
    changed = "precision was fp16 and is now fp32; steps_per_call was 2 and is now 1"
    with pytest.warns(UserWarning, match=f"saved on the backend 'device' and goes on on 'eager' .*: {changed};"):
        other.fit(data, epochs=2, resume=folder)
    assert torch.equal(flat(other.model), flat(whole.model))


def test_a_run_does_not_go_on_where_more_steps_at_once_would_pass_over_its_place(trainer: Any, samples: Any) -> None:
    with pytest.raises(TrainingInterrupted):
        trainer(log_every=1, callbacks=[InterruptAt(3)]).fit(samples(70), epochs=1)
    other = trainer(backend=Device(), steps_per_call=2)
    (folder,) = Path(other.settings.folder).iterdir()
    changed = pytest.warns(UserWarning, match="steps_per_call was 1 and is now 2")
    with changed, pytest.raises(ConfigError, match=r"stands 3 optimiser steps .* a divisor of 3"):
        other.fit(samples(70), epochs=1, resume=folder)


def test_on_the_same_device_no_setting_may_change(trainer: Any, samples: Any) -> None:
    folder = trainer(backend=Device(), precision="fp16").fit(samples(16), epochs=1).folder
    with pytest.raises(ConfigError, match="precision was fp16 and is now fp32"):
        trainer(backend=Device()).fit(samples(16), epochs=2, resume=folder)


def test_another_model_is_refused_and_left_as_it_was(trainer: Any, network: Any, samples: Any) -> None:
    folder = trainer().fit(samples(16), epochs=1).folder
    other = network()
    other[1] = nn.Linear(6, 12, bias=False)
    before = flat(other)
    with pytest.raises(CheckpointError, match=r"another model: 1.bias was float32\[12\] and is now absent"):
        trainer(model=other).fit(samples(16), epochs=1, resume=folder)
    assert torch.equal(flat(other), before)


def test_settings_that_decide_nothing_may_change(job: Any, samples: Any) -> None:
    data, val = samples(70), samples(20, seed=1)
    whole = job()
    whole.fit(data, val, epochs=3)
    folder = interrupted(job, data, val, 5)
    changed = job(checkpoint_every=2, folder="elsewhere")
    changed.fit(data, val, epochs=3, resume=folder)
    assert torch.equal(flat(changed.model), flat(whole.model))
    assert not Path("elsewhere").exists()


def test_a_folder_without_a_run_is_refused(trainer: Any, samples: Any, tmp_path: Path) -> None:
    for folder, message in ((tmp_path / "none", "does not exist"), (tmp_path, "is no run folder")):
        with pytest.raises(RunFolderError, match=message):
            trainer().fit(samples(16), epochs=1, resume=folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", [0, 100, None])
def test_a_damaged_checkpoint_is_refused(trainer: Any, samples: Any, keep: Optional[int]) -> None:
    folder = trainer().fit(samples(16), epochs=1).folder
    last = folder / "checkpoints" / "last.safetensors"
    if keep is None:
        last.unlink()
    else:
        last.write_bytes(last.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"last\.safetensors"):
        trainer().fit(samples(16), epochs=1, resume=folder)


def test_lines_beyond_the_checkpoint_are_dropped_from_the_log(trainer: Any, samples: Any, tmp_path: Path) -> None:
    whole = trainer(log_every=1).fit(samples(32), epochs=2)
    first = trainer(log_every=1).fit(samples(32), epochs=1)
    killed = tmp_path / "killed"
    shutil.copytree(first.folder, killed)
    with (killed / "metrics.jsonl").open("a") as log:
        log.write('{"kind": "step", "epoch": 2, "step": 5, "lr": 1.0, "loss": 9.0}\n')
        log.write('{"kind": "epoch", "epoch": 2, "step": 8, "lr": 1.0}\n{"kind": "step", "epo')
    trainer(log_every=1).fit(samples(32), epochs=2, resume=killed)
    assert log_of(killed) == log_of(whole.folder)


def test_an_epochs_line_that_is_younger_than_the_checkpoint_is_dropped(job: Any, samples: Any) -> None:
    whole = job()
    expected = whole.fit(samples(70), samples(20, seed=1), epochs=3)
    folder = interrupted(job, samples(70), samples(20, seed=1), STEPS)  # before the validation of epoch 1
    with (folder / "metrics.jsonl").open("a") as log:
        log.write(json.dumps({"kind": "epoch", **expected.history[0]}) + "\n")
    job().fit(samples(70), samples(20, seed=1), epochs=3, resume=folder)
    assert log_of(folder) == log_of(expected.folder)


def test_load_weights_takes_the_best_or_the_last_epoch(trainer: Any, network: Any, samples: Any) -> None:
    subject = trainer()
    val = samples(30, seed=1)
    result = subject.fit(samples(64), val, epochs=3)
    for which, epoch in (("last", 3), ("best", result.best.epoch)):
        model = network()
        load_weights(model, result.folder, which)
        accuracy = trainer(model=model).evaluate(val)["accuracy"]
        assert accuracy == result.history[epoch - 1]["val_accuracy"]
    assert torch.equal(flat(subject.model), flat(_loaded(network(), result.folder / "checkpoints/last.safetensors")))
    with pytest.raises(CheckpointError, match="another model"):
        load_weights(nn.Linear(2, 2), result.folder)


def _loaded(model: nn.Module, path: Path) -> nn.Module:
    load_weights(model, path)
    return model


class Noisy(Dataset):
    """A dataset that augments: it draws from each of the streams that a user's code may draw from."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Any:
        x, label = self.inner[index]
        return x + 0.3 * (torch.randn(6) + random.random() + float(np.random.rand())), label


def test_what_a_dataset_draws_is_drawn_again_after_a_resume(trainer: Any, samples: Any) -> None:
    data = Noisy(samples(32))
    whole, first, second = (trainer(deterministic=True, log_every=1, callbacks=c) for c in ([], [InterruptAt(5)], []))
    whole.fit(data, epochs=2)
    with pytest.raises(TrainingInterrupted):
        first.fit(data, epochs=2)
    folder = max(Path(first.settings.folder).iterdir(), key=lambda path: path.stat().st_mtime_ns)
    second.fit(data, epochs=2, resume=folder)
    assert torch.equal(flat(second.model), flat(whole.model))
