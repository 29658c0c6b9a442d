"""The report's plots, in the house look: each function draws one figure from plain values."""

from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from torch import Tensor

from snn_core.figures import FIRST, SECOND, house_style, new_figure
from snn_metrics.report.counts import LayerCounts
from snn_metrics.report.history import History, TermInfo, Tradeoff
from snn_metrics.report.numbers import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_losses", "plot_raster", "plot_rates", "plot_synops", "plot_tradeoff"]

_COLORS = (FIRST, SECOND, "#2a8c5a", "#8a4fa3", "#a8a125", "#5b5b5b", "#c2497a", "#3aa5b8")
_TARGET = "#5b5b5b"
_MOST_PATHS = 5000
_TALLEST_INCHES = 24.0
_PARTS = ("step", "train_", "val_")
Points = List[Tuple[int, float]]


def plot_losses(history: History) -> "Figure":
    """The task's loss with what the terms add to it, and what each term measured, over optimiser steps, on log scales.

    Budgets are dashed lines.
    """
    panels = [TermInfo("loss", "loss (mean per sample)", {}), *history.terms]
    columns = min(len(panels), 2)
    rows = -(-len(panels) // columns)
    with house_style():
        figure = new_figure(5.0 * columns, 3.5 * rows)
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, info in zip(grid, panels):
            _draw_measure(axes, info, history)
        for axes in grid[len(panels) :]:
            axes.set_visible(False)
    return figure


def _draw_measure(axes: "Axes", info: TermInfo, history: History) -> None:
    names = _series(info.name, history)
    shown = names[: len(_COLORS)]
    for name, color in zip(shown, _COLORS):
        if len(names) == 1:
            _draw_whole(axes, name, info, history)
        else:
            _draw_part(axes, name, info, history, color)
    title = "Task loss" if info.name == "loss" else f"Term {info.name}"
    if info.name == "loss":
        # no logarithm shows a budget that is kept: its penalty is 0
        penalties = [(step, value) for step, value in _points(history, "penalty", "step") if value > 0]
        _draw_points(axes, penalties, _COLORS[2], "penalty of the terms, single steps", single=True)
        title += " and penalty" if penalties else ""
    axes.set_title(title if len(shown) == len(names) else f"{title}, {len(shown)} of {len(names)} parts")
    axes.set_xlabel("optimiser step")
    axes.set_ylabel(info.unit)
    drawn = [value for name in shown for part in _PARTS for _, value in _points(history, name, part)]
    if any(value > 0 for value in drawn):
        _log_scale(axes)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=9)


def _draw_whole(axes: "Axes", name: str, info: TermInfo, history: History) -> None:
    _draw_points(axes, _points(history, name, "step"), FIRST, "training, single steps", single=True)
    _draw_points(axes, _points(history, name, "train_"), FIRST, "training")
    _draw_points(axes, _points(history, name, "val_"), SECOND, "validation")
    if name in info.targets:
        target = info.targets[name]
        axes.axhline(target, color=_TARGET, linestyle="--", linewidth=1.2, label=f"budget {count(target)}")


def _draw_part(axes: "Axes", name: str, info: TermInfo, history: History, color: str) -> None:
    _draw_points(axes, _points(history, name, "step"), color, "", single=True)
    validation = _points(history, name, "val_")
    _draw_points(axes, validation or _points(history, name, "train_"), color, name[len(info.name) + 1 :])
    if name in info.targets:
        axes.axhline(info.targets[name], color=color, linestyle="--", linewidth=1.2)


def _series(name: str, history: History) -> List[str]:
    """The measure's names in the log: its own, or one for each part."""
    keys: Dict[str, None] = {}
    for line in history.steps:
        keys.update(dict.fromkeys(line))
    for line in history.epochs:
        keys.update(dict.fromkeys(key[6:] for key in line if key.startswith("train_")))
    return [key for key in keys if key == name or key.startswith(f"{name}.")]


def _points(history: History, name: str, part: str) -> Points:
    lines, key = (history.steps, name) if part == "step" else (history.epochs, f"{part}{name}")
    return [(line["step"], line[key]) for line in lines if line.get(key) is not None]


def _draw_points(axes: "Axes", points: Points, color: str, label: str, *, single: bool = False) -> None:
    if points and single:
        axes.plot(*zip(*points), color=color, alpha=0.3, linewidth=1.0, label=label)
    elif points:
        axes.plot(*zip(*points), color=color, marker="o", markersize=4, label=label)


def plot_synops(before: Sequence[LayerCounts], after: Sequence[LayerCounts]) -> "Figure":
    """Synaptic operations of a sample, layer by layer, before and after training."""
    with house_style():
        figure = new_figure(8.0, 1.4 + 0.55 * len(after))
        axes = figure.subplots()
        for rows, shift, color, label in (
            (before, -0.2, "#a9bfd9", "before training"),
            (after, 0.2, FIRST, "after training"),
        ):
            values = [row.synops_per_sample for row in rows]
            bars = axes.barh(
                [index + shift for index in range(len(rows))], values, height=0.36, color=color, label=label
            )
            axes.bar_label(bars, [count(value) for value in values], padding=3, fontsize=9)
        axes.set_yticks(range(len(after)), [f"{row.layer}: {row.kind.split()[0].rstrip(',')}" for row in after])
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.xaxis.set_major_formatter(_counts())
        axes.set_xlabel("synops_per_sample")
        axes.set_ylabel("layer")
        axes.grid(axis="y", visible=False)
        axes.set_title("Synaptic operations by layer")
        figure.legend(loc="outside lower right", ncols=2, fontsize=9)
    return figure


