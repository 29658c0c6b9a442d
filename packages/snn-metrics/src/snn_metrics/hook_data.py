"""What hooks leave on a module, and how long the graphs behind it live."""

import weakref
from typing import Any, Dict, Optional

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.utils.hooks import RemovableHandle

__all__ = ["HookData", "data_of", "forget", "give_data", "watch"]


class HookData(Dict[str, Any]):
    """Measured values by name, tensors with their gradient. Its copies and pickles hold the values without a graph."""

    def __reduce__(self) -> Any:
        return HookData, (_detached(dict(self)),)

    def release(self) -> None:
        """Let go of the graphs, and of the activations that they keep alive; the values stay."""
        self.update(_detached(dict(self)))


def _detached(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _detached(inner) for name, inner in value.items()}
    return value.detach() if isinstance(value, Tensor) else value


def give_data(module: nn.Module) -> HookData:
    """Give a module an empty `hook_data`, and return it."""
    target: Any = module
    target.hook_data = HookData()
    return data_of(module)


def data_of(module: nn.Module) -> HookData:
    """The `hook_data` that a module was given."""
    data: Any = module.hook_data
    return data


_watched: "weakref.WeakSet[nn.Module]" = weakref.WeakSet()
_handle: Optional[RemovableHandle] = None


def watch(module: nn.Module) -> None:
    """After a step of an optimizer that holds parameters of this module, let go of the graphs of what it measured."""
    global _handle
    _watched.add(module)
    if _handle is None:
        # for all optimizers: which one will train the module, nobody knows when its hooks are registered
        _handle = register_optimizer_step_post_hook(_release_after_step)


def forget(module: nn.Module) -> None:
    """Watch the module no longer."""
    global _handle
    _watched.discard(module)
    if not _watched and _handle is not None:
        _handle.remove()
        _handle = None


def _release_after_step(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for module in list(_watched):
        if any(id(parameter) in held for parameter in module.parameters()):
            for inner in module.modules():
                data = getattr(inner, "hook_data", None)
                if isinstance(data, HookData):
                    data.release()
