"""Trials that several processes train together. `python programs.py FOLDER` is one of the processes: it trains every
trial and saves what came of it.
"""

import os
import sys
from dataclasses import replace
from typing import Any, Dict, Tuple

import torch
from torch import Tensor, nn

import snn_core as snn
from snn_core.containers import Sequential
from snn_core.neurons import LIF, Recurrent
from snn_core.optimizers import SGD, Adam
from snn_core.testing.fit import fit
from snn_core.testing.nets import CLASSES, FEATURES, dense, images, readout, static
from snn_core.testing.pieces import Activity, Drive
from snn_core.testing.trial import Trial


class Idle(nn.Module):
    """A layer that has weights and uses none of them."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(2, 2)
        self.used = Sequential(nn.Linear(FEATURES, CLASSES), LIF(0.8))

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


class Largest(nn.Module):
    """The largest input of the batch, in a buffer that nothing but the state dict reads."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("largest", torch.zeros(1))
        self.register_buffer("seen", torch.zeros(1, dtype=torch.bool))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.largest.fill_(x.detach().max().item())
            self.seen.fill_(True)
        return x


def _idle() -> nn.Module:
    return Idle()


def _frozen() -> nn.Module:
    model = dense().build()
    model[0].requires_grad_(False)  # type: ignore[index, operator]
    return model


def _recurrent() -> nn.Module:
    return Sequential(
        nn.Linear(FEATURES, 5), Recurrent(LIF(0.8), nn.Linear(5, 5)), nn.Linear(5, CLASSES), LIF(0.9, threshold=0.3)
    )


def _own_buffers() -> nn.Module:
    first, *rest = dense().build().children()
    return Sequential(first, Largest(), *rest)


def _average() -> nn.Module:
    return Sequential(nn.Linear(FEATURES, 5), nn.BatchNorm1d(5, momentum=None), LIF(0.8), nn.Linear(5, CLASSES), LIF())


WEIGHTED = snn.CountCrossEntropy(class_weights=(0.5, 3.0, 0.0))
SHORT = {"drop_last": False}
TERMS = (Activity(), Drive())

TRIALS: Dict[str, Trial] = {
    "dense": dense(),
    "shares that differ in size": dense(15, size=5),
    "a short last batch": dense(14, size=4).training(**SHORT),
    "a last batch of one sample": dense(9, size=4).training(**SHORT),
    "a last batch of one sample, with terms": dense(9, size=4, terms=TERMS).training(**SHORT),
    "terms whose penalty is no mean": dense(15, size=5, terms=TERMS),
    "class weights": dense(15, size=5, loss=WEIGHTED, optimizer=SGD(lr=0.2)),
    "a loss of values": readout(15, size=5),
    "accumulation": dense(20, size=5).training(accumulation=2),
    "accumulation, a short last batch": dense(13, size=4, terms=TERMS).training(accumulation=2, **SHORT),
    "clipped by norm": dense(15, size=5).training(clip_norm=0.05),
    "clipped by value": dense(15, size=5).training(clip_value=0.002, accumulation=3),
    "chunks": dense(15, size=5, terms=TERMS).training(chunk=2),
    "chunks of accumulated batches": dense(18, size=3).training(chunk=2, accumulation=2),
    "adam": dense(15, size=5, optimizer=Adam(lr=0.01, eps=1e-2)),
    "static": static(15, size=5),
    "batch norm": images(15, size=5),
    "batch norm, a last batch of one sample": images(9, size=4).training(**SHORT),
    "batch norm with a cumulative average": dense(15, size=5, model=_average),
    "batch norm, accumulated": images(20, size=5).training(accumulation=2),
    "recurrent": dense(15, size=5, model=_recurrent),
    "a layer that is not used": dense(15, size=5, model=_idle),
    "a frozen layer": dense(15, size=5, model=_frozen),
    "deterministic": dense(15, size=5).training(deterministic=True),
}
TRIALS = {name: replace(trial, dtype="float64") for name, trial in TRIALS.items()}


def trained(trial: Trial, epochs: int = 2) -> Tuple[Any, Any]:
    """The reports of two epochs, and the weights."""
    outcome = fit(snn.EagerBackend(), trial, epochs=epochs)
    return [tuple(row) for row in outcome.rows], outcome.weights


if __name__ == "__main__":
    found = {name: trained(trial) for name, trial in TRIALS.items()}
    found["own buffers"] = trained(replace(dense(15, size=5, model=_own_buffers), dtype="float64"))
    torch.save(found, f"{sys.argv[1]}/{os.environ['RANK']}.pt")
