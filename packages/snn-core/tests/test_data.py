"""Datasets by name, and the checks between a dataset and a device."""

import copy
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator, List, Sequence, Tuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from snn_core import data
from snn_core.data import checks
from snn_core.errors import ConfigError, DataError
from snn_core.specs import BatchSpec, TensorSpec

SPEC = BatchSpec(4, TensorSpec((2, 3), "float32"), TensorSpec((), "int64"))


def dataset_of(count: int) -> data.Dataset:
    images = torch.randint(0, 256, (count, 2, 5, 6), dtype=torch.uint8)
    return data.Dataset(images, torch.arange(count) % 3, classes=3, name="made", split="train")


# ------------------------------------------------------------------------------------------------- by name


@pytest.mark.parametrize(
    ("name", "suggestion"), [("digit", "'digits'"), ("fashionmnist", "'fashion_mnist'"), ("MNIST", ""), ("", "")]
)
def test_an_unknown_dataset_is_refused_with_the_nearest_name_and_all_names(name: str, suggestion: str) -> None:
    with pytest.raises(ConfigError) as caught:
        data.load(name)
    assert suggestion in str(caught.value)
    assert "there are digits, mnist, fashion_mnist, cifar10" in str(caught.value)


def test_an_unknown_split_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match=r"no split 'tests' \(did you mean 'test'\?\) of digits; .* train and test"):
        data.load("digits", split="tests")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "cifar10"])
def test_without_torchvision_the_error_says_how_to_install_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)  # Python's way to make an import fail
    with pytest.raises(
        DataError, match=rf"{name} needs torchvision.*pip install snn-core\[vision\].*'digits' is bundled"
    ):
        data.load(name)


def test_a_torchvision_made_for_another_torch_is_told_from_a_missing_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(DataError, match=r"cannot be imported: operator torchvision::nms.*made for torch \d"):
        data.load("mnist")


@pytest.mark.slow
def test_importing_the_data_package_does_not_import_torchvision() -> None:
    code = "import sys, snn_core.data; snn_core.data.load('digits'); sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ------------------------------------------------------------------------------------------------- Dataset


@given(indices=st.lists(st.integers(0, 19), min_size=1, max_size=40))
@settings(deadline=None, max_examples=30)
def test_a_batch_equals_its_samples_stacked_bit_for_bit(indices: List[int]) -> None:
    dataset = dataset_of(20)
    x, target = dataset.get_batch(indices)
    assert torch.equal(x, torch.stack([dataset[i][0] for i in indices]))
    assert torch.equal(target, torch.stack([dataset[i][1] for i in indices]))
    assert (x.dtype, target.dtype) == (torch.float32, torch.int64)


def test_a_pixel_becomes_its_value_over_255_correctly_rounded() -> None:
    images = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    labels = torch.zeros(1, dtype=torch.int64)
    x, _ = data.Dataset(images, labels, classes=1, name="ramp", split="test")[0]
    expected = np.array([np.float32(np.float64(value) / 255.0) for value in range(256)], np.float32)
    assert np.array_equal(x.flatten().numpy(), expected)


def test_a_sample_is_a_copy_so_changing_it_leaves_the_dataset_as_it_was() -> None:
    dataset = dataset_of(2)
    before = dataset.images.clone()
    dataset[0][0].fill_(7)
    dataset.get_batch([0, 1])[0].fill_(7)
    assert torch.equal(dataset.images, before)


def test_iteration_ends_after_the_last_sample() -> None:
    assert len(list(dataset_of(5))) == 5  # type: ignore[call-overload]


@pytest.mark.parametrize("index", [5, -6])
def test_an_index_outside_the_dataset_is_an_index_error(index: int) -> None:
    with pytest.raises(IndexError):
        dataset_of(5)[index]
    with pytest.raises((IndexError, RuntimeError)):
        dataset_of(5).get_batch([index])


