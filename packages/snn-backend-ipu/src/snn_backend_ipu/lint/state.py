"""What the modules of a model hold between two calls, what a call changed of it, and the line that did."""

import ast
import inspect
import os
import sys
import textwrap
from collections import deque
from itertools import islice
from types import FunctionType
from typing import Any, Dict, FrozenSet, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from snn_backend_ipu.lint.tensors import storage_of
from snn_backend_ipu.lint.watch import SKIPPED
from snn_core.lower.refusal import Place

__all__ = ["Change", "Held", "made_at"]

_OWN = frozenset(vars(nn.Module()))
_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_DEPTH, _ITEMS = 4, 1000
_PYTHON = os.path.dirname(os.__file__) + os.sep
_CHANGES = ("append", "appendleft", "extend", "insert", "add", "update", "setdefault", "pop", "popleft", "clear")
_REGISTERS = ("register_buffer", "register_parameter")
_NOT_THE_USERS = ("torch.nn.", "snn_core.", "builtins")


class Change(NamedTuple):
    """Something that a call left otherwise than it found it. rule: the one that it breaks, "" for an attribute.

    memory: of the tensors that the attribute holds now.
    """

    rule: str
    what: str
    place: Optional[Place]
    memory: FrozenSet[int]


class Held:
    """The attributes, buffers and parameters of modules, by their names, at one moment."""

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._alive: List[Any] = []  # what is compared by identity must not be replaced at the same address
        self._marks: Dict[Tuple[str, str, str], Any] = {}
        self._memory: Dict[Tuple[str, str, str], FrozenSet[int]] = {}
        self._modules = modules
        for layer, module in modules.items():
            for kind, name, value in _contents(module):
                first = len(self._alive)
                mark = self._mark(value, _DEPTH)
                # batch norm and `.data` write without a trace in the tensor's version
                self._marks[layer, kind, name] = mark if kind == "attribute" else (mark, _digest(value))
                held = (part for part in self._alive[first:] if isinstance(part, Tensor))
                self._memory[layer, kind, name] = frozenset(map(storage_of, held))

    def changes(self, after: "Held", written: Mapping[int, Place]) -> Iterator[Change]:
        """What `after`, of the same modules, has otherwise. written: the lines that wrote in place, by memory."""
        for key, mark in after._marks.items():
            before = self._marks.get(key)
            if before == mark:
                continue
            layer, kind, name = key
            module = after._modules[layer]
            rule = _rule(kind, module, name, before, mark)
            if rule is not None:
                label = f"{type(module).__name__}.{name}"
                what = f"the {kind} {label}" + (f" (layer {layer!r})" if layer else "")
                place = None if kind == "attribute" else written.get(_memory(getattr(module, name)))
                place = place or written_at(name, module, after._modules.values())
                yield Change(rule, what, place, after._memory[key])

    def _mark(self, value: Any, depth: int) -> Any:
        """Equal for equal contents, at two moments of one value."""
        self._alive.append(value)
        if isinstance(value, Tensor):
            return ("tensor", id(value), value._version)
        if isinstance(value, _PLAIN):
            return repr(value)
        if depth and isinstance(value, dict):
            items = islice(value.items(), _ITEMS)
            return ("dict", [(repr(key), self._mark(item, depth - 1)) for key, item in items], len(value))
        if depth and isinstance(value, (list, tuple, set, frozenset, deque)):
            return (type(value), [self._mark(v, depth - 1) for v in islice(value, _ITEMS)], len(value))
        if isinstance(value, np.ndarray):
            return ("array", id(value), hash(value.tobytes()))
        if depth and hasattr(value, "__dict__") and _is_the_users(value):
            return ("object", id(value), self._mark(vars(value), depth - 1))
        return ("object", id(value))


def _contents(module: nn.Module) -> Iterator[Tuple[str, str, Any]]:
    for name, value in vars(module).items():
        if name not in _OWN:
            yield "attribute", name, value
    for name, value in module._buffers.items():
        yield "buffer", name, value
    for name, value in module._parameters.items():
        yield "parameter", name, value


