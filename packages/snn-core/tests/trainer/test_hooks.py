"""When each hook is called, with what, and in which order."""

from typing import Any, Dict, List, Tuple

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from snn_core.containers import Sequential
from snn_core.errors import ConfigError
from snn_core.hookspecs import hookimpl
from snn_core.neurons import LIF
from snn_core.trainer import EarlyStopping


class Recorder:
    """Writes down each hook that it hears, with where the run stands."""

    def __init__(self) -> None:
        self.calls: List[Tuple[Any, ...]] = []

    @hookimpl
    def snn_run_start(self, run: Any) -> None:
        self.calls.append(("start", run.step))

    @hookimpl
    def snn_step_end(self, run: Any, report: Any, metrics: Dict[str, float]) -> None:
        assert metrics["loss"] == pytest.approx(report.loss.item())
        self.calls.append(("step", run.epoch, run.batch, run.step))

    @hookimpl
    def snn_epoch_end(self, run: Any, metrics: Dict[str, float]) -> None:
        assert run.history[-1] is metrics
        self.calls.append(("epoch", run.epoch, run.step))

    @hookimpl
    def snn_checkpoint(self, run: Any) -> None:
        self.calls.append(("checkpoint", len(run.history), run.batch, run.step))

    @hookimpl
    def snn_run_end(self, run: Any, result: Any) -> None:
        assert result.steps == run.step
        self.calls.append(("end", run.epoch))

    @hookimpl
    def snn_save_state(self, run: Any) -> Dict[str, Any]:
        return {"recorder": len(self.calls)}

    @hookimpl
    def snn_load_state(self, run: Any, state: Dict[str, Any]) -> None:
        self.calls.append(("load", state["recorder"]))


def test_hooks_are_called_in_this_order(trainer: Any, samples: Any) -> None:
    recorder = Recorder()
    trainer(callbacks=[recorder], log_every=2, checkpoint_every=2).fit(samples(24), epochs=2)
    assert recorder.calls == [
        ("start", 0),
        ("checkpoint", 0, 0, 0),
        ("step", 1, 2, 2),
        ("checkpoint", 0, 2, 2),
        ("epoch", 1, 3),
        ("checkpoint", 1, 0, 3),
        ("step", 2, 1, 4),
        ("checkpoint", 1, 1, 4),
        ("step", 2, 3, 6),
        ("checkpoint", 1, 3, 6),
        ("epoch", 2, 6),
        ("checkpoint", 2, 0, 6),
        ("end", 2),
    ]


def test_a_resumed_run_hands_each_plugin_its_state_before_the_first_step(trainer: Any, samples: Any) -> None:
    folder = trainer(callbacks=[Recorder()]).fit(samples(24), epochs=1).folder
    recorder = Recorder()
    trainer(callbacks=[recorder], log_every=10).fit(samples(24), epochs=2, resume=folder)
    # the last checkpoint of the first run was written after start, checkpoint, epoch and its own call
    assert recorder.calls == [("start", 3), ("load", 4), ("epoch", 2, 6), ("checkpoint", 2, 0, 6), ("end", 2)]


def test_a_chunked_step_logs_whenever_it_passes_a_multiple(trainer: Any) -> None:
    recorder = Recorder()
    data = TensorDataset(torch.rand(16, 6, 5), torch.arange(16) % 3)  # 3 chunks of 2 steps
    model = Sequential(nn.Linear(5, 3), LIF())
    result = trainer(
        model=model, batch_size=4, chunk=2, time_axis=1, log_every=4, checkpoint_every=None, callbacks=[recorder]
    ).fit(data, epochs=1)
    assert result.steps == 12
    assert [call for call in recorder.calls if call[0] == "step"] == [
        ("step", 1, 2, 6),
        ("step", 1, 3, 9),
        ("step", 1, 4, 12),
    ]


def test_callbacks_are_called_in_the_order_given_and_before_the_trainers_own(trainer: Any, samples: Any) -> None:
    order: List[str] = []

    class Named:
        def __init__(self, name: str) -> None:
            self.name = name

        @hookimpl
        def snn_epoch_end(self, metrics: Dict[str, float]) -> None:
            order.append(self.name)
            metrics[self.name] = 1.0

    result = trainer(callbacks=[Named("a"), Named("b"), Named("c")]).fit(samples(16), epochs=1)
    assert order == ["a", "b", "c"]
    assert '"a": 1.0, "b": 1.0, "c": 1.0' in (result.folder / "metrics.jsonl").read_text()
    assert result.history[0]["b"] == 1.0


