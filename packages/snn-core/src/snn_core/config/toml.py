"""The TOML reader: Python's own from 3.11 on, and before that the package that it came from."""

import importlib
import sys
from typing import Any, Callable, Dict, Type

__all__ = ["TOMLDecodeError", "loads"]

_reader = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

loads: Callable[[str], Dict[str, Any]] = _reader.loads
TOMLDecodeError: Type[ValueError] = _reader.TOMLDecodeError
