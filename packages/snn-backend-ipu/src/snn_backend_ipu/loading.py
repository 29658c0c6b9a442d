"""Datasets through poptorch's loader: batches of the combined size, checked, and in evaluation filled up to it."""

import io
import pickle
import weakref
from typing import Any, Iterator, Optional, Sequence, Tuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from snn_backend_ipu.calls import call, guarded, value
from snn_backend_ipu.layout import Layout
from snn_backend_ipu.options import IpuOptions
from snn_core.batching import BatchReader
from snn_core.errors import ConfigError
from snn_core.losses import Loss
from snn_core.specs import BatchSpec

__all__ = ["Batch", "Batches", "TargetCheck", "keeping_random_state", "load", "require_picklable"]

Batch = Sequence[Tensor]
"""x, target, and in evaluation `valid` `[B]` of 0 and 1."""

_MODES = {
    "sync": "DataLoaderMode.Sync",
    "async": "DataLoaderMode.Async",
    "async_rebatched": "DataLoaderMode.AsyncRebatched",
}


class TargetCheck:
    """Checks a batch of targets against the loss. An object and not a method: asynchronous loaders pickle it."""

    def __init__(self, loss: Loss, output_shape: Tuple[int, ...], has_time: bool) -> None:
        self._loss, self._shape, self._has_time = loss, output_shape, has_time

    def __call__(self, target: Tensor) -> None:
        time_first = target.transpose(0, 1) if self._has_time else target
        self._loss.check_target(time_first, (self._shape[0], len(target), *self._shape[2:]))


class Batches(Dataset[Tuple[Tensor, ...]]):
    """Item i is one call's batch, or with `single` one sample, for a loader that makes the batches itself.

    plan: number of a batch and its samples.   size: samples in a batch; in evaluation a shorter one is filled up, and
    `valid` says with what.   dtype: of floating-point x.
    """

    def __init__(
        self,
        reader: BatchReader,
        plan: Sequence[Tuple[int, Sequence[int]]],
        size: int,
        training: bool,
        dtype: Optional[torch.dtype],
    ) -> None:
        self._reader, self._plan, self._size = reader, plan, size
        self._training, self._dtype = training, dtype

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, item: int) -> Tuple[Tensor, ...]:
        position, indices = self._plan[item]
        x, target = self._reader[position, indices]
        x = x.to(self._dtype) if self._dtype is not None and x.is_floating_point() else x
        if self._training:
            return x, target
        missing = self._size - len(x)
        valid = (torch.arange(self._size) < len(x)).float()
        return _filled(x, missing), _filled(target, missing), valid


class _Samples(Dataset[Tuple[Tensor, ...]]):
    """The samples of `Batches` of one sample each; `filled` of them, the last ones, only fill up."""

    def __init__(self, batches: Batches, filled: int) -> None:
        self._batches, self._filled = batches, filled

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, item: int) -> Tuple[Tensor, ...]:
        parts = [part[0] for part in self._batches[item]]
        if len(parts) == 3:
            parts[2] = torch.tensor(float(item < len(self) - self._filled))
        return tuple(parts)


def load(
    dataset: Any,
    order: Sequence[int],
    *,
    settings: Any,
    options: IpuOptions,
    spec: BatchSpec,
    cut: Layout,
    check: TargetCheck,
    training: bool,
    dtype: Optional[torch.dtype],
    start: int,
    seed: int,
) -> Iterator[Batch]:
    """Yield the batches of `order` from number `start` on, through poptorch's loader with the program's own Options."""
    reader = BatchReader(dataset, spec, check, seed)
    calls = len(order) // cut.samples if training else -(-len(order) // cut.samples)
    groups = [(number, order[number * cut.samples : (number + 1) * cut.samples]) for number in range(start, calls)]
    plan = [(number, cut.own(group) if training else group) for number, group in groups]
    if not plan:
        return iter(())
    if options.loader != "async_rebatched":
        batches: Dataset[Tuple[Tensor, ...]] = Batches(reader, plan, cut.combined, training, dtype)
        return _iterate(batches, None, settings, options)
    singles = [(number * cut.samples + k, [index]) for number, group in plan for k, index in enumerate(group)]
    filled = -len(singles) % cut.combined
    singles += singles[-1:] * filled
    one_by_one = Batches(reader, singles, 1, training, dtype)
    return _iterate(_Samples(one_by_one, filled), spec.size, settings, options)


def _iterate(
    dataset: "Dataset[Tuple[Tensor, ...]]", batch_size: Optional[int], settings: Any, options: IpuOptions
) -> Iterator[Batch]:
    with keeping_random_state():  # torch's loader draws a seed for its workers
        try:
            loader = call(
                "DataLoader",
                options=settings,
                dataset=dataset,
                batch_size=batch_size,
                shuffle=False,
                num_workers=options.workers,
                drop_last=batch_size is not None,
                # the plan holds this process's part already
                auto_distributed_partitioning=False,
                mode=value(_MODES[options.loader]),
            )
        except Exception:
            # now and not before: pickling takes the time that reading all of a dataset takes
            require_picklable("the dataset", dataset, options)
            raise
        return _Drained(loader)


class _Drained(Iterator[Batch]):
    """The batches of a loader, which is terminated with them: read to the end, closed, or dropped, begun or not.

    poptorch itself keeps an asynchronous loader's process until this one exits.
    """

    def __init__(self, loader: Any) -> None:
        self._end = weakref.finalize(self, _terminate, loader)
        # at exit poptorch terminates what is left, while it can still
        self._end.atexit = False
        self._batches: Iterator[Batch] = iter(loader)

    def __next__(self) -> Batch:
        try:
            with keeping_random_state(), guarded(loading=True):
                return _next(self._batches)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Terminate the loader; there are no more batches."""
        self._batches = iter(())  # torch's own workers end with what reads from them
        self._end()


def _terminate(loader: Any) -> None:
    call("DataLoader.terminate", loader)


def _next(batches: Iterator[Batch]) -> Batch:
    """The next batch, or its worker's error as it was raised: torch makes the whole traceback the message."""
    try:
        return next(batches)
    except Exception as exc:
        kind = type(exc)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        before, _, message = str(exc).rpartition(f"\n{name}: ")
        if not before.startswith(f"Caught {kind.__name__} in DataLoader worker"):
            raise
        raise kind(message.rstrip("\n")) from exc


def require_picklable(name: str, value: object, options: IpuOptions) -> None:
    """Raise ConfigError where the loader reads in a process of its own, to which `value` cannot be handed."""
    if options.loader == "sync":
        return
    try:
        pickle.Pickler(_Nowhere(), protocol=4).dump(value)
    except Exception as exc:
        raise ConfigError(
            f"loader is {options.loader!r}, which pickles the dataset and the loss for a process of its own, and "
            f"{name} cannot be pickled: {exc}; write its functions and classes at the top of a module, no "
            "lambda among them, or set loader='sync'"
        ) from exc


class _Nowhere(io.RawIOBase):
    """A file that keeps nothing."""

    def write(self, data: Any) -> int:
        return len(data)


class keeping_random_state:
    """The process's own random numbers go on after the block as if it had drawn none."""

    def __enter__(self) -> None:
        self._before = torch.get_rng_state()

    def __exit__(self, *exc: object) -> None:
        torch.set_rng_state(self._before)


def _filled(x: Tensor, missing: int) -> Tensor:
    return x if missing <= 0 else torch.cat((x, x[-1:].expand(missing, *x.shape[1:])))
