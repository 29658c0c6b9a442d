"""The checks for hardware fail where they cannot check, and are not among the ordinary tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
FAKE = TESTS / "poptorch_contract"


# Takes the fake's name off it and gives it IPUs, so that the checks themselves can be tried.
STAND_IN = """
import poptorch

del poptorch.is_contract_fake
machine = poptorch._contract.hardware(64)
machine.__enter__()
"""
# Of what the fake has not: gradients shared by processes, and times.
NEED_THE_REAL_ONE = "two_processes_of_poprun or saves_compiling or seed_network or half_precision"


def ran(*paths, collect="check_*.py", arguments=()):
    """What pytest says of tests/hardware, with folders in front of the path."""
    known = [entry for entry in sys.path if entry and Path(entry) != FAKE]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, paths), *known])}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--confcutdir={TESTS / 'hardware'}"]
    command += ["-c", os.devnull, f"--rootdir={TESTS}", "-o", f"python_files={collect}", *arguments]
    command.append(str(TESTS / "hardware"))
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
def test_the_checks_pass_on_the_rules_that_the_fake_keeps(tmp_path):
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    arguments = ["-p", "stand_in", "--strict-markers", "-k", f"not ({NEED_THE_REAL_ONE})"]
    # the conformance kit has a test of its own
    done = ran(tmp_path, FAKE, arguments=[*arguments, f"--ignore={TESTS / 'hardware' / 'check_conformance.py'}"])
    assert done.returncode == pytest.ExitCode.OK, done.stdout + done.stderr
    assert "skipped" not in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("process", [0, 1])
def test_the_program_that_poprun_starts_leaves_its_weights(tmp_path, process):
    poprun = {f"POPDIST_CONTRACT_{name}": str(value) for name, value in (("INSTANCE", process), ("INSTANCES", 2))}
    path = os.pathsep.join([str(FAKE), *filter(None, sys.path)])
    environment = {**os.environ, **poprun, "POPTORCH_IPU_MODEL": "1", "PYTHONPATH": path}
    program = [sys.executable, str(TESTS / "hardware" / "check_runs.py"), str(tmp_path)]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [f"{process}.pt"]


@pytest.mark.slow
def test_the_ordinary_command_collects_none_of_them():
    done = ran(collect="test_*.py")
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout + done.stderr
    names = {path.name for path in (TESTS / "hardware").glob("*.py")} - {"conftest.py"}
    assert len(names) >= 3
    assert all(name.startswith("check_") for name in names)
