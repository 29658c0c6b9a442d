"""Every loss: value, denominator, right answers and gradient, over whole and short batches."""

from typing import Dict

import torch
from torch import Tensor, nn

from snn_core.backend import Backend
from snn_core.containers import Sequential
from snn_core.losses import (
    TET,
    CountCrossEntropy,
    CountMSE,
    MaxMembraneCrossEntropy,
    MembraneCrossEntropy,
    MembraneMSE,
    OutputMAE,
    OutputMSE,
    RateCrossEntropy,
    RateMSE,
    SpikeRateL1,
    TemporalCrossEntropy,
    TemporalMSE,
)
from snn_core.neurons import LIF
from snn_core.optimizers import SGD
from snn_core.testing.check import check
from snn_core.testing.compare import require_equal
from snn_core.testing.fit import agree, agree_on_gradients, evaluate, one_by_one, require_same_evaluation
from snn_core.testing.nets import CLASSES, FEATURES, dense, labelled, readout
from snn_core.testing.trial import Trial, compiled, tolerance

__all__ = ["CHECKS"]

_WEIGHTS = (0.5, 2.0, 1.25)


def _user_loss(output: Tensor, target: Tensor) -> Tensor:
    counts = output.sum(0)
    return (counts - 2.0 * target.unsqueeze(-1).to(counts.dtype)).square().mean(-1)


def _population() -> nn.Module:
    return Sequential(nn.Linear(FEATURES, 7), LIF(0.9), nn.Linear(7, 2 * CLASSES), LIF(0.8))


_TIMED = [(x, torch.sin(x[:, :CLASSES])) for x, _ in labelled(12)]

_LOSSES: Dict[str, Trial] = {
    "CountCrossEntropy": dense(loss=CountCrossEntropy()),
    "CountCrossEntropy, class weights": dense(loss=CountCrossEntropy(class_weights=_WEIGHTS)),
    "CountCrossEntropy, a class left out": dense(loss=CountCrossEntropy(class_weights=(1.0, 0.0, 1.0))),
    "CountCrossEntropy, population": dense(loss=CountCrossEntropy(population=2), model=_population),
    "CountMSE": dense(loss=CountMSE(correct_rate=0.8, incorrect_rate=0.1)),
    "CountMSE, population": dense(loss=CountMSE(population=2), model=_population),
    "RateCrossEntropy": dense(loss=RateCrossEntropy()),
    "RateMSE": dense(loss=RateMSE(correct_rate=0.9, incorrect_rate=0.2, class_weights=_WEIGHTS)),
    "TET": readout(data=labelled(12), loss=TET(lam=0.2)),
    "TemporalCrossEntropy": dense(loss=TemporalCrossEntropy()),
    "TemporalCrossEntropy, reciprocal": dense(loss=TemporalCrossEntropy(inverse="reciprocal")),
    "TemporalMSE": dense(loss=TemporalMSE()),
    "MembraneCrossEntropy": dense(loss=MembraneCrossEntropy()),
    "MembraneCrossEntropy, class weights": dense(loss=MembraneCrossEntropy(class_weights=_WEIGHTS)),
    "MaxMembraneCrossEntropy": dense(loss=MaxMembraneCrossEntropy()),
    "MembraneMSE": dense(loss=MembraneMSE(on_target=1.2, off_target=0.1)),
    "MembraneMSE, values over time": dense(loss=MembraneMSE(), data=_TIMED, target_time_axis=1),
    "OutputMSE": readout(loss=OutputMSE()),
    "OutputMSE, last": readout(loss=OutputMSE("last")),
    "OutputMAE, sum": readout(loss=OutputMAE("sum")),
    "OutputMSE, values over time": readout(loss=OutputMSE("steps"), data=_TIMED, target_time_axis=1),
    "a sum of losses": dense(
        loss=CountCrossEntropy(class_weights=_WEIGHTS) + 0.1 * MembraneMSE() + 0.01 * SpikeRateL1()
    ),
    "user's function": dense(loss=_user_loss),
}


@check(cases=_LOSSES)
def losses_train_as_on_the_reference(backend: Backend, trial: Trial) -> None:
    """Each loss gives the reference's value, weight, accuracy and gradient; membranes and class weights too."""
    agree_on_gradients(backend, trial.but(data=trial.data[:4]))
    agree(backend, trial.but(optimizer=SGD(lr=0.1)))


@check(cases=_LOSSES)
def losses_of_short_batches_count_every_sample_once(backend: Backend, trial: Trial) -> None:
    """Over two batches and a half each loss and accuracy is that of the samples one by one."""
    trial = trial.but(data=trial.data[:10]).on(backend)
    model = trial.build()
    with compiled(backend, trial, model) as program:
        got = evaluate(program, trial.samples())
    require_equal("the number of samples", got.samples, 10.0)
    require_same_evaluation("over 10 samples in batches of 4", got, one_by_one(trial, model), tolerance(backend, trial))


CHECKS = (losses_train_as_on_the_reference, losses_of_short_batches_count_every_sample_once)
