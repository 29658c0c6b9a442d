"""Hooks of modules that torch runs in its backward pass, which the device does not have."""

from typing import Any, Dict, Iterator, Optional

from torch import nn

from snn_backend_ipu.lint.rules import Findings
from snn_core.lower.refusal import Place

__all__ = ["check_backward_hooks", "drop_backward_hooks"]


def check_backward_hooks(model: nn.Module, findings: Findings) -> None:
    """Add each backward hook of a module, at the hook."""
    for name, module in model.named_modules():
        for hooks in _backward_hooks_of(module):
            for hook in hooks.values():
                findings.add("backward-in-forward", _place_of(hook), f"the backward hook of layer {name!r}")


def drop_backward_hooks(model: nn.Module) -> None:
    """Take the backward hooks off a copy that is run to be looked at: what they do is the user's."""
    for module in model.modules():
        for hooks in _backward_hooks_of(module):
            hooks.clear()


def _backward_hooks_of(module: nn.Module) -> Iterator[Dict[int, Any]]:
    yield module._backward_hooks
    yield module._backward_pre_hooks


def _place_of(hook: Any) -> Optional[Place]:
    code = getattr(hook, "__code__", None)
    return None if code is None else Place(code.co_filename, code.co_firstlineno)