def plot_rates(rates: Mapping[str, Tensor], samples: int) -> "Figure":
    """How firing rates are spread over the neurons of each layer. rates: mean |output| of a neuron in a step."""
    columns = min(len(rates), 3)
    rows = -(-len(rates) // columns)
    with house_style():
        figure = new_figure(max(4.2 * columns, 5.0), 3.0 * rows)
        grid = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (name, values) in zip(grid, rates.items()):
            silent = int((values == 0).sum())
            axes.hist(values.tolist(), bins=30, color=FIRST)
            axes.axvline(float(values.mean()), color=SECOND, linewidth=1.5, label=f"mean {float(values.mean()):.3g}")
            axes.set_title(f"layer {name}: {len(values):,} neurons, {silent:,} silent", fontsize=10)
            axes.set_xlabel("spikes a neuron and step")
            axes.set_ylabel("neurons")
            axes.set_xlim(left=0)
            axes.yaxis.get_major_locator().set_params(integer=True)
            axes.legend(fontsize=9)
        for axes in grid[len(rates) :]:
            axes.set_visible(False)
        figure.suptitle(f"Firing rates, mean over {samples:,} samples", x=0.01, ha="left", fontsize=11)
    return figure


def plot_raster(raster: Mapping[str, Tensor], title: str, most: int = 100) -> "Figure":
    """What every neuron layer sent for one sample, `[T, neurons]` each; of a large layer `most` neurons."""
    heights = [max(1.0, min(spikes.shape[1], most) / 40) for spikes in raster.values()]
    room = min(1.0, _TALLEST_INCHES / sum(heights))
    heights = [room * height for height in heights]
    with house_style():
        figure = new_figure(9.0, 0.8 + sum(heights) + 0.45 * len(heights))
        grid = figure.subplots(len(raster), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})
        for axes, (name, spikes) in zip(grid[:, 0], raster.items()):
            _draw_raster(axes, name, spikes, _chosen(spikes, most))
        grid[-1, 0].set_xlabel("time (steps)")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure


def _chosen(spikes: Tensor, most: int) -> List[int]:
    neurons = spikes.shape[1]
    # not every k-th: in a convolution that is a pattern of places, such as one column of every image
    generator = torch.Generator().manual_seed(0)
    return sorted(torch.randperm(neurons, generator=generator)[:most].tolist())


def _draw_raster(axes: "Axes", name: str, spikes: Tensor, chosen: Sequence[int]) -> None:
    time, row = spikes[:, list(chosen)].nonzero(as_tuple=True)
    width = min(3.0, max(0.8, 150.0 / len(spikes)))
    # so many marks would be megabytes of paths, and take a browser seconds
    pixels = len(time) > _MOST_PATHS
    ends = (row - 0.5).tolist(), (row + 0.5).tolist()
    axes.vlines(time.tolist(), *ends, color=FIRST, linewidth=width, rasterized=pixels)
    axes.set_xlim(-0.5, len(spikes) - 0.5)
    axes.set_ylim(-0.5, len(chosen) - 0.5)
    axes.locator_params(axis="x", integer=True)
    axes.locator_params(axis="y", integer=True, nbins=4)
    axes.grid(visible=False)
    axes.set_ylabel("neuron")
    total = spikes.shape[1]
    part = f"{total:,} neurons" if len(chosen) == total else f"{len(chosen)} of {total:,} neurons, drawn at random"
    axes.set_title(f"layer {name}: {part}, {int((spikes != 0).sum()):,} spikes in all", fontsize=10)


def plot_tradeoff(runs: Sequence[Tradeoff]) -> "Figure":
    """Accuracy against synaptic operations of a sample: each run's epochs as a line, what was counted as a star."""
    with house_style():
        figure = new_figure(7.5, 4.2)
        axes = figure.subplots()
        for index, run in enumerate(runs):
            color = _COLORS[index % len(_COLORS)]
            if run.course:
                epochs, synops, accuracy = zip(*run.course)
                axes.plot(synops, [100 * a for a in accuracy], color=color, marker="o", markersize=4, linewidth=1.2)
                _label_ends(axes, epochs, synops, accuracy, color)
            axes.plot(
                [run.end[0]], [100 * run.end[1]], color=color, marker="*", markersize=14, linestyle="", label=run.run
            )
        axes.xaxis.set_major_formatter(_counts())
        axes.margins(x=0.08, y=0.12)
        axes.set_xlabel("synops_per_sample")
        axes.set_ylabel("accuracy (%)")
        axes.set_title("Accuracy against synaptic operations")
        axes.legend(fontsize=9)
    return figure


def _label_ends(
    axes: "Axes", epochs: Sequence[int], synops: Sequence[float], accuracy: Sequence[float], color: str
) -> None:
    for index in sorted({0, len(epochs) - 1}):
        place = (synops[index], 100 * accuracy[index])
        axes.annotate(f"epoch {epochs[index]}", place, (6, -12), textcoords="offset points", fontsize=9, color=color)


def _counts() -> Any:
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, position: _short(value))


def _log_scale(axes: "Axes") -> None:
    """A logarithmic y axis with numbers as people write them; where a decade is all there is, between its ends too."""
    from matplotlib.ticker import LogFormatter

    class Plain(LogFormatter):
        def __call__(self, x: float, pos: Optional[int] = None) -> str:
            return _short(x) if super().__call__(x, pos) else ""

    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(Plain(labelOnlyBase=False))
    axes.yaxis.set_minor_formatter(Plain(labelOnlyBase=False, minor_thresholds=(1.3, 0.5)))


def _short(value: float) -> str:
    """A tick: 0.02, 40,000 or 3e6."""
    if 0 < abs(value) < 1e4:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    digits, marker, exponent = count(value).partition("e")
    return f"{float(digits):g}e{exponent}" if marker else digits
