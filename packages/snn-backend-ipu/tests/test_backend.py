"""The backend as core sees it: what it declares, and what its compile refuses with the line of the user's code."""

import gc
import importlib.util
import inspect
import re
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
import torch
from torch import Tensor, nn

import snn_core as snn
from snn_backend_ipu import IpuBackend, IpuOptions, IpuProgram
from snn_core.backend import Finding
from snn_core.errors import ConfigError, ShapeError, SnnError, Unsupported
from snn_core.losses import as_loss
from snn_core.models import seed
from snn_core.testing.nets import dense
from snn_core.testing.trial import Trial, compiled

BACKEND = IpuBackend(IpuOptions(ipu_model=True))


class Peeking(nn.Module):
    """Branches on a value, which is not there while poptorch compiles."""

    deterministic = True

    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum().item() > 0 else x


class OwnGradient(torch.autograd.Function):
    """A backward pass that poptorch would not use."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.sign()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class Straight(nn.Module):
    deterministic = True

    def forward(self, x: Tensor) -> Tensor:
        return OwnGradient.apply(x)


def behind(layer: nn.Module) -> Trial:
    return dense(model=lambda: snn.Sequential(nn.Linear(6, 3), layer, snn.LIF()), dtype="float32")


def compile_error(trial: Trial, backend: IpuBackend = BACKEND) -> str:
    with pytest.raises(Unsupported) as caught:
        backend.compile(trial.step(trial.build()), trial.optimizer, trial.batch(), trial.train)
    return str(caught.value)


def line_of(module: type, text: str) -> int:
    lines, first = inspect.getsourcelines(module)
    return first + next(number for number, line in enumerate(lines) if text in line)


def test_accelerators_come_before_the_cpu() -> None:
    assert BACKEND.priority >= 20


def test_a_value_read_into_python_is_refused_at_its_line() -> None:
    said = compile_error(behind(Peeking()))
    assert f"test_backend.py:{line_of(Peeking, '.item()')}" in said
    assert "an IPU cannot run this step as it is meant" in said


def test_a_custom_backward_is_refused_where_it_is_written() -> None:
    said = compile_error(behind(Straight()))
    lines, first = inspect.getsourcelines(OwnGradient)
    (line,) = (int(number) for number in re.findall(r"test_backend\.py:(\d+)", said))
    assert first <= line < first + len(lines)


def test_nothing_reaches_poptorch_before_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(name: str, *target: Any, **arguments: Any) -> Any:
        raise AssertionError(f"{name} was called")

    gc.collect()  # what earlier tests left gives its loader back, and not in the middle of this one
    for module in ("settings", "executors", "optimizers", "modules", "loading"):
        monkeypatch.setattr(f"snn_backend_ipu.{module}.call", never)
    compile_error(behind(Peeking()))


def test_what_no_backend_takes_is_refused_as_everywhere() -> None:
    trial = dense(model=lambda: snn.Sequential(nn.Linear(5, 3), snn.LIF()), dtype="float32")
    with pytest.raises(ShapeError):
        BACKEND.compile(trial.step(trial.build()), trial.optimizer, trial.batch(), trial.train)


def norms() -> nn.Module:
    return snn.Sequential(nn.Linear(6, 7), nn.BatchNorm1d(7), snn.LIF(), nn.Linear(7, 3), snn.LIF())


PIPELINE = {"0": 0, "2": 1}
PLAIN = dense(dtype="float32")
REFUSED: Dict[str, Tuple[Trial, Dict[str, Any], List[str]]] = {
    "an unknown stage": (PLAIN, {"stages": {"nope": 0}}, ["module 'nope', which the model does not have"]),
    "an unknown last stage": (
        PLAIN.training(accumulation=3),
        {"stages": {"0": 0, "9": 1}},
        ["module '9', which the model does not have"],
    ),
    "stages backwards": (
        PLAIN.training(accumulation=3),
        {"stages": {"0": 1, "2": 0}},
        ["module '2' on IPU 0 runs after '0' on IPU 1"],
    ),
    "too little accumulation": (PLAIN.training(accumulation=2), {"stages": PIPELINE}, ["needs 3 or more on each"]),
    "no folder of executables": (PLAIN, {"executables": "/nonexist"}, ["executables is '/nonexist'"]),
    "no poprun": (PLAIN, {"popdist": True}, ["poprun did not start this process"]),
    "a loss that no other process can be handed": (
        PLAIN.but(loss=as_loss(lambda output, target: (output.mean((0, 2)) - 1).square())),
        {"loader": "async"},
        ["the loss cannot be pickled"],
    ),
    "a batch norm on replicas": (
        dense(model=norms, dtype="float32").training(accumulation=2),
        {"replicas": 2},
        ["layer '1' is a batch norm"],
    ),
    "a value in Python": (behind(Peeking()), {}, ["[host-value]"]),
    "undeclared features": (PLAIN.training(precision="bf16", deterministic=True), {}, ["precision 'bf16'", "determin"]),
    "all at once": (
        behind(Peeking()).training(precision="bf16"),
        {"stages": {"0": 0, "9": 1}, "executables": "/nonexist"},
        ["precision 'bf16'", "needs 3 or more", "module '9'", "/nonexist", "[host-value]"],
    ),
}


def refused(trial: Trial, options: Dict[str, Any]) -> Tuple[str, List[Finding]]:
    """What compile says, and lint's errors."""
    backend = IpuBackend(IpuOptions(ipu_model=True, **options))
    asked = (trial.step(trial.build()), trial.optimizer, trial.batch(), trial.train)
    with pytest.raises(SnnError) as caught:
        backend.compile(*asked)
    return str(caught.value), [found for found in backend.lint(*asked) if found.severity == "error"]


