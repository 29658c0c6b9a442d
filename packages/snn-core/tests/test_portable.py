"""Weights move between kinds of devices; what an optimiser had accumulated does not, and its loss is said."""

import warnings
from typing import Any, Dict

import pytest
import torch
from torch import nn

import snn_core as snn
from snn_core.errors import CheckpointError
from snn_core.optimizers import SGD
from snn_core.portable import readable_by, tagged
from snn_core.specs import BatchSpec, TensorSpec, TrainSpec
from snn_core.step import Step

BATCH = BatchSpec(2, TensorSpec((3,), "float32"), TensorSpec((), "int64"))


def program() -> Any:
    model = snn.Sequential(snn.Constant(2), nn.Linear(3, 2), snn.LI())
    return snn.EagerBackend().compile(
        Step(model, snn.CountCrossEntropy()), SGD(lr=0.5, momentum=0.9), BATCH, TrainSpec()
    )


def state() -> Dict[str, Any]:
    with program() as trained:
        trained.train_step((torch.ones(2, 3), torch.tensor([0, 1])))
        return trained.state_dict()


def test_a_state_without_a_note_is_torchs() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert readable_by("torch", state())


@pytest.mark.parametrize("part", ["optimizer", "rng"])
def test_a_state_without_its_parts_is_refused(part: str) -> None:
    saved = state()
    del saved[part]
    with pytest.raises(CheckpointError, match=part):
        readable_by("torch", saved)


def test_a_state_of_another_kind_gives_its_weights_and_says_what_is_lost() -> None:
    saved = state()
    foreign = tagged({**saved, "optimizer": {"ipu_state": {}}, "rng": {"ipu": [1, 2]}}, "poptorch")
    with program() as here:
        with pytest.warns(UserWarning, match=r"'poptorch', here 'torch'.*momentum, moments.*are lost"):
            here.load_state_dict(foreign)
        after = here.state_dict()
        assert all(torch.equal(after["model"][name], value) for name, value in saved["model"].items())
        assert after["optimizer"]["state"] == {}
        here.train_step((torch.ones(2, 3), torch.tensor([0, 1])))
