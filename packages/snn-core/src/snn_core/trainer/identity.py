"""What two parts of one run must share: all that decides which weights it ends with."""

import platform
import re
from typing import Any, Collection, Dict, List, Mapping, Optional, Sequence

import torch
from torch import nn

from snn_core.errors import CheckpointError, ConfigError
from snn_core.losses import Loss
from snn_core.optimizers import Optimizer
from snn_core.schedules import Schedule
from snn_core.terms import Term
from snn_core.trainer.settings import MATHEMATICAL, Settings

__all__ = ["differences", "identity", "require_same", "versions"]


def identity(
    model: nn.Module,
    settings: Settings,
    *,
    loss: Loss,
    terms: Sequence[Term],
    optimizer: Optimizer,
    schedule: Optional[Schedule],
    epochs: int,
    train: Any,
    val: Any,
) -> Dict[str, Any]:
    """Return it as JSON values: {"model": {name: shape and dtype}, "run": {name: value}}."""
    run: Dict[str, Any] = {name: getattr(settings, name) for name in MATHEMATICAL}
    run["optimizer"] = _spell(optimizer)
    run["loss"] = _spell(loss)
    run["terms"] = [f"{term.name}: {_spell(term)}" for term in terms]
    run["schedule"] = _spell(schedule)
    run["training samples"] = len(train)
    run["validation samples"] = None if val is None else len(val)
    if schedule is not None and schedule.needs_total:
        run["epochs"] = epochs
    tensors = {name: f"{str(t.dtype).split('.')[-1]}{list(t.shape)}" for name, t in model.state_dict().items()}
    modules = {f"{name or 'model'} (layer)": type(module).__name__ for name, module in model.named_modules()}
    return {"model": {**modules, **tensors}, "run": run}


def require_same(
    saved: Mapping[str, Any], now: Mapping[str, Any], path: object, free: Collection[str] = ()
) -> List[str]:
    """What differs among the settings `free`, in words.

    Raises CheckpointError for another model, ConfigError for other settings, each naming what was and what is now.
    """
    layers = differences(saved["model"], now["model"])
    if layers:
        raise CheckpointError(
            f"{path} belongs to another model: {'; '.join(layers[:3])}{_more(layers[3:])}; build the model as it was"
        )
    changed = differences(*({k: v for k, v in run["run"].items() if k not in free} for run in (saved, now)))
    if changed:
        raise ConfigError(
            f"{path} cannot be resumed with other settings: {'; '.join(changed)}; "
            "set them as they were, or start a new run"
        )
    return differences(*({name: run["run"][name] for name in free} for run in (saved, now)))


def versions() -> Dict[str, str]:
    """The versions on which a run's bits may depend."""
    import snn_core

    return {"python": platform.python_version(), "torch": str(torch.__version__), "snn-core": snn_core.__version__}


def differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> List[str]:
    """What differs between two mappings, in words."""
    names = [*saved, *(name for name in now if name not in saved)]
    absent = "absent"
    return [
        f"{name} was {saved.get(name, absent)} and is now {now.get(name, absent)}"
        for name in names
        if saved.get(name, absent) != now.get(name, absent)
    ]


def _more(left_out: Sequence[str]) -> str:
    return f"; and {len(left_out)} more" if left_out else ""


def _spell(value: object) -> str:
    # the address in the repr of a function is another one in each process
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
