"""Entry points of one group, each with its package, found without importing any of them.

`importlib.metadata.entry_points()` is not used: below Python 3.10 it names no package, and one malformed
entry_points.txt, of whatever package, makes it fail for all.
"""

import re
import warnings
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Dict, List, Set

__all__ = ["REINSTALL_CORE", "Entry", "PluginWarning", "describe", "entries", "repair"]

REINSTALL_CORE = "reinstall it: pip install --force-reinstall snn-core"


class PluginWarning(UserWarning):
    """A package's plugin cannot be used; everything else goes on without it."""


@dataclass(frozen=True)
class Entry:
    """One entry point: `name = value`, where value is "module:attribute", and the package that registers it."""

    name: str
    value: str
    group: str
    package: str
    version: str

    def load(self) -> Any:
        """Import the module and return the attribute. Raises what that raises; ValueError if malformed."""
        if not re.match(r"[\w.]+\s*(:\s*[\w.]+)?\s*(\[.*\])?$", self.value):
            raise ValueError(f"entry point {self.value!r} is not of the form 'module:attribute'")
        return metadata.EntryPoint(self.name, self.value, self.group).load()


def entries(group: str) -> List[Entry]:
    """Return every entry point of `group`, by name then package. Warns of a package whose metadata is malformed."""
    found: List[Entry] = []
    for package in _packages(group):
        try:
            # Of two installed versions of one package the first on sys.path is the one that gets imported.
            distribution = metadata.distribution(package)
            points = [point for point in distribution.entry_points if point.group == group]
            version = distribution.version or "?"
        except Exception as exc:
            warnings.warn(
                f"package {package!r} has malformed metadata and is left out ({describe(exc)}); "
                f"reinstall it: pip install --force-reinstall --no-deps {package}",
                PluginWarning,
                stacklevel=2,
            )
            continue
        found += [Entry(point.name, point.value, group, package, version) for point in points]
    return sorted(found, key=lambda entry: (entry.name, entry.package, entry.value))


def _packages(group: str) -> List[str]:
    """Names of the packages whose entry points mention `group`, without parsing the metadata of all the others."""
    names: Dict[str, str] = {}
    broken: Set[str] = set()
    for distribution in metadata.distributions():
        try:
            if f"[{group}]" not in (distribution.read_text("entry_points.txt") or ""):
                continue
            name = distribution.metadata["Name"]
            names.setdefault(re.sub(r"[-_.]+", "-", name).lower(), name)
        except Exception:
            broken.add(str(getattr(distribution, "_path", distribution)))
    for path in sorted(broken):
        warnings.warn(
            f"the package in {path} has unreadable metadata and is left out; reinstall it, or remove that folder",
            PluginWarning,
            stacklevel=3,
        )
    return list(names.values())


def describe(exc: BaseException) -> str:
    """Return an exception as one line: its kind and the first line of its text."""
    if isinstance(exc, SystemExit):
        return f"it called sys.exit({exc.code!r})"
    lines = str(exc).strip().splitlines()
    return f"{type(exc).__name__}: {lines[0]}" if lines else type(exc).__name__


def repair(package: str, cause: BaseException) -> str:
    """Return what to do about a package that `cause` kept from being imported."""
    if isinstance(cause, ModuleNotFoundError):
        return f"install what it lacks: pip install --upgrade {package}"
    if package == "snn-core":
        return REINSTALL_CORE
    return f"update it: pip install --upgrade {package}; or remove it: pip uninstall {package}"
