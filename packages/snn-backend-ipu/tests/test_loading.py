"""What a dataset or a loss that cannot be read or handed on is told as, on the contract fake."""

import gc
from typing import Any, Callable, Dict, List, Sequence, Tuple

import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from snn_backend_ipu import IpuBackend, IpuOptions
from snn_core.errors import ConfigError, DataError
from snn_core.losses.base import CallableLoss
from snn_core.testing.fit import fit, train
from snn_core.testing.nets import dense
from snn_core.testing.trial import compiled

ASYNCHRONOUS = [{"loader": "async"}, {"loader": "async_rebatched", "workers": 1}]


def backend(**options: Any) -> IpuBackend:
    return IpuBackend(IpuOptions(ipu_model=True, **options))


def summed(output: Tensor, target: Tensor) -> Tensor:
    return output.sum((0, 2))


class Lost(Dataset):
    """Samples of which one cannot be read. The text of its error has two lines."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Tuple[Tensor, Tensor]:
        if index == 5:
            raise OSError("gone:\nsee the disk")
        return torch.rand(5, 6), torch.tensor(0)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_in_a_worker_reads_as_one_without_workers(workers: int) -> None:
    trial = dense(8, dtype="float32")
    with compiled(backend(workers=workers), trial) as program, pytest.raises(DataError) as caught:
        train(program, Lost())
    assert str(caught.value) == "sample 5 cannot be read from the dataset: OSError: gone:\nsee the disk"


class Batched(Lost):
    """Batches of its own, one of which cannot be read."""

    def get_batch(self, indices: Sequence[int]) -> Tuple[Tensor, Tensor]:
        if 5 in indices:
            raise ValueError("no batch of 5")
        return torch.rand(len(indices), 5, 6), torch.zeros(len(indices), dtype=torch.int64)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_failing_get_batch_is_the_loaders_and_not_a_wrong_option(workers: int) -> None:
    trial = dense(8, dtype="float32")
    with compiled(backend(workers=workers), trial) as program, pytest.raises(DataError) as caught:
        train(program, Batched())
    assert str(caught.value).startswith("the loader failed: ValueError: no batch of 5; what its processes printed")


def test_the_workers_traceback_stays_the_cause() -> None:
    with compiled(backend(workers=1), dense(8, dtype="float32")) as program, pytest.raises(DataError) as caught:
        train(program, Lost())
    assert "in __getitem__" in str(caught.value.__cause__)


@pytest.mark.parametrize("options", ASYNCHRONOUS)
def test_a_loss_that_cannot_be_pickled_is_refused_before_the_run(options: Any) -> None:
    trial = dense(8, loss=CallableLoss(lambda output, target: output.sum((0, 2))), dtype="float32")
    told = r"the loss cannot be pickled: .*lambda.*; write its functions and classes at"
    with pytest.raises(ConfigError, match=told), compiled(backend(**options), trial):
        pass


def test_a_loss_that_cannot_be_pickled_needs_no_pickling_in_the_same_process() -> None:
    fit(backend(workers=1), dense(8, loss=CallableLoss(lambda output, target: output.sum((0, 2)))))


@pytest.mark.parametrize("options", ASYNCHRONOUS)
def test_a_loss_of_a_modules_function_is_pickled(options: Any) -> None:
    fit(backend(**options), dense(8, loss=CallableLoss(summed)))


@pytest.mark.parametrize("options", ASYNCHRONOUS)
def test_a_dataset_that_cannot_be_pickled_is_refused_before_its_first_sample(options: Any) -> None:
    read: List[int] = []

    class Local(Lost):
        def __getitem__(self, index: int) -> Tuple[Tensor, Tensor]:
            read.append(index)
            return super().__getitem__(0)

    told = r"the dataset cannot be pickled: .*Local.*or set loader='sync'"
    trial = dense(8, dtype="float32")
    with compiled(backend(**options), trial) as program, pytest.raises(ConfigError, match=told):
        train(program, Local())
    assert not read


class Several(Dataset):
    """Samples that any process can be handed."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> Tuple[Tensor, Tensor]:
        return torch.rand(5, 6), torch.tensor(index % 3)


@pytest.fixture
def ended(poptorch: Any, monkeypatch: pytest.MonkeyPatch) -> List[bool]:
    """Grows by an entry for each loader that is terminated."""
    calls: List[bool] = []
    terminate = poptorch.DataLoader.terminate
    monkeypatch.setattr(
        poptorch.DataLoader, "terminate", lambda loader: (calls.append(True), terminate(loader), None)[-1]
    )
    return calls


def drop(batches: Any) -> None:
    """Nothing: the caller has no reference left."""


ENDS: Dict[str, Callable[[Any], Any]] = {
    "closed": lambda batches: batches.close(),
    "closed twice": lambda batches: (batches.close(), batches.close()),
    "dropped": drop,
    "begun and closed": lambda batches: (next(batches), batches.close()),
    "begun and dropped": lambda batches: drop(next(batches)),
    "read to its end": list,
}


@pytest.mark.parametrize("options", [{}, *ASYNCHRONOUS])
@pytest.mark.parametrize("name", ENDS)
def test_a_loader_is_terminated_once_however_it_is_left(ended: List[bool], name: str, options: Any) -> None:
    with compiled(backend(**options), dense(8, dtype="float32")) as program:
        ENDS[name](program.loader(Several(), range(16), training=True))
        gc.collect()
        assert ended == [True]


def test_a_loader_that_was_closed_has_no_more_batches(ended: List[bool]) -> None:
    with compiled(backend(loader="async"), dense(8, dtype="float32")) as program:
        batches: Any = program.loader(Several(), range(16), training=True)
        next(batches)
        batches.close()
        assert list(batches) == []
    assert ended == [True]


def test_a_loader_that_fails_is_terminated(ended: List[bool]) -> None:
    with compiled(backend(), dense(8, dtype="float32")) as program:
        with pytest.raises(DataError):
            list(program.loader(Lost(), range(8), training=True))
        assert ended == [True]


def test_a_loader_that_cannot_begin_is_terminated(
    poptorch: Any, monkeypatch: pytest.MonkeyPatch, ended: List[bool]
) -> None:
    def fails(loader: Any) -> Any:
        raise OSError("no process")

    monkeypatch.setattr(poptorch.DataLoader, "__iter__", fails)
    with compiled(backend(loader="async"), dense(8, dtype="float32")) as program:
        with pytest.raises(OSError, match="no process"):
            program.loader(Several(), range(16), training=True)
        gc.collect()
        assert ended == [True]
