"""Random batches, and the losses written out as loops over plain numbers."""

import math
from typing import Any, Dict, List, NamedTuple

import pytest
import torch
from torch import Tensor


class Batch(NamedTuple):
    """Spikes and membrane `[T, B, C]` with labels `[B]` below C / population."""

    spikes: Tensor
    mem: Tensor
    labels: Tensor

    @property
    def traces(self) -> Dict[str, Tensor]:
        return {"mem": self.mem}


class Oracle:
    """Each loss for one sample: x is a list of T lists of C floats, y the label. Sums are exact (fsum)."""

    @staticmethod
    def cross_entropy(scores: List[float], y: int) -> float:
        top = max(scores)
        return math.log(math.fsum(math.exp(s - top) for s in scores)) + top - scores[y]

    @staticmethod
    def groups(row: List[float], population: int) -> List[List[float]]:
        return [row[k : k + population] for k in range(0, len(row), population)]

    @classmethod
    def counts(cls, x: List[List[float]], population: int = 1) -> List[float]:
        steps = [[math.fsum(group) for group in cls.groups(row, population)] for row in x]
        return [math.fsum(column) for column in zip(*steps)]

    @classmethod
    def rate_cross_entropy(cls, x: List[List[float]], y: int, population: int = 1) -> float:
        rows = [[math.fsum(g) / population for g in cls.groups(row, population)] for row in x]
        return math.fsum(cls.cross_entropy(row, y) for row in rows) / len(x)

    @classmethod
    def count_cross_entropy(cls, x: List[List[float]], y: int, population: int = 1) -> float:
        return cls.cross_entropy(cls.counts(x, population), y)

    @classmethod
    def count_mse(cls, x: List[List[float]], y: int, on: float, off: float, population: int = 1) -> float:
        counts, steps = cls.counts(x, population), len(x) * population
        goals = [(on if k == y else off) * steps for k in range(len(counts))]
        return math.fsum((c - g) ** 2 for c, g in zip(counts, goals)) / len(counts) / len(x)

    @classmethod
    def rate_mse(cls, x: List[List[float]], y: int, on: float, off: float, population: int = 1) -> float:
        rates = [c / len(x) / population for c in cls.counts(x, population)]
        return math.fsum((r - (on if k == y else off)) ** 2 for k, r in enumerate(rates)) / len(rates)

    @classmethod
    def tet(cls, x: List[List[float]], y: int, lam: float, level: float) -> float:
        values = [v for row in x for v in row]
        spread = math.fsum((v - level) ** 2 for v in values) / len(values)
        return (1 - lam) * cls.rate_cross_entropy(x, y) + lam * spread

    @classmethod
    def max_cross_entropy(cls, x: List[List[float]], y: int) -> float:
        return cls.cross_entropy([max(column) for column in zip(*x)], y)

    @staticmethod
    def step_mse(x: List[List[float]], goals: List[List[float]]) -> float:
        squares = [(v - g) ** 2 for row, goal in zip(x, goals) for v, g in zip(row, goal)]
        return math.fsum(squares) / len(squares)

    @staticmethod
    def first_spikes(x: List[List[float]]) -> List[int]:
        return [next((t for t, v in enumerate(column) if v != 0), len(x) - 1) for column in zip(*x)]

    @classmethod
    def temporal_mse(cls, x: List[List[float]], goals: List[float], tolerance: float = 0) -> float:
        late = [t - (g if g >= 0 else len(x) + g) for t, g in zip(cls.first_spikes(x), goals)]
        return math.fsum((d / len(x)) ** 2 for d in late if abs(d) >= tolerance) / len(late)


@pytest.fixture(scope="session")
def oracle() -> Any:
    return Oracle


@pytest.fixture(scope="session")
def make_batch() -> Any:
    def make(steps: int, batch: int, classes: int, seed: int = 0, population: int = 1, density: float = 0.3) -> Batch:
        generator = torch.Generator().manual_seed(seed)
        shape = (steps, batch, classes * population)
        spikes = (torch.rand(shape, generator=generator) < density).double()
        mem = torch.randn(shape, generator=generator, dtype=torch.float64)
        return Batch(spikes, mem, torch.randint(0, classes, (batch,), generator=generator))

    return make
