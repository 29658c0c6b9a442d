"""Freed memory stays with the process, so that each step does not ask the system for the same pages again."""

import ctypes
import functools
import platform

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_LARGEST_BLOCK = 1 << 30
_MOST_KEPT = (1 << 31) - 1


@functools.cache
def keep_freed_memory() -> bool:
    """Let the C library reuse blocks up to 1 GiB and hold up to 2 GiB of freed memory; whether it can (glibc alone).

    By default it hands every block above 32 MiB back at once, and the page faults of the next one take longer than a
    neuron's whole kernel. The setting holds for the process and cannot be read, so it is not taken back.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    done = library.mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK), library.mallopt(_TRIM_THRESHOLD, _MOST_KEPT)
    return all(done)
