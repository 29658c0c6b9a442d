"""Optimisers as frozen values: a backend builds its own object from one, since some devices replace the classes."""

from dataclasses import dataclass
from typing import Tuple

from snn_core.errors import ConfigError

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "RMSprop"]


def _require(ok: bool, what: str, got: object, allowed: str) -> None:
    if not ok:
        raise ConfigError(f"{what} is {got!r}; it must be {allowed}")


@dataclass(frozen=True)
class Optimizer:
    """What every optimiser has. `lr` is the learning rate before any schedule, `weight_decay` the L2 or decoupled
    decay.
    """

    lr: float = 1e-3
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        name = type(self).__name__
        _require(0.0 <= self.lr < float("inf"), f"{name}.lr", self.lr, "a finite number >= 0")
        _require(self.weight_decay >= 0.0, f"{name}.weight_decay", self.weight_decay, ">= 0")

    @property
    def name(self) -> str:
        """The lower-case name by which capabilities and configuration files know the optimiser."""
        return type(self).__name__.lower()


@dataclass(frozen=True)
class SGD(Optimizer):
    """Stochastic gradient descent with momentum. Sutskever et al. 2013, as torch.optim.SGD writes it."""

    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(0.0 <= self.momentum < 1.0, "SGD.momentum", self.momentum, "in [0, 1)")
        _require(
            not self.nesterov or (self.momentum > 0 and self.dampening == 0),
            "SGD.nesterov",
            self.nesterov,
            "False unless momentum > 0 and dampening = 0",
        )


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam with L2 decay added to the gradient. Kingma and Ba 2015, algorithm 1."""

    betas: Tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        _require(
            len(self.betas) == 2 and all(0.0 <= b < 1.0 for b in self.betas),
            f"{name}.betas",
            self.betas,
            "two numbers in [0, 1)",
        )
        _require(self.eps > 0, f"{name}.eps", self.eps, "> 0")


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay. Loshchilov and Hutter 2019, algorithm 2."""

    weight_decay: float = 0.01


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """RMSprop. Hinton 2012, lecture 6e; `alpha` is the decay of the squared gradient's average."""

    lr: float = 1e-2
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(0.0 <= self.alpha < 1.0, "RMSprop.alpha", self.alpha, "in [0, 1)")
        _require(self.eps > 0, "RMSprop.eps", self.eps, "> 0")
        _require(0.0 <= self.momentum < 1.0, "RMSprop.momentum", self.momentum, "in [0, 1)")
