"""Terms about what neurons send: firing rates, activity and silence."""

from dataclasses import dataclass
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from snn_core.errors import ConfigError, nearest
from snn_core.neurons.base import Temporal
from snn_core.terms import BoundTerm, Recorded, Term
from snn_metrics.counting import magnitude
from snn_metrics.terms._samples import mean_of_samples, require_number
from snn_metrics.terms._weighted import BoundWeighted, Weighted

__all__ = ["ActivityL1", "Silence", "SpikeRate", "firing_layers"]

Only = Optional[Sequence[str]]


@dataclass(frozen=True)
class SpikeRate(Term):
    """Firing rate of each neuron layer, kept between two bounds: the mean output of a neuron in a time step.

    Measure: a part for each layer, by its name.   Penalty: weight sum (relu(low - rate)^2 + relu(rate - high)^2).

    low, high: spikes a neuron and step; high None is no upper bound.   weight: 0 only measures.
    only: names of the layers to look at; None for every neuron layer that fires (not readouts such as snn.LI).
    Raises ConfigError for bounds out of order, unknown layers, or a model without neurons.
    """

    low: float = 0.0
    high: Optional[float] = None
    weight: float = 1.0
    only: Only = None
    name: str = "spike_rate"

    def __post_init__(self) -> None:
        require_number(f"{self.name}.low", self.low, 0)
        require_number(f"{self.name}.weight", self.weight, 0)
        if self.high is not None:
            require_number(f"{self.name}.high", self.high, self.low)

    @classmethod
    def examples(cls) -> Sequence[Term]:
        return [cls(low=0.3), cls(low=0.0, high=0.05, weight=2.0)]

    @property
    def controls(self) -> Dict[str, float]:
        high = {} if self.high is None else {"high": self.high}
        return {"weight": self.weight, "low": self.low, **high}

    def bind(self, model: nn.Module) -> BoundTerm:
        return _BoundRate(firing_layers(model, self.name, self.only))


class _BoundRate(BoundTerm):
    def __init__(self, names: Sequence[str]) -> None:
        self.parts = tuple(name or "model" for name in names)
        self.names = tuple(names)

    def measure(self, recorded: Recorded, valid: Optional[Tensor]) -> Tensor:
        # of a layer that runs several times the mean
        rates = [torch.stack([r.mean(-1) for r in _rates(recorded, name)]).mean(0) for name in self.names]
        return mean_of_samples(torch.stack(rates), valid)

    def penalty(self, measure: Tensor, controls: Mapping[str, Tensor]) -> Tensor:
        excess = torch.relu(controls["low"] - measure).square()
        if "high" in controls:
            excess = excess + torch.relu(measure - controls["high"]).square()
        return controls["weight"] * excess.sum()


@dataclass(frozen=True)
class ActivityL1(Weighted):
    """Mean magnitude of what a neuron sends in a time step, over all neurons of the network, times a weight.

    Measure: sum |output| / (steps x neurons).   Penalty: weight x measure. Graded spikes count by their size.

    weight: 0 only measures.   only: names of the layers; None for all that fire. Raises ConfigError as `SpikeRate`.
    """

    only: Only = None
    name: str = "activity_l1"

    @classmethod
    def examples(cls) -> Sequence[Term]:
        return [cls()]

    def bind(self, model: nn.Module) -> BoundTerm:
        return _BoundActivity(firing_layers(model, self.name, self.only))


class _BoundActivity(BoundWeighted):
    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    def measure(self, recorded: Recorded, valid: Optional[Tensor]) -> Tensor:
        rates = [rate for name in self.names for rate in _rates(recorded, name)]
        total = torch.stack([rate.sum(-1) for rate in rates]).sum(0)
        return mean_of_samples(total, valid) / sum(rate.shape[-1] for rate in rates)


@dataclass(frozen=True)
class Silence(Weighted):
    """Share of (sample, neuron) pairs that stay silent over the whole sequence, times a weight: against dead neurons.

    Measure: mean of relu(1 - spikes), over samples and neurons; for spikes of 0 and 1 exactly the share of silent
    pairs. Its gradient asks every silent neuron for its first spike.   Penalty: weight x measure.

    weight: 0 only measures.   only: names of the layers; None for all that fire. Raises ConfigError as `SpikeRate`.
    """

    only: Only = None
    name: str = "silence"

    @classmethod
    def examples(cls) -> Sequence[Term]:
        return [cls()]

    def bind(self, model: nn.Module) -> BoundTerm:
        return _BoundSilence(firing_layers(model, self.name, self.only))


class _BoundSilence(BoundWeighted):
    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    def measure(self, recorded: Recorded, valid: Optional[Tensor]) -> Tensor:
        spikes = [_spikes(call.out) for name in self.names for call in recorded.neurons[name]]
        silent = torch.stack([torch.relu(1 - counts).sum(-1) for counts in spikes]).sum(0)
        return mean_of_samples(silent, valid) / sum(counts.shape[-1] for counts in spikes)


def firing_layers(model: nn.Module, what: str, only: Only = None) -> Tuple[str, ...]:
    """Names of the model's neuron layers that fire, outermost ones, or of those in `only`.

    Raises ConfigError, which starts with `what`, for unknown names or where there is no such layer.
    """
    found: Dict[str, Temporal] = {}
    for name, module in model.named_modules():
        # a neuron inside another, as in Recurrent, never runs by itself
        inside = any(name.startswith(f"{outer}.") if outer else True for outer in found)
        if isinstance(module, Temporal) and not inside:
            found[name] = module
    for name in only or ():
        if name not in found:
            raise ConfigError(
                f"{what}.only names {name!r}{nearest(name, found)}; the model's neuron layers are "
                f"{', '.join(map(repr, found)) or 'none'}"
            )
    chosen = tuple(only) if only else tuple(name for name, module in found.items() if module.fires)
    if not chosen:
        raise ConfigError(f"{what}: the model has no neuron layer that fires; add one such as snn.LIF, or name layers")
    return chosen


def _rates(recorded: Recorded, name: str) -> List[Tensor]:
    """For each call of a layer the mean magnitude of what its neurons send in a step, `[B, neurons]`."""
    return [_spikes(call.out) / call.out.shape[0] for call in recorded.neurons[name]]


def _spikes(out: Tensor) -> Tensor:
    """The sum over time of what each neuron sends, `[T, B, ...]` -> `[B, neurons]`, in single precision at least."""
    return magnitude(out).sum(0).flatten(1)
