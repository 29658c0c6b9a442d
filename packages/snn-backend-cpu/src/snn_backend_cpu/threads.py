"""Kernels on several threads: each takes its share of the lanes, without Python's lock."""

import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from snn_backend_cpu.kernels import Kernel

__all__ = ["PIECE", "run"]

PIECE = 1024
"""Lanes that go through time together: a row of each array fits the first-level cache, a span of them the second."""

_WORTH_A_THREAD = 1 << 15


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """The threads of a process; a forked one has none of its parent's. They are started when they are needed."""
    return ThreadPoolExecutor(max(1, os.cpu_count() or 1), thread_name_prefix="snn-backend-cpu")


def run(
    kernel: Kernel, steps: int, width: int, shared: Sequence[torch.Tensor], scratch: Sequence[tuple[int, str]]
) -> None:
    """Run a kernel over all lanes on as many threads as torch uses.

    shared: arrays of all lanes, none of which overlaps another.   scratch: size and type of each thread's own arrays.
    """
    threads = max(1, min(torch.get_num_threads(), steps * width // _WORTH_A_THREAD))
    # whole cache lines for each
    share = -(-width // threads // 16) * 16 if threads > 1 else width
    arrays = [tensor.detach().numpy() for tensor in shared]

    def part(start: int) -> None:
        own = [torch.empty(size, dtype=getattr(torch, kind)).numpy() for size, kind in scratch]
        kernel(steps, width, start, min(start + share, width), PIECE, *arrays, *own)

    starts = range(0, width, max(share, 1))
    others = [_pool(os.getpid()).submit(part, start) for start in starts[1:]]
    try:
        if width:
            part(0)
    finally:
        for other in others:
            other.result()