@pytest.mark.parametrize("name", REFUSED)
def test_compile_and_lint_refuse_the_same(name: str) -> None:
    trial, options, says = REFUSED[name]
    said, errors = refused(trial, options)
    assert all(text in said for text in says)
    assert errors
    assert all(found.message in said for found in errors)
    # and nothing besides: each line that compile has is a finding's
    lines = [line for line in said.splitlines() if line != "an IPU cannot run this step as it is meant:"]
    assert len(lines) == len(errors) == len({found.message for found in errors})


def test_lint_holds_the_accumulation_against_the_replicas_of_poprun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("INSTANCE", 0), ("INSTANCES", 2), ("REPLICAS", 4)):
        monkeypatch.setenv(f"POPDIST_CONTRACT_{name}", str(value))
    said, (found,) = refused(PLAIN.training(accumulation=3), {"popdist": True})
    assert found.message == said
    assert "accumulation is 3 and there are 4 replicas" in said


def test_lint_says_of_executables_that_they_are_of_another_run(tmp_path: Path) -> None:
    with compiled(IpuBackend(IpuOptions(offline=2)), PLAIN) as program:
        assert isinstance(program, IpuProgram)
        program.export(tmp_path)
    said, (found,) = refused(PLAIN.but(size=8), {"executables": str(tmp_path)})
    assert found.message == said
    assert "which was compiled for another run" in said
    assert "batch: size" in said


def test_lint_looks_at_executables_where_there_is_no_poptorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with compiled(IpuBackend(IpuOptions(offline=2)), PLAIN) as program:
        assert isinstance(program, IpuProgram)
        program.export(tmp_path)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "poptorch" else find(name))
    backend = IpuBackend(IpuOptions(executables=str(tmp_path)))
    same, other = PLAIN, PLAIN.but(size=8)
    for trial, errors in ((same, 0), (other, 1)):
        found = backend.lint(trial.step(trial.build()), trial.optimizer, trial.batch(), trial.train)
        assert len([finding for finding in found if finding.severity == "error"]) == errors


def test_options_alone_are_refused_as_configuration() -> None:
    backend = IpuBackend(IpuOptions(stages={"nope": 0}, executables="/nonexist"))
    with pytest.raises(ConfigError, match=r"module 'nope'.*\n.*/nonexist"):
        backend.compile(PLAIN.step(PLAIN.build()), PLAIN.optimizer, PLAIN.batch(), PLAIN.train)


def test_the_documented_stages_fit_the_default_model() -> None:
    step = snn.Step(seed(), snn.CountCrossEntropy())
    batch = snn.BatchSpec(2, snn.TensorSpec((1, 28, 28), "float32"), snn.TensorSpec((), "int64"))
    backend = IpuBackend(IpuOptions(stages={"2": 0, "4": 1}))
    assert backend.lint(step, snn.Adam(), batch, snn.TrainSpec(accumulation=4)) == []


def test_a_fit_step_has_no_findings_of_severity_error() -> None:
    trial = dense(dtype="float32")
    found = BACKEND.lint(trial.step(trial.build()), trial.optimizer, trial.batch(), trial.train, samples=12)
    assert [finding for finding in found if finding.severity == "error"] == []


def test_lint_says_how_a_combined_batch_does_not_add_up() -> None:
    trial = dense(dtype="float32").training(accumulation=3)
    backend = IpuBackend(IpuOptions(ipu_model=True, replicas=2))
    (found,) = backend.lint(trial.step(trial.build()), trial.optimizer, trial.batch(), trial.train)
    assert found.rule == "refused"
    assert "accumulation must be a multiple of 2" in found.message
