"""The kit as third parties use it: the backend of the documentation, the class for pytest, what the pages promise."""

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Dict

import pytest

from snn_core import registry
from snn_core.testing import EVERY, Check, run_all

if TYPE_CHECKING:
    from conftest import Packages

DOCS = Path(__file__).parents[4] / "docs"


def _files_of(page: str) -> Dict[str, str]:
    """The files that a page shows, by the path in the first line of each block."""
    blocks = re.findall(r"```(?:python|toml)\n# (\S+)\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL)
    return dict(blocks)


def _install(packages: "Packages") -> None:
    files = _files_of("backends.md")
    point = re.search(r'\[project\.entry-points\."snn\.backends"\]\nplain = "(\S+)"', files["pyproject.toml"])
    assert point is not None
    source = files["src/snn_backend_plain.py"]
    packages.add("snn-backend-plain", modules={"snn_backend_plain": source}, backends={"plain": point.group(1)})


@pytest.mark.slow
def test_the_backend_of_the_documentation_conforms(installed: "Packages") -> None:
    _install(installed)
    backend = registry.load("plain")
    registry.require_ready(backend)
    results = list(run_all(backend))
    assert [(result.check, result.case, result.detail) for result in results if not result.ok] == []
    assert {result.status for result in results} == {"passed", "refused"}


def _pytest(packages: "Packages", source: str) -> "subprocess.CompletedProcess[str]":
    (packages.folder / "test_it.py").write_text(source, encoding="utf-8")
    where = str(packages.folder / "test_it.py")
    return packages.python("-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "close or fire_op", where, timeout=120)


@pytest.mark.slow
def test_the_class_of_the_documentation_tests_the_installed_backend(packages: "Packages") -> None:
    _install(packages)
    run = _pytest(packages, _files_of("backends.md")["tests/test_conformance.py"])
    assert run.returncode == 0, run.stdout
    assert re.search(r"1[0-9] passed", run.stdout)
    assert "skipped" not in run.stdout


ABSENT = """
from snn_core.testing import BackendConformance

class TestAbsent(BackendConformance):
    backend_name = "absent"

class TestNobody(BackendConformance):
    backend_name = "nobody"

class TestUnnamed(BackendConformance):
    pass
"""


@pytest.mark.slow
def test_a_device_that_is_not_here_is_an_error_of_every_test(packages: "Packages") -> None:
    packages.add_backend("absent", probe="return Health('unavailable', 'no driver', 'install the driver')")
    run = _pytest(packages, ABSENT)
    assert run.returncode == 1
    assert " passed" not in run.stdout
    assert "skipped" not in run.stdout
    for said in ("install the driver", "no backend 'nobody' is installed", "TestUnnamed names no backend"):
        assert said in run.stdout


@pytest.mark.slow
def test_the_kit_needs_no_pytest() -> None:
    code = "import sys; sys.modules['pytest'] = None; from snn_core.testing import EVERY, Check, run_all, every_neuron"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_wrong_name_in_the_kit_is_named() -> None:
    import snn_core.testing as kit

    with pytest.raises(AttributeError, match="has no attribute 'run_everything'"):
        getattr(kit, "run_everything")  # noqa: B009 (what a misspelt import does)


@pytest.mark.parametrize("check", EVERY, ids=lambda check: check.name)
def test_every_check_is_documented_in_its_own_words(check: Check) -> None:
    assert f"| `{check.name}` | {check.claim} |" in (DOCS / "conformance.md").read_text(encoding="utf-8")


def test_names_of_checks_are_unique() -> None:
    names = [check.name for check in EVERY]
    assert sorted(names) == sorted(set(names))
