"""The inside of one probe's process. `python -m snn_core._probe NAME` by hand shows all that a backend prints."""

import contextlib
import faulthandler
import json
import os
import sys
import traceback
from typing import Any, Dict, NoReturn, Optional

from snn_core import registry
from snn_core._entry_points import describe, repair
from snn_core.backend import Health
from snn_core.errors import SnnError

__all__ = ["main"]


def main(name: str, limit_s: Optional[float] = None) -> NoReturn:
    """Probe the backend `name`, write the answer to stdout as one JSON document, and end the process."""
    # From here on whatever a plugin or its C library prints goes to stderr: stdout is the answer's alone.
    answer = os.dup(1)
    os.dup2(2, 1)
    if limit_s is not None:
        # A probe whose parent was killed must not live for ever; this timer needs neither the parent nor the GIL.
        faulthandler.dump_traceback_later(limit_s, exit=True)
    document = json.dumps(_probe(name)).encode("ascii") + b"\n"
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # a plugin may have closed or replaced it
            stream.flush()
    while document:
        document = document[os.write(answer, document) :]
    # Not sys.exit: threads, exit handlers and unloading drivers hang or crash, and the answer is known.
    os._exit(0)


def _probe(name: str) -> Dict[str, Any]:
    """The fields of ProbeResult that the process knows."""
    info = registry.find(name)
    kind, fault = registry.examine(info)
    fields: Dict[str, Any] = {
        "api": _integer(getattr(kind, "api", None)),
        "priority": _integer(getattr(kind, "priority", None)),
    }
    if fault is not None:
        if fault.cause is not None:
            traceback.print_exception(type(fault.cause), fault.cause, fault.cause.__traceback__)
        return {**fields, "status": fault.status, "detail": _line(fault.detail), "remedy": _line(fault.remedy)}
    try:
        health = registry.load(name).probe()
    except KeyboardInterrupt:
        raise
    except BaseException as exc:
        traceback.print_exc()
        broken = {"status": "broken", "detail": f"probing raised {describe(exc)}", "remedy": repair(info.package, exc)}
        return {**fields, **broken}
    if not isinstance(health, Health) or health.status not in ("ready", "unavailable"):
        detail = f"probe() returned {health!r}; it must be a Health whose status is 'ready' or 'unavailable'"
        remedy = f"update the backend: pip install --upgrade {info.package}; or tell its authors"
        return {**fields, "status": "incompatible", "detail": _line(detail), "remedy": remedy}
    return {**fields, "status": health.status, "detail": _line(health.detail), "remedy": _line(health.remedy)}


def _integer(value: Any) -> Optional[int]:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _line(text: Any) -> str:
    """One line, and not a page: it goes into a table."""
    return " ".join(str(text).split())[:500]


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m snn_core._probe NAME (see `snn backends` for the names)")
    try:
        main(sys.argv[1])
    except SnnError as exc:
        sys.exit(f"error: {exc}")