def _is_the_users(value: Any) -> bool:
    """Whether the value's class is written in a file that is neither Python's own, nor torch's, nor core's."""
    file = getattr(sys.modules.get(type(value).__module__), "__file__", None)
    if file is None or isinstance(value, (type, nn.Module)) or file.startswith(SKIPPED):
        return False
    return "site-packages" in file or not file.startswith(_PYTHON)


def _rule(kind: str, module: nn.Module, name: str, before: Any, after: Any) -> Optional[str]:
    if kind == "attribute":
        return ""
    if kind == "parameter":
        return "parameter-written"
    if before is None or before[0][:2] != after[0][:2]:  # kind and identity
        return "buffer-reassigned"
    buffer = module._buffers[name]
    if buffer is None or (isinstance(module, _NormBase) and name == "num_batches_tracked"):
        return None  # batch norm's counter stays 0 on the device, and nothing reads it
    return "replica-buffer" if buffer.is_floating_point() else "integer-buffer"


def written_at(name: str, owner: nn.Module, modules: Iterable[nn.Module]) -> Optional[Place]:
    """The first line that writes the attribute `name`: in the class of its owner, else in that of another module; in
    forward before other methods, and never in __init__. None where no class of the user's does.
    """
    for module in (owner, *modules):
        for kind in type(module).__mro__:
            if kind.__module__.startswith(_NOT_THE_USERS):
                continue
            functions = [f for f in vars(kind).values() if isinstance(f, FunctionType) and f.__name__ != "__init__"]
            for function in sorted(functions, key=lambda f: f.__name__ != "forward"):
                line = next(_writing_lines(inspect.unwrap(function), name), None)
                if line is not None:
                    return Place(function.__code__.co_filename, line)
    return None


def made_at(layer: str, model: nn.Module) -> Optional[Place]:
    """The line of a user's constructor that assigns a layer, or the nearest container around it; None where none does.

    layer: its path in the model, "net.0".
    """
    while layer:
        parent, _, name = layer.rpartition(".")
        for kind in type(model.get_submodule(parent)).__mro__:
            made = inspect.unwrap(vars(kind).get("__init__", object.__init__))
            if not kind.__module__.startswith(_NOT_THE_USERS):
                line = next(_writing_lines(made, name), None)
                if line is not None:
                    return Place(made.__code__.co_filename, line)
        layer = parent
    return None


def _memory(value: Optional[Tensor]) -> int:
    return 0 if value is None else storage_of(value)


def _digest(value: Optional[Tensor]) -> int:
    if value is None:
        return 0
    # in bytes, since numpy has no bfloat16
    return hash(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())


def _writing_lines(function: Any, name: str) -> Iterator[int]:
    try:
        lines, first = inspect.getsourcelines(function)
        tree = ast.parse(textwrap.dedent("".join(lines)))
    except (OSError, TypeError, SyntaxError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            writes = any(_reaches(part, name) for target in node.targets for part in _parts(target))
        elif isinstance(node, (ast.AugAssign, ast.AnnAssign)):
            writes = _reaches(node.target, name)
        else:
            writes = isinstance(node, ast.Call) and _changes(node, name)
        if writes:
            yield first - 1 + getattr(node, "lineno", 1)


def _parts(target: ast.expr) -> List[ast.expr]:
    return list(target.elts) if isinstance(target, (ast.Tuple, ast.List)) else [target]


def _reaches(expression: ast.expr, name: str) -> bool:
    """Whether it is `self.name`, or something of it: `self.name[i]`, `self.name.inner`."""
    while isinstance(expression, (ast.Attribute, ast.Subscript)):
        if isinstance(expression, ast.Attribute) and expression.attr == name:
            return True
        expression = expression.value
    return False


def _changes(call: ast.Call, name: str) -> bool:
    given = [argument.value for argument in call.args[:2] if isinstance(argument, ast.Constant)]
    if isinstance(call.func, ast.Name):
        return call.func.id == "setattr" and name in given
    if not isinstance(call.func, ast.Attribute):
        return False
    method = call.func.attr
    if method in _REGISTERS:
        return name in given
    in_place = method.endswith("_") and not method.endswith("__")
    return (in_place or method in _CHANGES) and _reaches(call.func.value, name)
