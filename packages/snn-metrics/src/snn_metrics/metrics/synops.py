"""Operations over a dataset, of every layer, as a torchmetrics metric."""

from contextlib import contextmanager
from typing import Any, Dict, Iterable, Iterator, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor, nn
from torchmetrics import Metric

from snn_core.errors import ConfigError, ShapeError, nearest
from snn_metrics.counting import KINDS
from snn_metrics.pooling import pool_factors
from snn_metrics.watching import Forwards, Reading, checked_resting, counted_layers, watch

__all__ = ["Counts", "LayerCounts", "SynOps"]


class LayerCounts(NamedTuple):
    """One layer's operations of one kind, each 0-d, float64.

    synops_per_step: the mean over samples and time steps.   synops_per_sample: the mean over samples, of all their
    steps.   synops_total: the sum over samples and steps.
    """

    synops_per_step: Tensor
    synops_per_sample: Tensor
    synops_total: Tensor


class Counts(NamedTuple):
    """A model's operations of one kind, as `LayerCounts` has them, and those of each of its layers, by name."""

    synops_per_step: Tensor
    synops_per_sample: Tensor
    synops_total: Tensor
    layers: Dict[str, LayerCounts]


class SynOps(Metric):
    """Operations of a model over a dataset, counted exactly, over all samples of all processes.

    The model runs in a block that watches it, and each `update` takes what it cost since the last one:

        metric = SynOps(model, kinds=("synops", "acs", "macs"))
        with metric.watch(model):
            for x in batches:
                model(x)
                metric.update()
        metric.compute()["synops"].synops_per_sample

    `update(valid=None)`: valid: `[B]` of 0 and 1, None for all. Forwards of the same samples before one update, such as
    chunks of a sequence or a loop over its steps, add up over time. Each call of a layer is reduced at once, so nothing
    of an activation is kept. `compute()` -> `{kind: Counts}`; NaN, but for the total, before the first update.

    model: the one to watch, or one of the same structure: its layers are remembered by name, the model itself is not.
    kinds: of `snn_metrics.counting.KINDS`.   time_axis: which axis of the model's first input is time; the first other
    axis is the batch. None where `snn_core.Sequential` and neurons tell; a model without time makes one step in a
    forward, and further axes of a layer's input are positions. Where time lies first or second in a layer's input,
    folded into the batch, or not at all (one call for each step) is told by its shape.   batched: False where the input
    is one sample.   pooling: as in `pool_factors`.   may_rest: layers that may have nothing to do in a forward, and
    then count 0.
    Raises ConfigError for a model without weight layers, unknown kinds or layers; in `watch` for another model; in a
    forward for a layer that did not run, or whose time is not known; in `update` where nothing was watched. Raises
    ShapeError where rows of a layer are not samples, or `valid` does not fit.
    """

    is_differentiable = False
    full_state_update = False

    operations: Tensor
    samples: Tensor
    steps: Tensor

    def __init__(
        self,
        model: nn.Module,
        *,
        kinds: Sequence[str] = ("synops",),
        time_axis: Optional[int] = None,
        batched: bool = True,
        pooling: Union[str, Mapping[str, float]] = "sum",
        may_rest: Iterable[str] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.kinds = _checked_kinds(kinds)
        self.layers = tuple(counted_layers(model))
        if time_axis is not None and (isinstance(time_axis, bool) or not isinstance(time_axis, int)):
            raise ConfigError(f"time_axis is {time_axis!r}; it must be the number of an axis, such as 0, or None")
        resting = checked_resting(may_rest, self.layers)
        self._reading = Reading(self.kinds, time_axis, batched, dict(pool_factors(model, pooling)), resting)
        self._forwards = Forwards()
        self._watching = False
        self._forwarding = False
        zeros = torch.zeros(len(self.layers), len(self.kinds), dtype=torch.float64)
        self.add_state("operations", zeros, dist_reduce_fx="sum")
        for name in ("samples", "steps"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    @contextmanager
    def watch(self, model: nn.Module) -> Iterator[None]:
        """Count the forwards of a model while the block runs; afterwards the model is as it was.

        model: of `DistributedDataParallel` its `.module`. Raises ConfigError for other layers than the metric was made
        for, or where this metric is watching already.
        """
        layers = tuple(counted_layers(model))
        if layers != self.layers:
            other = sorted(set(layers) ^ set(self.layers)) or ["their order"]
            raise ConfigError(
                f"this SynOps was made for another model: {other[0]!r} differs; give the model that it was made for or "
                "one of the same structure, of DistributedDataParallel its .module"
            )
        if self._watching:
            raise ConfigError("this SynOps is watching already, and would count twice; end that block first")
        self._watching = True
        try:
            with watch(model, self._reading, self._forwards):
                yield
        finally:
            self._watching = False

    def update(self, valid: Optional[Tensor] = None) -> None:
        forwards = self._forwards
        counted = self._counted(valid)
        rows = [forwards.counts.get(name) for name in self.layers]
        zeros = self.operations.new_zeros(len(self.kinds))
        sums = [zeros if row is None else torch.where(counted.to(row.device), row, 0).sum(1) for row in rows]
        self.operations = self.operations + torch.stack([each.to(zeros) for each in sums])
        samples = counted.sum().to(self.samples.device)
        self.samples = self.samples + samples
        self.steps = self.steps + samples * forwards.steps
        if not self._forwarding:
            forwards.clear()

    def _counted(self, valid: Optional[Tensor]) -> Tensor:
        samples = self._forwards.samples
        if not samples:
            raise ConfigError(
                "SynOps.update found no forward to count; run the model before it, inside `with metric.watch(model):`"
            )
        if valid is None:
            return torch.ones(samples, dtype=torch.bool)
        if valid.shape != (samples,):
            raise ShapeError(
                f"SynOps got valid of shape {tuple(valid.shape)} for {samples} samples; it must be [{samples}]"
            )
        return valid != 0

    def compute(self) -> Dict[str, Counts]:
        return {kind: self._counts(self.operations[:, index]) for index, kind in enumerate(self.kinds)}

    def _counts(self, operations: Tensor) -> Counts:
        layers = {name: self._views(count) for name, count in zip(self.layers, operations.unbind())}
        return Counts(*self._views(operations.sum()), layers)

    def _views(self, total: Tensor) -> LayerCounts:
        return LayerCounts(total / self.steps, total / self.samples, total)

    def forward(self, valid: Optional[Tensor] = None) -> Any:
        """Update, and return the counts of these samples alone."""
        # torchmetrics resets and may update twice on the way, and each time the forwards must still be there
        self._forwarding = True
        try:
            return super().forward(valid)
        finally:
            self._forwarding = False
            self._forwards.clear()

    def reset(self) -> None:
        super().reset()
        if not self._forwarding:
            self._forwards.clear()

    def __getstate__(self) -> Dict[str, Any]:
        # a copy that is made inside a block that watches is not what the block watches for
        return {**super().__getstate__(), "_watching": False}


def _checked_kinds(kinds: Sequence[str]) -> Tuple[str, ...]:
    given = (kinds,) if isinstance(kinds, str) else tuple(kinds)
    for kind in given:
        if kind not in KINDS:
            raise ConfigError(f"kinds has {kind!r}; each must be one of {', '.join(KINDS)}{nearest(kind, KINDS)}")
    if not given or len(set(given)) < len(given):
        raise ConfigError(f"kinds is {given!r}; it must name one kind or more of {', '.join(KINDS)}, each once")
    return given
