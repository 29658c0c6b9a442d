"""Kernels on several threads: each takes its share of the lanes, without Python's lock."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from snn_backend_cpu.kernels import Kernel

__all__ = ["PIECE", "run"]

PIECE = 2048
"""Lanes that go through time together: a row of each array fits the first-level cache, a span of them the second."""

_WORTH_A_THREAD = 1 << 15
_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}


def _pool(threads: int) -> ThreadPoolExecutor:
    # a forked process has none of its parent's threads
    key = (os.getpid(), threads)
    if key not in _pools:
        _pools[key] = ThreadPoolExecutor(threads, thread_name_prefix="snn-backend-cpu")
    return _pools[key]


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
    others = [_pool(len(starts) - 1).submit(part, start) for start in starts[1:]]
    try:
        if width:
            part(0)
    finally:
        for other in others:
            other.result()