def test_a_dataset_survives_pickle_and_deepcopy() -> None:
    dataset = dataset_of(3)
    for other in (pickle.loads(pickle.dumps(dataset)), copy.deepcopy(dataset)):
        assert repr(other) == repr(dataset)
        assert torch.equal(other[2][0], dataset[2][0])


def test_torch_loads_it_in_batches_of_its_own() -> None:
    dataset = dataset_of(4)
    x, target = next(iter(DataLoader(dataset, batch_size=4)))
    assert torch.equal(x, dataset.get_batch(range(4))[0])
    assert torch.equal(target, dataset.labels)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64), r"images are float32 \[2, 1, 4, 4\].*uint8"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64), r"uint8 \[2, 4, 4\]"),
        (
            torch.zeros(2, 1, 4, 4, dtype=torch.uint8),
            torch.zeros(3, dtype=torch.int64),
            r"labels are int64 \[3\].*\[2\]",
        ),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.zeros(2), "labels are float32"),
        (torch.zeros(0, 1, 4, 4, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), "is empty"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 3]), r"labels lie in \[0, 3\].*\[0, 2\]"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([-1, 2]), r"labels lie in \[-1, 2\]"),
    ],
)
def test_images_and_labels_that_do_not_fit_are_refused(images: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(DataError, match=message):
        data.Dataset(images, labels, classes=3, name="made", split="train")


@pytest.mark.parametrize(
    "wrap", [lambda whole: whole, lambda whole: Subset(whole, range(20))], ids=["itself", "subset"]
)
def test_a_named_dataset_is_never_read_sample_by_sample(wrap: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Whole batches are some 15 times faster; a clock would not say so reliably on a busy machine.
    dataset = wrap(dataset_of(20))
    spec = BatchSpec(4, *checks.sample_spec(dataset))
    monkeypatch.setattr(data.Dataset, "__getitem__", lambda self, index: pytest.fail("read one by one"))
    assert checks.read_batch(dataset, [3, 17], spec)[1].tolist() == [0, 2]


# ------------------------------------------------------------------------------------------------- kinds of dataset


class Stream(IterableDataset):  # type: ignore[type-arg]
    def __iter__(self) -> Iterator[Tuple[Tensor, int]]:
        return iter([(torch.zeros(2, 3), 0)])

    def __len__(self) -> int:
        return 1


class NoLength(torch.utils.data.Dataset):  # type: ignore[type-arg]
    def __getitem__(self, index: int) -> Tuple[Tensor, int]:
        return torch.zeros(2, 3), 0


class BrokenLength(NoLength):
    def __len__(self) -> int:
        raise TypeError("not known yet")


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (Stream(), r"Stream; it must be map-style.*__getitem__"),
        (NoLength(), "NoLength; it must be map-style"),
        (BrokenLength(), r"len\(\) of the dataset.*not known yet"),
        (iter([(1, 2)]), "list_iterator; it must be map-style"),
        ({"x": 1, "y": 2}, "dict; it must be map-style"),
        (None, "NoneType; it must be map-style"),
        ([], "list, is empty"),
        (torch.utils.data.TensorDataset(torch.zeros(0, 3), torch.zeros(0)), "TensorDataset, is empty"),
        (DataLoader([(1, 2)]), r"DataLoader; give its dataset"),  # type: ignore[arg-type]
        (torch.zeros(5, 3), r"Tensor; pair samples and targets: torch\.utils\.data\.TensorDataset"),
        ((torch.zeros(5, 3), torch.zeros(5)), "tuple; pair samples and targets"),
        ([np.zeros((5, 3)), np.zeros(5)], "list; pair samples and targets"),
    ],
)
def test_what_is_no_map_style_dataset_or_is_empty_is_refused(dataset: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        checks.check_dataset(dataset)
    with pytest.raises(DataError, match=message):
        checks.sample_spec(dataset)


def test_a_list_of_pairs_is_a_dataset() -> None:
    dataset = [(torch.zeros(2, 3), 1), (torch.ones(2, 3), 0)]
    assert checks.check_dataset(dataset) == 2
    assert checks.sample_spec(dataset) == (SPEC.x, SPEC.target)
    x, target = checks.read_batch(dataset, [1, 0, 1], SPEC)
    assert torch.equal(x[:, 0, 0], torch.tensor([1.0, 0.0, 1.0]))
    assert target.tolist() == [0, 1, 0]


def test_the_time_axes_of_a_spec_are_the_callers() -> None:
    dataset = [(torch.zeros(25, 3), torch.zeros(25))]
    assert checks.sample_spec(dataset, time_axis=1, target_time_axis=1) == (
        TensorSpec((25, 3), "float32", 1),
        TensorSpec((25,), "float32", 1),
    )
    assert checks.sample_spec(dataset, time_axis=1)[1].time_axis is None


# ------------------------------------------------------------------------------------------------- samples


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, torch.tensor(3)),
        (True, torch.tensor(True)),
        (0.1, torch.tensor(0.1, dtype=torch.float32)),
        (np.float64(0.1), torch.tensor(0.1, dtype=torch.float64)),
        (np.int16(7), torch.tensor(7, dtype=torch.int16)),
        (np.array([1.5, 2.5], np.float32), torch.tensor([1.5, 2.5])),
        (np.arange(6).reshape(2, 3)[:, ::-1], torch.tensor([[2, 1, 0], [5, 4, 3]])),
    ],
)
def test_numbers_and_arrays_become_tensors_of_their_value(value: Any, expected: Tensor) -> None:
    for converted in checks.check_sample((value, value), 0):
        assert converted.dtype == expected.dtype
        assert torch.equal(converted, expected)


