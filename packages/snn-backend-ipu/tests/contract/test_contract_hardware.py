"""The checks for hardware fail where they cannot check, and are not among the ordinary tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
FAKE = TESTS / "poptorch_contract"


def ran(*paths, collect="check_*.py"):
    """What pytest says of tests/hardware, with folders in front of the path."""
    known = [entry for entry in sys.path if entry and Path(entry) != FAKE]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, paths), *known])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--confcutdir={TESTS / 'hardware'}"]
    command += ["-c", os.devnull, f"--rootdir={TESTS}", "-o", f"python_files={collect}", str(TESTS / "hardware")]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=str(TESTS))


@pytest.mark.slow
def test_the_checks_refuse_the_fake():
    done = ran(FAKE)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "is the contract fake; these checks need the real poptorch" in done.stdout + done.stderr


@pytest.mark.slow
def test_the_checks_fail_where_poptorch_cannot_be_imported(tmp_path):
    (tmp_path / "poptorch.py").write_text("raise ImportError('libpoplar.so: no such file')")
    done = ran(tmp_path)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "libpoplar.so: no such file. Enable Graphcore's SDK" in done.stdout + done.stderr


@pytest.mark.slow
def test_the_ordinary_command_collects_none_of_them():
    done = ran(collect="test_*.py")
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout + done.stderr
    names = {path.name for path in (TESTS / "hardware").glob("*.py")} - {"conftest.py"}
    assert len(names) >= 3
    assert all(name.startswith("check_") for name in names)
