"""Settings that arrive as text, TOML or keywords are checked here, with an error that names the setting.

Names are held against the signature of what takes them; types are pydantic's business. A dataclass is not handed to
pydantic whole: it would pass over unknown names, and build fields such as a schedule anew.
"""

import dataclasses
import inspect
import json
import re
import typing
from typing import Any, Callable, Dict, Mapping, TypeVar, Union

from snn_core.errors import ConfigError, SnnError, nearest

__all__ = ["arguments", "from_mapping", "located"]

T = TypeVar("T")


def from_mapping(kind: Callable[..., T], values: Mapping[str, Any], where: str, path: str = "") -> T:
    """Build the dataclass `kind`, or any class with keyword arguments, from a mapping.

    `where` starts each error: "backend 'cpu': threads is 'x'; …". With a `path` such as "train.", the key's whole path
    does: "train.epochs is 'x'; …". Raises what `arguments` raises, with what a dataclass itself says of the value, and
    ConfigError for whatever `kind` itself refuses.
    """
    try:
        made = arguments(kind, values, where, path)
    except ConfigError as exc:
        raise _in_own_words(kind, values, where, path, exc) from exc.__cause__
    return _made(kind, made, where, path)


def _made(kind: Callable[..., T], made: Mapping[str, Any], where: str, path: str) -> T:
    try:
        return kind(**made)
    except ConfigError as exc:
        text = str(exc)
        moved = located(text, {name: path + name for name in _parameters(kind)}) if path else text
        raise ConfigError(moved if moved != text else f"{where}: {text}") from exc
    except SnnError:
        raise
    except (TypeError, ValueError) as exc:
        raise ConfigError(f"{where} refuses {made!r}: {exc}") from exc


def _in_own_words(
    kind: Callable[..., Any], values: Mapping[str, Any], where: str, path: str, typed: ConfigError
) -> ConfigError:
    """`typed`, which refuses a value for its type, with what a dataclass itself says of that value: it knows what is
    allowed, where an annotation knows a type alone.
    """
    if not dataclasses.is_dataclass(kind):
        return typed
    try:
        _made(kind, values, where, path)
    except Exception as exc:  # of a value of another type a check may raise anything
        for name, value in values.items():
            head = f"{path or f'{where}: '}{name} is {value!r}; "
            if str(typed).startswith(head) and str(exc).startswith(head):
                reason = re.sub("^it must be ", "", str(exc)[len(head) :])
                return typed if reason in str(typed) else ConfigError(f"{typed}: {reason}")
    return typed


def arguments(kind: Callable[..., Any], values: Mapping[str, Any], where: str, path: str = "") -> Dict[str, Any]:
    """Return the keyword arguments with which `kind` can be called: `values`, converted to what `kind` declares.

    Values are taken as JSON or TOML means them: a list fits a tuple and an integer fits a float, but "4" is no integer
    and 1 is no truth value. A type that pydantic does not know is left to `kind`. Raises ConfigError for an unknown or
    missing name and for a value of another type.
    """
    parameters = _parameters(kind)
    named = {name: p for name, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    takes_any = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name in values:
        if name not in named and not takes_any:
            allowed = f"has {', '.join(sorted(named))}" if named else "has no options"
            guess = nearest(name, named)
            if path:
                raise ConfigError(f"there is no setting {path}{name}{guess}; {where} {allowed}")
            raise ConfigError(f"{where} has no option {name!r}{guess}; it {allowed}")
    missing = [name for name, p in named.items() if p.default is p.empty and name not in values]
    if missing:
        got = ", ".join(values) or "none"
        raise ConfigError(f"{where} needs a value for {', '.join(path + name for name in missing)}; got {got}")
    hints = _hints(kind)
    spelt = path or f"{where}: "
    return {name: _convert(value, hints.get(name, Any), spelt + name) for name, value in values.items()}


def located(text: str, paths: Mapping[str, str]) -> str:
    """Return an error's text with the name that it starts with, "epochs is 0; …" or "Adam.lr is …", as its path."""
    match = re.match(r"(?:[A-Za-z_]\w*\.)?([A-Za-z_]\w*)(?= )", text)
    return paths[match[1]] + text[match.end() :] if match and match[1] in paths else text


def _parameters(kind: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(kind).parameters
    except (TypeError, ValueError):  # written in C, without a signature: it must check for itself
        return {"arguments": inspect.Parameter("arguments", inspect.Parameter.VAR_KEYWORD)}


def _hints(kind: Callable[..., Any]) -> Dict[str, Any]:
    plain_class = isinstance(kind, type) and not dataclasses.is_dataclass(kind)
    try:
        return typing.get_type_hints(kind.__init__ if plain_class else kind)
    except (NameError, TypeError, AttributeError):
        return {}  # annotations for type checkers alone, or too new for this Python: the kind's own checks must do


def _convert(value: Any, hint: Any, what: str) -> Any:
    if hint is Any or _is_instance(value, hint):
        return value
    from pydantic import TypeAdapter, ValidationError
    from pydantic.errors import PydanticSchemaGenerationError

    try:
        # By way of JSON, where strict means what `arguments` promises; on objects it refuses a list for a tuple.
        return TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
    except ValidationError as exc:
        errors = exc.errors()
        where = "".join(f"at [{part!r}] " for part in errors[0]["loc"]) if len(errors) == 1 else ""
        reasons = ", or ".join(dict.fromkeys(error["msg"].replace("Input should", "it must") for error in errors))
        raise ConfigError(f"{what} is {value!r}; {where}{reasons}") from exc
    except (PydanticSchemaGenerationError, TypeError) as exc:  # TypeError: JSON has no such value
        if isinstance(exc, PydanticSchemaGenerationError) and not isinstance(hint, type):
            return value
        raise ConfigError(f"{what} is {value!r}; it must be a {getattr(hint, '__name__', hint)}") from exc


def _is_instance(value: Any, hint: Any) -> bool:
    """Whether the value is an object of the class `hint`, or of a class in that union; True is no integer here."""
    is_union = typing.get_origin(hint) is Union or type(hint).__name__ == "UnionType"
    kinds = tuple(k for k in (typing.get_args(hint) if is_union else (hint,)) if _is_class(k))
    return isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)


def _is_class(kind: Any) -> bool:
    return isinstance(kind, type) and typing.get_origin(kind) is None  # list[int] passes for a type in Python 3.9
