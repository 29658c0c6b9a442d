"""Metrics of spike trains: firing rate, sparsity, latency. Sums alone are kept, so that samples, chunks of time and
processes may come in any order.
"""

from typing import Any, Dict, List, Optional

import torch
from torch import Tensor
from torchmetrics import Metric

from snn_core.errors import ConfigError, ShapeError

__all__ = ["FiringRate", "Latency", "Sparsity", "samples_to_count"]


class FiringRate(Metric):
    """Mean spikes per neuron and time step, over all samples of all processes. A graded spike counts by its
    size, whatever its sign.

    `update(spikes, valid=None)`: spikes `[T, B, ...]`, chunks of a sequence in any order; valid: `[B]` of 0 and 1, None
    for all. `compute()` -> 0-d, float64; NaN before the first update. Divide by `dt_s` for a rate in hertz.
    Raises ShapeError for spikes without time and batch, or for another number of valid samples.
    """

    is_differentiable = False
    full_state_update = False

    spikes: Tensor
    places: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _add_sum(self, "spikes", torch.float64)
        _add_sum(self, "places", torch.int64)

    def update(self, spikes: Tensor, valid: Optional[Tensor] = None) -> None:
        counted = samples_to_count(self, spikes, valid)
        sizes = spikes if spikes.dtype == torch.bool else spikes.abs()
        self.spikes = self.spikes + _of_samples(sizes.sum(_but_batch(spikes), dtype=torch.float64), counted)
        self.places = self.places + _places(spikes, counted)

    def compute(self) -> Tensor:
        return self.spikes / self.places


class Sparsity(Metric):
    """Share of zeros among all elements of an activation, over all samples of all processes.

    `update(x, valid=None)`: x `[T, B, ...]`; valid: `[B]` of 0 and 1, None for all. `compute()` -> 0-d, float64, in
    [0, 1]; NaN before the first update. Raises ShapeError as `FiringRate` does.
    """

    is_differentiable = False
    full_state_update = False

    zeros: Tensor
    places: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _add_sum(self, "zeros", torch.int64)
        _add_sum(self, "places", torch.int64)

    def update(self, x: Tensor, valid: Optional[Tensor] = None) -> None:
        counted = samples_to_count(self, x, valid)
        self.zeros = self.zeros + _of_samples((x == 0).sum(_but_batch(x)), counted)
        self.places = self.places + _places(x, counted)

    def compute(self) -> Tensor:
        return self.zeros.double() / self.places


