"""Norse's derivatives of a spike by the names of its methods, and the resets of its LIFBox."""

import math
from dataclasses import dataclass
from typing import Callable, Dict

import torch
from torch import Tensor

from snn_core.presets._shared import no_gradient
from snn_core.surrogate import SuperSpike, Surrogate, Triangular

__all__ = ["METHODS", "Circ", "HeaviErfc", "Tanh", "reset_subtract", "reset_value"]


@dataclass(frozen=True)
class Tanh(Surrogate):
    """1 - tanh(k u)^2."""

    slope: float = 100.0

    def derivative(self, u: Tensor) -> Tensor:
        return 1 - torch.tanh(u * self.slope).square()


@dataclass(frozen=True)
class Circ(Surrogate):
    """k^3 / (k^2 + u^2)^1.5, which Norse writes as 2k (1/(2r) - u^2/(2r^3)) with r^2 = k^2 + u^2."""

    slope: float = 100.0

    def derivative(self, u: Tensor) -> Tensor:
        square = u.square()
        radius = (self.slope**2 + square).sqrt()
        return 2 * self.slope * (1 / (2 * radius) - square / (2 * radius**3))


@dataclass(frozen=True)
class HeaviErfc(Surrogate):
    """2 exp(-k^2 u^2) / sqrt(pi)."""

    slope: float = 100.0

    def derivative(self, u: Tensor) -> Tensor:
        return 2 / math.sqrt(math.pi) * torch.exp(-(self.slope * u).square())


METHODS: Dict[str, Callable[[float], Surrogate]] = {
    "super": lambda alpha: SuperSpike(),
    "triangle": lambda alpha: Triangular(height=alpha),
    "tanh": Tanh,
    "circ": Circ,
    "heavi_erfc": HeaviErfc,
    "heaviside": lambda alpha: no_gradient(),
}
"""Norse's methods by name: the surrogate that each makes of alpha."""


def reset_value(z: Tensor, v: Tensor, reset: Tensor, th: Tensor) -> Tensor:
    """A reset of LIFBox: spiking membranes go to `reset`."""
    return (1 - z) * v + z * reset


def reset_subtract(z: Tensor, v: Tensor, reset: Tensor, th: Tensor) -> Tensor:
    """A reset of LIFBox: spiking membranes lose the threshold."""
    return (1 - z) * v + z * (v - th)
