"""Terms whose penalty is their measure times a weight."""

from dataclasses import dataclass
from typing import Dict, Mapping

from torch import Tensor

from snn_core.terms import BoundTerm, Term
from snn_metrics.terms._samples import require_number

__all__ = ["BoundWeighted", "Weighted"]


@dataclass(frozen=True)
class Weighted(Term):
    """A term with one control, its weight; a subclass names itself. Raises ConfigError for a weight below 0."""

    weight: float = 1.0

    def __post_init__(self) -> None:
        require_number(f"{self.name}.weight", self.weight, 0)

    @property
    def controls(self) -> Dict[str, float]:
        return {"weight": self.weight}


class BoundWeighted(BoundTerm):
    """A penalty of weight x measure."""

    def penalty(self, measure: Tensor, controls: Mapping[str, Tensor]) -> Tensor:
        return controls["weight"] * measure
