"""The plots, drawn of real runs: what stands on their axes is what was measured."""

import dataclasses
import io
from typing import Any, Dict, List

import pytest
import torch

from snn_core.cli.trained import Trained, load_trained
from snn_metrics.report import Activity, SynOpsReport, count_operations, watch
from snn_metrics.report.history import History, Tradeoff, read_history, synops_course
from snn_metrics.report.page import inline
from snn_metrics.report.plots import plot_losses, plot_raster, plot_rates, plot_synops, plot_tradeoff

SAMPLES, STEPS = 70, 6


@pytest.fixture(scope="module")
def found(runs: Any) -> Trained:
    return load_trained(str(runs.budget), with_terms=False)


@pytest.fixture(scope="module")
def report(found: Trained) -> SynOpsReport:
    return count_operations(found.trainer, found.data)


@pytest.fixture(scope="module")
def history(found: Trained) -> History:
    return read_history(found.run, found.config)


@pytest.fixture(scope="module")
def activity(found: Trained) -> Activity:
    return watch(found.trainer, found.data)


def drawn(figure: Any) -> None:
    """The figure can be drawn, as it will be: a warning would be an error here."""
    figure.savefig(io.BytesIO(), format="svg")


def title(axes: Any) -> str:
    return axes.get_title(loc="left")


def lines_of(axes: Any) -> Dict[str, List[float]]:
    return {str(line.get_label()): list(line.get_ydata()) for line in axes.get_lines()}


def test_losses_show_the_task_and_every_term_on_log_scales(history: History) -> None:
    figure = plot_losses(history)
    drawn(figure)
    panels = {title(axes): axes for axes in figure.axes}
    assert list(panels) == ["Task loss and penalty", "Term synops_budget", "Term spike_rate", "Term silence"]
    assert {axes.get_yscale() for axes in figure.axes} == {"log"}
    assert {axes.get_xlabel() for axes in figure.axes} == {"optimiser step"}
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "loss (mean per sample)",
        "synops_per_sample",
        "spikes a neuron and step",
        "share of silent neurons",
    ]


def test_losses_hold_the_logged_numbers(history: History) -> None:
    figure = plot_losses(history)
    loss, budget = lines_of(figure.axes[0]), lines_of(figure.axes[1])
    assert loss["training, single steps"] == [line["loss"] for line in history.steps]
    penalties = [line["penalty"] for line in history.steps if line["penalty"] > 0]
    assert penalties
    assert loss["penalty of the terms, single steps"] == penalties
    assert loss["training"] == [line["train_loss"] for line in history.epochs]
    assert loss["validation"] == [line["val_loss"] for line in history.epochs]
    assert budget["total"] == [line["val_synops_budget.total"] for line in history.epochs]
    assert budget["head.full"] == [line["val_synops_budget.head.full"] for line in history.epochs]
    dashed = [line.get_ydata()[0] for line in figure.axes[1].get_lines() if line.get_linestyle() == "--"]
    assert dashed == [20000, 2000]
    steps = figure.axes[0].get_lines()[0].get_xdata()
    assert list(steps) == [line["step"] for line in history.steps]


def test_a_log_scale_s_ticks_are_plain_numbers(history: History) -> None:
    figure = plot_losses(history)
    drawn(figure)
    for axes in figure.axes:
        texts = [tick.get_text() for tick in axes.get_yticklabels(which="both") if tick.get_text()]
        assert texts
        assert not [text for text in texts if "$" in text]


def test_losses_of_a_run_without_terms_are_one_panel(runs: Any) -> None:
    plain = load_trained(str(runs.plain), with_terms=False)
    figure = plot_losses(read_history(plain.run, plain.config))
    drawn(figure)
    assert [title(axes) for axes in figure.axes] == ["Task loss"]


def test_a_term_of_many_parts_says_how_many_are_drawn(history: History) -> None:
    names = [f"spike_rate.{index}" for index in range(11)]
    many = History(({"step": 1, "loss": 1.0, **dict.fromkeys(names, 0.1)},), (), {}, {}, history.terms[1:2])
    assert title(plot_losses(many).axes[1]) == "Term spike_rate, 8 of 11 parts"


def test_a_measure_that_is_always_zero_is_drawn_on_a_plain_scale(history: History) -> None:
    zero = History(({"step": 1, "loss": 1.0, "silence": 0.0},), (), {}, {}, history.terms[2:])
    figure = plot_losses(zero)
    drawn(figure)
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "linear"]


def test_synops_by_layer_are_bars_as_long_as_the_counts(report: SynOpsReport, runs: Any) -> None:
    other = load_trained(str(runs.budget), with_terms=False)
    torch.nn.init.zeros_(dict(other.trainer.model.named_modules())["features.conv"].weight)
    before = count_operations(other.trainer, other.data).layers
    figure = plot_synops(before, report.layers)
    drawn(figure)
    (axes,) = figure.axes
    widths = [[bar.get_width() for bar in container] for container in axes.containers]
    assert widths == [[row.synops_per_sample for row in rows] for rows in (before, report.layers)]
    assert [c.get_label() for c in axes.containers] == ["before training", "after training"]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["features.conv: Conv2d", "head.full: Linear"]
    assert axes.get_xlabel() == "synops_per_sample"


