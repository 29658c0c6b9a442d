"""The package as it is imported and found by core."""

import subprocess
import sys
from pathlib import Path

import pytest

import snn_metrics
from snn_core import plugins
from snn_metrics import terms

SOURCE = Path(snn_metrics.__file__).parent


def test_every_public_name_is_found_and_listed() -> None:
    for name in snn_metrics.__all__:
        assert getattr(snn_metrics, name) is not None
        assert name in dir(snn_metrics)


def test_what_type_checkers_see_is_what_is_there() -> None:
    source = (SOURCE / "__init__.py").read_text(encoding="utf-8")
    seen = {line.split(" as ")[1] for line in source.splitlines() if line.startswith("    from snn_metrics")}
    assert seen == set(snn_metrics._HOME)


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(AttributeError, match=r"has no attribute 'SynopsBudget'.*'SynOpsBudget'"):
        snn_metrics.SynopsBudget  # noqa: B018


def test_importing_the_package_imports_no_torch() -> None:
    source = "import sys, snn_metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", source], check=False).returncode == 0


def test_core_finds_the_plugin_with_its_terms_and_callbacks() -> None:
    (info,) = [info for info in plugins.installed() if info.package == "snn-metrics"]
    assert (info.status, info.hooks) == ("loaded", ("snn_register_callbacks", "snn_register_terms", "snn_run_start"))
    manager = plugins.plugin_manager()
    offered = plugins.terms(manager)
    assert {offered[name].__name__ for name in offered} >= set(terms.__all__)
    assert all(offered[name].name == name for name in offered)
    assert set(plugins.callbacks(manager)) >= {"BudgetSchedule", "Lagrangian"}
