"""What a step reads beside its arguments: the plain attributes of a neuron, which a lowered step holds as constants.

Two equal fingerprints stand for one lowered step. Tensors are no part of it, since a step that reads one is refused.
"""

from collections.abc import Hashable, Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from types import CellType, FunctionType, MethodType
from typing import Any

import numpy as np
from torch import Tensor, nn

__all__ = ["changed", "fingerprint"]

_SKIPPED = {name for name in vars(nn.Module()) if name != "training"} | {"runner", "run", "tap"}
_COMPARED = frozenset((float, str, bytes, complex, type(None)))
_DEPTH = 6  # a closure of a function of a partial of a surrogate of the firing
_EMPTY = CellType()


def fingerprint(neuron: nn.Module) -> tuple[Any, ...]:
    """The names and values of its attributes and of those of the modules inside it."""
    return _of_module(neuron, set())


def changed(before: tuple[Any, ...], after: tuple[Any, ...]) -> list[str]:
    """The attributes in which two fingerprints differ, by name."""
    one, other = dict(before), dict(after)
    return [name for name in {**one, **other} if name not in one or name not in other or one[name] != other[name]]


class _Same:
    """An object that equals itself alone. It is held, so that no other gets its identity."""

    __slots__ = ("held",)

    def __init__(self, held: object) -> None:
        self.held = held

    def __hash__(self) -> int:
        return id(self.held)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.held is other.held


def _of_module(module: nn.Module, seen: set[int]) -> tuple[Any, ...]:
    own = [(name, _value(value, _DEPTH, seen)) for name, value in vars(module).items() if name not in _SKIPPED]
    return (*own, *((name, _of_module(inner, seen)) for name, inner in module._modules.items() if inner is not None))


def _value(value: Any, depth: int, seen: set[int]) -> Hashable:
    kind = type(value)
    if kind in _COMPARED:
        return value
    if isinstance(value, (float, int, str, np.generic)):
        return kind, value  # 1, 1.0 and True are equal, and a step may tell them apart
    if isinstance(value, (Tensor, nn.Module)):
        return Tensor
    if isinstance(value, np.ndarray):
        return kind, value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, (_Same, type)):
        return value
    parts = None if depth == 0 or id(value) in seen else _parts(value)
    if parts is None:
        return _Same(value)
    seen.add(id(value))
    if _COMPARED.issuperset(map(type, parts)):  # numbers for each channel
        return (kind, *parts)
    return (kind, *(_value(part, depth - 1, seen) for part in parts))


def _parts(value: Any) -> "list[Any] | tuple[Any, ...] | None":
    """What an object consists of, as far as it can be seen; None for what cannot be looked into.

    No part is made here alone: objects are told apart by their place in memory.
    """
    if isinstance(value, (list, tuple)):
        return value
    own = getattr(value, "__dict__", None)
    if is_dataclass(value):
        return [getattr(value, field.name, None) for field in fields(value)] if own is None else [*own, *own.values()]
    if isinstance(value, FunctionType):
        cells = (cell.cell_contents for cell in value.__closure__ or () if cell != _EMPTY)
        return [_Same(value.__code__), value.__defaults__, value.__kwdefaults__, *cells]
    if isinstance(value, MethodType):
        return [_Same(value.__func__), value.__self__]
    if isinstance(value, partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, (set, frozenset)):
        return sorted(value, key=repr)
    pairs = value if isinstance(value, Mapping) else own
    return [part for pair in pairs.items() for part in pair] if isinstance(pairs, Mapping) else None
