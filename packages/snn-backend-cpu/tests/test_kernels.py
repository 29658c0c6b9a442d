"""Kernels on disk: compiled once, read by the next process, and never in the way."""

import functools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from snn_backend_cpu.kernels import cache_folder, compiled

PROGRAM = """
import sys, torch, numba
from numba.core import event
import snn_core as snn
from snn_backend_cpu.fused import Fused
neuron = snn.LIF(0.9)
neuron.runner = Fused(neuron, torch.float32)
x = torch.ones(3, 2, 5, requires_grad=True)
with event.install_recorder("numba:compile") as recorder:
    neuron(x).sum().backward()
print(sum(1 for _, e in recorder.buffer if e.is_start and "kernel" in str(e.data["dispatcher"])))
print(x.grad.sum().item())
"""


def run(folder: Path) -> list[str]:
    environment = {**os.environ, "SNN_CACHE_DIR": str(folder)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_next_process_reads_kernels_instead_of_compiling_them(tmp_path: Path) -> None:
    first, second = run(tmp_path), run(tmp_path)
    assert first[1] == second[1]
    kernels = sorted(path.name for path in tmp_path.glob("kernel_*.py"))
    assert len(kernels) == 2  # forward and backward
    assert first[0] != "0"
    assert second[0] == "0"


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    assert run(blocked)[1] == run(tmp_path / "folder")[1]


LOOKING = """
from pathlib import Path
from snn_backend_cpu.kernels import cache_folder
first = cache_folder()
print(first == cache_folder(), first.is_dir(), first)
"""


def test_a_folder_that_is_not_kept_is_removed_and_said_once(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    environment = {**os.environ, "SNN_CACHE_DIR": str(blocked)}
    done = subprocess.run([sys.executable, "-c", LOOKING], env=environment, capture_output=True, text=True, check=True)
    same, existed, folder = done.stdout.split()
    assert (same, existed) == ("True", "True")
    assert not Path(folder).exists()
    assert done.stderr.count("set SNN_CACHE_DIR") == 1


ADDING = """
def kernel(steps, width, start, stop, piece, span, x):
    for i in range(start, stop):
        x[i] += np.float32({number})
"""


def test_a_process_holds_a_bounded_number_of_kernels_and_reads_a_dropped_one_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert compiled.cache_info().maxsize is not None
    monkeypatch.setenv("SNN_CACHE_DIR", str(tmp_path))
    of_two = functools.lru_cache(maxsize=2)(compiled.__wrapped__)
    for number in (1, 2, 3, 1):
        x = np.zeros(4, np.float32)
        of_two("import numpy as np\n" + ADDING.format(number=number), ("float32",))(1, 4, 0, 4, 4, 1, x)
        assert x.tolist() == [number] * 4
    assert len(list(tmp_path.glob("kernel_*.py"))) == 3


def homeless() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_a_chosen_folder_needs_no_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", homeless)
    monkeypatch.setenv("SNN_CACHE_DIR", str(tmp_path / "chosen"))
    assert cache_folder() == tmp_path / "chosen"


def test_a_user_without_a_home_has_a_folder_while_the_process_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", homeless)
    for name in ("SNN_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.warns(UserWarning, match="Could not determine home"):
        assert cache_folder().is_dir()


KEEPING = """
import resource, sys, torch
from snn_backend_cpu.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(1 << 24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
print(min(faults() for _ in range(5)))
"""


def page_faults(how: str) -> int:
    """How many pages the system is asked for by a tensor of 64 MiB, when one of that size was freed just before."""
    done = subprocess.run([sys.executable, "-c", KEEPING, how], capture_output=True, text=True, timeout=60, check=True)
    return int(done.stdout)


def test_kept_memory_is_used_again_without_asking_the_system() -> None:
    assert page_faults("keep") < 100
    assert page_faults("give back") > 30  # huge pages need the fewest: 32
