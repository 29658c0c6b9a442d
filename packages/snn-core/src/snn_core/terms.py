"""Terms: what is measured inside the compiled step beside the loss, and what it costs."""

from abc import ABC, abstractmethod
from typing import Dict, Mapping, NamedTuple, Optional, Sequence, Tuple

from torch import Tensor, nn

from snn_core.recording import LayerCall, NeuronCall

__all__ = ["BoundTerm", "Recorded", "Term"]


class Recorded(NamedTuple):
    """What one forward left for the terms: the model's output, and by module name every call of the layers that terms
    asked for.
    """

    output: Tensor
    neurons: Mapping[str, Sequence[NeuronCall]]
    layers: Mapping[str, Sequence[LayerCall]]


class BoundTerm(ABC):
    """A term made ready for one model: two pure, picklable tensor functions, no `.item()`, no branch on values.

    parts: the names of what it measures when it measures several values; reports call them "TERM.PART".
    """

    parts: Tuple[str, ...] = ()

    @abstractmethod
    def measure(self, recorded: Recorded, valid: Optional[Tensor]) -> Tensor:
        """The mean over the batch's valid samples of what the term measures, 0-d; with parts `[len(parts)]`.

        valid: `[B]` of 0 and 1, or None for all.
        """

    @abstractmethod
    def penalty(self, measure: Tensor, controls: Mapping[str, Tensor]) -> Tensor:
        """What the measure adds to the objective, 0-d. controls: the term's own, by their short names, 0-d tensors.

        Of several processes that train together each gets the measure of the whole batch.
        """


class Term(ABC):
    """A named measure with a penalty. `name` is unique in a run, whose course may change the values of `controls`."""

    name: str

    @classmethod
    def examples(cls) -> "Sequence[Term]":
        """Terms of this class for the conformance kit, which holds every backend to those of installed plugins.

        They are bound to small nets of `snn.LIF` and `snn.LI` neurons between `nn.Linear` layers.
        """
        return ()

    @property
    def controls(self) -> Dict[str, float]:
        """Multipliers, budgets and the like with their first values: inputs of the compiled step, not constants."""
        return {}

    @property
    def traces(self) -> Tuple[str, ...]:
        """Names of the neuron states to record over time, of every layer that has them."""
        return ()

    @property
    def layers(self) -> bool:
        """Whether the inputs of the weight layers are to be recorded."""
        return False

    @abstractmethod
    def bind(self, model: nn.Module) -> BoundTerm:
        """Make the term ready for `model`, on the host before compile. Raises ConfigError where it cannot apply."""
