"""The loader: combined batches, short ones, and memory that is written again."""

import pytest
import torch
from torch.utils.data import TensorDataset

DATA = TensorDataset(torch.arange(22.0).reshape(11, 2), torch.arange(11))


def batches(loader):
    return [(x.clone(), y.clone()) for x, y in loader]


@pytest.mark.parametrize("mode", ["Sync", "Async", "AsyncRebatched"])
def test_a_batch_is_one_call_and_the_short_one_is_dropped(poptorch, mode):
    options = poptorch.Options().deviceIterations(2)
    loader = poptorch.DataLoader(options, DATA, batch_size=2, mode=getattr(poptorch.DataLoaderMode, mode))
    assert loader.combinedBatchSize == 4
    assert [y.tolist() for _, y in batches(loader)] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert len(loader) == 2


def test_accumulation_and_replicas_count_too(poptorch):
    options = poptorch.Options().replicationFactor(3)
    options.Training.gradientAccumulation(2)
    assert poptorch.DataLoader(options, DATA).combinedBatchSize == 6


def test_the_short_batch_can_be_kept_and_the_executor_refuses_it(poptorch):
    loader = poptorch.DataLoader(poptorch.Options(), DATA, batch_size=4, drop_last=False)
    assert [len(y) for _, y in batches(loader)] == [4, 4, 3]
    executor = poptorch.inferenceModel(torch.nn.Identity())
    first, _, short = [x for x, _ in loader]
    executor(first)
    with pytest.raises(poptorch.Error, match="Shape mismatch"):
        executor(short)


@pytest.mark.parametrize("mode", ["Async", "AsyncRebatched"])
def test_a_batch_kept_without_a_clone_is_written_over(poptorch, mode):
    loader = poptorch.DataLoader(poptorch.Options(), DATA, batch_size=2, mode=getattr(poptorch.DataLoaderMode, mode))
    kept = list(loader)
    assert torch.isnan(kept[0][0]).all()
    assert (kept[0][1] == torch.iinfo(torch.int64).max).all()
    assert not torch.isnan(kept[-1][0]).any()


def test_a_batch_of_the_synchronous_loader_is_the_callers_own(poptorch):
    kept = [x for x, _ in poptorch.DataLoader(poptorch.Options(), DATA, batch_size=2)]
    assert torch.equal(torch.cat(kept), DATA.tensors[0][:10])


def test_the_dataset_itself_is_never_written_over(poptorch):
    before = DATA.tensors[0].clone()
    for _ in range(2):
        list(poptorch.DataLoader(poptorch.Options(), DATA, batch_size=1, mode=poptorch.DataLoaderMode.Async))
    assert torch.equal(DATA.tensors[0], before)


def test_rebatching_joins_what_the_workers_loaded(poptorch):
    mode = poptorch.DataLoaderMode.AsyncRebatched
    loader = poptorch.DataLoader(
        poptorch.Options(), DATA, batch_size=4, mode=mode, rebatched_worker_size=3, drop_last=False
    )
    assert [y.tolist() for _, y in batches(loader)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10]]
    assert len(loader) == 3
    with pytest.raises(AssertionError, match="must be <="):
        poptorch.DataLoader(poptorch.Options(), DATA, batch_size=2, mode=mode, rebatched_worker_size=3)


def test_an_asynchronous_loader_cannot_keep_the_short_batch(poptorch):
    with pytest.raises(AssertionError, match="rebatched_size"):
        poptorch.DataLoader(poptorch.Options(), DATA, batch_size=4, mode=poptorch.DataLoaderMode.Async, drop_last=False)


@pytest.mark.parametrize("mode", ["Async", "AsyncRebatched"])
def test_what_cannot_be_pickled_reaches_no_asynchronous_worker(poptorch, mode):
    class Local(torch.utils.data.Dataset):
        def __len__(self):
            return 4

    with pytest.raises(AttributeError, match="Can't pickle local object"):
        poptorch.DataLoader(poptorch.Options(), Local(), batch_size=2, mode=getattr(poptorch.DataLoaderMode, mode))


def test_a_second_accessor_is_refused(poptorch):
    loader = poptorch.DataLoader(poptorch.Options(), DATA, mode=poptorch.DataLoaderMode.Async)
    with pytest.raises(poptorch.Error, match="already uses an AsynchronousDataAccessor"):
        poptorch.AsynchronousDataAccessor(loader)


def test_an_accessor_over_a_plain_loader_writes_over_too(poptorch):
    loader = poptorch.DataLoader(poptorch.Options(), DATA, batch_size=2)
    kept = [x for x, _ in poptorch.AsynchronousDataAccessor(loader)]
    assert torch.isnan(kept[0]).all()


def test_a_terminated_loader_loads_no_more(poptorch):
    loader = poptorch.DataLoader(poptorch.Options(), DATA, mode=poptorch.DataLoaderMode.Async)
    loader.terminate()
    with pytest.raises(AssertionError):
        iter(loader)


def test_processes_get_shares_of_their_own(poptorch):
    seen = []
    for process in range(2):
        options = poptorch.Options()
        options.Distributed.configureProcessId(process, 2)
        seen += [y.tolist() for _, y in poptorch.DataLoader(options, DATA, batch_size=2)]
    assert seen == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_shuffling_over_processes_needs_a_seed(poptorch):
    options = poptorch.Options()
    options.Distributed.configureProcessId(0, 2)
    with pytest.raises(AssertionError, match="randomSeed"):
        poptorch.DataLoader(options, DATA, shuffle=True)
    poptorch.DataLoader(options, DATA, shuffle=True, auto_distributed_partitioning=False)
