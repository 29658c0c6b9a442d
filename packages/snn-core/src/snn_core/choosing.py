"""Which backend `auto` stands for: the ready one with the highest priority."""

from typing import Dict, Iterable, Optional, Tuple

from snn_core import registry
from snn_core._entry_points import REINSTALL_CORE
from snn_core.backend import Backend
from snn_core.errors import BackendNotFound, BackendUnavailable
from snn_core.probing import ProbeResult, probe_all

__all__ = ["auto", "best"]


def best(results: Iterable[ProbeResult]) -> Optional[str]:
    """The name of the backend that `auto` takes where probes gave these results; None where none is ready."""
    return _first(_ready(results))


def auto(timeout_s: float = 10.0) -> Tuple[Backend, str]:
    """Return the ready backend with the highest priority, and a line that says why it won and what the others lack.

    The others than `eager` are probed in processes of their own, `timeout_s` at most. Raises BackendNotFound when
    nothing is installed and BackendUnavailable when nothing is ready.
    """
    installed = dict(registry.available())
    eager = "eager" in installed and not installed["eager"].rivals and installed.pop("eager")
    if not installed:
        if not eager:
            raise BackendNotFound(f"no backend is installed, not even core's own; {REINSTALL_CORE}")
        return registry.load("eager"), "eager is the only backend installed"
    results = sorted(probe_all(installed.values(), timeout_s), key=lambda result: result.info.name)
    ready = _ready(results)
    losers = [f"{r.info.name} is {r.status} ({r.detail})" for r in results if r.status != "ready"]
    if eager:  # core's own: it needs no probe, and is imported only where nothing better is ready
        ready["eager"] = 0
    winner = _first(ready)
    if winner is None:
        raise BackendUnavailable(f"no backend is ready: {'; '.join(losers)}; run `snn backends` to see what to do")
    losers[:0] = [f"{name} has priority {ready[name]}" for name in sorted(ready) if name != winner]
    backend = registry.load(winner)
    return backend, f"{winner} is ready with priority {ready[winner]}" + "".join(f"; {loser}" for loser in losers)


def _ready(results: Iterable[ProbeResult]) -> Dict[str, int]:
    return {result.info.name: result.priority or 0 for result in results if result.status == "ready"}


def _first(priorities: Dict[str, int]) -> Optional[str]:
    """The highest; of equals the first by name."""
    return max(sorted(priorities), key=priorities.__getitem__, default=None)
