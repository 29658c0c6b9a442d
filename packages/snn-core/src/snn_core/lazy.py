"""Public names of a package that are imported when they are first used (PEP 562), so that importing it is quick."""

import importlib
from typing import Any, Callable, Mapping

__all__ = ["finder"]


def finder(package: str, home: Mapping[str, str], distribution: str = "") -> Callable[[str], Any]:
    """Return what a package's `__getattr__` calls: from a public name to its value.

    home: name -> the package's module that holds it; "" for a module itself.
    distribution: whose version `__version__` is; "" where there is none.
    The function raises AttributeError, with the nearest name, for one that is not public.
    """

    def find(name: str) -> Any:
        if name == "__version__" and distribution:
            from importlib import metadata

            return metadata.version(distribution)
        if name not in home:
            from snn_core.errors import nearest

            raise AttributeError(f"module {package!r} has no attribute {name!r}{nearest(name, home)}")
        module = importlib.import_module(f"{package}.{home[name] or name}")
        return getattr(module, name) if home[name] else module

    return find