def test_the_histograms_hold_every_neuron_and_name_the_silent(activity: Activity) -> None:
    figure = plot_rates(activity.rates, activity.samples)
    drawn(figure)
    for axes, (name, rates) in zip(figure.axes, activity.rates.items()):
        assert sum(bar.get_height() for bar in axes.patches) == len(rates)
        silent = int((rates == 0).sum())
        assert title(axes) == f"layer {name}: {len(rates)} neurons, {silent} silent"
        assert axes.get_lines()[0].get_xdata()[0] == pytest.approx(float(rates.mean()))
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("spikes a neuron and step", "neurons")
    assert f"{SAMPLES} samples" in figure.texts[0].get_text()


def test_the_raster_marks_each_spike_of_every_layer(activity: Activity) -> None:
    figure = plot_raster(activity.raster, "Spikes for test sample 0", most=1000)
    drawn(figure)
    assert figure.texts[0].get_text() == "Spikes for test sample 0"
    for axes, (name, spikes) in zip(figure.axes, activity.raster.items()):
        (marks,) = axes.collections
        assert len(marks.get_segments()) == int((spikes != 0).sum())
        time, neuron = spikes.nonzero()[0].tolist() if spikes.any() else (0, 0)
        if spikes.any():
            assert marks.get_segments()[0].tolist() == [[time, neuron - 0.5], [time, neuron + 0.5]]
        assert title(axes).startswith(f"layer {name}: {spikes.shape[1]} neurons, ")
        assert axes.get_xlim() == (-0.5, STEPS - 0.5)
    assert figure.axes[-1].get_xlabel() == "time (steps)"


def test_the_raster_of_a_large_layer_shows_some_neurons_and_says_of_how_many() -> None:
    spikes = torch.zeros(4, 3000)
    spikes[1] = 1.0
    figure = plot_raster({"big": spikes}, "x", most=50)
    (axes,) = figure.axes
    assert len(axes.collections[0].get_segments()) == 50
    assert title(axes) == "layer big: 50 of 3,000 neurons, drawn at random, 3,000 spikes in all"


def test_a_raster_of_very_many_spikes_stays_small_as_an_image() -> None:
    busy = {str(index): torch.ones(200, 400) for index in range(16)}
    figure = plot_raster(busy, "x")
    assert len(inline(figure, "", "").source) < 2_000_000  # as paths it would be 320,000 of them
    assert figure.get_size_inches()[1] < 40


def test_silent_layers_are_drawn_too() -> None:
    silent = torch.zeros(4, 5)
    drawn(plot_raster({"a": silent}, "x"))
    figure = plot_rates({"a": silent[0]}, 1)
    drawn(figure)
    assert title(figure.axes[0]) == "layer a: 5 neurons, 5 silent"


def test_the_tradeoff_has_the_epochs_as_a_line_and_the_count_as_a_star(found: Trained, report: SynOpsReport) -> None:
    history = read_history(found.run, found.config)
    course = synops_course(history, found.config, report.steps)
    assert [synops for _, synops, _ in course] == [line["val_synops_budget.total"] for line in history.epochs]
    end = (report.total.synops_per_sample, report.accuracy or 0.0)
    figure = plot_tradeoff([Tradeoff("one", course, end), Tradeoff("other", (), (5e6, 0.5))])
    drawn(figure)
    (axes,) = figure.axes
    line, star, other = axes.get_lines()
    assert list(line.get_xdata()) == [synops for _, synops, _ in course]
    assert list(line.get_ydata()) == [100 * accuracy for _, _, accuracy in course]
    assert (list(star.get_xdata()), list(star.get_ydata())) == ([end[0]], [100 * end[1]])
    assert (list(other.get_xdata()), list(other.get_ydata())) == ([5e6], [50.0])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("synops_per_sample", "accuracy (%)")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "other"]


def test_the_counted_checkpoint_lies_on_the_course_of_its_run(found: Trained, report: SynOpsReport) -> None:
    # the best epoch's validation data are the data that are counted here, by another term and another program
    course = synops_course(read_history(found.run, found.config), found.config, report.steps)
    assert report.total.synops_per_sample in [pytest.approx(synops, rel=1e-5) for _, synops, _ in course]


def test_a_budget_for_a_step_is_scaled_to_a_sample(found: Trained) -> None:
    args = {**found.config.terms["synops_budget"], "per": "step"}
    config = dataclasses.replace(found.config, terms={"synops_budget": args})
    history = read_history(found.run, found.config)
    whole = synops_course(history, found.config, STEPS)
    assert synops_course(history, config, STEPS) == tuple((e, STEPS * s, a) for e, s, a in whole)
    assert read_history(found.run, config).terms[0].unit == "synops_per_step"
