"""Surrogate gradients: the spike is a step function going forward and has a declared derivative going back.

A surrogate is a frozen value with one method, `derivative(u)`, where u = membrane - threshold, dimensionless. It holds
no tensor, so it pickles, deep-copies and compares by value. A user's own is a subclass, or `Custom(function)`.
"""

import math
from abc import ABC, abstractmethod
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields
from typing import Callable, Iterator, List, Optional

import torch
from torch import Tensor

from snn_core.errors import ConfigError

__all__ = [
    "ATan",
    "Custom",
    "Erf",
    "FastSigmoid",
    "Gaussian",
    "MultiGaussian",
    "PiecewiseExponential",
    "PiecewiseQuadratic",
    "Rectangular",
    "Sigmoid",
    "SingleExponential",
    "SoftSign",
    "SpikeRateEscape",
    "StraightThrough",
    "SuperSpike",
    "Surrogate",
    "Triangular",
    "spike",
]


SpikeRunner = Callable[[Tensor, "Surrogate", str], Tensor]

_runner: "ContextVar[Optional[SpikeRunner]]" = ContextVar("the runner of spikes", default=None)
# how many blocks are open in all threads: torch.compile sees through a list's length, and not through a ContextVar
_blocks: List[None] = []


@contextmanager
def spikes_by(runner: SpikeRunner) -> Iterator[None]:
    """Let a backend compute `spike` its own way within a block, in this thread; it must give the reference's spikes
    for any tensor. What torch.compile traces keeps the reference.
    """
    before = _runner.set(runner)
    _blocks.append(None)
    try:
        yield
    finally:
        _blocks.pop()
        _runner.reset(before)


def spike(u: Tensor, surrogate: "Surrogate", fire_op: str = ">=") -> Tensor:
    """Heaviside step of u, exactly 0 or 1 in u's dtype, whose gradient is `surrogate.derivative(u)`.

    u, result: any shape; an infinite u gives NaN, so that a membrane that diverged shows. `fire_op` decides a tie at
    u = 0: ">=" fires, ">" does not.
    """
    runner = _runner.get() if _blocks and not _is_compiling() else None
    return (spike_reference if runner is None else runner)(u, surrogate, fire_op)


def _is_compiling() -> bool:
    compiler = getattr(torch, "compiler", None)  # torch 2.0 has none
    return compiler is not None and bool(compiler.is_compiling())


def spike_reference(u: Tensor, surrogate: "Surrogate", fire_op: str = ">=") -> Tensor:
    """What `spike` means, in plain torch."""
    # the sign, because comparing and converting the result takes torch three times as long on a CPU
    sign = torch.sign(u.detach())
    fired = torch.sign(sign + 1) if fire_op == ">=" else torch.relu(sign)
    return attach(fired, u, surrogate)


def attach(value: Tensor, u: Tensor, surrogate: "Surrogate") -> Tensor:
    """Give `value` the gradient of `surrogate` with respect to u, without changing it."""
    # u - u.detach() is an exact zero with gradient 1: no custom backward, which PopART would ignore
    still = u.detach()
    return torch.addcmul(value.detach(), surrogate.derivative(still).detach(), u - still)


@dataclass(frozen=True)
class Surrogate(ABC):
    """A spike's derivative. Numeric fields must be positive and finite. Neftci, Mostafa and Zenke 2019."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (int, float)) and not 0 < value < math.inf:
                raise ConfigError(f"{type(self).__name__}.{field.name} is {value}; it must be a finite number above 0")

    @abstractmethod
    def derivative(self, u: Tensor) -> Tensor:
        """The spike's derivative with respect to u = membrane - threshold. u, result: any one shape."""


@dataclass(frozen=True)
class ATan(Surrogate):
    """(k/2) / (1 + (pi k u / 2)^2). Fang et al. 2021, eq. 12 of the supplement."""

    slope: float = 2.0

    def derivative(self, u: Tensor) -> Tensor:
        # the same fraction with the numerator divided out: one pass over memory less
        return torch.reciprocal(2 / self.slope + (math.pi**2 / 2 * self.slope) * u.square())


@dataclass(frozen=True)
class StraightThrough(Surrogate):
    """1 everywhere. Bengio, Leonard and Courville 2013."""

    def derivative(self, u: Tensor) -> Tensor:
        return torch.ones_like(u)


@dataclass(frozen=True)
class FastSigmoid(Surrogate):
    """1 / (1 + k |u|)^2. Zenke and Vogels 2021, eq. 5."""

    slope: float = 25.0

    def derivative(self, u: Tensor) -> Tensor:
        return torch.reciprocal((1 + self.slope * u.abs()).square())


@dataclass(frozen=True)
class Sigmoid(Surrogate):
    """k s (1 - s) with s = sigmoid(k u). Zenke and Ganguli 2018."""

    slope: float = 4.0

    def derivative(self, u: Tensor) -> Tensor:
        s = torch.sigmoid(self.slope * u)
        return self.slope * s * (1 - s)


