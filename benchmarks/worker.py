"""One side of the comparison in its own process and environment: `python worker.py SIDE MODE THREADS`.

Reads one JSON object a line and answers each with one:
  {"do": "about"}                                             -> {"versions": {...}, "threads": n, …}
  {"do": "prepare", "benchmark": name, "settings": {...}}     -> {"first_s": s, "facts": {...}, "loss": x}
  {"do": "run", "untimed": n, "steps": n}                     -> {"times_ms": {part: [...]}, "loss": x, "peak_mb": m}
Whatever goes wrong is answered {"error": "Kind: text"}. The end of the input ends the process.
"""

import contextlib
import gc
import importlib
import importlib.metadata
import json
import os
import platform
import resource
import sys
import time
import traceback
from typing import Any, Dict, Mapping, Optional, TextIO

STARTED = time.perf_counter()


class Side:
    """A library and how it runs, with the benchmark that it has prepared."""

    def __init__(self, name: str, mode: str, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        # before torch starts a thread, which takes this mode from the one that starts it: gradients of a network that
        # learns one batch by heart become denormal, and the libraries would be compared by the processor's slow path
        torch.set_flush_denormal(True)
        self.torch, self.mode = torch, mode
        self.library = importlib.import_module(f"sides.{name}")
        self.import_s = time.perf_counter() - STARTED
        self.memory_before_mb = peak_mb()
        self.work: Any = None

    def about(self) -> Dict[str, Any]:
        names = ("torch", "numpy", self.library.DISTRIBUTION, *getattr(self.library, "FURTHER", ()))
        versions = {name: importlib.metadata.version(name) for name in names}
        return {
            "versions": {"python": platform.python_version(), **versions},
            "threads": self.torch.get_num_threads(),
            # large enough for every thread to take its share
            "denormals_flushed": bool((self.torch.full((1 << 20,), 1e-38) * 0.1 == 0).all()),
            "import_s": self.import_s,
        }

    def prepare(self, benchmark: str, settings: Mapping[str, Any]) -> Dict[str, Any]:
        self.work = None
        if self.mode == "compile":
            self.torch._dynamo.reset()
        gc.collect()
        start = time.perf_counter()
        self.work = self.library.build(benchmark, settings, self.mode)
        for part in self.work.parts.values():
            part()
        first_s = time.perf_counter() - start
        # the loss before the facts: they may run the network once more
        return {"first_s": first_s, "loss": self.work.loss(), "facts": self.work.facts()}

    def run(self, steps: int, untimed: int = 0) -> Dict[str, Any]:
        for _ in range(untimed):
            for part in self.work.parts.values():
                part()
        times: Dict[str, Any] = {name: [] for name in self.work.parts}
        for _ in range(steps):
            for name, part in self.work.parts.items():
                start = time.perf_counter()
                part()
                times[name].append(1e3 * (time.perf_counter() - start))
        return {"times_ms": times, "loss": self.work.loss(), "peak_mb": peak_mb() - self.memory_before_mb}


def peak_mb() -> float:
    """The most memory that this process has held so far."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def answer(side: Side, message: Dict[str, Any]) -> Dict[str, Any]:
    """What a message is answered with; an error of the side's library is an answer too."""
    try:
        return getattr(side, message.pop("do"))(**message)
    except Exception as exc:
        traceback.print_exc()
        return {"error": f"{type(exc).__name__}: {exc}"}


def main() -> None:
    # libraries print: the channel is a copy of stdout, and stdout goes where stderr goes
    channel: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    name, mode, threads = sys.argv[1:]
    side: Optional[Side] = None
    for line in sys.stdin:
        if side is None:
            side = Side(name, mode, int(threads))
        with contextlib.suppress(BrokenPipeError):
            print(json.dumps(answer(side, json.loads(line))), file=channel, flush=True)


if __name__ == "__main__":
    main()
