"""Real processes on this machine, under time-outs: one that waits for ever fails its test."""

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple

import pytest


class Done(NamedTuple):
    """How one process ended."""

    code: int
    out: str
    err: str


def free_port() -> int:
    with contextlib.closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def environment(rank: int, count: int, port: int) -> Dict[str, str]:
    """What torchrun sets."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    return {
        **os.environ,
        **{name: str(value) for name, value in place.items()},
        "MASTER_ADDR": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }


class Starter:
    """Starts processes, and ends those that are left in the end."""

    def __init__(self) -> None:
        self.started: List[Any] = []

    def begin(self, count: int, *arguments: object, **changes: str) -> "List[subprocess.Popen[str]]":
        """Start `python ARGUMENTS` `count` times, as torchrun would."""
        port, found = free_port(), []
        for rank in range(count):
            found.append(
                subprocess.Popen(
                    [sys.executable, *map(str, arguments)],
                    env={**environment(rank, count, port), **changes},
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        self.started += found
        return found

    def __call__(self, count: int, *arguments: object, timeout: float = 120.0, **changes: str) -> List[Done]:
        """The same, and wait until all have ended."""
        return [ended(process, timeout) for process in self.begin(count, *arguments, **changes)]


def ended(process: "subprocess.Popen[str]", timeout: float = 120.0) -> Done:
    out, err = process.communicate(timeout=timeout)
    return Done(process.returncode, out, err)


@pytest.fixture(scope="session")
def processes() -> Iterator[Starter]:
    """processes(count, "script.py", ...) -> how each of them ended."""
    starter = Starter()
    yield starter
    for process in starter.started:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture(scope="session")
def here() -> Path:
    return Path(__file__).parent
