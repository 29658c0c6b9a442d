"""Checks that need the real poptorch: `nox -s hardware -- ipu` runs them; nothing else collects check_*.py.

Each runs on IPUs where there are enough, and on the IPU Model otherwise, and says which: none is skipped. What the IPU
Model cannot stand in for fails where there are too few IPUs, and says so.
"""

import importlib
import platform
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest
import torch

HERE = Path(__file__).resolve().parent
SHOWN: List[str] = []
USED: Dict[str, str] = {}


def real_poptorch() -> Any:
    """poptorch, unless it is absent, broken or the contract fake: then nothing here may run, and nothing may pass."""
    try:
        poptorch = importlib.import_module("poptorch")
    except Exception as exc:  # the SDK's package may raise anything
        raise pytest.UsageError(
            f"these checks need the real poptorch, and importing it raised {type(exc).__name__}: {exc}. "
            "Enable Graphcore's SDK in this shell and name the Python that has its poptorch: docs/ipu.md"
        ) from exc
    if hasattr(poptorch, "is_contract_fake"):
        raise pytest.UsageError(
            f"{poptorch.__file__} is the contract fake; these checks need the real poptorch. Take it off PYTHONPATH"
        )
    return poptorch


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs_poptorch: needs the real poptorch, on IPUs or on the IPU Model")
    config.addinivalue_line(
        "markers", "needs_popdist: needs the real popdist, and of its processes poprun and two IPUs"
    )


def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    # the ordinary command loads this file too and collects nothing beside it: then there is nothing to refuse
    ours = [item for item in items if HERE in item.path.parents]
    if ours:
        real_poptorch()
    for item in ours:
        item.add_marker(pytest.mark.needs_poptorch)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if not (USED or SHOWN):
        return
    poptorch = real_poptorch()
    terminalreporter.section("what this showed")
    versions = f"poptorch {poptorch.__version__}, torch {torch.__version__}, Python {platform.python_version()}"
    terminalreporter.line(versions)
    found = poptorch.ipuHardwareIsAvailable()
    terminalreporter.line(f"IPU hardware: {f'version {poptorch.ipuHardwareVersion()}' if found else 'none'}")
    for name, device in USED.items():
        terminalreporter.line(f"{name}: on {device}")
    for line in SHOWN:
        terminalreporter.line(line)


@pytest.fixture(scope="session")
def poptorch() -> Any:
    return real_poptorch()


@pytest.fixture
def on_model(request: pytest.FixtureRequest, poptorch: Any) -> Callable[[int], bool]:
    """Whether so many IPUs must be the IPU Model's, which the summary then says of this check."""

    def asked(ipus: int = 1) -> bool:
        found = poptorch.ipuHardwareIsAvailable(ipus)
        USED[request.node.name] = f"{ipus} IPU{'s' if ipus > 1 else ''}" if found else "the IPU Model"
        return not found

    return asked


@pytest.fixture
def needs_ipus(request: pytest.FixtureRequest, poptorch: Any) -> Callable[[int, str], None]:
    """needs_ipus(count, why): fail where there are fewer IPUs, for what the IPU Model cannot stand in."""

    def asked(ipus: int, why: str) -> None:
        if not poptorch.ipuHardwareIsAvailable(ipus):
            pytest.fail(f"this needs {ipus} IPU{'s' if ipus > 1 else ''}, which are not here: {why}")
        USED[request.node.name] = f"{ipus} IPU{'s' if ipus > 1 else ''}"

    return asked


@pytest.fixture
def show(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Say a thing in the summary."""
    return lambda text: SHOWN.append(f"{request.node.name}: {text}")
