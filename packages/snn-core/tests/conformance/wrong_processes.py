"""Backends that are wrong where several processes train one model."""

import os
from dataclasses import replace
from typing import Any
from unittest import mock

from wrong_backends import caught

from snn_core.eager import EagerBackend, EagerOptions, EagerProgram
from snn_core.specs import BatchSpec, TrainSpec
from snn_core.step import Step

CHECK = "processes_train_as_one_with_the_joint_batch"
CASE = "shares that differ in size, a penalty that is no mean"


@caught("a mean of the processes' means", CHECK, CASE, "differs")
class OwnMeans(EagerProgram):
    """Averages the gradients of shares that differ in size as if they did not."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        joint = self._replica.joint
        self._replica.joint = lambda out, samples: (  # type: ignore[method-assign]
            out.objective,
            joint(out, samples)[1],
        )


@caught("penalties of the processes' measures", CHECK, CASE, "objective differs")
class OwnPenalties(EagerProgram):
    """Takes each penalty of its own samples' measure."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._training.reduce = None


@caught("processes that know nothing of each other", CHECK, CASE, "read by both processes")
class Apart(EagerBackend):
    """Trains the whole batch in each process."""

    def compile(self, step: Step, optimizer: Any, batch: BatchSpec, train: TrainSpec) -> EagerProgram:
        with mock.patch.dict(os.environ, {"WORLD_SIZE": "1"}):
            return super().compile(step, optimizer, batch, train)


@caught("several processes, not declared", CHECK, CASE, "it must raise Unsupported")
class Undeclared(EagerBackend):
    """Does not say that it trains in several processes, and lets them come."""

    capabilities = replace(EagerBackend.capabilities, distributed=False)

    def compile(self, step: Step, optimizer: Any, batch: BatchSpec, train: TrainSpec) -> EagerProgram:
        return EagerProgram(step, optimizer, batch, train, EagerOptions())
