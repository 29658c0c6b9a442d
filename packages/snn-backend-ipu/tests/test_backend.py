"""The backend as core sees it: what it declares, and what its compile refuses with the line of the user's code."""

import inspect
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import snn_core as snn
from snn_backend_ipu import IpuBackend, IpuOptions
from snn_core.errors import ShapeError, Unsupported
from snn_core.testing.nets import dense
from snn_core.testing.trial import Trial

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

    for module in ("settings", "executors", "optimizers", "modules", "loading"):
        monkeypatch.setattr(f"snn_backend_ipu.{module}.call", never)
    compile_error(behind(Peeking()))


def test_what_no_backend_takes_is_refused_as_everywhere() -> None:
    trial = dense(model=lambda: snn.Sequential(nn.Linear(5, 3), snn.LIF()), dtype="float32")
    with pytest.raises(ShapeError):
        BACKEND.compile(trial.step(trial.build()), trial.optimizer, trial.batch(), trial.train)


def test_lint_says_the_same_without_compiling_and_once() -> None:
    trial = behind(Peeking()).training(precision="bf16")
    found = BACKEND.lint(trial.step(trial.build()), trial.optimizer, trial.batch(), trial.train)
    assert len({str(finding) for finding in found}) == len(found)
    assert {"undeclared"} < {finding.rule for finding in found}


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


def test_lint_leaves_the_number_of_replicas_to_poprun() -> None:
    trial = dense(dtype="float32")
    backend = IpuBackend(IpuOptions(popdist=True))
    assert list(backend.lint(trial.step(trial.build()), trial.optimizer, trial.batch(), trial.train)) == []
