"""WeightSparsity: fewer and smaller weights."""

from dataclasses import dataclass
from typing import Any, Mapping, Optional, Sequence

import torch
from torch import Tensor, nn

from snn_core.errors import ConfigError
from snn_core.recording import WEIGHT_LAYERS
from snn_core.terms import BoundTerm, Recorded, Term
from snn_metrics.terms._samples import wide
from snn_metrics.terms._weighted import Weighted

__all__ = ["WeightSparsity"]


@dataclass(frozen=True)
class WeightSparsity(Weighted):
    """Mean magnitude of the weights of all weight layers, biases left out, times a weight (the lasso; Tibshirani 1996).

    Measure: the parts "magnitude", the mean of |w|, and "zeros", the share of weights that are exactly 0, which pruning
    makes and a gradient does not.   Penalty: weight x magnitude.

    weight: 0 only measures. Raises ConfigError for a model without weight layers.
    """

    name: str = "weight_sparsity"

    @classmethod
    def examples(cls) -> Sequence[Term]:
        return [cls()]

    def bind(self, model: nn.Module) -> BoundTerm:
        found = [module for module in model.modules() if isinstance(module, WEIGHT_LAYERS)]
        if not found:
            raise ConfigError(f"{self.name}: the model has no weight layer such as nn.Linear; leave the term out")
        return _BoundWeights(found)


class _BoundWeights(BoundTerm):
    parts = ("magnitude", "zeros")

    def __init__(self, found: Sequence[Any]) -> None:
        # the layers, not their weights: a backend may put other tensors in their place
        self._layers = tuple(found)

    def measure(self, recorded: Recorded, valid: Optional[Tensor]) -> Tensor:
        weights = [layer.weight for layer in self._layers]
        count = sum(weight.numel() for weight in weights)
        magnitude = torch.stack([weight.abs().sum(dtype=wide(weight)) for weight in weights]).sum() / count
        zeros = torch.stack([(weight == 0).sum() for weight in weights]).sum() / count
        return torch.stack([magnitude, zeros.to(magnitude.dtype)])

    def penalty(self, measure: Tensor, controls: Mapping[str, Tensor]) -> Tensor:
        return controls["weight"] * measure[0]
