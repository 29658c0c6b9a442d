"""Compiled kernels: printed once, compiled once for each machine, and kept on disk."""

import atexit
import functools
import hashlib
import importlib.util
import os
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["Kernel", "cache_folder", "compiled"]

Kernel = Callable[..., None]


def cache_folder() -> Path:
    """Where kernels are kept: $SNN_CACHE_DIR, else the user's cache folder; a private one if that cannot be written."""
    try:
        base = _wanted_folder()
        base.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=base):
            pass
    except (OSError, RuntimeError) as exc:  # RuntimeError: the user has no home
        return Path(_private_folder(str(exc)))
    return base


def _wanted_folder() -> Path:
    chosen, shared = os.environ.get("SNN_CACHE_DIR"), os.environ.get("XDG_CACHE_HOME")
    if chosen:
        return Path(chosen)
    return (Path(shared) if shared else Path.home() / ".cache") / "snn-backend-cpu"


_private: dict[int, str] = {}  # by process: a forked one must not use what its parent removes


def _private_folder(reason: str) -> str:
    """A folder of this process, removed when it ends."""
    process = os.getpid()
    if process not in _private:
        _private[process] = tempfile.mkdtemp(prefix="snn-backend-cpu-")
        atexit.register(_remove, process)
        warnings.warn(
            f"kernels are compiled again in every process, since none can be kept ({reason}); set SNN_CACHE_DIR to a "
            "folder that can be written",
            stacklevel=2,
        )
    return _private[process]


def _remove(process: int) -> None:
    if process == os.getpid():  # forked processes run this too
        shutil.rmtree(_private[process], ignore_errors=True)


@functools.cache
def _stamp() -> bytes:
    """What a kept kernel depends on beside its own source; the machine's features are in Numba's own key."""
    import numba

    here = Path(__file__).parent
    parts = [(here / name).read_bytes() for name in ("intrinsics.py", "kernels.py")]
    return b"".join([*parts, numba.__version__.encode()])


@functools.lru_cache(maxsize=512)  # an annealed number makes another source for each value
def compiled(source: str, kinds: tuple[str, ...]) -> Kernel:
    """The function `kernel` of a source. kinds: the type of each array argument, "float32", "float64", "uint8" or
    "int16", the bits of a number in half precision.
    """
    from numba import njit, types

    name = "kernel_" + hashlib.sha256(_stamp() + source.encode()).hexdigest()[:24]
    path = cache_folder() / f"{name}.py"
    if not path.exists():
        # whole or not at all, since other processes may want the same kernel now
        handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")
        with os.fdopen(handle, "w") as file:
            file.write(source)
        os.replace(partial, path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"the kernel {path} cannot be read; delete the folder {path.parent}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where Numba looks for it when it reads a kept kernel
    spec.loader.exec_module(module)
    arrays = [types.Array(getattr(types, kind), 1, "C") for kind in kinds]
    signature = types.void(*([types.int64] * 6), *arrays)
    options = {"nogil": True, "cache": True, "error_model": "numpy", "pipeline_class": _distinct_arrays()}
    return njit(signature, **options)(module.kernel)


@functools.cache
def _distinct_arrays() -> Any:
    """A compiler that may assume what `run` sees to: no two arrays overlap. Without it loops are not vectorised."""
    from numba.core.compiler import Compiler

    class DistinctArrays(Compiler):
        def define_pipelines(self) -> Any:
            self.state.flags.noalias = True
            return super().define_pipelines()

    return DistinctArrays
