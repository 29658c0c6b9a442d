"""Which tensors the device has, which are the host's, and which come of the call before."""

from typing import Any, Dict, Iterable, Iterator, List, Optional, Set, Tuple

import torch
from torch import Tensor

__all__ = ["Tensors", "storage_of", "tensors_in"]

_MADE_ON_DEVICE = (
    "arange", "empty", "full", "full_like", "linspace", "logspace", "normal", "ones", "rand", "randint", "randn",
    "randperm", "range", "tensor", "zeros", "zeros_like",
)  # fmt: skip
"""What PopTorch's `_SetDefaultDeviceType` gives its device while it traces, unless one is named; nothing else."""


class Tensors:
    """The tensors of one forward, by their memory.

    device: what the device's tensors give as theirs.   known: those that it has from the start.
    making: whether a tensor that an operation makes of no tensor is the device's.
    earlier: those of the forward before, None for the first.   carried: of these the ones that met this forward's.
    """

    def __init__(self, device: torch.device, known: Iterable[Tensor], earlier: Optional["Tensors"]) -> None:
        self.device, self.earlier, self.making = device, earlier, False
        self.carried: Set[int] = set()
        self._storages: Dict[int, torch.UntypedStorage] = {0: torch.empty(0).untyped_storage()}
        self._derived: Dict[int, Tuple[Set[int], torch.UntypedStorage]] = {}
        for tensor in known:
            self.learn(tensor)

    def learn(self, value: Any) -> None:
        """Remember that the device has these tensors. Their memory is kept, so that no other tensor gets it: the tensor
        itself may be given other memory, by `.data = ...`.
        """
        for tensor in tensors_in(value):
            if tensor.layout == torch.strided:
                self._storages.setdefault(storage_of(tensor), tensor.untyped_storage())

    def has(self, tensor: Tensor) -> bool:
        """Whether the device has this tensor."""
        return tensor.layout != torch.strided or storage_of(tensor) in self._storages

    def foreign(self, args: Any, kwargs: Any) -> Tuple[List[Tensor], bool]:
        """The tensors that meet the device's own and are none, and whether the result is the device's."""
        given = list(tensors_in((args, kwargs)))
        others = [t for t in given if not self.has(t)]
        own = len(others) < len(given) if given else self.making
        if own:
            self.use(others)
        return (others if own else []), own

    def use(self, others: Iterable[Tensor]) -> None:
        """Remember that tensors which are not the device's meet its own."""
        for tensor in others:
            self.carried |= self._sources(tensor)

    def derive(self, results: Iterable[Tensor], others: Iterable[Tensor]) -> None:
        """Remember that results were made of tensors which are not the device's."""
        sources = {memory for tensor in others for memory in self._sources(tensor)}
        for tensor in results if sources else ():
            if tensor.layout == torch.strided:
                self._derived[storage_of(tensor)] = (sources, tensor.untyped_storage())

    def _sources(self, tensor: Tensor) -> Set[int]:
        """The tensors of the call before, by their memory, that this one is or was made of."""
        if tensor.layout == torch.strided and storage_of(tensor) in self._derived:
            return self._derived[storage_of(tensor)][0]
        return {storage_of(tensor)} if self.earlier is not None and self.earlier.has(tensor) else set()

    def places(self, name: str, args: Any, kwargs: Dict[str, Any]) -> bool:
        """Whether a call puts what it makes on the device: by the device it is given, its name, or a tensor there."""
        device = kwargs.get("device")
        if device is not None:
            return torch.device(device).type == self.device.type
        return name in _MADE_ON_DEVICE or any(self.has(tensor) for tensor in tensors_in((args, kwargs)))


def storage_of(tensor: Tensor) -> int:
    """Where the numbers are; views are where their base is. 0 for no numbers, and for a sparse tensor."""
    return tensor.untyped_storage().data_ptr() if tensor.layout == torch.strided else 0


def tensors_in(value: Any) -> Iterator[Tensor]:
    """The tensors in nested lists, tuples and dicts."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from tensors_in(item)
    elif isinstance(value, dict):
        yield from tensors_in(list(value.values()))
