"""What a run's folder tells of its course: the log, how it ended, and the units of what its terms measured."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, NamedTuple, Tuple

from snn_core.trainer.logs import SUMMARY, read_log

if TYPE_CHECKING:
    from snn_core.config import Config

__all__ = ["History", "TermInfo", "Tradeoff", "read_history", "synops_course"]

_BUDGET = "synops_budget"
_UNITS = {
    "activity_l1": "mean |output| of a neuron and step",
    "membrane_bound": "squared excess of membranes, mean",
    "operation_counts": "operations a sample",
    "silence": "share of silent neurons",
    "spike_rate": "spikes a neuron and step",
    "weight_sparsity": "mean |weight|; share of zeros",
}


class TermInfo(NamedTuple):
    """A term of a run. name: of its measures in the log.   unit: of these.   targets: budgets by the measure's name."""

    name: str
    unit: str
    targets: Mapping[str, float]


class Tradeoff(NamedTuple):
    """A run's way through the plane of accuracy (0 to 1) and synaptic operations of a sample.

    course: (epoch, operations, accuracy) after each epoch.   end: (operations, accuracy) of the checkpoint counted.
    """

    run: str
    course: Tuple[Tuple[int, float, float], ...]
    end: Tuple[float, float]


@dataclass(frozen=True)
class History:
    """A run's course. steps, epochs: the log's lines.   settings, summary: what it was and how it ended; {} before.
    terms: those that it measured.
    """

    steps: Tuple[Mapping[str, Any], ...]
    epochs: Tuple[Mapping[str, Any], ...]
    settings: Mapping[str, Any]
    summary: Mapping[str, Any]
    terms: Tuple[TermInfo, ...]


def read_history(folder: Path, config: "Config") -> History:
    """Read what the run in `folder`, of this configuration, has written."""
    return History(
        tuple(read_log(folder, "step")),
        tuple(read_log(folder, "epoch")),
        _json(folder / "settings.json"),
        _json(folder / SUMMARY),
        tuple(_term(kind, args) for kind, args in config.terms.items()),
    )


def synops_course(history: History, config: "Config", steps: int) -> Tuple[Tuple[int, float, float], ...]:
    """Epoch, operations a sample and accuracy after each epoch; nothing where the run had no budget, or no classes.

    steps: time steps of a sample, by which a budget for one step is scaled up.
    """
    args = config.terms.get(_BUDGET)
    if args is None:
        return ()
    name = args.get("name", _BUDGET)
    scale = steps if args.get("per") == "step" else 1
    course: List[Tuple[int, float, float]] = []
    for line in history.epochs:
        part = "val" if "val_loss" in line else "train"
        accuracy = line.get(f"{part}_accuracy")
        measure = line.get(f"{part}_{name}", line.get(f"{part}_{name}.total"))
        if accuracy is not None and measure is not None:
            course.append((line["epoch"], scale * measure, accuracy))
    return tuple(course)


def _term(kind: str, args: Mapping[str, Any]) -> TermInfo:
    name = args.get("name", kind)
    if kind != _BUDGET:
        return TermInfo(name, _UNITS.get(kind, "measure"), {})
    layers: Mapping[str, float] = args.get("per_layer") or {}
    total = f"{name}.total" if layers else name
    targets: Dict[str, float] = {total: args["target"]} if args.get("target") is not None else {}
    targets.update({f"{name}.{layer}": value for layer, value in layers.items()})
    return TermInfo(name, f"synops_per_{args.get('per', 'sample')}", targets)


def _json(path: Path) -> Dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
