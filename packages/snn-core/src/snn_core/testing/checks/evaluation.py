"""Evaluation: every sample counts once and by itself, the weights stay, the training does not notice."""

from typing import Dict

import torch
from torch import Tensor, nn

from snn_core.backend import Backend
from snn_core.containers import Sequential
from snn_core.encoders import Rate
from snn_core.losses import CountCrossEntropy
from snn_core.neurons import LIF
from snn_core.testing.check import check
from snn_core.testing.compare import EXACT, require, require_close, require_equal, require_same_tensors
from snn_core.testing.fit import (
    evaluate,
    exact_or,
    fit,
    one_by_one,
    require_same_evaluation,
    require_same_outcome,
    train,
    weights_of,
)
from snn_core.testing.nets import CLASSES, FEATURES, STEPS, dense, encoded, images, static
from snn_core.testing.pieces import Activity, Drive
from snn_core.testing.trial import Trial, compiled, tolerance

__all__ = ["CHECKS"]

_WEIGHTED = CountCrossEntropy(class_weights=(0.5, 2.0, 1.25))
_SIZES: Dict[str, Trial] = {
    "two batches and a half": dense(10, terms=(Activity(), Drive())),
    "two batches and one sample": dense(9, loss=_WEIGHTED),
    "less than a batch": dense(3, loss=_WEIGHTED),
    "whole batches": dense(8),
    "without time": static(10, terms=(Activity(), Drive())),
    "images": images(10, terms=(Drive(),)),
    "accumulating program": dense(10).training(accumulation=2),
}


@check(cases=_SIZES)
def every_sample_counts_exactly_once(backend: Backend, trial: Trial) -> None:
    """Loss, accuracy, measures and outputs over any number of samples are those of the samples one by one, by brute
    force.
    """
    trial = trial.on(backend)
    model = trial.build()
    with compiled(backend, trial, model) as program:
        got = evaluate(program, trial.samples())
    require_equal("the number of samples evaluated", got.output.shape[1], len(trial.data))
    require_same_evaluation(f"over {len(trial.data)} samples", got, one_by_one(trial, model), tolerance(backend, trial))


@check()
def a_sample_does_not_depend_on_its_neighbours(backend: Backend) -> None:
    """The output for a sample is the same in any order and in any company."""
    trial = images(9).on(backend)
    order = [8, 3, 1, 1, 7, 0, 2, 6, 5, 4, 8]
    with compiled(backend, trial) as program:
        straight = evaluate(program, trial.samples()).output
        shuffled = evaluate(program, trial.samples(), order).output
    require_close("the output in another order", shuffled, straight[:, order], tolerance(backend, trial))


@check(cases={"dense": dense(), "images": images()})
def evaluation_changes_nothing(backend: Backend, trial: Trial) -> None:
    """Weights, buffers and optimiser are the same after an evaluation; training goes on as if there had been none."""
    trial, within = exact_or(backend, trial)
    data, model = trial.samples(), trial.build()
    with compiled(backend, trial, model) as program:
        rows = []
        for batch in program.loader(data, range(len(data)), training=True):
            program.sync()
            before = weights_of(model)
            evaluate(program, data[:7])
            program.sync()
            require_same_tensors("after an evaluation, tensor", weights_of(model), before, EXACT)
            rows += [program.train_step(batch)]
        program.sync()
    want = fit(backend, trial)
    require_same_tensors("after training among evaluations, tensor", weights_of(model), want.weights, within)
    for number, (report, row) in enumerate(zip(rows, want.rows), start=1):
        require_close(f"the loss of batch {number} among evaluations", float(report.loss), row.loss, within)


@check(cases={"images": images(10), "random encoder": encoded(lambda: Rate(STEPS, gain=0.5), 10)})
def evaluating_twice_says_the_same(backend: Backend, trial: Trial) -> None:
    """Two evaluations with no step between them agree, bit for bit where the backend declares to be deterministic."""
    trial, within = exact_or(backend, trial)
    with compiled(backend, trial) as program:
        first = evaluate(program, trial.samples())
        second = evaluate(program, trial.samples())
    require_same_evaluation("evaluated again", second, first, within)


def _normed() -> nn.Module:
    return Sequential(
        nn.Linear(FEATURES, 7), nn.BatchNorm1d(7, momentum=0.5), LIF(0.8), nn.Linear(7, CLASSES), LIF(0.9)
    )


@check()
def evaluation_uses_running_statistics(backend: Backend) -> None:
    """Batch norm takes the batch's statistics in training and the running ones in evaluation, whatever ran before."""
    trial = dense(model=_normed).on(backend)
    data, model = trial.samples(), trial.build()
    with compiled(backend, trial, model) as program:
        for label in ("before training", "after an epoch"):
            program.sync()
            require_same_evaluation(label, evaluate(program, data), one_by_one(trial, model), tolerance(backend, trial))
            train(program, data)
        program.sync()
    moved = not torch.equal(weights_of(model)["1.running_mean"], torch.zeros(7, dtype=trial.torch_dtype()))
    require(moved, "the running mean is 0 after training; batch norm does not run in training mode")


class _Mode(nn.Module):
    """Doubles its input in training: shows in which mode a module runs."""

    deterministic = True

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x if self.training else x


@check()
def modules_see_their_mode(backend: Backend) -> None:
    """A user's module that behaves otherwise in training does so in training alone, however the two alternate."""
    trial = dense(model=lambda: Sequential(nn.Linear(FEATURES, CLASSES), _Mode(), LIF(0.9))).on(backend)
    data, model = trial.samples(), trial.build().eval()
    mode = [module.training for module in model.modules()]
    with compiled(backend, trial, model) as program:
        for _ in range(2):
            program.sync()
            require_same_evaluation(
                "alternating", evaluate(program, data), one_by_one(trial, model), tolerance(backend, trial)
            )
            train(program, data)
    require_equal("the training flags of the user's model", [module.training for module in model.modules()], mode)
    want = fit(backend, trial.but(model=_always_doubled))
    require_same_outcome(fit(backend, trial), want, tolerance(backend, trial))


class _Doubled(nn.Module):
    deterministic = True

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def _always_doubled() -> nn.Module:
    return Sequential(nn.Linear(FEATURES, CLASSES), _Doubled(), LIF(0.9))


CHECKS = (
    every_sample_counts_exactly_once,
    a_sample_does_not_depend_on_its_neighbours,
    evaluation_changes_nothing,
    evaluating_twice_says_the_same,
    evaluation_uses_running_statistics,
    modules_see_their_mode,
)
