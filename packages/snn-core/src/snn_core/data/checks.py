"""What stands between a dataset and a device: samples become tensors, batches are checked, errors name the sample.

A sample is a pair (x, target); each of the two is a tensor, a NumPy array or a number. `read_batch` is the one place
that reads a dataset for a program; it takes whole batches where the dataset offers them.
"""

import math
from typing import Any, List, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset

from snn_core.errors import DataError
from snn_core.specs import BatchSpec, TensorSpec

__all__ = ["check_batch", "check_dataset", "check_sample", "read_batch", "sample_spec"]


def check_dataset(dataset: Any) -> int:
    """Return the number of samples of a map-style dataset. Raises DataError for any other kind or an empty one."""
    got = _type(dataset)
    if isinstance(dataset, DataLoader):
        raise DataError(f"the dataset is a {got}; give its dataset (loader.dataset): the program makes the batches")
    if isinstance(dataset, (Tensor, np.ndarray)) or _is_pair_of_arrays(dataset):
        raise DataError(f"the dataset is a {got}; pair samples and targets: torch.utils.data.TensorDataset(x, target)")
    map_style = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")
    if isinstance(dataset, (IterableDataset, dict)) or not map_style:
        raise DataError(
            f"the dataset is a {got}; it must be map-style, with __len__ and __getitem__(i) -> (x, target), "
            "because epochs are shuffled and resumed by index; load it into a list, or index its files"
        )
    try:
        size = len(dataset)
    except TypeError as exc:
        raise DataError(f"len() of the dataset, a {got}, fails: {exc}; give it a __len__") from exc
    if size < 1:
        raise DataError(
            f"the dataset, a {got}, is empty; it must have a sample at least: check its path, split, filters"
        )
    return size


def sample_spec(
    dataset: Any, time_axis: Optional[int] = None, target_time_axis: Optional[int] = None
) -> Tuple[TensorSpec, TensorSpec]:
    """Return the specs of x and target from the first sample; `time_axis` is None, or 1 where a sample is [T, ...].

    Raises DataError for what `check_dataset` or `check_sample` refuses, ConfigError for another time axis.
    """
    check_dataset(dataset)
    x, target = check_sample(_read(dataset, 0), 0)
    return (
        TensorSpec(tuple(x.shape), _dtype(x), time_axis),
        TensorSpec(tuple(target.shape), _dtype(target), target_time_axis),
    )


def check_sample(sample: Any, index: int, spec: Optional[BatchSpec] = None) -> Tuple[Tensor, Tensor]:
    """Return a sample as two tensors; NumPy arrays and numbers are converted (float to float32, int to int64).

    Raises DataError, naming `index`, for what is no pair, no tensor, or of another shape or dtype than `spec`.
    """
    if not isinstance(sample, (tuple, list)) or len(sample) != 2:
        size = f" of {len(sample)}" if isinstance(sample, (tuple, list, dict)) else ""
        raise DataError(f"sample {index} is a {_type(sample)}{size}; it must be a pair (x, target)")
    x, target = _tensor(sample[0], "x", index), _tensor(sample[1], "target", index)
    if spec is not None:
        _match(x.shape, x.dtype, spec.x, f"sample {index}: x")
        _match(target.shape, target.dtype, spec.target, f"sample {index}: target")
    return x, target


def check_batch(
    x: Tensor, target: Tensor, spec: BatchSpec, indices: Optional[Sequence[int]] = None, size: Optional[int] = None
) -> None:
    """Check a batch, x [B, ...] and target [B, ...], against `spec`: sizes, dtypes, and no NaN or infinity in either.

    indices: the samples' numbers in the dataset, for the error; None is 0, 1 and so on. size: how many samples there
    must be; None allows any number from 1. Costs one sum over floating-point data: some 5 microseconds for [128, 784]
    float32, where `isfinite().all()` takes 50 to 100 times as long. Raises DataError.
    """
    for value, part in ((x, "x"), (target, "target")):
        if not isinstance(value, Tensor):
            raise DataError(f"batch: {part} is a {_type(value)}; it must be a torch.Tensor")
        if value.ndim == 0:
            raise DataError(f"batch: {part} is a scalar; its first dimension must count the samples")
    expected = size if size is not None else len(indices) if indices is not None else len(x)
    if len(x) != expected or len(target) != expected or expected < 1:
        raise DataError(
            f"the batch has {len(x)} samples of x and {len(target)} targets; it must have {max(expected, 1)} of each"
        )
    _match(x.shape[1:], x.dtype, spec.x, "batch: x of one sample")
    _match(target.shape[1:], target.dtype, spec.target, "batch: target of one sample")
    _check_finite(x, "x", indices)
    _check_finite(target, "target", indices)