@dataclass(frozen=True)
class Triangular(Surrogate):
    """height * max(0, 1 - |u| / width). Bellec et al. 2018, with their dampening as the height."""

    height: float = 1.0
    width: float = 1.0

    def derivative(self, u: Tensor) -> Tensor:
        return self.height * torch.relu(1 - u.abs() / self.width)


@dataclass(frozen=True)
class PiecewiseQuadratic(Surrogate):
    """max(0, k - k^2 |u|): a triangle of area 1. Esser et al. 2016; Bohte 2011."""

    slope: float = 1.0

    def derivative(self, u: Tensor) -> Tensor:
        return torch.relu(self.slope - self.slope**2 * u.abs())


@dataclass(frozen=True)
class PiecewiseExponential(Surrogate):
    """(k/2) exp(-k |u|). Neftci, Mostafa and Zenke 2019."""

    slope: float = 1.0

    def derivative(self, u: Tensor) -> Tensor:
        return (self.slope / 2) * torch.exp(-self.slope * u.abs())


@dataclass(frozen=True)
class Erf(Surrogate):
    """(k / sqrt(pi)) exp(-k^2 u^2). Esser et al. 2015; Wu et al. 2018."""

    slope: float = 2.0

    def derivative(self, u: Tensor) -> Tensor:
        return (self.slope / math.sqrt(math.pi)) * torch.exp(-(self.slope**2) * u.square())


@dataclass(frozen=True)
class Rectangular(Surrogate):
    """k where |u| < 1/(2k), else 0: a box of area 1. Wu et al. 2018, eq. 24."""

    slope: float = 1.0

    def derivative(self, u: Tensor) -> Tensor:
        return self.slope * (u.abs() < 0.5 / self.slope).to(u.dtype)


@dataclass(frozen=True)
class SuperSpike(Surrogate):
    """gain / (1 + |u|)^2. Zenke and Ganguli 2018, eq. 3 with beta = 1."""

    gain: float = 1.0

    def derivative(self, u: Tensor) -> Tensor:
        return self.gain / (1 + u.abs()).square()


@dataclass(frozen=True)
class SoftSign(Surrogate):
    """1 / (2 k (1/k + |u|)^2): the derivative of the soft sign."""

    slope: float = 2.0

    def derivative(self, u: Tensor) -> Tensor:
        return 1 / (2 * self.slope * (1 / self.slope + u.abs()).square())


@dataclass(frozen=True)
class SingleExponential(Surrogate):
    """(scale / width) exp(-|u| / width), width in units of the membrane. Shrestha and Orchard 2018."""

    width: float = 0.5
    scale: float = 1.0

    def derivative(self, u: Tensor) -> Tensor:
        return (self.scale / self.width) * torch.exp(-u.abs() / self.width)


@dataclass(frozen=True)
class Gaussian(Surrogate):
    """The normal density of standard deviation `width`, times `scale`."""

    width: float = 0.5
    scale: float = 1.0

    def derivative(self, u: Tensor) -> Tensor:
        return self.scale * _normal(u, 0.0, self.width)


@dataclass(frozen=True)
class MultiGaussian(Surrogate):
    """scale * [(1 + h) N(0, w) - h N(w, s w) - h N(-w, s w)]: negative in the flanks. Yin et al. 2021, eq. 5."""

    width: float = 0.5
    h: float = 0.15
    s: float = 6.0
    scale: float = 1.0

    def derivative(self, u: Tensor) -> Tensor:
        middle = (1 + self.h) * _normal(u, 0.0, self.width)
        flanks = _normal(u, self.width, self.s * self.width) + _normal(u, -self.width, self.s * self.width)
        return self.scale * (middle - self.h * flanks)


@dataclass(frozen=True)
class SpikeRateEscape(Surrogate):
    """slope * exp(-beta |u - shift|): the Boltzmann escape rate. Gerstner et al. 2014, section 9.4."""

    beta: float = 1.0
    slope: float = 25.0
    shift: float = 1.0

    def derivative(self, u: Tensor) -> Tensor:
        return self.slope * torch.exp(-self.beta * (u - self.shift).abs())


@dataclass(frozen=True)
class Custom(Surrogate):
    """A user's own derivative, a function of u with u's shape; at the top level of a module, so that it pickles."""

    function: Optional[Callable[[Tensor], Tensor]] = None

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise ConfigError(f"Custom.function is {self.function!r}; give a function of u = membrane - threshold")

    def derivative(self, u: Tensor) -> Tensor:
        if self.function is None:  # narrowed for the type checker; the constructor refuses None
            raise ConfigError("Custom.function is None")
        return self.function(u)


def _normal(u: Tensor, mean: float, width: float) -> Tensor:
    return torch.exp(-((u - mean) / width).square() / 2) / (width * math.sqrt(2 * math.pi))
