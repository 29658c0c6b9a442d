"""What a batch must be for a program: poptorch's own refusal of another one would read as a failure of the device."""

from typing import Any, Dict, Optional, Sequence, Tuple

import torch
from torch import Tensor

from snn_backend_ipu.layout import Layout
from snn_core.errors import DataError
from snn_core.specs import BatchSpec, TensorSpec

__all__ = ["Expected"]

Kind = Tuple[Tuple[int, ...], torch.dtype]


class Expected:
    """The shapes and types of one call's batch. half: the dtype of x where precision is that of half."""

    def __init__(self, spec: BatchSpec, cut: Layout, training: bool, half: Optional[torch.dtype]) -> None:
        self._training = training
        self._kinds: Dict[str, Kind] = {"x": _kind(spec.x, cut), "the target": _kind(spec.target, cut)}
        if half is not None and self._kinds["x"][1].is_floating_point:
            self._kinds["x"] = self._kinds["x"][0], half
        if not training:
            self._kinds["valid"] = (cut.combined,), torch.float32

    def require(self, batch: Any) -> Sequence[Tensor]:
        """Return the batch. Raises DataError unless it has the tensors that the program is compiled for."""
        if not isinstance(batch, (list, tuple)):
            raise self._odd(f"got a batch that is a {type(batch).__name__}", self._parts())
        if len(batch) != len(self._kinds):
            raise self._odd(f"got a batch of {len(batch)} parts", self._parts())
        for tensor, (name, (shape, dtype)) in zip(batch, self._kinds.items()):
            if not isinstance(tensor, Tensor):
                raise self._odd(f"{name} is a {type(tensor).__name__}", "a tensor")
            if tuple(tensor.shape) != shape or tensor.dtype != dtype:
                got = f"{name} has shape {list(tensor.shape)} and dtype {_name(tensor.dtype)}"
                raise self._odd(got, f"{list(shape)} of {_name(dtype)}")
        return batch

    def example(self) -> Tuple[Tensor, ...]:
        """A batch of zeros, all of them valid."""
        return tuple(torch.full(shape, name == "valid", dtype=dtype) for name, (shape, dtype) in self._kinds.items())

    def _parts(self) -> str:
        return f"{len(self._kinds)} ({', '.join(self._kinds)})"

    def _odd(self, got: str, allowed: str) -> DataError:
        step = "train_step" if self._training else "eval_step"
        return DataError(
            f"{got}; {step} takes {allowed}, for which the program is compiled: give it batches of the program's own "
            f"loader(training={self._training})"
        )


def _kind(spec: TensorSpec, cut: Layout) -> Kind:
    return (cut.combined, *spec.shape), getattr(torch, spec.dtype)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).rpartition(".")[2]