def test_a_read_only_array_is_copied_without_a_warning() -> None:
    array = np.zeros(3, np.float32)
    array.setflags(write=False)
    converted, _ = checks.check_sample((array, 0), 0)
    converted += 1
    assert array.tolist() == [0, 0, 0]


class Picture:
    """As PIL's images: something with a size that is no array."""


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (torch.zeros(2, 3), "sample 7 is a torch.Tensor; it must be a pair"),
        ({"x": 1, "y": 2}, "sample 7 is a dict of 2; it must be a pair"),
        ((1, 2, 3), "sample 7 is a tuple of 3; it must be a pair"),
        ((torch.zeros(2),), "sample 7 is a tuple of 1; it must be a pair"),
        ((Picture(), 0), r"sample 7: x is a .*Picture; it must be a torch\.Tensor.*ToTensor\(\)"),
        ((torch.zeros(2, 3), "cat"), r"sample 7: target is a str; it must be a torch\.Tensor"),
        ((torch.zeros(2, 3), None), "sample 7: target is a NoneType"),
        (([1.0, 2.0], 0), r"sample 7: x is a list.*torch\.tensor"),
        ((np.array(["a"]), 0), "sample 7: x is a NumPy array of <U1"),
        ((np.array([None]), 0), "sample 7: x is a NumPy array of object"),
        ((torch.zeros(3), 0), r"sample 7: x has rank 1, shape \[3\]; it must have rank 2, shape \[2, 3\]"),
        ((torch.zeros(2, 4), 0), r"sample 7: x has shape \[2, 4\]; it must have \[2, 3\]"),
        (
            (torch.zeros(2, 3).double(), 0),
            r"sample 7: x has dtype float64; it must have float32.*\.to\(torch\.float32\)",
        ),
        ((torch.zeros(2, 3), torch.tensor([1])), "sample 7: target has rank 1"),
        ((torch.zeros(2, 3), 1.0), "sample 7: target has dtype float32; it must have int64"),
    ],
)
def test_a_sample_unlike_the_spec_is_refused_by_its_number(sample: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        checks.check_sample(sample, 7, SPEC)


def test_the_first_odd_sample_of_a_ragged_dataset_is_named_when_its_batch_is_read() -> None:
    dataset = [(torch.zeros(2, 3 + (i == 6)), 0) for i in range(9)]
    with pytest.raises(DataError, match=r"sample 6: x has shape \[2, 4\]"):
        checks.read_batch(dataset, [8, 6, 0], SPEC)


def test_an_error_inside_the_dataset_names_the_sample_and_keeps_its_cause() -> None:
    class Files(NoLength):
        def __getitem__(self, index: int) -> Tuple[Tensor, int]:
            raise OSError(f"cannot identify image file {index}.png")

    with pytest.raises(
        DataError, match=r"sample 3 cannot be read .*OSError: cannot identify image file 3\.png"
    ) as caught:
        checks.read_batch(Files(), [3], SPEC)
    assert isinstance(caught.value.__cause__, OSError)


# ------------------------------------------------------------------------------------------------- batches


def batch(count: int = 4) -> Tuple[Tensor, Tensor]:
    return torch.rand(count, 2, 3), torch.zeros(count, dtype=torch.int64)


@pytest.mark.parametrize("count", [1, 3, 4])
def test_a_good_batch_passes_short_ones_too(count: int) -> None:
    checks.check_batch(*batch(count), SPEC)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("part", ["x", "target"])
def test_one_value_that_is_not_finite_is_found_and_its_sample_named(bad: float, dtype: str, part: str) -> None:
    spec = BatchSpec(4, TensorSpec((2, 3), dtype), TensorSpec((3,), dtype))
    values = {name: torch.ones(4, *getattr(spec, name).shape, dtype=getattr(torch, dtype)) for name in ("x", "target")}
    values[part][2, ..., 1] = bad
    nans, infinities = (1, 0) if bad != bad else (0, 1)
    each = 2 if part == "x" else 1
    message = f"sample 30: {part} has {nans * each} NaN and {infinities * each} infinite of {3 * each} values"
    with pytest.raises(DataError, match=message):
        checks.check_batch(values["x"], values["target"], spec, indices=[10, 20, 30, 40])


def test_opposite_infinities_do_not_hide_each_other() -> None:
    x, target = batch()
    x[1, 0, 0], x[3, 0, 0] = float("inf"), -float("inf")
    with pytest.raises(DataError, match="sample 1: x has 0 NaN and 1 infinite"):
        checks.check_batch(x, target, SPEC)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_large_finite_values_whose_sum_overflows_pass(dtype: str) -> None:
    largest = torch.finfo(getattr(torch, dtype)).max
    spec = BatchSpec(4, TensorSpec((2, 3), dtype), SPEC.target)
    checks.check_batch(torch.full((4, 2, 3), largest, dtype=getattr(torch, dtype)), batch()[1], spec)


@pytest.mark.parametrize(
    ("x", "target", "message"),
    [
        (torch.zeros(4, 3), batch()[1], r"batch: x of one sample has rank 1, shape \[3\]; it must have rank 2"),
        (torch.zeros(4, 2, 4), batch()[1], r"x of one sample has shape \[2, 4\]; it must have \[2, 3\]"),
        (torch.zeros(4, 2, 3, dtype=torch.uint8), batch()[1], "x of one sample has dtype uint8; it must have float32"),
        (batch()[0], torch.zeros(4), "target of one sample has dtype float32; it must have int64"),
        (batch()[0], batch(3)[1], "4 samples of x and 3 targets; it must have 4 of each"),
        (
            torch.zeros(0, 2, 3),
            torch.zeros(0, dtype=torch.int64),
            "0 samples of x and 0 targets; it must have 1 of each",
        ),
        (torch.tensor(1.0), batch()[1], "x is a scalar"),
        ([[1.0]], batch()[1], "x is a list; it must be a torch.Tensor"),
        (batch()[0], None, "target is a NoneType; it must be a torch.Tensor"),
    ],
)
def test_a_batch_of_another_rank_size_or_dtype_is_refused(x: Any, target: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        checks.check_batch(x, target, SPEC)


def test_a_batch_of_another_number_of_samples_is_refused_where_the_number_is_fixed() -> None:
    with pytest.raises(DataError, match="3 samples of x and 3 targets; it must have 4 of each"):
        checks.check_batch(*batch(3), SPEC, size=4)
    with pytest.raises(DataError, match="4 samples of x and 4 targets; it must have 2 of each"):
        checks.check_batch(*batch(4), SPEC, indices=[5, 6])


# ------------------------------------------------------------------------------------------------- whole batches


class Batched:
    """A user's dataset with the optional protocol; it counts how it is read."""

    def __init__(self) -> None:
        self.batches = 0

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        return torch.full((2, 3), float(index)), index

    def get_batch(self, indices: Sequence[int]) -> Any:
        self.batches += 1
        target = torch.as_tensor(indices)
        return target.float().reshape(-1, 1, 1).expand(-1, 2, 3), target


class Augmented(Batched):
    def __getitem__(self, index: int) -> Any:
        return torch.full((2, 3), -1.0), index


class Delegating:
    """A wrapper that changes samples and passes every other attribute on, as wrappers do."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Any:
        return -self.inner[index][0], self.inner[index][1]


class Lying(Batched):
    def get_batch(self, indices: Sequence[int]) -> Any:
        return super().get_batch(indices[:-1])


class Single(Batched):
    def get_batch(self, indices: Sequence[int]) -> Any:
        return torch.zeros(len(indices), 2, 3)


def test_get_batch_is_used_where_a_dataset_has_it() -> None:
    dataset = Batched()
    x, target = checks.read_batch(dataset, [4, 9], SPEC)
    assert dataset.batches == 1
    assert (x[:, 0, 0].tolist(), target.tolist()) == ([4.0, 9.0], [4, 9])


@pytest.mark.parametrize("dataset", [Augmented(), Delegating(Batched())], ids=["subclass", "wrapper"])
def test_a_dataset_that_changes_single_samples_is_not_bypassed(dataset: Any) -> None:
    for each in (dataset, Subset(dataset, [0, 4, 9])):
        x, _ = checks.read_batch(each, [1, 2], SPEC)
        assert torch.all(x < 0)


def test_a_wrong_get_batch_is_refused() -> None:
    with pytest.raises(DataError, match="1 samples of x and 1 targets; it must have 2 of each"):
        checks.read_batch(Lying(), [4, 9], SPEC)
    with pytest.raises(DataError, match=r"Single\.get_batch returned a torch\.Tensor; it must return a pair"):
        checks.read_batch(Single(), [4, 9], SPEC)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=9))
@settings(deadline=None, max_examples=30)
def test_every_way_of_reading_gives_the_same_batch(indices: List[int]) -> None:
    made = dataset_of(12)
    kept = random.Random(0).sample(range(12), 7)
    x, target = made.get_batch(kept)
    ways = [
        [(x[i], target[i]) for i in range(7)],
        [(x[i].numpy(), int(target[i])) for i in range(7)],
        TensorDataset(x, target),
        Subset(made, kept),
        Subset(Subset(made, [*kept, 0]), range(7)),
    ]
    for dataset in ways:
        spec = BatchSpec(4, *checks.sample_spec(dataset))
        read = checks.read_batch(dataset, indices, spec)
        assert torch.equal(read[0], x[indices])
        assert torch.equal(read[1], target[indices])


def test_a_nan_read_as_a_whole_batch_is_named_by_its_number_in_the_dataset() -> None:
    x = torch.zeros(10, 2, 3)
    x[6, 1, 1] = float("nan")
    dataset = TensorDataset(x, torch.zeros(10, dtype=torch.int64))
    checks.read_batch(dataset, [0, 9, 5], SPEC)
    with pytest.raises(DataError, match="sample 6: x has 1 NaN"):
        checks.read_batch(dataset, [0, 9, 6], SPEC)
