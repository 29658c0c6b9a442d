"""Which devices are installed, and exactly one of them by name: entry points of group "snn.backends"."""

import dataclasses
from dataclasses import dataclass
from typing import Any, Callable, Container, Dict, List, Mapping, Optional, Tuple, Type, Union

from snn_core._entry_points import Entry, describe, entries, repair
from snn_core.backend import API_VERSION, Backend, Capabilities, Health
from snn_core.errors import (
    BackendBroken,
    BackendConflict,
    BackendIncompatible,
    BackendNotFound,
    BackendUnavailable,
    ConfigError,
    SnnError,
    nearest,
)
from snn_core.options import from_mapping

__all__ = ["BackendInfo", "Fault", "available", "examine", "find", "load", "require_ready"]

GROUP = "snn.backends"
_CONTRACT = ("name", "api", "Options", "capabilities", "priority", "probe", "compile")
_KNOWN = {
    "eager": "snn-core",
    "cpu": "snn-backend-cpu",
    "cuda": "snn-backend-cuda",
    "ipu": "snn-backend-ipu",
}


@dataclass(frozen=True)
class BackendInfo:
    """What the metadata tells of a backend: its name, the package that registers it, and "module:Class".

    `status` is "installed", or "conflict" where `rivals` register the same name.
    """

    name: str
    package: str
    version: str
    value: str
    rivals: Tuple[Entry, ...] = ()

    @property
    def status(self) -> str:
        return "conflict" if self.rivals else "installed"

    @property
    def packages(self) -> Tuple[str, ...]:
        """Every package that registers this name, with its version."""
        own = f"{self.package} {self.version}"
        return (own, *(f"{rival.package} {rival.version}" for rival in self.rivals))


@dataclass(frozen=True)
class Fault:
    """Why a backend cannot be made: `status` "conflict", "broken" or "incompatible", what is wrong and what to do."""

    status: str
    detail: str
    remedy: str
    cause: Optional[BaseException] = None

    def error(self, info: BackendInfo) -> SnnError:
        """The typed error that says all of it."""
        kinds = {"conflict": BackendConflict, "broken": BackendBroken, "incompatible": BackendIncompatible}
        where = "" if self.status == "conflict" else f" (package {info.package} {info.version})"
        return kinds[self.status](f"backend {info.name!r}{where}: {self.detail}; {self.remedy}")


def available() -> Mapping[str, BackendInfo]:
    """Return every installed backend by name, from metadata alone: no plugin is imported."""
    by_name: Dict[str, List[Entry]] = {}
    for entry in entries(GROUP):
        by_name.setdefault(entry.name, []).append(entry)
    return {
        name: BackendInfo(name, first.package, first.version, first.value, tuple(rivals))
        for name, (first, *rivals) in by_name.items()
    }


def find(name: str) -> BackendInfo:
    """Return one backend's metadata. Raises BackendNotFound, which names what is installed and the pip line."""
    installed = available()
    if name in installed:
        return installed[name]
    if name in _KNOWN:
        remedy = f"install it: pip install {_KNOWN[name]}"
    else:
        others = [f"{other} (pip install {package})" for other, package in _KNOWN.items() if other not in installed]
        remedy = "choose one of these" + (f", or add {', '.join(others)}" if others else "")
    guess = "" if name in _KNOWN else nearest(name, [*installed, *_KNOWN])
    raise BackendNotFound(
        f"no backend {name!r} is installed{guess}; installed: {', '.join(installed) or 'none'}; {remedy}"
    )


def examine(info: BackendInfo) -> Tuple[Optional[Type[Backend]], Optional[Fault]]:
    """Import a backend and hold it against the contract. Returns its class, and a fault where it cannot be used."""
    if info.rivals:
        detail = f"registered by {len(info.packages)} packages: {', '.join(info.packages)}"
        return None, Fault("conflict", detail, f"keep one and remove the other: pip uninstall {info.rivals[0].package}")
    try:
        found = Entry(info.name, info.value, GROUP, info.package, info.version).load()
    except KeyboardInterrupt:
        raise
    except BaseException as exc:  # sys.exit() and native panics of a plugin must not end the program either
        detail = f"cannot be imported: {describe(exc)}"
        return None, Fault("broken", detail, repair(info.package, exc), exc)
    if not isinstance(found, type):
        return None, Fault("incompatible", f"{info.value} is {found!r}, not a class", _update(info, None))
    problems = _problems(found, info.name)
    if problems:
        return found, Fault("incompatible", "; ".join(problems), _update(info, getattr(found, "api", None)))
    return found, None


