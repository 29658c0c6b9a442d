"""The processes that a launcher such as `torchrun` started: how they meet, and how they agree."""

import atexit
import contextlib
import datetime
import os
import secrets
import time
from typing import Any, Callable, Iterator, List, Optional, Type, TypeVar

import torch
from torch import distributed

from snn_core._entry_points import describe
from snn_core.errors import ConfigError, ProcessFailed

__all__ = ["TIMEOUT_S", "Processes", "expected", "is_lost", "join", "speaks"]

T = TypeVar("T")
TIMEOUT_S = 600.0
"""How long processes wait for one another unless told otherwise, in seconds."""

_FAILURE, _FAILURES = "snn/failure", "snn/failures"
_LOST = (
    "/gloo/",  # the file that gloo names in its errors
    "nccl error",
    "connection closed by peer",
    "connection reset by peer",
    "timed out waiting",
    "socket timeout",
    "client socket has",
)


class Processes:
    """The processes of a run, as one of them sees them: it is `rank` of `count`. One alone sends nothing.

    data: the process group for tensors on the device, None for one process alone.
    What is said here goes over a group of its own, between hosts; every process must say it at the same point.
    """

    def __init__(self, rank: int = 0, count: int = 1, data: Any = None, control: Any = None, store: Any = None) -> None:
        self.rank, self.count, self.data = rank, count, data
        self._control, self._store = control, store
        self._parted: Optional[str] = None
        self._agreed: Optional[BaseException] = None

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and shows."""
        return self.rank == 0

    def gather(self, value: T) -> List[T]:
        """What every process has, in the order of their ranks. value: whatever can be pickled. Raises ProcessFailed."""
        if self.count == 1:
            return [value]
        found: List[Any] = [None] * self.count
        self._say(lambda: distributed.all_gather_object(found, value, group=self._control))
        return found

    def broadcast(self, value: T) -> T:
        """What the first process has. Raises ProcessFailed."""
        if self.count == 1:
            return value
        box = [value if self.first else None]
        self._say(lambda: distributed.broadcast_object_list(box, src=0, group=self._control))
        return box[0]  # type: ignore[return-value]

    def any(self, here: bool) -> bool:
        """Whether it is so in any process. Raises ProcessFailed."""
        if self.count == 1:
            return here
        flag = torch.tensor([int(here)], dtype=torch.int32)
        self._say(lambda: distributed.all_reduce(flag, distributed.ReduceOp.MAX, group=self._control))
        return bool(flag.item())

    @contextlib.contextmanager
    def together(self, *shared: Type[Exception]) -> Iterator[None]:
        """Let all processes leave the block in the same way: what one of them raises in it ends it for all.

        The others raise ProcessFailed, or for one of the types `shared` the same. The block must say nothing to the
        other processes.
        """
        error: Optional[Exception] = None
        try:
            yield
        except Exception as exc:
            if self.count == 1:
                raise
            error = exc
        if not self.any(error is not None):
            return
        if error is not None and not isinstance(error, shared):
            self.gather((False, describe(error)))
            self._agreed = error
            raise error
        said = self.gather(None if error is None else (True, str(error)))
        failed = [(rank, what[1]) for rank, what in enumerate(said) if what and not what[0]]
        failures = [f"process {rank} of {self.count}: {text}" for rank, text in failed]
        if failures:
            self._agreed = ProcessFailed(f"another process ended this run; {'; '.join(failures)}")
        else:
            self._agreed = shared[0](next(what[1] for what in said if what))
        raise self._agreed

    def part(self, error: BaseException) -> None:
        """Leave the others for good, unless `error` was theirs too: they find out when they next say something."""
        if self.count == 1 or self._parted is not None or error is self._agreed:
            return
        self._parted = describe(error) if isinstance(error, Exception) else type(error).__name__
        with contextlib.suppress(Exception):
            if not isinstance(error, ProcessFailed):
                self._store.set(_FAILURE, f"process {self.rank} of {self.count}: {self._parted}")
                self._store.add(_FAILURES, 1)
        with contextlib.suppress(Exception):
            # closes its connections, which wakes those who wait
            distributed.destroy_process_group(self._control)
        self._control = None

    def lost(self, error: BaseException) -> ProcessFailed:
        """What to raise where the connection to the others broke, or they did not come in time."""
        why = ""
        with contextlib.suppress(Exception):
            if self._store.add(_FAILURES, 0):  # asking for a key that is not there would wait for it
                why = f"; {self._store.get(_FAILURE).decode()}"
        return ProcessFailed(
            f"process {self.rank} of {self.count} lost the others, or waited for them too long ({describe(error)})"
            f"{why or '; what they printed says why'}; go on from the last checkpoint"
        )

    def _say(self, action: Callable[[], object]) -> None:
        if self._parted is not None:
            raise ProcessFailed(
                f"this process left the others when a run failed ({self._parted}); start all processes again"
            )
        try:
            action()
        except RuntimeError as exc:
            raise self.lost(exc) from exc


_joined: Optional[Processes] = None


def expected() -> int:
    """How many processes the launcher started for this run: 1 without one. Raises ConfigError for a WORLD_SIZE that is
    no number.
    """
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return _number("WORLD_SIZE", 1)


def join(collectives: str = "gloo", timeout_s: float = TIMEOUT_S) -> Processes:
    """Meet the other processes that a launcher such as `torchrun` started, once; without one there is this one alone.

    collectives: the backend of torch.distributed for tensors on the device, such as "gloo" or "nccl".   timeout_s: how
    long to wait for the others, now and later. A process group that exists already is used as it is.
    Raises ConfigError for an environment that is no launcher's, ProcessFailed where the others do not come.
    """
    global _joined
    if _joined is None:
        if expected() == 1:
            return Processes()
        if not distributed.is_available():
            raise ConfigError(
                f"WORLD_SIZE is {expected()}, and this torch has no torch.distributed; train in one process"
            )
        _joined = _meet(collectives, datetime.timedelta(seconds=timeout_s))
        _share_the_cores()
    return _joined


def speaks() -> bool:
    """Whether it is this process that tells what came of the work of all."""
    return _joined is None or _joined.first


def is_lost(error: BaseException) -> bool:
    """Whether an error of torch says that the connection between processes broke."""
    text = str(error).lower()
    return (
        isinstance(error, RuntimeError) and not isinstance(error, ProcessFailed) and any(word in text for word in _LOST)
    )


def _meet(collectives: str, timeout: datetime.timedelta) -> Processes:
    store = None
    if distributed.is_initialized():
        data = distributed.group.WORLD
    else:
        store = _initialize(collectives, timeout)
        data = distributed.new_group(timeout=timeout, backend=collectives)
    # apart from the tensors': a device's own collectives may know no host, and the two must not wait for each other
    control = distributed.new_group(timeout=timeout, backend="gloo")
    return Processes(distributed.get_rank(), distributed.get_world_size(), data, control, store)


def _initialize(collectives: str, timeout: datetime.timedelta) -> Any:
    count, rank = _number("WORLD_SIZE"), _number("RANK")
    if rank >= count:
        raise ConfigError(
            f"the environment variable RANK is {rank} and WORLD_SIZE {count}; RANK must be 0 to {count - 1}, each "
            "once, as torchrun sets it; start the processes with torchrun, or unset WORLD_SIZE to train in one"
        )
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if name not in os.environ:
            raise ConfigError(
                f"WORLD_SIZE is {count} and {name} is not set; start the processes with torchrun, or unset WORLD_SIZE"
            )
    try:
        store, _, _ = next(iter(distributed.rendezvous("env://", rank, count, timeout=timeout)))
        store.set_timeout(timeout)
        store = distributed.PrefixStore(_fresh_name(store, rank, count, timeout.total_seconds()), store)
        distributed.init_process_group(collectives, store=store, rank=rank, world_size=count, timeout=timeout)
    except (RuntimeError, ValueError) as exc:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        raise ProcessFailed(
            f"process {rank} of {count} did not meet the others at {where} within {timeout.total_seconds():g} s "
            f"({describe(exc)}); see that all {count} were started and reach that address"
        ) from exc
    atexit.register(_leave)
    return store


def _fresh_name(store: Any, rank: int, count: int, timeout_s: float) -> str:
    """A name that no earlier start of these processes used, chosen by the first and heard by all.

    torchrun keeps one store over its restarts, and the addresses of processes that are gone would be taken for those of
    the others. Its count of restarts would not do: each machine has its own.
    """
    if rank:
        question = secrets.token_hex(8)
        store.set(f"snn/question/{rank}", question)
        name: str = store.get(f"snn/answer/{question}").decode()
        store.add(f"snn/heard/{name}/{question}", 1)
        return name
    name, deadline = secrets.token_hex(8), time.monotonic() + timeout_s
    for other in range(1, count):
        question = store.get(f"snn/question/{other}").decode()
        store.set(f"snn/answer/{question}", name)
        # it may have been the question of one that is gone
        while not store.add(f"snn/heard/{name}/{question}", 0):
            if time.monotonic() > deadline:
                raise RuntimeError(f"process {other} does not answer")
            time.sleep(0.01)
            question = store.get(f"snn/question/{other}").decode()
            store.set(f"snn/answer/{question}", name)
    return name


def _leave() -> None:
    if distributed.is_initialized():
        # a thread of gloo may still have to let go of a message, for which it needs the interpreter: in torch 2.0 the
        # next line would wait for that thread and hold the interpreter meanwhile
        time.sleep(0.1)
        with contextlib.suppress(Exception):
            distributed.destroy_process_group()


def _share_the_cores() -> None:
    """Unless somebody said how many, each process of a machine takes its share of the cores; torchrun says 1."""
    if "OMP_NUM_THREADS" in os.environ:
        return
    here = _number("LOCAL_WORLD_SIZE", 1)
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(1, min(allowed, (os.cpu_count() or 1) // here)))


def _number(name: str, default: Optional[int] = None) -> int:
    text = os.environ.get(name)
    if text is None and default is not None:
        return default
    try:
        number = int(text or "")
    except ValueError:
        number = -1
    least = 1 if name.endswith("SIZE") else 0
    if number < least:
        raise ConfigError(
            f"the environment variable {name} is {'not set' if text is None else repr(text)}; it must be a number of "
            f"{least} or more, as torchrun sets it; start the processes with torchrun, or unset WORLD_SIZE to train in "
            "one"
        )
    return number
