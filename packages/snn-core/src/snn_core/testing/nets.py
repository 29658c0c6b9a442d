"""Small networks and data on which the claims are checked. Small on purpose: a few hundred membranes stay clear of
their thresholds, so that rounding cannot turn a spike into none and every tolerance can be tight.
"""

import math
from typing import Callable, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from snn_core.containers import Sequential
from snn_core.encoders import Constant
from snn_core.losses import OutputMSE
from snn_core.losses.base import CallableLoss
from snn_core.neurons import LI, LIF
from snn_core.neurons.base import Temporal
from snn_core.optimizers import SGD
from snn_core.specs import TrainSpec
from snn_core.testing.pieces import projection
from snn_core.testing.trial import Data, Trial

__all__ = [
    "CLASSES",
    "FEATURES",
    "STEPS",
    "dense",
    "dropout",
    "encoded",
    "images",
    "labelled",
    "lookup",
    "readout",
    "rows",
    "static",
    "table",
]

STEPS, FEATURES, CLASSES = 5, 6, 3
HIDDEN = 7


def labelled(count: int, shape: Sequence[int] = (STEPS, FEATURES), classes: int = CLASSES, seed: int = 11) -> Data:
    """`count` samples of uniform values in [0, 2), `[*shape]`, with labels in turn."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.rand(tuple(shape), generator=generator) * 2, torch.tensor((3 * i + i // 2) % classes))
        for i in range(count)
    ]


def dense(count: int = 12, **changes: object) -> Trial:
    """Two layers of leaky integrate-and-fire neurons on `[T, B, 6]`, `count` samples in micro-batches of 4."""
    return Trial(_dense, labelled(count)).but(**changes)


def _dense() -> nn.Module:
    return Sequential(nn.Linear(FEATURES, HIDDEN), LIF(0.9), nn.Linear(HIDDEN, CLASSES), LIF(0.8))


def readout(count: int = 12, **changes: object) -> Trial:
    """The same with a readout that does not fire, and a loss of values."""
    data = [(x, torch.sin(torch.arange(CLASSES) + float(label))) for x, label in labelled(count)]
    return Trial(_readout, data, loss=OutputMSE()).but(**changes)


def _readout() -> nn.Module:
    return Sequential(nn.Linear(FEATURES, HIDDEN), LIF(0.9), nn.Linear(HIDDEN, CLASSES), LI(0.8))


def static(count: int = 12, **changes: object) -> Trial:
    """Two layers on an input without time, constant over 5 steps."""
    return Trial(_static, labelled(count, (FEATURES,)), time_axis=None).but(**changes)


def _static() -> nn.Module:
    return Sequential(Constant(STEPS), *_dense().children())


def dropout(count: int = 12, **changes: object) -> Trial:
    """The static network with dropout behind its first layer."""
    return static(count, model=_dropout).but(**changes)


def _dropout() -> nn.Module:
    first, *rest = _dense().children()
    return Sequential(Constant(STEPS), first, nn.Dropout(0.4), *rest)


def encoded(encoder: Callable[[], nn.Module], count: int = 12, **changes: object) -> Trial:
    """The network on an input without time that a random encoder turns into spikes."""
    return static(count, model=_Encoded(encoder)).but(**changes)


class _Encoded:
    def __init__(self, encoder: Callable[[], nn.Module]) -> None:
        self.encoder = encoder

    def __call__(self) -> nn.Module:
        return Sequential(self.encoder(), *_dense().children())


def images(count: int = 8, shape: Tuple[int, ...] = (4, 2, 6, 6), **changes: object) -> Trial:
    """A convolutional network with batch norm and pooling on `[T, B, 2, 6, 6]`."""
    return Trial(_images, labelled(count, shape, seed=15)).but(**changes)


def _images() -> nn.Module:
    return Sequential(
        nn.Conv2d(2, 3, 3, padding=1, bias=False),  # batch norm would leave a bias without gradient
        nn.BatchNorm2d(3),
        LIF(0.8, threshold=0.5),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(27, CLASSES),
        LIF(0.9, threshold=0.2),
    )


def rows(count: int, **changes: object) -> Trial:
    """A linear model that tells samples apart: sample i is the i-th row of the identity, so only its own weights see
    it.

    Its output for sample i is STEPS copies of column i of the weights, and its update changes that column alone.
    """
    data = [(torch.eye(count)[i], torch.zeros(2)) for i in range(count)]
    settings = {"loss": OutputMSE(), "time_axis": None, "optimizer": SGD(lr=0.1)}
    return Trial(_Rows(count), data).but(**{**settings, **changes})


class _Rows:
    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self) -> nn.Module:
        # beta 0: the membrane is the input
        return Sequential(Constant(2), nn.Linear(self.count, 2, bias=False), LI(0.0))


def lookup(currents: Tensor, layer: Callable[[], Temporal], *, cotangents: Optional[Tensor] = None) -> Trial:
    """A layer fed with `currents` `[T, B, ...]` through a table whose gradient is the layer's whole input gradient.

    The input of sample b at step t is the unit vector number t B + b, and the table is an `nn.Linear` whose column of
    that number is currents[t, b]: each column's gradient is that of one current. The loss is `projection` on
    `cotangents`, `[T, B, ...]` like the output; None draws them.
    """
    steps, size = currents.shape[:2]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shape = layer().forward(torch.zeros_like(currents)).shape
    if cotangents is None:
        cotangents = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    units = torch.eye(steps * size)
    data = [(units[b::size], cotangents[:, b]) for b in range(size)]
    return Trial(
        _Lookup(currents, layer),
        data,
        loss=CallableLoss(projection, target_axis=1),
        size=size,
        target_time_axis=1,
        train=TrainSpec(),
    )


class _Lookup:
    def __init__(self, currents: Tensor, layer: Callable[[], Temporal]) -> None:
        self.currents, self.layer = currents, layer

    def __call__(self) -> nn.Module:
        steps, size, *features = self.currents.shape
        table = nn.Linear(steps * size, math.prod(features), bias=False)
        with torch.no_grad():
            table.weight.copy_(self.currents.reshape(steps * size, -1).T)
        shape = [nn.Unflatten(1, tuple(features))] if len(features) > 1 else []
        return Sequential(table, *shape, self.layer())


def table(weight: Tensor, currents: Tensor) -> Tensor:
    """What belongs to each current, `[T, B, ...]`, out of a tensor shaped as the table's weight."""
    return weight.T.reshape(currents.shape)
