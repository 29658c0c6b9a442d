"""SynOpsBudget: train a network to a number of synaptic operations."""

from dataclasses import dataclass
from typing import ClassVar, Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from snn_core.errors import ConfigError, nearest
from snn_core.terms import BoundTerm, Recorded, Term
from snn_metrics.terms._layers import LayerOperations, Layouts, Pooling
from snn_metrics.terms._samples import mean_of_samples, require_choice, require_number

__all__ = ["PENALTIES", "SynOpsBudget"]

PENALTIES = ("log", "hinge", "squared")
_TOTAL = "total"


@dataclass(frozen=True)
class SynOpsBudget(Term):
    """Synaptic operations of a sample, held to a budget: |activation| x fan-out, summed over layers and time steps.

    Measure: the mean over the batch's samples, after Sorbaro et al. 2020, eq. 4; with per_layer the parts "total" and
    each named layer. With m the measure and t the target:
    "log": weight relu(log(m / t)), whose gradient asks for the same relative cut however far the budget is;
    "hinge": weight relu(m / t - 1);   "squared": weight (m / t - 1)^2, which also raises what is below the target.
    Several budgets (per_layer) add up.

    target: operations a sample, all layers together; None only measures.   per_layer: the same for single layers, by
    their names in the model.   weight: 0 only measures; a control, as are "target" and "target.LAYER".
    per: "sample", or "step" for targets and measures of one time step.
    layout, pooling: how time lies in the inputs of layers outside snn.Sequential, and what average pools count as.
    Raises ConfigError for numbers out of range, and when it is bound for unknown layers or a model without any.
    """

    layers: ClassVar[bool] = True  # the inputs of weight layers are to be recorded

    target: Optional[float] = None
    per_layer: Optional[Mapping[str, float]] = None
    penalty: str = "log"
    weight: float = 1.0
    per: str = "sample"
    layout: Layouts = None
    pooling: Pooling = "sum"
    name: str = "synops_budget"

    def __post_init__(self) -> None:
        require_choice(f"{self.name}.penalty", self.penalty, PENALTIES)
        require_choice(f"{self.name}.per", self.per, ("sample", "step"))
        require_number(f"{self.name}.weight", self.weight, 0)
        for key, value in self.targets().items():
            require_number(f"{self.name}.{key}, in operations a {self.per},", value, 0, open_end=True)

    @classmethod
    def examples(cls) -> Sequence[Term]:
        return [cls(target=20.0, penalty=penalty) for penalty in PENALTIES]

    def targets(self) -> Dict[str, float]:
        """The budgets by the names of their controls: "target", "target.LAYER"."""
        total = {} if self.target is None else {"target": self.target}
        return {**total, **{f"target.{layer}": value for layer, value in (self.per_layer or {}).items()}}

    @property
    def controls(self) -> Dict[str, float]:
        return {"weight": self.weight, **self.targets()}

    def bind(self, model: nn.Module) -> "BoundBudget":
        operations = LayerOperations(model, self.layout, self.pooling)
        for layer in self.per_layer or {}:
            if layer not in operations.names:
                raise ConfigError(
                    f"{self.name}.per_layer names a layer {layer!r} that the model does not have"
                    f"{nearest(layer, operations.names)}; its weight layers are "
                    f"{', '.join(map(repr, operations.names))}"
                )
        return BoundBudget(operations, tuple(self.per_layer or ()), self.penalty, self.per, tuple(self.targets()))


class BoundBudget(BoundTerm):
    """See `SynOpsBudget`. layers: those that have parts of their own.   targets: names of the controls with budgets."""

    def __init__(
        self, operations: LayerOperations, layers: Tuple[str, ...], penalty: str, per: str, targets: Tuple[str, ...]
    ) -> None:
        self.operations, self.layers, self.kind, self.per, self.targets = operations, layers, penalty, per, targets
        self.parts = (_TOTAL, *layers) if layers else ()

    def measure(self, recorded: Recorded, valid: Optional[Tensor]) -> Tensor:
        counts = {name: self.operations.of_samples(name, recorded) for name in self.operations.names}
        total = torch.stack(list(counts.values())).sum(0)
        measured = torch.stack([total, *(counts[layer] for layer in self.layers)]) if self.layers else total
        mean = mean_of_samples(measured, valid)
        return mean / recorded.output.shape[0] if self.per == "step" else mean

    def penalty(self, measure: Tensor, controls: Mapping[str, Tensor]) -> Tensor:
        values = dict(zip(("target", *(f"target.{layer}" for layer in self.layers)), measure.reshape(-1).unbind()))
        excesses: List[Tensor] = [self._excess(values[name] / controls[name]) for name in self.targets]
        total = torch.stack(excesses).sum() if excesses else measure.new_zeros(())
        return total * controls["weight"]

    def _excess(self, ratio: Tensor) -> Tensor:
        if self.kind == "log":
            # relu(log(ratio)), without the infinite slope of the logarithm of a network that is silent
            return torch.log(torch.clamp(ratio, min=1.0))
        if self.kind == "hinge":
            return torch.relu(ratio - 1)
        return (ratio - 1).square()