def test_a_number_of_another_library_becomes_a_plain_one(trainer: Any, samples: Any) -> None:
    class Add:
        @hookimpl
        def snn_epoch_end(self, metrics: Dict[str, Any]) -> None:
            metrics["mine"] = np.float32(0.5)

    result = trainer(callbacks=[Add()]).fit(samples(16), epochs=1)
    assert type(result.history[0]["mine"]) is float


def test_a_value_that_is_no_number_is_refused_in_the_metrics(trainer: Any, samples: Any) -> None:
    class Wrong:
        @hookimpl
        def snn_epoch_end(self, metrics: Dict[str, Any]) -> None:
            metrics["mine"] = [1.0]

    with pytest.raises(ConfigError, match=r"a callback put 'mine' = \[1.0\] \(list\) into the epoch's metrics"):
        trainer(callbacks=[Wrong()]).fit(samples(16), epochs=1)


def test_run_stop_ends_training_after_the_epoch(trainer: Any, samples: Any) -> None:
    class Stop:
        @hookimpl
        def snn_step_end(self, run: Any) -> None:
            run.stop("enough")
            run.stop("too late")

    result = trainer(callbacks=[Stop()], log_every=1).fit(samples(24), epochs=5)
    assert (result.epochs, result.steps, result.stopped) == (1, 3, "enough")


def test_on_exit_is_called_however_the_run_ends(trainer: Any, samples: Any) -> None:
    left: List[str] = []

    class Leaving:
        def __init__(self, fail: bool) -> None:
            self.fail = fail

        @hookimpl
        def snn_run_start(self, run: Any) -> None:
            run.on_exit(lambda: left.append("left"))

        @hookimpl
        def snn_epoch_end(self) -> None:
            if self.fail:
                raise RuntimeError("a plugin failed")

    trainer(callbacks=[Leaving(False)]).fit(samples(16), epochs=1)
    with pytest.raises(RuntimeError, match="a plugin failed"):
        trainer(callbacks=[Leaving(True)]).fit(samples(16), epochs=1)
    assert left == ["left", "left"]


def test_two_callbacks_cannot_save_under_one_key(trainer: Any, samples: Any) -> None:
    with pytest.raises(ConfigError, match="two callbacks save their state under the key 'recorder'"):
        trainer(callbacks=[Recorder(), Recorder()]).fit(samples(16), epochs=1)


def losses(values: List[float], stop: EarlyStopping) -> int:
    """After how many epochs `stop` ends a run with these validation losses; 0 for never."""

    class Fake:
        stopped = ""
        val = object()

        def stop(self, reason: str) -> None:
            self.stopped = reason

    run = Fake()
    stop.snn_run_start(run)  # type: ignore[arg-type]
    for epoch, value in enumerate(values, start=1):
        stop.snn_epoch_end(run, {"val_loss": value, "val_accuracy": -value})  # type: ignore[arg-type]
        if run.stopped:
            return epoch
    return 0


@pytest.mark.parametrize(
    ("stop", "values", "epoch"),
    [
        (EarlyStopping(patience=2), [3, 2, 1, 1, 1, 0], 5),
        (EarlyStopping(patience=2), [3, 4, 2, 3, 1, 2, 0], 0),
        (EarlyStopping(patience=1), [1, 1], 2),
        (EarlyStopping(patience=2, min_delta=0.5), [3, 2.6, 2.4, 2, 1.95], 5),
        (EarlyStopping("val_accuracy", patience=2), [3, 2, 1, 1, 1], 5),
        (EarlyStopping("val_loss", patience=2, mode="max"), [1, 2, 3, 2, 1], 5),
    ],
)
def test_early_stopping_waits_for_patience_epochs_without_a_better_value(
    stop: EarlyStopping, values: List[float], epoch: int
) -> None:
    assert losses(values, stop) == epoch
    assert losses(values, stop) == epoch  # a second run starts anew


def test_early_stopping_names_the_nearest_metric(trainer: Any, samples: Any) -> None:
    with pytest.raises(ConfigError, match=r"monitors 'val_los' \(did you mean 'val_loss'\?\)"):
        trainer(callbacks=[EarlyStopping("val_los")]).fit(samples(16), samples(8), epochs=1)
    with pytest.raises(ConfigError, match=r"give fit\(val=\.\.\.\)"):
        trainer(callbacks=[EarlyStopping()]).fit(samples(16), epochs=1)


@pytest.mark.parametrize("wrong", [{"patience": 0}, {"patience": 1.5}, {"mode": "low"}, {"min_delta": -1.0}])
def test_early_stopping_refuses_settings_out_of_range(wrong: Dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"EarlyStopping.{next(iter(wrong))} is"):
        EarlyStopping(**wrong)
