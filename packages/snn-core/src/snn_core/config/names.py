"""What a configuration can choose by name: the public classes of core's own modules, by their names in Python."""

import inspect
from types import ModuleType
from typing import Any, Callable, Dict, Mapping, Tuple, TypeVar

from snn_core import data, losses, models, optimizers, schedules
from snn_core.errors import ConfigError, nearest
from snn_core.trainer import EarlyStopping, TensorBoard

__all__ = ["CALLBACKS", "DATASETS", "LOSSES", "NETWORKS", "OPTIMIZERS", "SCHEDULES", "choose", "spelt"]

T = TypeVar("T")


def _classes(module: ModuleType, base: type, without: Tuple[type, ...] = ()) -> Dict[str, Any]:
    """The public subclasses of `base` that can be made of plain values."""
    public = {name: getattr(module, name) for name in module.__all__}
    return {
        name: kind
        for name, kind in public.items()
        if isinstance(kind, type) and issubclass(kind, base) and not inspect.isabstract(kind) and kind not in without
    }


LOSSES: Mapping[str, Callable[..., losses.Loss]] = _classes(
    losses, losses.Loss, (losses.CallableLoss, losses.WeightedSum)
)
OPTIMIZERS: Mapping[str, Callable[..., optimizers.Optimizer]] = _classes(
    optimizers, optimizers.Optimizer, (optimizers.Optimizer,)
)
SCHEDULES: Mapping[str, Callable[..., schedules.Schedule]] = _classes(schedules, schedules.Schedule)
NETWORKS: Mapping[str, Callable[..., Any]] = {name: getattr(models, name) for name in models.__all__}
CALLBACKS: Mapping[str, Callable[..., object]] = {kind.__name__: kind for kind in (EarlyStopping, TensorBoard)}
DATASETS: Mapping[str, str] = {name: name for name in data.NAMES}


def spelt(table: Mapping[str, Any], name: str) -> str:
    """The name as the table spells it; case and underscores do not matter. One that it does not have stays as it is."""
    return next((known for known in table if _plain(known) == _plain(name)), name)


def choose(table: Mapping[str, T], name: str, key: str) -> Tuple[str, T]:
    """Return (the name as the table spells it, what it stands for); case and underscores do not matter.

    Raises ConfigError, which starts with `key`, for a name that the table does not have.
    """
    known = spelt(table, name)
    if known in table:
        return known, table[known]
    spellings = {_plain(known): known for known in table}
    guess = nearest(_plain(name), spellings)
    for plain, known in spellings.items():
        guess = guess.replace(repr(plain), repr(known))
    raise ConfigError(f"{key} is {name!r}{guess}; it must be one of {', '.join(table)}")


def _plain(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()
