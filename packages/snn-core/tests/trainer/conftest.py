"""A small problem that a small network learns, for every test of the trainer."""

from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from snn_core.containers import Sequential
from snn_core.eager import EagerBackend
from snn_core.encoders import Constant
from snn_core.losses import CountCrossEntropy
from snn_core.neurons import LIF
from snn_core.optimizers import Adam
from snn_core.trainer import Trainer


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def samples() -> Callable[..., TensorDataset]:
    """samples(count, seed=0): three classes that a line separates. x: [count, 6]; labels in {0, 1, 2}."""

    def make(count: int, seed: int = 0) -> TensorDataset:
        generator = torch.Generator().manual_seed(seed)
        labels = torch.arange(count) % 3
        x = 0.3 * torch.randn(count, 6, generator=generator)
        x[torch.arange(count), labels] += 2
        return TensorDataset(x, labels)

    return make


@pytest.fixture(scope="session")
def network() -> Callable[..., Sequential]:
    """network(dropout=0.0): a spiking network of the same first weights each time."""

    def make(dropout: float = 0.0) -> Sequential:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            return Sequential(
                Constant(steps=5),
                nn.Linear(6, 12),
                nn.Dropout(dropout),
                LIF(beta=0.9),
                nn.Linear(12, 3),
                LIF(beta=0.9),
            )

    return make


@pytest.fixture
def trainer(network: Any, tmp_path: Path) -> Callable[..., Trainer]:
    """trainer(**changes): a quiet one that writes to tmp_path/runs and makes no plots."""

    def make(**changes: Any) -> Trainer:
        settings = {
            "model": changes.pop("model", None) or network(),
            "loss": CountCrossEntropy(),
            "optimizer": Adam(lr=1e-2),
            "backend": EagerBackend(),
            "batch_size": 8,
            "folder": tmp_path / "runs",
            "progress": False,
            "plots": False,
            **changes,
        }
        return Trainer(settings.pop("model"), **settings)

    return make
