"""OperationCounts: what a network costs, layer by layer and kind by kind; it only measures."""

from dataclasses import dataclass
from typing import ClassVar, Mapping, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from snn_core.terms import BoundTerm, Recorded, Term
from snn_metrics.counting import KINDS
from snn_metrics.terms._layers import LayerOperations, Layouts, Pooling
from snn_metrics.terms._samples import mean_of_samples, require_choice

__all__ = ["OperationCounts"]


@dataclass(frozen=True)
class OperationCounts(Term):
    """Operations of a sample of every weight layer, in every kind of `snn_metrics.counting`; it adds no penalty.

    Measure: a part "LAYER.KIND" for each layer and kind, summed over time steps, a mean over samples.

    kinds: those wanted.   layout, pooling: as in `SynOpsBudget`. Raises ConfigError as that does.
    """

    layers: ClassVar[bool] = True

    kinds: Tuple[str, ...] = KINDS
    layout: Layouts = None
    pooling: Pooling = "sum"
    name: str = "operation_counts"

    def __post_init__(self) -> None:
        for kind in self.kinds:
            require_choice(f"{self.name}.kinds", kind, KINDS)

    @classmethod
    def examples(cls) -> Sequence[Term]:
        return [cls()]

    def bind(self, model: nn.Module) -> BoundTerm:
        return _BoundCounts(LayerOperations(model, self.layout, self.pooling), self.kinds)


class _BoundCounts(BoundTerm):
    def __init__(self, operations: LayerOperations, kinds: Sequence[str]) -> None:
        self._operations = operations
        self._wanted = tuple((layer, kind) for layer in operations.names for kind in kinds)
        self.parts = tuple(f"{layer}.{kind}" for layer, kind in self._wanted)

    def measure(self, recorded: Recorded, valid: Optional[Tensor]) -> Tensor:
        counts = [self._operations.of_samples(layer, recorded, kind) for layer, kind in self._wanted]
        return mean_of_samples(torch.stack(counts), valid)

    def penalty(self, measure: Tensor, controls: Mapping[str, Tensor]) -> Tensor:
        return measure.new_zeros(())
