"""What `auto` takes, with real packages and their probes."""

import sys
from typing import TYPE_CHECKING

import pytest

from snn_core import choosing
from snn_core.errors import BackendNotFound, BackendUnavailable

if TYPE_CHECKING:
    from conftest import Packages


def test_auto_takes_eager_without_a_process_when_nothing_else_is_installed(
    installed: "Packages", monkeypatch: pytest.MonkeyPatch
) -> None:
    installed.add_backend("eager", package="snn-core", priority=0)
    # A process would fail to start: this is no mock, it is a machine without one to spare.
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    backend, reason = choosing.auto()
    assert (backend.name, reason) == ("eager", "eager is the only backend installed")


def test_auto_takes_the_ready_backend_of_the_highest_priority_and_names_the_losers(installed: "Packages") -> None:
    installed.add_backend("eager", package="snn-core", priority=0)
    installed.add_backend("cpu", priority=10)
    installed.add_backend("cuda", priority=30, probe="return Health('unavailable', 'no NVIDIA driver', 'install one')")
    installed.add_backend("ipu", priority=40, top="import os; os.abort()")
    backend, reason = choosing.auto()
    assert backend.name == "cpu"
    assert reason == (
        "cpu is ready with priority 10; eager has priority 0; cuda is unavailable (no NVIDIA driver); "
        "ipu is broken (its process was killed by SIGABRT without an answer)"
    )


def test_auto_falls_back_to_eager_and_says_why(installed: "Packages") -> None:
    installed.add_backend("eager", package="snn-core", priority=0)
    installed.add_backend("cuda", priority=30, probe="return Health('unavailable', 'no NVIDIA driver', 'install one')")
    backend, reason = choosing.auto()
    assert (backend.name, reason) == ("eager", "eager is ready with priority 0; cuda is unavailable (no NVIDIA driver)")


def test_auto_of_two_equals_takes_the_first_by_name(installed: "Packages") -> None:
    installed.add_backend("beta", priority=10)
    installed.add_backend("alpha", priority=10)
    assert choosing.auto()[0].name == "alpha"


def test_auto_refuses_when_nothing_is_installed_or_ready(installed: "Packages") -> None:
    with pytest.raises(BackendNotFound, match=r"no backend is installed.*pip install --force-reinstall snn-core"):
        choosing.auto()
    installed.add_backend("cuda", probe="return Health('unavailable', 'no NVIDIA driver', 'install one')")
    with pytest.raises(
        BackendUnavailable, match=r"no backend is ready: cuda is unavailable \(no NVIDIA driver\); run `snn"
    ):
        choosing.auto()


def test_a_foreign_eager_that_conflicts_does_not_disturb_auto(installed: "Packages") -> None:
    installed.add_backend("eager", package="snn-core", priority=0)
    installed.add_backend("eager", package="squatter", priority=99)
    installed.add_backend("cpu", priority=10)
    backend, reason = choosing.auto()
    assert backend.name == "cpu"
    assert "eager is conflict (registered by 2 packages: snn-core 1.0, squatter 1.0)" in reason
