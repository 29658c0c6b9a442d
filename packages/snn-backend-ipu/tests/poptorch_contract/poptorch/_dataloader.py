"""The loader: combined batches, and in the asynchronous modes memory that is written again."""

import collections
import pickle

import torch

from ._errors import Error
from ._options_parts import logger
from ._structure import mapped, tensors_of
from .enums import DataLoaderMode, SharingStrategy
from .options import Options


class _Part(torch.utils.data.Dataset):
    """The share of one process in a dataset."""

    def __init__(self, dataset, options, step, drop_last):
        processes, process = options.Distributed.numProcesses, options.Distributed.processId
        count = len(dataset)
        if drop_last:
            self._length = step * (count // (step * processes))
            self._offset = process * self._length
        else:
            shares = [count // processes + (count % processes > index) for index in range(processes)]
            self._offset, self._length = sum(shares[:process]), shares[process]
        self._dataset = dataset

    def __len__(self):
        return self._length

    def __getitem__(self, index):
        return self._dataset[index + self._offset]


class DataLoader(torch.utils.data.DataLoader):
    """torch's loader with combined batches."""

    _accessor = None

    def __init__(
        self,
        options,
        dataset,
        batch_size=1,
        shuffle=False,
        num_workers=0,
        drop_last=True,
        persistent_workers=None,
        auto_distributed_partitioning=True,
        mode=DataLoaderMode.Sync,
        async_options=None,
        rebatched_worker_size=None,
        **kwargs,
    ):
        assert isinstance(options, Options)
        options._freeze()
        self._options = options
        counts = options.device_iterations * options.replication_factor * options.Training.gradient_accumulation
        self._combined_batch_size = None if batch_size is None else batch_size * counts
        iterable = isinstance(dataset, torch.utils.data.IterableDataset)
        processes = options.Distributed.numProcesses
        if processes > 1 and auto_distributed_partitioning:
            assert not iterable, "auto_distributed_partitioning not supported for IterableDataset"
            assert not shuffle or options.exists("random_seed"), (
                "When using auto_distributed_partitioning you must set poptorch.Options.randomSeed() to ensure that "
                "tensors are in the same order in all processes."
            )
            assert batch_size is not None, "batch_size=None not allowed when using auto_distributed_partitioning."
            dataset = _Part(dataset, options, self._combined_batch_size, drop_last)
        if not iterable and not drop_last and batch_size is not None and len(dataset) % self._combined_batch_size:
            logger.warning("drop_last=False: the last batch will be short")
        size, rebatched = self._combined_batch_size, None
        if mode == DataLoaderMode.AsyncRebatched:
            rebatched = self._combined_batch_size
            if rebatched_worker_size is not None:
                assert rebatched_worker_size <= rebatched, (
                    f"The rebatched_worker_size ({rebatched_worker_size}) must be <= to the combined batch size"
                )
                size = rebatched_worker_size
        self._rebatched_drop_last = drop_last
        super().__init__(
            dataset,
            batch_size=size,
            shuffle=shuffle,
            num_workers=num_workers,
            drop_last=drop_last if rebatched is None else False,
            persistent_workers=num_workers > 0 if persistent_workers is None else persistent_workers,
            **kwargs,
        )
        if mode != DataLoaderMode.Sync:
            # iterated, the accessor must not come back to this loader's own __iter__
            given = async_options or {}
            assert "rebatched_size" not in given, "rebatched_size comes from DataLoaderMode.AsyncRebatched"
            self._accessor = AsynchronousDataAccessor(self, **given, rebatched_size=rebatched)

    def __len__(self):
        if self._accessor is not None and self._accessor.rebatched_size:
            full, rest = divmod(len(self.dataset), self._accessor.rebatched_size)
            return full + (rest > 0 and not self._rebatched_drop_last)
        return super().__len__()

    def __iter__(self):
        return super().__iter__() if self._accessor is None else iter(self._accessor)

    @property
    def combinedBatchSize(self):
        """The number of samples of one call."""
        return self._combined_batch_size

    @property
    def options(self):
        """The options."""
        return self._options

    def terminate(self):
        """End the worker of an asynchronous mode."""
        if self._accessor is not None:
            self._accessor.terminate()


class AsynchronousDataAccessor:
    """Batches in a ring of buffers: what was handed out is written over when later batches arrive."""

    def __init__(
        self,
        dataset,
        buffer_size=3,
        miss_sleep_time_in_ms=0.1,
        load_indefinitely=True,
        early_preload=False,
        sharing_strategy=SharingStrategy.FileSystem,
        rebatched_size=None,
    ):
        if isinstance(dataset, DataLoader) and dataset._accessor is not None:
            raise Error("The DataLoader already uses an AsynchronousDataAccessor internally.")
        if isinstance(dataset, DataLoader) and not dataset.drop_last and rebatched_size is None:
            assert dataset.combinedBatchSize in (None, 1), (
                "The 'drop_last=False' option from the DataLoader only works if 'rebatched_size' is specified too."
            )
        assert rebatched_size is None or rebatched_size > 1, "rebatched_size must be None or greater than 1"
        # the real one writes the dataset to a file, from which a process of its own reads it
        self._dataset = pickle.loads(pickle.dumps(dataset, protocol=4))
        self._terminated = False
        self._ring = collections.deque(maxlen=buffer_size)
        self._batches = None
        self.rebatched_size = rebatched_size

    def terminate(self):
        """End the worker."""
        self._terminated = True

    def __len__(self):
        return len(self._dataset)

    def __iter__(self):
        assert not self._terminated
        source = self._dataset
        inner = isinstance(source, torch.utils.data.DataLoader)
        self._batches = torch.utils.data.DataLoader.__iter__(source) if inner else iter(source)
        if self.rebatched_size:
            self._batches = self._rebatched(self._batches)
        self._ring.clear()
        return self

    def _rebatched(self, batches):
        waiting, count = [], 0
        for batch in batches:
            waiting.append(batch)
            count += len(tensors_of(batch)[0])
            while count >= self.rebatched_size:
                whole = _concatenated(waiting)
                yield mapped(whole, lambda tensor: tensor[: self.rebatched_size])
                waiting = [mapped(whole, lambda tensor: tensor[self.rebatched_size :])]
                count -= self.rebatched_size
        if count and not self._dataset._rebatched_drop_last:
            yield _concatenated(waiting)

    def __next__(self):
        if self._terminated:
            raise StopIteration
        batch = mapped(next(self._batches), torch.Tensor.clone)
        # the batch handed out last is given back now, and the worker writes into it
        if self._ring:
            for old in tensors_of(self._ring[-1]):
                number = old.dtype is not torch.bool
                old.fill_(float("nan") if old.is_floating_point() else torch.iinfo(old.dtype).max if number else True)
        self._ring.append(batch)
        return batch


def _concatenated(batches):
    if len(batches) == 1:
        return batches[0]
    columns = [iter(column) for column in [[torch.cat(same) for same in zip(*map(tensors_of, batches))]]]
    return mapped(batches[0], lambda tensor: next(columns[0]))
