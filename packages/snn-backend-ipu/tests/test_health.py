"""What a probe finds, each fault with its own remedy."""

import importlib.util
import sys
from importlib import metadata
from typing import Any, Callable, Dict

import pytest

from snn_backend_ipu import IpuBackend, IpuOptions, calls
from snn_backend_ipu import health as module
from snn_core.backend import Health


def probe(**options: Any) -> Health:
    return IpuBackend(IpuOptions(**options)).probe()


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """absent(python, torch): poptorch is not installed, and these are the versions."""

    def be(python: "tuple[int, int]" = (3, 8), torch: str = "2.0.1") -> None:
        find, version = importlib.util.find_spec, metadata.version
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "poptorch" else find(name))
        monkeypatch.setattr(module.metadata, "version", lambda name: torch if name == "torch" else version(name))
        monkeypatch.setattr(sys, "version_info", (*python, 0, "final", 0))

    return be


def test_another_python_is_told_which_one_poptorch_is_for(absent: Callable[..., None]) -> None:
    absent(python=(3, 11))
    found = probe()
    assert not found.ready
    assert "there is none for Python 3.11" in found.detail
    assert "Python 3.8, torch 2.0.1" in found.remedy


def test_another_torch_is_told_which_one_poptorch_is_for(absent: Callable[..., None]) -> None:
    absent(torch="2.13.0+cpu")
    found = probe()
    assert "here is torch 2.13.0" in found.detail
    assert found.remedy.startswith("pip install torch==2.0.1")


def test_an_absent_poptorch_is_not_on_pypi(absent: Callable[..., None]) -> None:
    absent()
    found = probe()
    assert found.detail == "poptorch is not installed"
    assert "not from PyPI" in found.remedy


def fails(monkeypatch: pytest.MonkeyPatch, error: Exception) -> Health:
    def broken() -> Any:
        raise error

    monkeypatch.setattr(calls, "_poptorch", broken)
    return probe()


def test_a_poptorch_built_for_another_torch_names_the_torch_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found = fails(monkeypatch, AssertionError("This version of PopTorch only works with torch==2.0.1"))
    assert "only works with torch==2.0.1" in found.detail
    assert found.remedy.startswith("pip install torch==2.0.1")


def test_a_shell_without_the_sdk_is_told_to_enable_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POPLAR_SDK_ENABLED", raising=False)
    found = fails(monkeypatch, ImportError("libpopart.so: cannot open shared object file"))
    assert "libpopart.so" in found.detail
    assert "the SDK is not enabled in this shell" in found.detail
    assert "enable.sh" in found.remedy


def test_an_import_that_fails_with_the_sdk_enabled_is_installed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POPLAR_SDK_ENABLED", "/opt/poplar")
    assert "again" in fails(monkeypatch, ImportError("undefined symbol")).remedy


def test_any_other_failure_is_an_answer_and_no_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    found = fails(monkeypatch, OSError("what"))
    assert (found.status, "OSError: what" in found.detail) == ("unavailable", True)


def test_without_an_ipu_the_model_of_one_is_offered(poptorch: Any) -> None:
    found = probe()
    assert found.detail == "poptorch works, but there is no IPU here"
    assert "ipu_model=True" in found.remedy


def test_too_few_ipus_are_told_how_many_it_takes(poptorch: Any) -> None:
    with poptorch._contract.hardware(2):
        found = probe(stages={"0": 0, "3": 1}, replicas=2)
    assert "need 4 IPUs (replicas 2 x 2)" in found.detail
    assert "lower replicas" in found.remedy


THREE = {"stages": {"0": 0, "2": 1, "4": 2}, "auto_round_ipus": True}


@pytest.mark.parametrize(
    ("options", "ipus"),
    [(THREE, 4), ({"share_ipus": False}, 2), ({"share_ipus": False, **THREE}, 8)],
    ids=["rounded", "unshared", "both"],
)
def test_all_the_ipus_that_a_run_holds_must_be_there(poptorch: Any, options: Dict[str, Any], ipus: int) -> None:
    with poptorch._contract.hardware(ipus - 1):
        found = probe(**options)
    assert not found.ready
    assert f"need {ipus} IPUs" in found.detail
    with poptorch._contract.hardware(ipus):
        assert f", {ipus} of them" in probe(**options).detail


def test_under_poprun_a_process_needs_the_ipus_of_its_own_replicas(
    poptorch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("INSTANCE", 1), ("INSTANCES", 2), ("REPLICAS", 8)):
        monkeypatch.setenv(f"POPDIST_CONTRACT_{name}", str(value))
    with poptorch._contract.hardware(2):
        assert "need 4 IPUs (replicas 4 x 1)" in probe(popdist=True).detail
    with poptorch._contract.hardware(4):
        assert ", 4 of them" in probe(popdist=True).detail


def test_popdist_without_poprun_is_not_ready(poptorch: Any) -> None:
    with poptorch._contract.hardware(4):
        found = probe(popdist=True)
    assert found.detail == "popdist is True, but poprun did not start this process"
    assert found.remedy.startswith("run it as `poprun --num-instances")


def test_an_ipu_is_ready(poptorch: Any) -> None:
    with poptorch._contract.hardware(4):
        found = probe(replicas=2)
    assert found.ready
    assert found.detail.startswith("IPU version 2, 2 of them, poptorch ")


def test_the_ipu_model_is_ready_and_called_what_it_is(poptorch: Any) -> None:
    found = probe(ipu_model=True)
    assert found.ready
    assert found.detail.endswith("IPU Model, a simulation on the host")


def test_offline_compiling_needs_no_ipu_and_says_so(poptorch: Any) -> None:
    found = probe(offline=2)
    assert found.ready
    assert found.detail.endswith("compiles for IPUs of version 2, runs on none")


def test_popdist_where_it_is_not_installed_is_told_where_it_is_from(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "popdist" else find(name))
    found = probe(popdist=True)
    assert found.detail == "popdist is True, and the package popdist is not installed"
    assert "SDK" in found.remedy


def test_importing_the_package_imports_no_poptorch() -> None:
    import subprocess

    code = "import snn_backend_ipu, sys; assert not {'poptorch', 'popdist'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
