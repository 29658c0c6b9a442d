"""Workers in their own environments, and turns: each side works for a moment while the others wait."""

import contextlib
import itertools
import json
import os
import queue
import statistics
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

__all__ = ["Outcome", "Side", "Worker", "first_steps", "take_turns"]

WORKER = Path(__file__).resolve().with_name("worker.py")
TURN_S = 0.15  # steps of less are repeated until a turn is about this long,
SHORT_S = 0.3  # and come after one that is not counted, because the sides before it took the cache
MOST_STEPS = 10


@dataclass(frozen=True)
class Side:
    """One column of the table: a module of sides/, how it runs, and the Python that has its library."""

    label: str
    module: str
    mode: str
    python: str


@dataclass
class Outcome:
    """What one side did in one case. turns_ms: by part, the median step of each turn. An error ends all the rest."""

    first_s: Optional[float] = None
    loss: Optional[float] = None
    facts: Dict[str, Any] = field(default_factory=dict)
    turns_ms: Dict[str, List[float]] = field(default_factory=dict)
    later_loss: Optional[float] = None
    peak_mb: Optional[float] = None
    error: Optional[str] = None


class Worker:
    """A side's process. Answers are mappings; whatever goes wrong, the end of the process included, is one too."""

    def __init__(self, side: Side, threads: int, logs: Path, environment: Optional[Mapping[str, str]] = None) -> None:
        self.log = logs / f"{side.label.replace(', ', '-').replace(' ', '-')}.log"
        # two settings of one number: libraries that start threads of their own look at the environment
        counted = {name: str(threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")}
        everything = {**os.environ, **counted, **(environment or {})}
        if side.module != "ours":
            everything.pop("PYTHONPATH", None)  # what puts this project in front is nothing to the peers
        self.started = time.perf_counter()
        with self.log.open("ab") as log:
            command = [side.python, str(WORKER), side.module, side.mode, str(threads)]
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=everything, text=True
            )
        self._answers: queue.Queue[Optional[str]] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout:
            for line in self.process.stdout:
                self._answers.put(line)
        self._answers.put(None)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def send(self, **message: Any) -> None:
        assert self.process.stdin is not None
        # after the end of the process the answer says so
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()

    def receive(self, patience_s: float) -> Dict[str, Any]:
        """The next answer. After `patience_s` seconds without one the process is ended."""
        try:
            line = self._answers.get(timeout=max(0.0, patience_s))
        except queue.Empty:
            self.kill()
            return {"error": f"no answer within {patience_s:.0f} s"}
        if line is None:
            self._answers.put(None)  # whoever asks again is told again
            return {"error": f"the process ended with status {self.process.wait()}; its output is in {self.log.name}"}
        return json.loads(line)

    def ask(self, patience_s: float, **message: Any) -> Dict[str, Any]:
        self.send(**message)
        return self.receive(patience_s)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End the process: it ends by itself when its input does."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
        self._listener.join()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def take_turns(
    workers: Mapping[str, Worker], benchmark: str, settings: Mapping[str, Any], turns: int, patience_s: float
) -> Dict[str, Outcome]:
    """Prepare a benchmark on every worker, then let each run it for a moment, turn by turn."""
    found = _prepare(workers, benchmark, settings, patience_s)
    steps = {label: _warm_up(workers[label], found[label], patience_s) for label in workers}
    order = list(workers)
    for turn in range(turns):
        first = turn % len(order)  # nobody always runs after the same side
        for label in order[first:] + order[:first]:
            outcome = found[label]
            if outcome.error is not None:
                continue
            count, untimed = steps[label]
            answer = workers[label].ask(patience_s, do="run", steps=count, untimed=untimed)
            _note(outcome, answer)
    return found


def _prepare(
    workers: Mapping[str, Worker], benchmark: str, settings: Mapping[str, Any], patience_s: float
) -> Dict[str, Outcome]:
    """All at once, for nothing is timed yet and compilers take long."""
    for worker in workers.values():
        worker.send(do="prepare", benchmark=benchmark, settings=dict(settings))
    until = time.monotonic() + patience_s
    found = {}
    for label, worker in workers.items():
        answer = worker.receive(until - time.monotonic())
        if "error" in answer:
            found[label] = Outcome(error=answer["error"])
        else:
            found[label] = Outcome(first_s=answer["first_s"], loss=answer["loss"], facts=answer["facts"])
    return found


def _warm_up(worker: Worker, outcome: Outcome, patience_s: float) -> "tuple[int, int]":
    """The second step, at which a library may compile anew; then how many steps a turn has, timed and not."""
    if outcome.error is not None:
        return 0, 0
    answer = worker.ask(patience_s, do="run", steps=1)
    if "error" in answer:
        outcome.error = answer["error"]
        return 0, 0
    outcome.later_loss = answer["loss"]
    step_s = sum(times[-1] for times in answer["times_ms"].values()) / 1e3
    return max(1, min(MOST_STEPS, int(TURN_S / step_s))), int(step_s < SHORT_S)


def _note(outcome: Outcome, answer: Mapping[str, Any]) -> None:
    if "error" in answer:
        outcome.error = answer["error"]
        return
    outcome.peak_mb = answer["peak_mb"]
    for part, times in answer["times_ms"].items():
        outcome.turns_ms.setdefault(part, []).append(statistics.median(times))


def first_steps(
    sides: Sequence[Side],
    settings: Mapping[str, Any],
    threads: int,
    repeats: Mapping[str, int],
    logs: Path,
    patience_s: float,
    environment: Optional[Mapping[str, str]] = None,
) -> Dict[str, Dict[str, Outcome]]:
    """Seconds from the start of a process to the end of its first step, by kind of cache, "cold" or "warm", and side.

    Cold: the caches of compilers, ours and torch's, are new and empty; warm: filled by the first cold start.
    repeats: how often, by kind, "cold" first.
    """
    found: Dict[str, Dict[str, Outcome]] = {kind: {side.label: Outcome() for side in sides} for kind in repeats}
    with tempfile.TemporaryDirectory(dir=logs) as folder:
        for kind, count in repeats.items():
            for repeat, side in itertools.product(range(count), sides):
                caches = Path(folder, f"{side.module}-{side.mode}-{repeat if kind == 'cold' else 0}")
                kept = {"SNN_CACHE_DIR": str(caches / "snn"), "TORCHINDUCTOR_CACHE_DIR": str(caches / "inductor")}
                worker = Worker(side, threads, logs, {**kept, **(environment or {})})
                outcome, answer = found[kind][side.label], _first_step(worker, settings, patience_s)
                outcome.error = outcome.error or answer.pop("error", None)
                for part, seconds in answer.items():
                    outcome.turns_ms.setdefault(part, []).append(1e3 * seconds)
    return found


def _first_step(worker: Worker, settings: Mapping[str, Any], patience_s: float) -> Dict[str, Any]:
    with worker:
        about = worker.ask(patience_s, do="about")
        started_s = time.perf_counter() - worker.started
        if "error" in about:
            return about
        prepared = worker.ask(patience_s, do="prepare", benchmark="seed", settings=dict(settings))
        if "error" in prepared:
            return prepared
        return {"step": started_s + prepared["first_s"], "start": started_s, "network": prepared["first_s"]}
