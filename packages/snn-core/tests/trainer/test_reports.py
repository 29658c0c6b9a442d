"""What a run shows and writes for people: the log, the bar, the plots."""

import importlib.util
import io
import json
import re
from pathlib import Path
from typing import Any, List

import matplotlib
import pytest
import torch
from matplotlib.text import Text
from rich.console import Console

from snn_core.eager import EagerBackend, EagerProgram
from snn_core.errors import ConfigError
from snn_core.figures import house_style, new_figure
from snn_core.hookspecs import hookimpl
from snn_core.registry import load
from snn_core.trainer import TensorBoard
from snn_core.trainer.logs import read_log
from snn_core.trainer.plots import plot_curves, plot_output
from snn_core.trainer.progress import ProgressBar


def lines_of(folder: Path, kind: str) -> List[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def test_the_log_has_a_line_for_each_interval_and_each_epoch(trainer: Any, samples: Any) -> None:
    result = trainer(log_every=2).fit(samples(40), samples(9), epochs=2)
    steps, epochs = lines_of(result.folder, "step"), lines_of(result.folder, "epoch")
    assert [(line["epoch"], line["step"]) for line in steps] == [(1, 2), (1, 4), (2, 6), (2, 8), (2, 10)]
    assert all({"lr", "loss", "accuracy"} <= set(line) for line in steps)
    assert epochs == [{"kind": "epoch", **metrics} for metrics in result.history]
    assert set(epochs[0]) == {
        "kind",
        "epoch",
        "step",
        "lr",
        "train_loss",
        "train_accuracy",
        "val_loss",
        "val_accuracy",
        "seconds",
    }


def test_summary_and_settings_tell_the_run(trainer: Any, samples: Any) -> None:
    result = trainer(seed=7).fit(samples(16), samples(9), epochs=2)
    summary = json.loads((result.folder / "summary.json").read_text())
    settings = json.loads((result.folder / "settings.json").read_text())
    assert summary["epochs"] == 2
    assert summary["last"] == result.history[-1]
    assert summary["best"] == {"epoch": result.best.epoch, "metric": "val_accuracy", "value": result.best.value}
    assert settings["settings"]["seed"] == 7
    assert settings["identity"]["run"]["optimizer"].startswith("Adam(lr=0.01")
    assert settings["versions"]["torch"] == torch.__version__


def test_what_json_cannot_hold_is_logged_as_null(trainer: Any, samples: Any) -> None:
    class Infinite:
        @hookimpl
        def snn_epoch_end(self, metrics: dict) -> None:
            metrics["mine"] = float("inf")

    result = trainer(callbacks=[Infinite()]).fit(samples(16), epochs=1)
    assert lines_of(result.folder, "epoch")[0]["mine"] is None


def test_tensorboard_is_written_where_it_is_installed_and_named_where_it_is_not(trainer: Any, samples: Any) -> None:
    subject = trainer(callbacks=[TensorBoard()], log_every=1)
    if importlib.util.find_spec("tensorboard") is None:
        with pytest.raises(ConfigError, match="pip install tensorboard"):
            subject.fit(samples(16), epochs=1)
        return
    result = subject.fit(samples(16), samples(9), epochs=2)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(result.folder / "tensorboard")).Reload()
    found = [(event.step, event.value) for event in events.Scalars("epoch/val_loss")]
    assert found == [(m["step"], pytest.approx(m["val_loss"])) for m in result.history]
    assert [event.step for event in events.Scalars("step/loss")] == [1, 2, 3, 4]


def test_tensorboard_needs_a_run_folder(trainer: Any, samples: Any) -> None:
    with pytest.raises(ConfigError, match="needs a run folder"):
        trainer(callbacks=[TensorBoard()], folder=None).fit(samples(16), epochs=1)


def test_a_backend_by_name_is_told_with_the_options_that_it_was_asked_for(
    trainer: Any, samples: Any, capsys: Any
) -> None:
    backend = load("eager", {"device": "cpu", "num_workers": 0})
    trainer(backend=backend, progress=True).fit(samples(16), epochs=1)
    line = capsys.readouterr().out.splitlines()[0]
    assert line.endswith("): asked for by name with device='cpu', num_workers=0")


def test_without_a_terminal_there_is_one_line_an_epoch(trainer: Any, samples: Any, capsys: Any) -> None:
    result = trainer(progress=True).fit(samples(16), samples(9), epochs=3)
    lines = capsys.readouterr().out.splitlines()
    assert re.match(r"backend eager \(torch .* on cpu, 1 threads\): given as an object", lines[0])
    assert lines[1] == f"run folder {result.folder}"
    assert [line.split("  ")[0] for line in lines[2:5]] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert f"val_accuracy {100 * result.history[2]['val_accuracy']:.2f} %" in lines[4]
    assert lines[5].startswith("best: val_accuracy")
    assert len(lines) == 6


def test_no_progress_prints_nothing(trainer: Any, samples: Any, capsys: Any) -> None:
    trainer().fit(samples(16), epochs=1)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""


