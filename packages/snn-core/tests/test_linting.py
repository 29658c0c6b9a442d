"""What every backend's lint says: what is undeclared, batches that cannot be filled, and a step that fails itself."""

from dataclasses import replace
from typing import Any, List

import pytest
import torch
from torch import Tensor, nn

import snn_core as snn
from snn_core import Finding


class Bare(snn.EagerBackend):
    """A backend that declares next to nothing."""

    name = "bare"
    capabilities = snn.Capabilities()


class Broken(nn.Module):
    """A user's model with a bug."""

    def forward(self, x: Tensor) -> Tensor:
        return x + {}["weight"]


MODEL = nn.Linear(4, 3)


def linted(backend: snn.Backend, model: nn.Module = MODEL, samples: Any = None, **train: Any) -> List[Finding]:
    spec = snn.BatchSpec(8, snn.TensorSpec((5, 4), "float32", 1), snn.TensorSpec((), "int64"))
    step = snn.Step(model, snn.CountCrossEntropy())
    return list(backend.lint(step, snn.Adam(), spec, snn.TrainSpec(**train), samples))


def test_everything_undeclared_is_found_at_once() -> None:
    found = linted(Bare(), accumulation=2, clip_norm=1.0)
    assert [f.rule for f in found] == ["undeclared"] * 3
    assert [f.message for f in found] == [
        "backend 'bare' has no optimizer 'adam'",
        "backend 'bare' does not support gradient accumulation",
        "backend 'bare' does not support gradient clipping",
    ]
    assert [f.remedy for f in found] == ["it has sgd", "set accumulation=1", "leave clip_norm and clip_value unset"]


def test_compile_refuses_what_lint_finds_first() -> None:
    spec = snn.BatchSpec(8, snn.TensorSpec((5, 4), "float32", 1), snn.TensorSpec((), "int64"))
    with pytest.raises(snn.Unsupported, match="no optimizer 'adam'; it has sgd"):
        Bare().compile(snn.Step(MODEL, snn.CountCrossEntropy()), snn.Adam(), spec, snn.TrainSpec())


def test_a_run_that_the_backend_takes_has_no_findings() -> None:
    assert linted(snn.EagerBackend(), samples=16, accumulation=2) == []


def test_fewer_samples_than_a_batch_are_found_with_what_makes_the_batch() -> None:
    (found,) = linted(snn.EagerBackend(), samples=15, accumulation=2)
    assert (found.rule, found.severity) == ("short-batch", "error")
    assert "15 samples, fewer than the 16 of one batch (batch_size 8 x accumulation 2 x steps_per_call 1)" in str(found)


def test_short_batches_that_are_kept_are_no_finding() -> None:
    assert linted(snn.EagerBackend(), samples=15, accumulation=2, drop_last=False) == []


def test_a_bug_in_the_model_is_told_as_such_with_its_line() -> None:
    (found,) = linted(snn.EagerBackend(), Broken())
    assert found.rule == "forward-fails"
    assert "KeyError" in found.message
    assert found.file == __file__
    assert found.line == Broken.forward.__code__.co_firstlineno + 1


def test_an_error_that_says_what_to_do_keeps_its_words() -> None:
    (found,) = linted(snn.EagerBackend(), nn.Linear(7, 3))
    assert found.rule == "refused"
    assert "the model cannot take a batch of shape (5, 2, 4)" in found.message


def test_linting_leaves_the_model_and_the_random_stream_as_they_were() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stream = torch.random.get_rng_state()
    linted(snn.EagerBackend(), model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), stream)


class Absent(Bare):
    """A backend whose device is not here."""

    def probe(self) -> snn.Health:
        return snn.Health("unavailable", "no driver", "install the driver")


def test_a_trainer_lints_for_a_device_that_is_not_here() -> None:
    data = [(torch.zeros(5, 4), torch.tensor(0))] * 20
    trainer = snn.Trainer(MODEL, loss=snn.CountCrossEntropy(), backend=Absent(), time_axis=1, batch_size=8, folder=None)
    assert [f.message for f in trainer.lint(data)] == ["backend 'bare' has no optimizer 'adam'"]


def test_a_finding_reads_as_place_message_rule_and_remedy() -> None:
    found = Finding("a-rule", "this is wrong", "do that", "net.py", 3)
    assert str(found) == "net.py:3: this is wrong [a-rule]; do that"
    assert str(replace(found, file=None)) == "this is wrong [a-rule]; do that"
