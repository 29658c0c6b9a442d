"""What poptorch raises becomes an error that says what to do."""

import importlib
from typing import Any

import pytest
import torch
from torch import nn

import snn_core as snn
from snn_backend_ipu import IpuBackend, IpuOptions, calls
from snn_backend_ipu.failures import cause_of, translated
from snn_core.errors import ConfigError, DataError, DeviceError, Unsupported
from snn_core.testing.fit import fit
from snn_core.testing.nets import dense


@pytest.mark.parametrize("action", ["IPU_RESET", "PARTITION_RESET", "FULL_RESET"])
def test_a_recoverable_error_says_the_action_and_that_the_run_can_go_on(poptorch: Any, action: str) -> None:
    error = translated(poptorch.RecoverableError("link lost", action, "ipu 3"), running=True)
    assert isinstance(error, DeviceError)
    assert error.recoverable
    assert error.action == action
    assert f"can recover ({action}): link lost (at ipu 3); reset" in str(error)


def test_an_unrecoverable_error_promises_nothing(poptorch: Any) -> None:
    error = translated(poptorch.UnrecoverableError("no chip"), running=True)
    assert isinstance(error, DeviceError)
    assert not error.recoverable
    assert "does not recover: no chip" in str(error)


def test_a_plain_error_is_about_the_model_before_it_runs_and_about_the_device_after(poptorch: Any) -> None:
    error = poptorch.Error("out of memory", "poptorch_cpp_error", "tile 3")
    before, after = translated(error), translated(error, running=True)
    assert isinstance(before, Unsupported)
    assert "out of memory (at tile 3)" in str(before)
    assert isinstance(after, DeviceError)


def test_an_error_of_the_python_layer_is_not_the_devices_even_while_it_runs(poptorch: Any) -> None:
    error = translated(poptorch.Error("Shape mismatch for x", "poptorch_py_error"), running=True)
    assert isinstance(error, ConfigError)
    assert "poptorch refuses: Error: Shape mismatch for x" in str(error)


@pytest.mark.parametrize("kind", [AssertionError, AttributeError, RuntimeError, TypeError, ValueError])
def test_misuse_of_the_python_layer_is_a_configuration(kind: type) -> None:
    error = translated(kind("deviceIterations must be at least 1"))
    assert isinstance(error, ConfigError)
    assert f"{kind.__name__}: deviceIterations" in str(error)


def test_a_runtime_error_while_it_runs_is_the_devices() -> None:
    error = translated(RuntimeError("stream closed"), running=True)
    assert isinstance(error, DeviceError)
    assert "failed while it ran: RuntimeError: stream closed" in str(error)


class FailsOnIpus(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if importlib.import_module("poptorch").isRunningOnIpu():
            raise RuntimeError("no such kernel")
        return x


def test_a_forward_that_fails_under_poptorch_alone_is_told_with_its_line(poptorch: Any) -> None:
    trial = dense(4, model=lambda: snn.Sequential(nn.Linear(6, 3), FailsOnIpus(), snn.LIF()))
    told = r"forward fails when poptorch compiles it, at .*test_failures\.py:\d+: RuntimeError: no such kernel"
    with pytest.raises(Unsupported, match=told):
        fit(IpuBackend(IpuOptions(ipu_model=True)), trial)


def test_errors_of_ours_pass_as_they_are() -> None:
    error = DataError("sample 3 is odd")
    assert translated(error) is error


def test_interrupts_are_not_touched() -> None:
    with pytest.raises(KeyboardInterrupt), calls.guarded():
        raise KeyboardInterrupt


def hidden(cause: Exception) -> Exception:
    """A compile that failed early, and whose clean-up then failed as poptorch's does."""
    try:
        try:
            raise cause
        finally:
            raise UnboundLocalError("local variable 'cpu_aliases' referenced before assignment")
    except UnboundLocalError as exc:
        return exc


def test_the_true_cause_behind_cpu_aliases_is_dug_out(poptorch: Any) -> None:
    assert str(cause_of(hidden(ValueError("a bad shape")))) == "a bad shape"
    assert isinstance(translated(hidden(poptorch.Error("no such op"))), Unsupported)
    error = DataError("sample 3 is odd")
    assert translated(hidden(error)) is error


@pytest.mark.parametrize("kind", [MemoryError, OSError, ZeroDivisionError])
def test_a_cause_of_another_kind_is_raised_itself(poptorch: Any, kind: type) -> None:
    cause = kind("far inside")
    poptorch._contract.inject("move", cause)
    with pytest.raises(kind) as caught:
        fit(IpuBackend(IpuOptions(ipu_model=True)), dense(4))
    assert caught.value is cause


def test_a_hidden_misuse_is_a_configuration(poptorch: Any) -> None:
    poptorch._contract.inject("move", ValueError("a bad shape"))
    with pytest.raises(ConfigError, match="poptorch refuses: ValueError: a bad shape; change what this names"):
        fit(IpuBackend(IpuOptions(ipu_model=True)), dense(4))


@pytest.mark.parametrize("kind", [IndexError, KeyError, LookupError])
def test_what_poptorch_looks_up_and_does_not_find_is_told_with_what_to_do(poptorch: Any, kind: type) -> None:
    poptorch._contract.inject("compile", kind("step.model.2.threshold"))
    with pytest.raises(Unsupported) as caught:
        fit(IpuBackend(IpuOptions(ipu_model=True)), dense(4))
    assert f"did not find: {kind.__name__}: " in str(caught.value)
    assert "step.model.2.threshold" in str(caught.value)
    assert "two places" in str(caught.value)


class Misses(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return {"host": x}["ipu" if importlib.import_module("poptorch").isRunningOnIpu() else "host"]


def test_what_forward_looks_up_and_does_not_find_is_told_with_its_line() -> None:
    trial = dense(4, model=lambda: snn.Sequential(nn.Linear(6, 3), Misses(), snn.LIF()))
    with pytest.raises(Unsupported, match=r"forward fails when poptorch compiles it, at .*\.py:\d+: KeyError: 'ipu'"):
        fit(IpuBackend(IpuOptions(ipu_model=True)), trial)


def test_another_unbound_name_is_not_taken_for_it() -> None:
    error = UnboundLocalError("local variable 'x' referenced before assignment")
    assert cause_of(error) is error


def test_what_was_raised_stays_the_cause(poptorch: Any) -> None:
    with pytest.raises(Unsupported) as caught, calls.guarded():
        raise poptorch.Error("no such op")
    assert isinstance(caught.value.__cause__, poptorch.Error)
