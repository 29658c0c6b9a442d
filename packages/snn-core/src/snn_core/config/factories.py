"""Code of the user's own, named in a configuration as "module:callable" and looked up when the run is built."""

import importlib
import os
import sys
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Optional

from snn_core._entry_points import describe
from snn_core.errors import ConfigError, SnnError, nearest
from snn_core.options import arguments

__all__ = ["Source", "call", "find"]


@dataclass(frozen=True)
class Source:
    """Where something comes from: core's own by `name`, or the user's `factory` "module:callable"; `args` go to it."""

    name: Optional[str] = None
    factory: Optional[str] = None
    args: Dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.name is None) == (self.factory is None):
            got = "neither" if self.name is None else f"both name {self.name!r} and factory {self.factory!r}"
            raise ConfigError(f"it has {got}; give a name, or a factory 'module:callable'")


def find(target: str, key: str) -> Callable[..., Any]:
    """Import "module:callable", the current folder first on sys.path. Raises ConfigError, starting with `key`."""
    module_name, _, attribute = target.partition(":")
    if not module_name or not all(part.isidentifier() for part in [*module_name.split("."), *attribute.split(".")]):
        raise ConfigError(f"{key} is {target!r}; it must be 'module:callable', such as 'my_module:make_net'")
    found: Any = _import(module_name, f"{key} {target!r}")
    for part in attribute.split("."):
        if not hasattr(found, part):
            public = [name for name in vars(found) if not name.startswith("_")]
            where = getattr(found, "__file__", None) or module_name
            raise ConfigError(f"{key} {target!r}: {where} has no {part!r}{nearest(part, public)}")
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"{key} {target!r} is {found!r}; it must be a function or a class")
    return found


def _import(name: str, what: str) -> Any:
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # whatever the user's module does when it is imported, sys.exit() included
        absent = isinstance(exc, ModuleNotFoundError) and exc.name is not None and f"{name}.".startswith(f"{exc.name}.")
        if absent:
            text = f"there is no module {name!r} in {folder} or among the installed packages"
            raise ConfigError(f"{what}: {text}; run snn where {name.split('.')[0]}.py lies, or install it") from exc
        raise ConfigError(f"{what}: module {name!r} cannot be imported: {describe(exc)}") from exc


def call(function: Callable[..., Any], what: str, path: str, values: Dict[str, Any], **given: Any) -> Any:
    """Call `function` with a configuration's `values`, checked against its signature, and with what is `given`.

    `what` names it in errors, `path` is its arguments' key path. Raises ConfigError for whatever it raises itself.
    """
    checked = arguments(function, {**values, **given}, what, path)
    try:
        return function(**checked)
    except SnnError as exc:
        raise type(exc)(f"{what}: {exc}") from exc
    except Exception as exc:
        raise ConfigError(f"{what} failed: {describe(exc)}; --traceback shows where") from exc
