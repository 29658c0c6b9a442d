"""A backend in several processes: `python -m snn_core.testing.processes FOLDER` is one of those that `in_processes`
starts. Everything goes through files: the backend and the trial, pickled, and what came of them.
"""

import contextlib
import os
import pickle
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Set, cast

from snn_core.backend import Backend
from snn_core.errors import ConformanceError
from snn_core.testing.fit import Outcome, train, weights_of
from snn_core.testing.trial import Data, Trial, compiled

__all__ = ["Share", "in_processes", "launched"]

TIMEOUT_S = 120.0


class Share(NamedTuple):
    """What one process found, and the samples that it read."""

    outcome: Outcome
    read: List[int]


def in_processes(backend: Backend, trial: Trial, count: int) -> List[Share]:
    """Train a trial in `count` processes of this machine; what came of it in each.

    Raises ConformanceError where one fails, or they do not end within two minutes.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            Path(folder, "task").write_bytes(pickle.dumps((backend, trial)))
        except (pickle.PicklingError, AttributeError, TypeError) as exc:
            raise ConformanceError(
                f"the backend {type(backend).__name__} cannot be handed to another process ({exc}); define the class, "
                "and that of its options, at the top of a module"
            ) from exc
        port = _free_port()
        started = [_start(folder, rank, count, port) for rank in range(count)]
        try:
            for rank, process in enumerate(started):
                _require_success(process, rank)
        finally:
            for process in started:
                process.kill()
                process.communicate()
        return [Share(*pickle.loads(Path(folder, f"share{rank}").read_bytes())) for rank in range(count)]


@contextlib.contextmanager
def launched(count: int) -> Iterator[None]:
    """Let this process look, inside the block, like the first of `count` that never come."""
    before = dict(os.environ)
    os.environ.update(_place(0, count))
    os.environ.pop("MASTER_ADDR", None)  # whoever looks for the others finds nobody to ask
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _place(rank: int, count: int) -> Dict[str, str]:
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    return {name: str(value) for name, value in ranks.items()}


def _start(folder: str, rank: int, count: int, port: int) -> "subprocess.Popen[str]":
    environment = {
        **os.environ,
        **_place(rank, count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    command = [sys.executable, "-m", "snn_core.testing.processes", folder]
    return subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _require_success(process: "subprocess.Popen[str]", rank: int) -> None:
    try:
        said = process.communicate(timeout=TIMEOUT_S)[0]
    except subprocess.TimeoutExpired as exc:
        raise ConformanceError(
            f"process {rank} did not end within {TIMEOUT_S:g} s; the processes wait in vain"
        ) from exc
    if process.returncode != 0:
        last = (said.strip().splitlines() or ["nothing was said"])[-1]
        raise ConformanceError(f"process {rank} ended with code {process.returncode}: {last}")


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class _Watched:
    """Data that remembers what was read of it, by this process itself."""

    def __init__(self, data: Data) -> None:
        self._data = data
        self.read: Set[int] = set()

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Any:
        self.read.add(int(index))
        return self._data[index]


def _work(folder: str) -> None:
    backend, trial = pickle.loads(Path(folder, "task").read_bytes())
    data, model = _Watched(trial.samples()), trial.build()
    start = weights_of(model)
    with compiled(backend, trial, model) as program:
        rows = train(program, cast(Data, data))
        program.sync()
    found = (Outcome(rows, start, weights_of(model)), sorted(data.read))
    Path(folder, f"share{os.environ['RANK']}").write_bytes(pickle.dumps(found))


if __name__ == "__main__":
    _work(sys.argv[1])