def test_a_terminal_shows_a_bar_with_epoch_step_loss_and_accuracy(trainer: Any, samples: Any) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, color_system=None, highlight=False)
    trainer(callbacks=[ProgressBar(console)], log_every=1).fit(samples(64), samples(9), epochs=2)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    bars = [line for line in re.split(r"[\r\n]+", shown) if "step" in line and "/16" in line]
    assert re.search(
        r"epoch 2/2 ━+ step 16/16 (val_)?loss [\d.e-]+  accuracy [\d.]+ %", bars[-1].replace("val_acc", "acc")
    )
    assert all(len(bar) <= 80 for bar in bars)
    assert screen.getvalue().endswith("\n")


def test_plots_are_drawn_when_the_run_ends(trainer: Any, samples: Any) -> None:
    folder = trainer(plots=True, log_every=1).fit(samples(32), samples(9), epochs=2).folder
    for name in ("curves.png", "output.png"):
        content = (folder / "plots" / name).read_bytes()
        assert content.startswith(b"\x89PNG")
        assert len(content) > 5000


def history(epochs: int) -> List[dict]:
    return [
        {
            "epoch": e,
            "train_loss": 2.0 / e,
            "val_loss": 2.5 / e,
            "train_accuracy": 1 - 0.5 / e,
            "val_accuracy": 1 - 0.6 / e,
        }
        for e in range(1, epochs + 1)
    ]


def test_the_curves_are_the_historys_numbers_with_labelled_axes() -> None:
    figure = plot_curves(history(3), [(5, {"loss": 1.9, "accuracy": 0.4}), (10, {"loss": 1.0})], steps_per_epoch=10)
    loss, accuracy = figure.axes
    drawn = {line.get_label(): line.get_xydata().tolist() for line in loss.get_lines()}
    assert drawn["validation"] == [[1, 2.5], [2, 1.25], [3, pytest.approx(2.5 / 3)]]
    assert drawn["training, single steps"] == [[0.5, 1.9], [1.0, 1.0]]
    assert accuracy.get_lines()[-1].get_ydata().tolist() == pytest.approx([40, 70, 80])
    assert (loss.get_xlabel(), loss.get_ylabel()) == ("epoch", "loss (mean per sample)")
    assert accuracy.get_ylabel() == "accuracy (%)"


def test_a_loss_without_accuracy_has_one_panel() -> None:
    values = [{"epoch": 1, "train_loss": 1.0}]
    assert len(plot_curves(values, [], 10).axes) == 1


def test_the_raster_marks_exactly_the_spikes_and_counts_them() -> None:
    generator = torch.Generator().manual_seed(0)
    spikes = (torch.rand(12, 4, generator=generator) < 0.3).float()
    figure = plot_output(spikes, "validation sample 0", label=1, population=2)
    raster, counts = figure.axes
    marks = sorted((path[0][0], path[:, 1].mean()) for path in raster.collections[0].get_segments())
    assert [(int(t), round(float(n))) for t, n in marks] == [tuple(at) for at in spikes.nonzero().tolist()]
    assert [bar.get_width() for bar in counts.patches] == spikes.sum(0).tolist()
    assert raster.get_xlabel() == "time (steps)"
    colors = [bar.get_facecolor() for bar in counts.patches]
    assert colors[2] == colors[3] != colors[0] == colors[1]  # class 1 of two neurons each
    (heading,) = [text.get_text() for text in figure.findobj(Text) if "sample" in text.get_text()]
    assert heading == "Output layer, validation sample 0, label 1"


@pytest.mark.parametrize("shape", [(6, 3), (6, 2, 3, 3), (1, 1), (6, 40)])
def test_outputs_that_are_no_spikes_are_drawn_as_an_image(shape: tuple) -> None:
    values = torch.linspace(-1, 2, int(torch.tensor(shape).prod())).reshape(shape)
    figure = plot_output(values, "training sample 0")
    image = figure.axes[0].images[0]
    assert image.get_array().shape == (int(torch.tensor(shape[1:]).prod()), shape[0])
    figure.savefig(io.BytesIO())


def test_a_log_is_read_by_kind_without_the_line_that_a_killed_process_left(tmp_path: Path) -> None:
    assert read_log(tmp_path, "step") == []
    lines = ['{"kind": "step", "step": 1, "loss": null}', '{"kind": "epoch", "epoch": 1}', '{"kind": "step", "st']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines), encoding="utf-8")
    assert read_log(tmp_path, "step") == [{"kind": "step", "step": 1, "loss": None}]
    assert read_log(tmp_path, "epoch") == [{"kind": "epoch", "epoch": 1}]


def test_the_house_style_leaves_matplotlib_s_settings_as_they_were() -> None:
    before = dict(matplotlib.rcParams)
    with house_style():
        assert not matplotlib.rcParams["axes.spines.top"]
        assert new_figure(4.0, 3.0).get_size_inches().tolist() == [4.0, 3.0]
    assert dict(matplotlib.rcParams) == before


class Talking(EagerBackend):
    def compile(self, step: Any, optimizer: Any, batch: Any, train: Any) -> EagerProgram:
        program = super().compile(step, optimizer, batch, train)
        program.summary = "two kernels"
        return program


@pytest.mark.parametrize(("backend", "said"), [(Talking(), True), (EagerBackend(), False)])
def test_a_run_begins_with_what_its_program_says_of_itself(
    trainer: Any, samples: Any, capsys: pytest.CaptureFixture, backend: EagerBackend, said: bool
) -> None:
    trainer(progress=True, backend=backend).fit(samples(16), epochs=1)
    assert ("compiled: two kernels\n" in capsys.readouterr().out) is said
