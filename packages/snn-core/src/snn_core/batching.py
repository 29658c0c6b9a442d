"""Reading a dataset in a given order, in batches, with every sample checked before it goes to a device."""

from typing import Any, Callable, Iterator, List, Sequence, Tuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from snn_core.data.checks import read_batch
from snn_core.distributed.replica import Part
from snn_core.errors import DataError
from snn_core.random_stream import draws_from
from snn_core.specs import BatchSpec

__all__ = ["BatchReader"]

Batch = Tuple[Tensor, Tensor]
Share = Callable[[Sequence[int]], Tuple[List[int], Tuple[int, ...]]]


class BatchReader(Dataset[Tuple[Tensor, Tensor]]):
    """Batches `(x [B, ...], target [B, ...])` of a map-style dataset, checked against a spec.

    check_target: called with each batch's target; raises DataError.   seed: fixes what the dataset draws for a batch.
    """

    def __init__(self, dataset: Any, spec: BatchSpec, check_target: Callable[[Tensor], None], seed: int) -> None:
        self._dataset, self._spec, self._check_target, self._seed = dataset, spec, check_target, seed

    def __getitem__(self, item: Tuple[int, Sequence[int]]) -> Batch:
        position, indices = item
        # by position, not by worker: a resumed epoch hands its batches to other workers, or to this process
        with draws_from(self._seed + position):
            x, target = read_batch(self._dataset, indices, self._spec)
        self._check_targets(target, indices)
        return x, target

    def _check_targets(self, target: Tensor, indices: Sequence[int]) -> None:
        try:
            self._check_target(target)
        except DataError:
            for row, index in enumerate(indices):
                try:
                    self._check_target(target[row : row + 1])
                except DataError as exc:
                    raise DataError(f"sample {index}: {exc}") from exc
            raise

    def batches(self, order: Sequence[int], size: int, drop_last: bool, start: int, workers: int) -> Iterator[Batch]:
        """Yield the batches of `order`, from batch `start` on."""
        return self._read(_plan(order, size, drop_last)[start:], workers)

    def parts(
        self, order: Sequence[int], size: int, drop_last: bool, start: int, workers: int, share: Share
    ) -> Iterator[Part]:
        """Yield the same batches' parts of one process of several. share: `Replica.share`."""
        shares = [(position, *share(indices)) for position, indices in _plan(order, size, drop_last)[start:]]
        read = self._read([(position, mine) for position, mine, _ in shares], workers)
        return (Part(x, target, samples) for (_, _, samples), (x, target) in zip(shares, read))

    def _read(self, plan: List[Tuple[int, Sequence[int]]], workers: int) -> Iterator[Batch]:
        # the loader draws a base seed even where no worker uses it: not from the global stream
        generator = torch.Generator().manual_seed(self._seed)
        read = _Caught(self) if workers else self
        for batch in DataLoader(read, sampler=plan, batch_size=None, num_workers=workers, generator=generator):
            if isinstance(batch, DataError):
                raise batch
            yield batch


class _Caught(Dataset[Any]):
    """A reader for another process: hands back what it refuses, of which the loader would make a whole traceback."""

    def __init__(self, reader: BatchReader) -> None:
        self._reader = reader

    def __getitem__(self, item: Any) -> Any:
        try:
            return self._reader[item]
        except DataError as exc:
            return exc


def _plan(order: Sequence[int], size: int, drop_last: bool) -> List[Tuple[int, Sequence[int]]]:
    """Each batch's number and samples."""
    end = len(order) - len(order) % size if drop_last else len(order)
    return [(i // size, order[i : min(i + size, end)]) for i in range(0, end, size)]