def read_batch(dataset: Any, indices: Sequence[int], spec: BatchSpec) -> Tuple[Tensor, Tensor]:
    """Read and check the samples `indices` of a dataset as one batch: x [B, ...], target [B, ...].

    A dataset may have `get_batch(indices) -> (x, target)`, equal to stacking its samples; it is used unless a subclass
    replaced `__getitem__` alone. TensorDataset, and a Subset of either, are read at once too. Raises DataError.
    """
    batch = _whole_batch(dataset, indices)
    if batch is None:
        samples = [check_sample(_read(dataset, index), index, spec) for index in indices]
        batch = torch.stack([x for x, _ in samples]), torch.stack([target for _, target in samples])
    check_batch(*batch, spec, indices)
    return batch


def _whole_batch(dataset: Any, indices: Sequence[int]) -> Optional[Tuple[Tensor, Tensor]]:
    kind = type(dataset)
    if kind is TensorDataset and len(dataset.tensors) == 2:
        rows = torch.as_tensor(indices, dtype=torch.int64)
        x, target = (part.index_select(0, rows.to(part.device)) for part in dataset.tensors)
        return x, target
    if kind is Subset:
        inner: List[int] = [int(dataset.indices[index]) for index in indices]
        return _whole_batch(dataset.dataset, inner)
    # Looked up on the classes: a wrapper that passes unknown attributes on, or a subclass with its own __getitem__ (an
    # augmentation), would otherwise be bypassed without a word.
    batched, single = _definer(kind, "get_batch"), _definer(kind, "__getitem__")
    if batched is None or single is None or not issubclass(batched, single):
        return None
    pair = dataset.get_batch(indices)
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise DataError(f"{_type(dataset)}.get_batch returned a {_type(pair)}; it must return a pair of tensors")
    return pair[0], pair[1]


def _definer(kind: type, name: str) -> Optional[type]:
    return next((base for base in kind.__mro__ if name in vars(base)), None)


def _read(dataset: Any, index: int) -> Any:
    try:
        return dataset[index]
    # Whatever the user's code raises, and an index helps to find the sample; the cause stays chained.
    except Exception as exc:
        raise DataError(f"sample {index} cannot be read from the dataset: {type(exc).__name__}: {exc}") from exc


def _tensor(value: Any, part: str, index: int) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, bool):
        return torch.tensor(value)
    if isinstance(value, (int, float)) and not isinstance(value, np.generic):
        return torch.tensor(value, dtype=torch.int64 if isinstance(value, int) else torch.float32)
    if isinstance(value, (np.ndarray, np.generic)):
        try:
            # A copy, since torch takes neither read-only memory nor the negative strides of a flipped array.
            return torch.from_numpy(np.array(value, order="C"))
        except (TypeError, ValueError) as exc:
            raise DataError(f"sample {index}: {part} is a NumPy array of {value.dtype}; convert it: {exc}") from exc
    raise DataError(
        f"sample {index}: {part} is a {_type(value)}; it must be a torch.Tensor, a NumPy array or a number; "
        "convert it in the dataset, e.g. with torch.tensor(...), or an image with torchvision.transforms.ToTensor()"
    )


def _match(shape: Sequence[int], dtype: torch.dtype, spec: TensorSpec, what: str) -> None:
    if len(shape) != len(spec.shape):
        raise DataError(
            f"{what} has rank {len(shape)}, shape {list(shape)}; it must have rank {len(spec.shape)}, shape "
            f"{list(spec.shape)}, like the run's first sample; add or remove dimensions in the dataset"
        )
    if tuple(shape) != spec.shape:
        raise DataError(
            f"{what} has shape {list(shape)}; it must have {list(spec.shape)}, like the run's first sample; "
            "crop, pad or resize in the dataset"
        )
    got = str(dtype).split(".")[-1]
    if got != spec.dtype:
        raise DataError(
            f"{what} has dtype {got}; it must have {spec.dtype}, like the run's first sample; "
            f"convert it: .to(torch.{spec.dtype})"
        )


def _check_finite(value: Tensor, part: str, indices: Optional[Sequence[int]]) -> None:
    if not value.is_floating_point():
        return
    # A NaN or infinity makes the sum one. Finite values may too, by overflow: then the slow question decides.
    if math.isfinite(value.sum(dtype=torch.promote_types(value.dtype, torch.float32)).item()):
        return
    bad = ~torch.isfinite(value).reshape(len(value), -1)
    if not bool(bad.any()):
        return
    row = int(bad.any(1).int().argmax())
    count, nans = int(bad[row].sum()), int(torch.isnan(value[row]).sum())
    raise DataError(
        f"sample {_number(indices, row)}: {part} has {nans} NaN and {count - nans} infinite of {bad.shape[1]} values; "
        "all must be finite; clean or drop the sample in the dataset"
    )


def _number(indices: Optional[Sequence[int]], row: int) -> int:
    return row if indices is None else int(indices[row])


def _is_pair_of_arrays(value: Any) -> bool:
    pair = isinstance(value, (tuple, list)) and len(value) == 2
    return pair and all(isinstance(part, (Tensor, np.ndarray)) for part in value)


def _dtype(value: Tensor) -> str:
    return str(value.dtype).split(".")[-1]


def _type(value: Any) -> str:
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
