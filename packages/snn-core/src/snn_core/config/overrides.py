"""Settings from the command line: "train.epochs=3" on top of a parsed file."""

import datetime
import re
from typing import Any, Dict, Iterable, List, Mapping, Tuple

from snn_core.config.toml import TOMLDecodeError, loads
from snn_core.errors import ConfigError

__all__ = ["override", "parse"]

_EXAMPLE = "write SECTION.KEY=VALUE, such as train.epochs=3 or optimizer=sgd"


def override(raw: Mapping[str, Any], changes: Iterable[str]) -> Dict[str, Any]:
    """Return `raw` with each change made, in order; `raw` stays as it is. Raises ConfigError for what is no change."""
    result = dict(raw)
    for change in changes:
        path, value = parse(change)
        result = _put(result, path, value)
    return result


def parse(change: str) -> Tuple[List[str], Any]:
    """Return (the key's parts, the value) of "a.b=value".

    The value is what TOML makes of it. What TOML cannot read is a text, unless it starts like a TOML text, list or
    table. Raises ConfigError.
    """
    key, equals, text = change.partition("=")
    path = [part.strip() for part in key.split(".")]
    if not equals or not all(re.fullmatch(r"[A-Za-z0-9_-]+", part) for part in path):
        raise ConfigError(f"--set {change!r} sets nothing; {_EXAMPLE}")
    return path, _value(text.strip(), change)


def _value(text: str, change: str) -> Any:
    if not text:
        raise ConfigError(f"--set {change!r} has no value; {_EXAMPLE}, or KEY='\"\"' for an empty text")
    if not text.isprintable():
        raise ConfigError(f"--set {change!r} holds a line break or what is no character; put it into a file")
    structured = text[0] in "\"'[{"
    if "#" in text and not structured:
        return text  # TOML would take the rest for a comment
    try:
        value = loads(f"value = {text}")["value"]
    except TOMLDecodeError as exc:
        if structured:
            reason = re.sub(r" \(at .*\)$", "", str(exc))
            raise ConfigError(f"--set {change!r} is no TOML value: {reason}; mind the shell's quotes") from exc
        return text
    # a date is no setting, but may well be a run's name
    return text if isinstance(value, (datetime.date, datetime.time)) else value


def _put(table: Mapping[str, Any], path: List[str], value: Any) -> Dict[str, Any]:
    name, rest = path[0], path[1:]
    if not rest:
        return {**table, name: value}
    below = table.get(name, {})
    if not isinstance(below, Mapping):  # "adam" is short for {name = "adam"}; true is an empty table
        below = {"name": below} if isinstance(below, str) else {}
    return {**table, name: _put(below, rest, value)}
