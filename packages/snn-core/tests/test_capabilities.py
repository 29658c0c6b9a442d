"""What a backend lacks of what it declares is refused before it compiles."""

from dataclasses import replace
from typing import Any, Dict

import pytest
from torch import nn

import snn_core as snn
from snn_core.capabilities import require_declared
from snn_core.optimizers import SGD, Optimizer, RMSprop
from snn_core.specs import BatchSpec, TensorSpec, TrainSpec
from snn_core.step import Step

STEP = Step(snn.Sequential(snn.Constant(2), nn.Linear(3, 2), snn.LIF()), snn.CountCrossEntropy())
BATCH = BatchSpec(2, TensorSpec((3,), "float32"), TensorSpec((), "int64"))


class Lacking(snn.EagerBackend):
    capabilities = replace(
        snn.EagerBackend.capabilities, lacks=frozenset({"nesterov", "dampening", "clip_value", "clip_norm of rmsprop"})
    )


@pytest.mark.parametrize(
    ("optimizer", "train", "says"),
    [
        (SGD(momentum=0.9, nesterov=True), {}, "nesterov=False"),
        (SGD(momentum=0.9, dampening=0.1), {}, "dampening=0.0"),
        (SGD(), {"clip_value": 1.0}, "use clip_norm"),
        (RMSprop(), {"clip_norm": 1.0}, "clipping by norm with rmsprop"),
    ],
)
def test_a_lacking_part_is_refused_with_what_to_do(optimizer: Optimizer, train: Dict[str, Any], says: str) -> None:
    with pytest.raises(snn.Unsupported, match=says):
        require_declared(Lacking(), STEP, optimizer, BATCH, TrainSpec(**train))
    require_declared(snn.EagerBackend(), STEP, optimizer, BATCH, TrainSpec(**train))


@pytest.mark.parametrize(
    ("optimizer", "train"),
    [(SGD(momentum=0.9), {"clip_norm": 1.0}), (RMSprop(), {})],
)
def test_the_rest_of_what_is_declared_passes(optimizer: Optimizer, train: Dict[str, Any]) -> None:
    require_declared(Lacking(), STEP, optimizer, BATCH, TrainSpec(**train))
