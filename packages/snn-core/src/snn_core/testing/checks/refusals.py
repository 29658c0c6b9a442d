"""What must be refused with a typed error before the device is asked: unfit data, and models that cannot be what they
say.
"""

from functools import partial
from typing import Any, Callable, Dict, List, Tuple

import torch
from torch import Tensor, nn

from snn_core.backend import Backend, Program
from snn_core.containers import Sequential
from snn_core.encoders import Delta
from snn_core.errors import ConfigError, DataError, ShapeError
from snn_core.losses import MembraneCrossEntropy
from snn_core.neurons import LIF
from snn_core.testing.check import check
from snn_core.testing.compare import require_raises
from snn_core.testing.nets import CLASSES, FEATURES, dense, static
from snn_core.testing.pieces import Activity, Difference
from snn_core.testing.trial import Trial, compiled

__all__ = ["CHECKS"]

Sample = Tuple[Tensor, Tensor]
Spoil = Callable[[Tensor, Tensor], Any]


def _with(x: Tensor, value: float) -> Tensor:
    changed = x.clone()
    changed.view(-1)[3] = value
    return changed


_SPOILED: Dict[str, Spoil] = {
    "x of another dtype": lambda x, y: (x.to(torch.float16), y),
    "x of integers": lambda x, y: (x.to(torch.int64), y),
    "x of another size": lambda x, y: (x[:, :-1], y),
    "x of another length": lambda x, y: (x[:-1], y),
    "x of another rank": lambda x, y: (x[0], y),
    "x with NaN": lambda x, y: (_with(x, float("nan")), y),
    "x with infinity": lambda x, y: (_with(x, float("inf")), y),
    "label of a float": lambda x, y: (x, y.float()),
    "label above the classes": lambda x, y: (x, torch.tensor(3)),
    "label below 0": lambda x, y: (x, torch.tensor(-1)),
    "label that is a vector": lambda x, y: (x, torch.tensor([0, 1, 0])),
    "sample that is no pair": lambda x, y: x,
}


@check(cases=_SPOILED)
def unfit_samples_are_refused_by_the_loader(backend: Backend, spoil: Spoil) -> None:
    """A sample that does not fit raises DataError while the loader reads it, in training and in evaluation alike."""
    trial = dense().on(backend)
    data: List[Any] = list(trial.samples())
    data[6] = spoil(*data[6])
    with compiled(backend, trial) as program:
        for training in (True, False):
            what = "reading an unfit sample in " + ("training" if training else "evaluation")
            require_raises(what, DataError, partial(_read, program, data, training))


def _read(program: Program, data: List[Any], training: bool) -> None:
    list(program.loader(data, range(len(data)), training=training))


@check()
def fit_samples_are_read_after_a_refusal(backend: Backend) -> None:
    """A program that refused a sample goes on with fit ones."""
    trial = dense().on(backend)
    good = trial.samples()
    bad = [(torch.full_like(x, float("nan")), y) for x, y in good]
    with compiled(backend, trial) as program:
        require_raises("reading NaN", DataError, partial(_read, program, bad, True))
        for batch in program.loader(good, range(12), training=True):
            program.train_step(batch)


def _wrong_size() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES + 1, CLASSES), LIF(0.9))


def _unchunkable() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, CLASSES), Difference(), LIF(0.9))


def _frozen() -> nn.Module:
    return dense().build().requires_grad_(False)


def _batch_first() -> nn.Module:
    class Flip(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.transpose(0, 1)

    return nn.Sequential(*dense().build().children(), Flip())


def _normalised() -> nn.Module:
    return Sequential(nn.Linear(FEATURES, CLASSES), nn.BatchNorm1d(CLASSES), LIF(0.9))


def _looking_back() -> nn.Module:
    return Sequential(Delta(), *dense().model().children())


_MISFITS: Dict[str, Tuple[Trial, type]] = {
    "layer of another size": (dense(model=_wrong_size), ShapeError),
    "output without time first": (dense(model=_batch_first), ShapeError),
    "loss of a state that nobody has": (
        dense(model=lambda: nn.Sequential(nn.Linear(FEATURES, 3)), loss=MembraneCrossEntropy()),
        ConfigError,
    ),
    "no trainable parameter": (dense(model=_frozen), ConfigError),
    "chunks of an input without time": (static().training(chunk=2), ConfigError),
    "chunks of a layer that does not promise them": (dense(model=_unchunkable).training(chunk=2), ConfigError),
    "segments of an input without time": (static().training(recompute_every=2), ConfigError),
    "segments of a layer that does not promise them": (
        dense(model=_unchunkable).training(recompute_every=2),
        ConfigError,
    ),
    "segments of a sequence that is normalised": (dense(model=_normalised).training(recompute_every=2), ConfigError),
    "chunks of an encoder that looks back": (dense(model=_looking_back).training(chunk=2), ConfigError),
}


@check(cases=_MISFITS)
def misfits_are_refused_at_compile(backend: Backend, misfit: Tuple[Trial, type]) -> None:
    """A model, loss and batch that do not go together raise a typed error from compile."""
    trial, error = misfit

    def build() -> None:
        with compiled(backend, trial):
            pass

    require_raises("compile", error, build)


@check()
def unknown_controls_are_refused(backend: Backend) -> None:
    """set_control raises KeyError for a name that no term declared."""
    with compiled(backend, dense(terms=(Activity(),))) as program:
        program.set_control("activity.weight", 1.0)
        require_raises("set_control('activity.wieght')", KeyError, lambda: program.set_control("activity.wieght", 1.0))


CHECKS = (
    unfit_samples_are_refused_by_the_loader,
    fit_samples_are_read_after_a_refusal,
    misfits_are_refused_at_compile,
    unknown_controls_are_refused,
)
