"""Probes of real packages: whatever a plugin does stays in its process, and each result tells what happened."""

import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Dict

import pytest

from snn_core.errors import ConfigError
from snn_core.probing import ProbeResult, probe_all

if TYPE_CHECKING:
    from conftest import Packages


def _probe(timeout_s: float = 10.0) -> Dict[str, ProbeResult]:
    return {result.info.name: result for result in probe_all(timeout_s=timeout_s)}


def test_a_ready_backend_tells_its_api_priority_and_device(installed: "Packages") -> None:
    installed.add_backend("cpu", probe="return Health('ready', 'two\\n cores')", priority=7)
    result = _probe()["cpu"]
    assert (result.status, result.api, result.priority, result.detail) == ("ready", 1, 7, "two cores")
    assert (result.info.package, result.remedy) == ("snn-backend-cpu", "")
    assert 0.0 < result.seconds < 10.0


def test_an_unavailable_backend_tells_why_and_what_to_do(installed: "Packages") -> None:
    installed.add_backend("cuda", probe="return Health('unavailable', 'no NVIDIA driver', 'install one')")
    result = _probe()["cuda"]
    assert (result.status, result.api, result.detail, result.remedy) == (
        "unavailable",
        1,
        "no NVIDIA driver",
        "install one",
    )


@pytest.mark.parametrize(
    ("top", "probe", "status", "detail"),
    [
        (
            "import no_such_driver",
            "",
            "broken",
            "cannot be imported: ModuleNotFoundError: No module named 'no_such_driver'",
        ),
        ("sys.exit(3)", "", "broken", "cannot be imported: it called sys.exit(3)"),
        ("os._exit(4)", "", "broken", "its process exited with code 4 without an answer"),
        ("os._exit(0)", "", "broken", "its process exited with code 0 without an answer"),
        ("os.abort()", "", "broken", "its process was killed by SIGABRT without an answer"),
        ("import ctypes; ctypes.string_at(0)", "", "broken", "its process was killed by SIGSEGV without an answer"),
        ("", "os.abort()", "broken", "its process was killed by SIGABRT without an answer"),
        ("", "raise RuntimeError('cuInit failed')", "broken", "probing raised RuntimeError: cuInit failed"),
        ("", "sys.exit('bye')", "broken", "probing raised it called sys.exit('bye')"),
        ("", "return 'fine'", "incompatible", "probe() returned 'fine'; it must be a Health"),
        ("", "return Health('well')", "incompatible", "it must be a Health whose status is 'ready' or 'unavailable'"),
    ],
)
def test_a_failure_is_told_by_kind(installed: "Packages", top: str, probe: str, status: str, detail: str) -> None:
    installed.add_backend("cpu", top=top, probe=probe or "return Health('ready')")
    result = _probe()["cpu"]
    assert result.status == status
    assert detail in result.detail
    assert result.remedy


def test_another_api_is_incompatible_and_told_with_its_number(installed: "Packages") -> None:
    installed.add_backend("cpu", api=3)
    result = _probe()["cpu"]
    assert (result.status, result.api) == ("incompatible", 3)
    assert "update core" in result.remedy


def test_a_conflict_is_told_without_importing_either(installed: "Packages") -> None:
    installed.add_backend("cpu", package="first-cpu", top="time.sleep(60)")
    installed.add_backend("cpu", package="second-cpu", top="time.sleep(60)")
    began = time.monotonic()
    result = _probe()["cpu"]
    assert (result.status, time.monotonic() - began < 1.0) == ("conflict", True)
    assert "first-cpu" in result.detail
    assert "second-cpu" in result.detail


def test_the_last_words_of_a_crash_are_kept(installed: "Packages") -> None:
    words = "for i in range(9): sys.stderr.write(f'line {i}\\n'); sys.stderr.flush()"
    installed.add_backend("cpu", top=f"{words}\nos.abort()")
    assert _probe()["cpu"].detail.endswith("it last said: line 7 | line 8")


@pytest.mark.parametrize(
    "junk",
    [
        "print('junk')",
        'os.write(1, b\'{"status": "unavailable"}\\n\')',
        "os.system('echo junk')",
        "sys.stdout.write('x' * 300000)",
        "sys.stdout = None",
        "os.close(1)",
        "import atexit; atexit.register(print, 'junk')",
        "import atexit; atexit.register(time.sleep, 60)",
        "import threading; threading.Thread(target=time.sleep, args=(60,)).start()",
    ],
)
def test_nothing_that_a_plugin_prints_or_leaves_behind_confuses_the_answer(installed: "Packages", junk: str) -> None:
    installed.add_backend("cpu", top=junk)
    result = _probe(timeout_s=8.0)["cpu"]
    assert (result.status, result.detail) == ("ready", "a device")
    assert result.seconds < 8.0, "what is left behind kept the probe waiting"


def test_a_process_that_a_plugin_starts_does_not_keep_the_probe_waiting(installed: "Packages") -> None:
    installed.add_backend("cpu", top="import subprocess; subprocess.Popen(['sleep', '60'], start_new_session=True)")
    result = _probe()["cpu"]
    assert (result.status, result.seconds < 8.0) == ("ready", True)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["top", "probe"])
