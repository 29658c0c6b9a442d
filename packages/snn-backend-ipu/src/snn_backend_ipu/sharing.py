"""One module, or one buffer, at two places of a model: of what has two names poptorch puts back parameters alone."""

from collections import defaultdict
from typing import Any, Dict, List, Sequence, Set

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from snn_core.errors import Unsupported

__all__ = ["part_names", "require_one_owner", "shared_buffers"]


def part_names(tree: nn.Module) -> None:
    """Leave each buffer of the tree one name in `state_dict(keep_vars=True)`, where poptorch looks for the others.

    A module's further places get it again without names of its own there; it stays one, whatever forward writes. What
    two modules have in common, and never write (`require_one_owner`), each gets for itself.
    """
    _part(tree, set())
    modules = dict(tree.named_modules())
    for names in shared_buffers(tree):
        for name in names[1:]:
            owner, _, attribute = name.rpartition(".")
            buffer = modules[owner]._buffers[attribute]
            modules[owner]._buffers[attribute] = None if buffer is None else buffer.clone()


def shared_buffers(model: nn.Module) -> List[List[str]]:
    """The names of each buffer that several modules have, in their order."""
    names: Dict[int, List[str]] = defaultdict(list)
    for prefix, module in model.named_modules():
        for name, buffer in module._buffers.items():
            if buffer is not None and name not in module._non_persistent_buffers_set:
                names[id(buffer)].append(f"{prefix}.{name}".lstrip("."))
    return [found for found in names.values() if len(found) > 1]


def require_one_owner(model: nn.Module, written: Sequence[str]) -> None:
    """Raise Unsupported for a buffer of several modules that forward writes: poptorch would have one for each.

    written: names of buffers.
    """
    modules = dict(model.named_modules())
    for names in shared_buffers(model):
        norm = any(isinstance(modules[name.rpartition(".")[0]], _NormBase) for name in names)
        if norm or set(names) & set(written):
            raise Unsupported(
                f"{' and '.join(map(repr, names))} are one buffer of two modules, which forward writes, and on an IPU "
                "each would have its own; make two buffers, or use one module at both places"
            )


def _part(module: nn.Module, seen: Set[nn.Module]) -> None:
    seen.add(module)
    for name, child in module._modules.items():
        if child is not None and child in seen:
            module._modules[name] = _again(child)
        elif child is not None:
            _part(child, seen)


def _again(first: nn.Module) -> nn.Module:
    """The same module as another object: all that it holds is one, and who walks over modules meets it once."""
    kind: Any = type(first)

    class Again(kind):
        def state_dict(
            self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False
        ) -> Dict[str, Any]:
            if keep_vars:
                return {} if destination is None else destination
            return super().state_dict(*args, destination=destination, prefix=prefix, keep_vars=keep_vars)

        def __eq__(self, other: object) -> bool:
            return getattr(other, "__dict__", None) is self.__dict__

        def __hash__(self) -> int:
            return hash(first)

    # core and torch know layers by where their class is written
    Again.__name__, Again.__qualname__, Again.__module__ = kind.__name__, kind.__qualname__, kind.__module__
    made: nn.Module = object.__new__(Again)
    object.__setattr__(made, "__dict__", first.__dict__)
    return made
