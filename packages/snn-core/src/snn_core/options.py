"""Settings that arrive as text or TOML become frozen dataclasses here, with an error that names the setting."""

import dataclasses
import json
import typing
from typing import Any, Dict, Mapping, Type, TypeVar

from snn_core.errors import ConfigError, nearest

__all__ = ["from_mapping"]

T = TypeVar("T")


def from_mapping(kind: Type[T], values: Mapping[str, Any], where: str) -> T:
    """Build the dataclass `kind` from a mapping; `where` starts each error: "backend 'cpu': threads is 'x'; …".

    Values are taken as JSON or TOML means them: a list fits a tuple and an integer fits a float, but "4" is no integer
    and 1 is no truth value. Raises ConfigError for an unknown or missing name, a value of another type, and whatever
    `kind` itself refuses.
    """
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}  # type: ignore[arg-type]
    for name in values:
        if name not in fields:
            allowed = f"it has {', '.join(sorted(fields))}" if fields else "it has no options"
            raise ConfigError(f"{where} has no option {name!r}{nearest(name, fields)}; {allowed}")
    absent = (dataclasses.MISSING, dataclasses.MISSING)
    missing = [f.name for f in fields.values() if (f.default, f.default_factory) == absent and f.name not in values]
    if missing:
        raise ConfigError(f"{where} needs a value for {', '.join(missing)}; got {', '.join(values) or 'none'}")
    hints = _hints(kind)
    converted = {name: _convert(value, hints.get(name, Any), f"{where}: {name}") for name, value in values.items()}
    try:
        return kind(**converted)
    except ConfigError as exc:
        raise ConfigError(f"{where}: {exc}") from exc
    except (TypeError, ValueError) as exc:
        raise ConfigError(f"{where} refuses {converted!r}: {exc}") from exc


def _hints(kind: type) -> Dict[str, Any]:
    try:
        return typing.get_type_hints(kind)
    except (NameError, TypeError):
        return {}  # annotations for type checkers alone, or too new for this Python: the dataclass's own checks must do


def _convert(value: Any, hint: Any, what: str) -> Any:
    if hint is Any or (isinstance(hint, type) and isinstance(value, hint) and not isinstance(value, bool)):
        return value
    from pydantic import TypeAdapter, ValidationError
    from pydantic.errors import PydanticSchemaGenerationError

    try:
        # By way of JSON, where strict means what the docstring promises; on objects it refuses a list for a tuple.
        return TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
    except ValidationError as exc:
        errors = exc.errors()
        where = "".join(f"at [{part!r}] " for part in errors[0]["loc"]) if len(errors) == 1 else ""
        reasons = ", or ".join(error["msg"].replace("Input should", "it must") for error in errors)
        raise ConfigError(f"{what} is {value!r}; {where}{reasons}") from exc
    except (PydanticSchemaGenerationError, TypeError) as exc:  # TypeError: JSON has no such value
        raise ConfigError(f"{what} is {value!r}; it must be a {getattr(hint, '__name__', hint)}") from exc
