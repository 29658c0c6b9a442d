"""What a network's input costs before any training: a budget below that cannot be kept."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Dict, List, Mapping, Optional, Tuple

import torch
from torch import Tensor, nn

from snn_core.data.checks import read_batch, sample_spec
from snn_core.errors import ConfigError
from snn_core.random_stream import draws_from
from snn_core.specs import BatchSpec, TensorSpec
from snn_core.step import Step
from snn_core.terms import BoundTerm, Recorded, Term
from snn_metrics.terms import SynOpsBudget
from snn_metrics.terms._layers import LayerOperations

if TYPE_CHECKING:
    from snn_core.trainer import Run

__all__ = ["require_possible"]

_SAMPLES = 256


def require_possible(run: "Run") -> None:
    """Raise ConfigError where a budget of the run lies below what its data costs in layers that training cannot change.

    Such a layer's input does not depend on any trainable weight, as the first layer's. Its cost is measured on
    256 samples spread over the training data, on the host, with random streams of its own.
    """
    budgets = [term for term in run.plan.terms if isinstance(term, SynOpsBudget) and term.targets()]
    for budget in budgets:
        costs = _costs(run, budget)
        total = sum(costs.values())
        for control, target in budget.targets().items():
            layer = control[len("target.") :]
            cost, where = (costs.get(layer, 0.0), f"layer {layer!r}") if layer else (total, _named(costs))
            if target < cost:
                raise ConfigError(
                    f"{budget.name}.{control} is {target:.4g} operations a {budget.per}, and {where} alone costs "
                    f"{cost:.4g} by the input, which does not depend on any trainable weight: no training can keep "
                    f"that budget; raise it above {cost:.4g}, or feed an input with fewer or smaller values"
                )


def _named(costs: Mapping[str, float]) -> str:
    return f"layer{'s' if len(costs) > 1 else ''} {', '.join(map(repr, costs))}"


def _costs(run: "Run", budget: SynOpsBudget) -> Dict[str, float]:
    """The mean cost of a sample (or of a step of it) in each layer whose input no trainable weight can change."""
    probe = _InputCosts(budget)
    step = Step(run.model, run.plan.loss, [probe]).cpu().train()
    with draws_from(run.settings.seed), torch.enable_grad():
        measures = step(*_samples(run), {}).measures
    costs = {name: value.item() for name, value in zip(step.terms[0].parts, measures)}
    return {name: value for name, value in costs.items() if value > 0}


def _samples(run: "Run") -> Tuple[Tensor, Tensor]:
    """Some of the training data, spread over it, as one batch on the host with time first."""
    settings, data = run.settings, run.plan.train
    specs = sample_spec(data, settings.time_axis, settings.target_time_axis)
    count = min(_SAMPLES, len(data))
    order = [index * len(data) // count for index in range(count)]
    x, target = read_batch(data, order, BatchSpec(count, *specs))
    return _time_first(x, specs[0]), _time_first(target, specs[1])


def _time_first(batch: Tensor, spec: TensorSpec) -> Tensor:
    return batch if spec.time_axis is None else batch.transpose(0, 1)


@dataclass(frozen=True)
class _InputCosts(Term):
    """The operations of each layer whose input has no gradient, and 0 for the others."""

    layers: ClassVar[bool] = True

    budget: SynOpsBudget
    name: str = "input_costs"

    def bind(self, model: nn.Module) -> BoundTerm:
        return _BoundInputCosts(LayerOperations(model, self.budget.layout, self.budget.pooling), self.budget.per)


class _BoundInputCosts(BoundTerm):
    def __init__(self, operations: LayerOperations, per: str) -> None:
        self.operations, self.per = operations, per
        self.parts = tuple(operations.names)

    def measure(self, recorded: Recorded, valid: Optional[Tensor]) -> Tensor:
        counts: List[Tensor] = []
        for name in self.operations.names:
            counted = self.operations.of_samples(name, recorded)
            counts.append(torch.zeros_like(counted) if counted.requires_grad else counted)
        mean = torch.stack(counts).mean(1)
        return mean / recorded.output.shape[0] if self.per == "step" else mean

    def penalty(self, measure: Tensor, controls: Mapping[str, Tensor]) -> Tensor:
        return measure.new_zeros(())
