"""How sinabs' neurons fire, are reset and differentiate: values that its presets take as arguments."""

from dataclasses import dataclass
from typing import Optional, Union

import torch
from torch import Tensor

from snn_core.surrogate import Surrogate

__all__ = [
    "Heaviside",
    "MaxSpike",
    "MembraneReset",
    "MembraneSubtract",
    "MultiSpike",
    "PeriodicExponential",
    "Reset",
    "SingleExponential",
    "SingleSpike",
    "Spikes",
    "ThresholdSurrogate",
]


@dataclass(frozen=True)
class ThresholdSurrogate(Surrogate):
    """A surrogate that depends on the threshold too, in units of the membrane."""

    def derivative(self, u: Tensor) -> Tensor:
        return self.at(u + 1, torch.ones_like(u))

    def at(self, v: Tensor, threshold: Tensor) -> Tensor:
        """The derivative with respect to the membrane v, of any shape that the threshold broadcasts to."""
        raise NotImplementedError(f"{type(self).__name__} must define at(v, threshold)")


@dataclass(frozen=True)
class SingleExponential(ThresholdSurrogate):
    """scale / (thr w) exp(-|v - thr| / (thr w)): sinabs' default. Shrestha and Orchard 2018."""

    grad_width: float = 0.5
    grad_scale: float = 1.0

    def at(self, v: Tensor, threshold: Tensor) -> Tensor:
        width = threshold * self.grad_width
        return self.grad_scale / width * torch.exp(-(v - threshold).abs() / width)


@dataclass(frozen=True)
class PeriodicExponential(ThresholdSurrogate):
    """An exponential around every multiple of the threshold. Weidel and Sheik 2021."""

    grad_width: float = 0.5
    grad_scale: float = 1.0

    def at(self, v: Tensor, threshold: Tensor) -> Tensor:
        phase = v / threshold - 0.5
        around = threshold * (2 * (phase - torch.floor(phase)) - 1)
        distance = torch.where(v >= threshold, around, v - threshold)
        return self.grad_scale * torch.exp(-distance.abs() / self.grad_width)


@dataclass(frozen=True)
class Heaviside(ThresholdSurrogate):
    """1 / thr where v is above thr - window, else 0."""

    window: float = 1.0

    def at(self, v: Tensor, threshold: Tensor) -> Tensor:
        return (v >= threshold - self.window).to(v.dtype) / threshold


@dataclass(frozen=True)
class Spikes:
    """How many spikes a membrane fires in one step: trunc(v / thr), at most `most`; `single`: one from thr up."""

    most: Optional[int] = None
    single: bool = False

    def count(self, v: Tensor, threshold: Tensor) -> Tensor:
        if self.single:
            return (v - threshold >= 0).to(v.dtype)
        spikes = (v > 0) * torch.div(v, threshold, rounding_mode="trunc")
        return spikes if self.most is None else torch.clamp(spikes, max=self.most)


MultiSpike = Spikes()
"""Any number of spikes in one step."""
SingleSpike = Spikes(single=True)
"""At most one spike in one step."""


def MaxSpike(max_num_spikes_per_bin: Optional[int] = None) -> Spikes:
    """At most so many spikes in one step."""
    return Spikes(most=max_num_spikes_per_bin)


@dataclass(frozen=True)
class MembraneSubtract:
    """Take the threshold, or `subtract_value`, off the membrane for each spike."""

    subtract_value: Optional[float] = None

    def reset(self, v: Tensor, spikes: Tensor, threshold: Tensor) -> Tensor:
        return v - spikes * (threshold if self.subtract_value is None else self.subtract_value)


@dataclass(frozen=True)
class MembraneReset:
    """Set the membrane of a neuron that fired to 0 and, as sinabs does, add `reset_value` to all, always."""

    reset_value: float = 0.0

    def reset(self, v: Tensor, spikes: Tensor, threshold: Tensor) -> Tensor:
        return v * (spikes == 0).to(v.dtype) + self.reset_value


Reset = Union[MembraneSubtract, MembraneReset]
