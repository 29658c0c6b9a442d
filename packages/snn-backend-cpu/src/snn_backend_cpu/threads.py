"""Kernels on several threads: each takes its share of the lanes, without Python's lock."""

import functools
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from snn_backend_cpu.kernels import Kernel

__all__ = ["PIECE", "Array", "Scratch", "memory", "run"]

Array = NDArray[Any]

Scratch = Sequence[tuple[bool, str]]
"""An array that every thread has for itself: whether it holds a span of steps or one step of a piece, and its type."""

_LANES = 1 << 14
"""Lanes times steps that stay in the second-level cache at once."""

PIECE = 1024
"""Lanes that go through time together at most: a row of each array fits the first-level cache."""

_WORTH_A_THREAD = 1 << 15


@functools.cache
def _pool(process: int) -> ThreadPoolExecutor:
    """The threads of a process; a forked one has none of its parent's. They are started when they are needed."""
    return ThreadPoolExecutor(max(1, os.cpu_count() or 1), thread_name_prefix="snn-backend-cpu")


def memory(tensor: torch.Tensor) -> Array:
    """A contiguous tensor's memory, flat, as kernels take it: numbers in half precision as their bits."""
    flat = tensor.detach().view(-1)
    return (flat.view(torch.int16) if flat.dtype in (torch.bfloat16, torch.float16) else flat).numpy()


def run(kernel: Kernel, steps: int, width: int, span: int, shared: Sequence[Array], scratch: Scratch = ()) -> None:
    """Run a kernel over all lanes on as many threads as torch uses.

    span: steps between two kept states.   shared: flat arrays of all lanes, none of which overlaps another.
    """
    threads = max(1, min(torch.get_num_threads(), steps * width // _WORTH_A_THREAD))
    # whole cache lines for each
    share = -(-width // threads // 16) * 16 if threads > 1 else width
    piece = max(64, min(PIECE, _LANES // span // 16 * 16))

    def part(start: int) -> None:
        own = [np.empty(span * piece if spanned else piece, kind) for spanned, kind in scratch]
        kernel(steps, width, start, min(start + share, width), piece, span, *shared, *own)

    starts = range(0, width, max(share, 1))
    others = [_pool(os.getpid()).submit(part, start) for start in starts[1:]]
    try:
        if width:
            part(0)
    finally:
        for other in others:
            other.result()
