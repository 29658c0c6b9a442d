"""torch's optimisers without the import of torch's compiler, which takes longer than a small model's first epoch."""

import functools
import inspect
from typing import Any, Dict, Type

import torch

__all__ = ["uncompiled"]


@functools.lru_cache(maxsize=None)
def uncompiled(optimizer: Type[torch.optim.Optimizer]) -> Type[torch.optim.Optimizer]:
    """The same optimiser, whose methods are those that torch wraps for `torch.compile` and so, at their first call,
    imports it for. Arithmetic, settings and state are the same; only that a compiled function must not call it.
    """
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    methods: Dict[str, Any] = {name: inspect.unwrap(getattr(optimizer, name)) for name in names}
    methods["step"] = torch.no_grad()(inspect.unwrap(optimizer.step))
    return type(optimizer.__name__, (optimizer,), methods)
