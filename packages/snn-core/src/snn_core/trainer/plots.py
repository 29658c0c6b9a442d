"""Plots of a finished run, as PNG files in RUN/plots: the curves, and what the network fired for one sample."""

from pathlib import Path
from typing import TYPE_CHECKING, Dict, Mapping, Optional, Sequence, Tuple

import torch
from torch import Tensor

from snn_core.figures import FIRST, SECOND, house_style, new_figure
from snn_core.hookspecs import hookimpl
from snn_core.losses import Loss, WeightedSum
from snn_core.trainer.evaluation import predict
from snn_core.trainer.folder import writing
from snn_core.trainer.logs import read_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from snn_core.trainer.run import Run, RunResult

__all__ = ["Plots", "plot_curves", "plot_output"]


class Plots:
    """Draws RUN/plots/curves.png and RUN/plots/output.png when the run ends."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @hookimpl(trylast=True)
    def snn_run_end(self, run: "Run", result: "RunResult") -> None:
        figures = {}
        if result.history:
            logged = [(line["step"], line) for line in read_log(self._folder, "step")]
            figures["curves"] = plot_curves(result.history, logged, run.plan.steps)
        data = run.plan.train if run.val is None else run.val
        name = "training" if run.val is None else "validation"
        output, target = predict(run.program, data, [0])[:, 0], torch.as_tensor(data[0][1])
        classes = bool(result.history) and "train_accuracy" in result.history[-1]
        label = int(target) if classes and target.numel() == 1 else None
        figures["output"] = plot_output(output, f"{name} sample 0", label, _population(run.plan.loss))
        for stem, figure in figures.items():
            path = self._folder / "plots" / f"{stem}.png"
            with writing(path):
                figure.savefig(path, dpi=150)


def plot_curves(
    history: Sequence[Mapping[str, float]], logged: Sequence[Tuple[int, Dict[str, float]]], steps_per_epoch: int
) -> "Figure":
    """Loss and, where there is one, accuracy over epochs. logged: (optimiser step, values) of single training steps."""
    names = [name for name in ("loss", "accuracy") if f"train_{name}" in history[-1]]
    with house_style():
        figure = new_figure(5.0 * len(names), 3.6)
        for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names):
            _draw_curve(axes, name, history, logged, steps_per_epoch)
    return figure


def _draw_curve(
    axes: "Axes",
    name: str,
    history: Sequence[Mapping[str, float]],
    logged: Sequence[Tuple[int, Dict[str, float]]],
    steps_per_epoch: int,
) -> None:
    scale = 100.0 if name == "accuracy" else 1.0
    single = [(step / steps_per_epoch, scale * values[name]) for step, values in logged if values.get(name) is not None]
    if single:
        axes.plot(*zip(*single), color=FIRST, alpha=0.3, linewidth=1.0, label="training, single steps")
    for part, color, label in (("train", FIRST, "training"), ("val", SECOND, "validation")):
        points = [(m["epoch"], scale * m[f"{part}_{name}"]) for m in history if f"{part}_{name}" in m]
        if points:
            axes.plot(*zip(*points), color=color, marker="o", markersize=4, label=label)
    axes.set_title(name.capitalize())
    axes.set_xlabel("epoch")
    axes.set_ylabel("accuracy (%)" if name == "accuracy" else "loss (mean per sample)")
    axes.locator_params(axis="x", integer=True)
    axes.set_xlim(0 if single else min(m["epoch"] for m in history) - 0.5, history[-1]["epoch"] + 0.5)
    axes.legend()


def _population(loss: Loss) -> int:
    """How many output neurons a class has under `loss`, or under the part of a sum that has classes."""
    parts = [part for _, part in loss.parts] if isinstance(loss, WeightedSum) else [loss]
    return next((part.population for part in parts if hasattr(part, "population")), 1)


def plot_output(output: Tensor, title: str, label: Optional[int] = None, population: int = 1) -> "Figure":
    """What the output layer did for one sample. output: `[T, ...]`, spikes or values.

    Left: a raster of spikes, or an image of values, over time. Right: each neuron's count, or mean value. The neurons
    of the class `label` are marked, `population` of them.
    """
    values = output.detach().float().flatten(1)
    spikes = bool(((values == 0) | (values == 1)).all())
    marked = range(0) if label is None else range(label * population, (label + 1) * population)
    with house_style():
        figure = new_figure(9.0, max(3.2, min(1.4 + 0.22 * values.shape[1], 8.0)))
        left, right = figure.subplots(1, 2, sharey=True, gridspec_kw={"width_ratios": [3, 1]})
        if spikes:
            time, neuron = values.nonzero(as_tuple=True)
            width = min(3.0, max(0.8, 150.0 / len(values)))
            left.vlines(time.tolist(), (neuron - 0.35).tolist(), (neuron + 0.35).tolist(), color=FIRST, linewidth=width)
        else:
            image = left.imshow(values.t().tolist(), aspect="auto", origin="lower", interpolation="nearest")
            figure.colorbar(image, ax=left, label="output (dimensionless)")
        _finish_output(left, right, values, spikes, marked)
        heading = f"Output layer, {title}" + ("" if label is None else f", label {label}")
        figure.suptitle(heading, x=0.01, ha="left", fontsize=11)
    return figure


def _finish_output(left: "Axes", right: "Axes", values: Tensor, spikes: bool, marked: range) -> None:
    steps, neurons = values.shape
    totals = (values.sum(0) if spikes else values.mean(0)).tolist()
    colors = [SECOND if index in marked else FIRST for index in range(neurons)]
    right.barh(range(neurons), totals, color=colors, height=0.7)
    right.set_xlabel("spikes" if spikes else "mean output")
    left.set_xlim(-0.5, steps - 0.5)
    left.set_ylim(-0.5, neurons - 0.5)
    left.set_xlabel("time (steps)")
    left.set_ylabel("output neuron")
    left.locator_params(integer=True)
    left.grid(visible=False)
    right.grid(axis="y", visible=False)
    if neurons <= 20:
        left.set_yticks(range(neurons))
    if marked and spikes:  # over an image the colour would change what the image says
        left.axhspan(marked.start - 0.5, marked.stop - 0.5, color=SECOND, alpha=0.15, linewidth=0)