class Latency(Metric):
    """Time to the first spike, in steps: 0 is the sequence's first step.

    `update(spikes, valid=None, first=True)`: spikes `[T, B, ...]`, any value but 0 is a spike; valid: `[B]` of 0 and 1,
    None for all. `first=False` goes on with the samples of the last update, where its steps ended; of these only a bit
    for each neuron is kept. A neuron counts from the moment it fires, so `compute()` may be called, and repeated,
    before a sequence is whole: neurons that have not fired yet are silent then.

    `compute()` -> `{"latency_steps", "silent_share"}`, 0-d, float64. latency_steps: the mean over those pairs of sample
    and neuron that fired, NaN if none did; the others have no latency and are counted in silent_share, of all pairs.
    Raises ShapeError as `FiringRate` does, or where a further chunk is of other samples, neurons or valid samples;
    ConfigError for a further chunk of nothing, and for `first=False` in `forward`.
    """

    is_differentiable = False
    full_state_update = False

    steps: Tensor
    fired: Tensor
    pairs: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        _add_sum(self, "steps", torch.int64)
        _add_sum(self, "fired", torch.int64)
        _add_sum(self, "pairs", torch.int64)
        # Of the samples that a further chunk goes on with: how many steps there were, which samples count, and which
        # pairs are still silent. No state: it belongs to this process, and what it tells is in the sums already.
        self._elapsed = 0
        self._counted: Optional[Tensor] = None
        self._silent: Optional[Tensor] = None

    def update(self, spikes: Tensor, valid: Optional[Tensor] = None, first: bool = True) -> None:
        counted = samples_to_count(self, spikes, valid)
        if first:
            silent = torch.ones(spikes.shape[1:], dtype=torch.bool, device=spikes.device)
            silent &= counted.view(-1, *[1] * (spikes.ndim - 2))
            self._elapsed, self._counted = 0, counted
            self.pairs = self.pairs + silent.sum()
        else:
            silent = self._going_on(spikes, valid, counted)
        if spikes.shape[0]:
            now, when = (spikes != 0).max(0)  # of equal values max gives the first one's place
            new = now & silent
            self.fired = self.fired + new.sum()
            self.steps = self.steps + torch.where(new, when + self._elapsed, 0).sum()
            silent = silent & ~now
        self._silent = silent
        self._elapsed += spikes.shape[0]

    def _going_on(self, spikes: Tensor, valid: Optional[Tensor], counted: Tensor) -> Tensor:
        silent, before = self._silent, self._counted
        if silent is None or before is None:
            raise ConfigError("Latency got first=False, but there is no sequence to go on with; begin one: first=True")
        if silent.shape != spikes.shape[1:]:
            raise ShapeError(
                f"Latency goes on with samples and neurons of shape {tuple(silent.shape)} and got "
                f"{tuple(spikes.shape[1:])}; give further chunks of the same samples, or begin others: first=True"
            )
        if valid is not None and not torch.equal(counted, before.to(counted.device)):
            raise ShapeError(
                "Latency got a further chunk with other valid samples than its sequence began with; a sample is valid "
                "in all of its chunks or in none"
            )
        return silent.to(spikes.device)

    def compute(self) -> Dict[str, Tensor]:
        return {
            "latency_steps": self.steps.double() / self.fired,
            "silent_share": (self.pairs - self.fired).double() / self.pairs,
        }

    def forward(self, spikes: Tensor, valid: Optional[Tensor] = None, first: bool = True) -> Any:
        """Update, and return the value of these samples alone."""
        if not first:
            raise ConfigError(
                "Latency.forward got first=False, but a further chunk has no latency of its own: its samples began "
                "before; call update(..., first=False), then compute()"
            )
        return super().forward(spikes, valid, first)

    def reset(self) -> None:
        super().reset()
        self._elapsed, self._counted, self._silent = 0, None, None


def samples_to_count(metric: Metric, x: Tensor, valid: Optional[Tensor]) -> Tensor:
    """Which samples of x `[T, B, ...]` count: `[B]`, boolean. Raises ShapeError."""
    name = type(metric).__name__
    if x.ndim < 2:
        raise ShapeError(f"{name} got a tensor of shape {tuple(x.shape)}; it takes [T, B, ...], with time first")
    if valid is None:
        return torch.ones(x.shape[1], dtype=torch.bool, device=x.device)
    if valid.shape != x.shape[1:2]:
        raise ShapeError(
            f"{name} got valid of shape {tuple(valid.shape)} for a tensor of shape {tuple(x.shape)}; it must be "
            f"[{x.shape[1]}], one for each sample along the second axis"
        )
    return valid.to(x.device) != 0


def _add_sum(metric: Metric, name: str, dtype: torch.dtype) -> None:
    metric.add_state(name, torch.zeros((), dtype=dtype), dist_reduce_fx="sum")


def _but_batch(x: Tensor) -> List[int]:
    return [axis for axis in range(x.ndim) if axis != 1]


def _of_samples(values: Tensor, counted: Tensor) -> Tensor:
    # not a product: what stands in a sample that does not count may be NaN
    return torch.where(counted, values, 0).sum()


def _places(x: Tensor, counted: Tensor) -> Tensor:
    return counted.sum() * (x.shape[0] * x.shape[2:].numel())
