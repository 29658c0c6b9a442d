"""From a trained network and what was counted of it to the page: its facts, its plots and their words."""

import dataclasses
from typing import Any, List, Mapping, Sequence, Tuple

import torch

from snn_core import config as configuration
from snn_core.cli.trained import Trained
from snn_metrics import __version__
from snn_metrics.report.activity import Activity, watch
from snn_metrics.report.counts import SynOpsReport, count_operations
from snn_metrics.report.history import History, Tradeoff, read_history, synops_course
from snn_metrics.report.numbers import count, percent
from snn_metrics.report.page import Image, inline, render
from snn_metrics.report.plots import plot_losses, plot_raster, plot_rates, plot_synops, plot_tradeoff

__all__ = ["make_page"]

Counted = Tuple[Trained, SynOpsReport]


def make_page(found: Trained, report: SynOpsReport, options: Mapping[str, Any], others: Sequence[Counted] = ()) -> str:
    """Return the page about a trained network. report: what `count_operations` found with these options.

    others: further runs and what was counted of them, for the plot of accuracy against operations.
    """
    history = read_history(found.run, found.config)
    where = found.describe()
    return render(
        f"Run {found.run.absolute().name}",
        f"{where['data']}, split {where['split']}; counted by snn-metrics {__version__}",
        report,
        _facts(found, history),
        [
            *_course(history),
            *_before_and_after(found, report, options),
            *_tradeoff([(found, report), *others]),
            *_firing(found, watch(found.trainer, found.data), report),
        ],
        configuration.dumps(found.config),
    )


def _facts(found: Trained, history: History) -> List[Tuple[str, str]]:
    settings, summary, where = history.settings, history.summary, found.describe()
    facts = [("checkpoint", where["checkpoint"]), ("data", f"{where['data']}, split {where['split']}")]
    facts.append(("counted on", f"backend {where['backend']}"))
    if settings:
        facts.append(("trained on", f"backend {settings['backend']} ({settings['device']})"))
        versions = settings["versions"]
        facts.append(("versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    if summary:
        facts.append(("epochs", f"{summary['epochs']} of {settings['epochs']}, {summary['steps']:,} optimiser steps"))
        facts.append(("time", f"{summary['seconds']:,.1f} s"))
    else:
        facts.append(("epochs", f"{len(history.epochs)}; the run has not ended"))
    if summary.get("stopped"):
        facts.append(("stopped", summary["stopped"]))
    best = summary.get("best")
    if best:
        value = percent(best["value"]) if best["metric"].endswith("accuracy") else f"{best['value']:.6g}"
        facts.append(("best epoch", f"{best['epoch']}, {best['metric']} {value}"))
    return facts


def _course(history: History) -> List[Image]:
    if not history.steps and not history.epochs:
        return []
    names = ", ".join(term.name for term in history.terms)
    what = (
        f"the task's loss, of the terms' penalty, and of what they measured ({names})"
        if names
        else "the task's loss; the run had no terms"
    )
    text = f"Course of {what}, on log scales. Faint: single training steps."
    if any(term.targets for term in history.terms):
        text += " Dashed: budgets."
    return [inline(plot_losses(history), f"Line plots over optimiser steps. {text}", text)]


def _before_and_after(found: Trained, report: SynOpsReport, options: Mapping[str, Any]) -> List[Image]:
    # a run keeps no checkpoint of its first weights, but its configuration and seed give them again
    fresh = configuration.trainer(dataclasses.replace(found.config, terms={}, callbacks={}))
    before = count_operations(fresh, found.data, **options)
    first, last = before.total.synops_per_sample, report.total.synops_per_sample
    change = f", {last / first:.2f} times as many" if first else ""
    caption = (
        f"Operations of a sample by layer: {count(first)} before and {count(last)} after training{change}. Before: the "
        "network as the configuration and its seed make it, counted on the same data."
    )
    return [inline(plot_synops(before.layers, report.layers), f"Bar chart. {caption}", caption)]


def _tradeoff(counted: Sequence[Counted]) -> List[Image]:
    runs = []
    for found, report in counted:
        if report.accuracy is not None:
            course = synops_course(read_history(found.run, found.config), found.config, report.steps)
            end = (report.total.synops_per_sample, report.accuracy)
            runs.append(Tradeoff(found.run.absolute().name, course, end))
    if not runs:
        return []
    ends = "; ".join(f"{run.run}: {percent(run.end[1])} at {count(run.end[0])}" for run in runs)
    caption = f"Accuracy against operations of a sample. Stars: the checkpoints counted here ({ends})."
    if any(run.course for run in runs):
        caption += " Lines: the epochs of runs that measured a synops_budget, on their own validation data."
    return [inline(plot_tradeoff(runs), f"Scatter plot. {caption}", caption)]


def _firing(found: Trained, activity: Activity, report: SynOpsReport) -> List[Image]:
    if not activity.rates:
        return []
    silent = sum(int((rates == 0).sum()) for rates in activity.rates.values())
    neurons = sum(len(rates) for rates in activity.rates.values())
    first = f"the first {activity.samples:,} samples" if activity.samples > 1 else "the first sample"
    rates = f"Firing rates of single neurons over {first}: {silent:,} of {neurons:,} neurons stay silent."
    target = torch.as_tensor(found.data[0][1])
    label = f", label {int(target)}" if report.accuracy is not None and target.numel() == 1 else ""
    title = f"Spikes for {found.split} sample 0{label}"
    raster = f"{title}, layer by layer; of a large layer 100 neurons."
    return [
        inline(plot_rates(activity.rates, activity.samples), f"Histograms. {rates}", rates),
        inline(plot_raster(activity.raster, title), f"Raster plots. {raster}", raster),
    ]