def test_a_hang_is_ended_with_all_that_it_started(installed: "Packages", where: str) -> None:
    note = installed.folder / "pids"
    hang = (
        "import subprocess; child = subprocess.Popen(['sleep', '60']); "
        f"open({str(note)!r}, 'w').write(f'{{os.getpid()}} {{child.pid}}'); time.sleep(60)"
    )
    installed.add_backend("cpu", **{where: hang})
    result = _probe(timeout_s=3.0)["cpu"]
    assert (result.status, result.detail) == ("broken", "no answer in 3 s")
    assert "snn backends --timeout 18" in result.remedy
    assert 3.0 <= result.seconds < 4.0
    for pid in map(int, note.read_text().split()):
        assert _ends(pid), f"process {pid} lives on"


@pytest.mark.slow
def test_results_come_as_they_are_ready_and_in_parallel(installed: "Packages") -> None:
    installed.add_backend("slow", top="time.sleep(2.0)")
    installed.add_backend("slower", top="time.sleep(3.0)")
    installed.add_backend("quick")
    began = time.monotonic()
    came = [(result.info.name, time.monotonic() - began) for result in probe_all()]
    assert [name for name, _ in came] == ["quick", "slow", "slower"]
    # One after the other the sleeps alone would take 5 s.
    assert came[0][1] < 2.0
    assert came[2][1] < 4.8


def test_leaving_early_ends_the_probes_that_still_run(installed: "Packages") -> None:
    note = installed.folder / "pid"
    installed.add_backend("hangs", top=f"open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    installed.add_backend("quick", top=f"while not os.path.exists({str(note)!r}): time.sleep(0.01)")
    results = probe_all()
    assert next(results).info.name == "quick"
    results.close()  # type: ignore[attr-defined]
    assert _ends(int(note.read_text()))


def test_a_file_in_the_current_folder_is_not_imported_by_a_probe(
    installed: "Packages", monkeypatch: pytest.MonkeyPatch
) -> None:
    installed.add_backend("cpu")
    here = installed.folder / "here"
    here.mkdir()
    for name in ("json", "traceback", "dataclasses"):
        (here / f"{name}.py").write_text("raise RuntimeError('a file of the user')")
    monkeypatch.chdir(here)
    assert _probe()["cpu"].status == "ready"


@pytest.mark.slow
def test_a_probe_whose_parent_was_killed_ends_by_itself(packages: "Packages") -> None:
    note = packages.folder / "pid"
    packages.add_backend("hangs", top=f"open({str(note)!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    code = "from snn_core.probing import probe_all; list(probe_all(timeout_s=2.0))"
    parent = subprocess.Popen([sys.executable, "-c", code], env=packages.environment())
    _wait_for(lambda: note.exists() and note.read_text() != "")
    parent.kill()
    parent.wait()
    assert _ends(int(note.read_text()), within_s=8.0)


def test_a_machine_that_starts_no_process_gets_results_all_the_same(
    installed: "Packages", monkeypatch: pytest.MonkeyPatch
) -> None:
    installed.add_backend("cpu")
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    result = _probe()["cpu"]
    assert (result.status, "no probe could start: FileNotFoundError" in result.detail) == ("broken", True)


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_senseless_time_is_refused(timeout_s: float) -> None:
    with pytest.raises(ConfigError, match="the time for each probe is"):
        next(probe_all([], timeout_s))


def test_no_thread_and_no_zombie_is_left(installed: "Packages") -> None:
    before = threading.active_count()
    for name in ("a", "b", "c"):
        installed.add_backend(name)
    list(probe_all())
    _wait_for(lambda: threading.active_count() <= before)
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_a_probe_by_hand_shows_all_that_the_plugin_prints(packages: "Packages") -> None:
    packages.add_backend("cpu", top="print('hello'); raise OSError('libcuda')")
    done = packages.python("-m", "snn_core._probe", "cpu")
    assert '"status": "broken"' in done.stdout
    assert "hello" in done.stderr
    assert "Traceback" in done.stderr
    assert "OSError: libcuda" in done.stderr


def test_a_probe_by_hand_of_nothing_says_what_is_installed(packages: "Packages") -> None:
    packages.add_backend("cpu")
    done = packages.python("-m", "snn_core._probe", "cqu")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: no backend 'cqu' is installed (did you mean 'cpu'?)")


def _ends(pid: int, within_s: float = 3.0) -> bool:
    """Whether the process ends in time; one that waits to be reaped has ended."""

    def ended() -> bool:
        try:
            os.kill(pid, 0)
            with open(f"/proc/{pid}/stat") as stat:
                return stat.read().rsplit(")", 1)[1].split()[0] == "Z"
        except (ProcessLookupError, FileNotFoundError):
            return True

    try:
        _wait_for(ended, within_s)
    except AssertionError:
        os.kill(pid, signal.SIGKILL)
        return False
    return True


def _wait_for(condition, within_s: float = 10.0) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)
