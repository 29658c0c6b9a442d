"""MembraneBound: membranes kept within a range that hardware can hold."""

import math
import sys
from dataclasses import dataclass
from typing import ClassVar, Dict, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from snn_core.errors import ConfigError
from snn_core.neurons.base import Temporal
from snn_core.recording import static_shape
from snn_core.terms import BoundTerm, Recorded, Term
from snn_metrics.terms._samples import mean_of_samples, require_number, wide
from snn_metrics.terms._weighted import BoundWeighted

__all__ = ["MembraneBound"]


@dataclass(frozen=True)
class MembraneBound(Term):
    """How far membranes leave a range, squared: relu(mem - high)^2 + relu(low - mem)^2, times a weight.

    Measure: its mean over samples, steps and neurons of every layer with a state "mem", after the step (and its reset).
    Penalty: weight x measure. The states are recorded over time, which takes the memory of one more output.

    low, high: the range, in units of the membrane.   weight: 0 only measures.
    Raises ConfigError for a range out of order, or a model without a membrane.
    """

    traces: ClassVar[Tuple[str, ...]] = ("mem",)

    low: float = -1.0
    high: float = 1.0
    weight: float = 1.0
    name: str = "membrane_bound"

    def __post_init__(self) -> None:
        require_number(f"{self.name}.weight", self.weight, 0)
        require_number(f"{self.name}.low", self.low, -sys.float_info.max)
        require_number(f"{self.name}.high", self.high, self.low, open_end=True)

    @classmethod
    def examples(cls) -> Sequence[Term]:
        return [cls(low=-0.1, high=0.4)]

    @property
    def controls(self) -> Dict[str, float]:
        return {"weight": self.weight}

    def bind(self, model: nn.Module) -> BoundTerm:
        if not any(isinstance(module, Temporal) and "mem" in module.states for module in model.modules()):
            raise ConfigError(f"{self.name}: no layer of the model has a membrane, a state 'mem'; leave the term out")
        return _BoundMembrane(self.low, self.high)


class _BoundMembrane(BoundWeighted):
    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high

    def measure(self, recorded: Recorded, valid: Optional[Tensor]) -> Tensor:
        outside, elements = [], 0
        for calls in recorded.neurons.values():
            for mem in (call.traces["mem"] for call in calls if "mem" in call.traces):
                beyond = torch.relu(mem - self.high).square() + torch.relu(self.low - mem).square()
                outside.append(beyond.sum(0, dtype=wide(mem)).flatten(1).sum(-1))
                elements += math.prod(static_shape(mem)) // static_shape(mem)[1]
        return mean_of_samples(torch.stack(outside).sum(0), valid) / elements