def _problems(found: Any, name: str) -> List[str]:
    """What keeps a class from being a backend of API_VERSION, in a few words each; a foreign version is told alone."""
    api = getattr(found, "api", None)
    integer = isinstance(api, int) and not isinstance(api, bool)
    if integer and api != API_VERSION:
        return [f"written for backend API {api}; this snn-core has API {API_VERSION}"]
    abstract: Container[str] = getattr(found, "__abstractmethods__", frozenset())
    missing = [member for member in _CONTRACT if not hasattr(found, member) or member in abstract]
    problems = [f"its class {found.__name__} lacks {', '.join(missing)}"] if missing else []

    def require(member: str, ok: Callable[[Any], bool], allowed: str) -> None:
        if member not in missing and not ok(getattr(found, member)):
            problems.append(f"{member} is {getattr(found, member)!r}; it must be {allowed}")

    require("api", lambda api: integer, f"the integer {API_VERSION}")
    require("name", lambda own: own == name, f"{name!r}, as it is registered")
    require("Options", _is_frozen, "a frozen dataclass")
    require("capabilities", lambda own: isinstance(own, Capabilities), "a snn_core.Capabilities")
    require("priority", lambda own: isinstance(own, int), "an integer")
    return problems


def _is_frozen(kind: Any) -> bool:
    return isinstance(kind, type) and dataclasses.is_dataclass(kind) and kind.__dataclass_params__.frozen  # type: ignore[attr-defined]


def _update(info: BackendInfo, api: Any) -> str:
    if isinstance(api, int) and api > API_VERSION:
        return "update core: pip install --upgrade snn-core"
    return f"update the backend: pip install --upgrade {info.package}; or tell its authors"


def load(name: str, options: Union[Mapping[str, Any], Any, None] = None) -> Backend:
    """Return the backend of that name, made with `options`: an instance of its Options, or a mapping that is validated.

    It is not probed: see `require_ready`. Raises BackendNotFound, BackendConflict, BackendBroken, BackendIncompatible,
    and ConfigError for an option that the backend does not have or refuses.
    """
    info = find(name)
    kind, fault = examine(info)
    if fault is not None:
        raise fault.error(info) from fault.cause
    assert kind is not None  # examine() returns a class or a fault
    made = _options(kind, options, name)
    try:
        backend = kind(made)
    except SnnError:
        raise
    except Exception as exc:
        broken = Fault("broken", f"cannot be made with {made!r}: {describe(exc)}", repair(info.package, exc))
        raise broken.error(info) from exc
    backend.reason = "asked for by name" + (f" with {_spelt(options, made)}" if options else "")
    return backend


def _spelt(options: Any, made: Any) -> str:
    given = options if isinstance(options, Mapping) else vars(made)
    return ", ".join(f"{name}={value!r}" for name, value in given.items())


def _options(kind: Type[Backend], options: Any, name: str) -> Any:
    if isinstance(options, kind.Options):
        return options
    if options is None or isinstance(options, Mapping):
        return from_mapping(kind.Options, options or {}, f"backend {name!r}")
    wanted = f"{kind.__module__}.{kind.Options.__qualname__}"
    raise ConfigError(f"backend {name!r} got options {options!r}; give a {wanted} or a mapping of its fields")


def require_ready(backend: Backend) -> Health:
    """Probe `backend` in this process and return what was found. Raises BackendUnavailable unless it is ready."""
    health = backend.probe()
    if not health.ready:
        remedy = health.remedy or "run `snn backends` to see what is ready"
        raise BackendUnavailable(f"backend {backend.name!r} is {health.status}: {health.detail}; {remedy}")
    return health
