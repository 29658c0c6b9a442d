"""What a network costs on a dataset, layer by layer, counted on the trainer's own backend."""

import copy
import math
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

from torch import nn

from snn_core import Trainer
from snn_core.neurons import OneToOne
from snn_metrics.counting import KINDS
from snn_metrics.energy import OperationCost, cost_named, energy
from snn_metrics.report.activity import neuron_layers, watch
from snn_metrics.terms import OperationCounts, SpikeRate
from snn_metrics.terms._layers import Layouts, Pooling

__all__ = ["DEFAULT_COSTS", "Energy", "LayerCounts", "NeuronLayer", "SynOpsReport", "count_operations"]

DEFAULT_COSTS = ("horowitz-2014-fp32-45nm",)
_COUNTS, _RATES = "operation_counts", "spike_rate"


@dataclass(frozen=True)
class LayerCounts:
    """A weight layer's operations, means over samples. All but synops_per_step are sums over the time steps.

    kind: the layer's type and sizes.   synops: |activation| x fan-out.   dense: with zero activations too.
    effective: of activations that are not 0.   sparse: the same, and only weights that are not 0.
    acs: of activations of 1 or -1, accumulates.   macs: of other activations but 0, multiply-accumulates.
    """

    layer: str
    kind: str
    synops_per_sample: float
    synops_per_step: float
    dense_per_sample: float
    effective_per_sample: float
    sparse_per_sample: float
    acs_per_sample: float
    macs_per_sample: float


@dataclass(frozen=True)
class NeuronLayer:
    """A neuron layer's firing rate: the mean |output| of a neuron in a time step, over neurons, steps and samples."""

    layer: str
    kind: str
    neurons: int
    firing_rate: float


@dataclass(frozen=True)
class Energy:
    """Joules of a sample's accumulates and multiply-accumulates, by the published cost of one of each."""

    joules_per_sample: float
    cost: OperationCost


@dataclass(frozen=True)
class SynOpsReport:
    """What a network costs, and what it is worth: counts by layer, and their total, over `samples` samples.

    steps: time steps of a sample.   accuracy: None where the loss has no classes.
    """

    samples: int
    steps: int
    loss: float
    accuracy: Optional[float]
    layers: Tuple[LayerCounts, ...]
    total: LayerCounts
    neurons: Tuple[NeuronLayer, ...]
    energy: Tuple[Energy, ...]

    def to_dict(self) -> Dict[str, Any]:
        """JSON values; a number that is not finite is None."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def count_operations(
    trainer: Trainer,
    data: Any,
    *,
    layout: Layouts = None,
    pooling: Pooling = "sum",
    costs: Sequence[OperationCost] = (),
) -> SynOpsReport:
    """Count what the trainer's model costs on every sample of a dataset, on the trainer's backend, without its terms.

    layout, pooling: as in `SynOpsBudget`.   costs: of one operation, for energy; none is the table's
    "horowitz-2014-fp32-45nm". Raises ConfigError for a model without weight layers or a layout that is not known, or
    where a cost prices no MACs and there are some; DataError or ShapeError for data that the trainer cannot take.
    """
    counts = OperationCounts(layout=layout, pooling=pooling, name=_COUNTS)
    counts.bind(trainer.model)  # refuses what it must before anything runs
    seen = watch(trainer, data, 1)
    rates = [SpikeRate(weight=0.0, only=tuple(seen.rates), name=_RATES)] if seen.rates else []
    counting = copy.copy(trainer)
    counting.terms = (counts, *rates)
    values = counting.evaluate(data)
    layers = _layers(trainer.model, values, seen.steps)
    total = _total(layers)
    modules = neuron_layers(trainer.model)
    neurons = [
        NeuronLayer(name or "model", type(modules[name]).__name__, len(rate), values[f"{_RATES}.{name or 'model'}"])
        for name, rate in seen.rates.items()
    ]
    priced = [
        Energy(energy(total.acs_per_sample, total.macs_per_sample, cost), cost)
        for cost in costs or map(cost_named, DEFAULT_COSTS)
    ]
    return SynOpsReport(
        samples=len(data),
        steps=seen.steps,
        loss=values["loss"],
        accuracy=values.get("accuracy"),
        layers=tuple(layers),
        total=total,
        neurons=tuple(neurons),
        energy=tuple(priced),
    )


def _layers(model: nn.Module, values: Mapping[str, float], steps: int) -> List[LayerCounts]:
    by_layer: Dict[str, Dict[str, float]] = {}
    for key, value in values.items():
        if key.startswith(f"{_COUNTS}."):
            # the layer's own name may have dots
            layer, _, kind = key[len(_COUNTS) + 1 :].rpartition(".")
            by_layer.setdefault(layer, {})[kind] = value
    modules = dict(model.named_modules())
    return [_row(layer or "model", _kind(modules[layer]), found, steps) for layer, found in by_layer.items()]


def _row(layer: str, kind: str, values: Mapping[str, float], steps: int) -> LayerCounts:
    per_sample = {f"{name}_per_sample": values[name] for name in KINDS}
    return LayerCounts(layer=layer, kind=kind, synops_per_step=values["synops"] / steps, **per_sample)


def _total(layers: Sequence[LayerCounts]) -> LayerCounts:
    names = [name for name in LayerCounts.__dataclass_fields__ if name not in ("layer", "kind")]
    return LayerCounts("total", "", **{name: math.fsum(getattr(row, name) for row in layers) for name in names})


def _kind(module: Any) -> str:
    name = type(module).__name__
    if isinstance(module, nn.Linear):
        return f"{name} {module.in_features} -> {module.out_features}"
    if isinstance(module, OneToOne):
        return f"{name}, each neuron to itself"
    stride = "" if set(module.stride) == {1} else f", stride {'x'.join(map(str, module.stride))}"
    groups = "" if module.groups == 1 else f", groups {module.groups}"
    kernel = "x".join(map(str, module.kernel_size))
    return f"{name} {module.in_channels} -> {module.out_channels}, kernel {kernel}{stride}{groups}"


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
