"""What tests of a backend or of a user's own neuron can build on. Only `BackendConformance` needs pytest, when it is
used.

`run_all(backend)` runs the conformance kit; `BackendConformance` is the same kit as a class for pytest;
`every_neuron()` gives one example of each neuron; a `Check` is one claim, `EVERY` is all of them.
"""

from typing import TYPE_CHECKING, Any, Dict, List

from snn_core.lazy import finder

if TYPE_CHECKING:
    from snn_core.testing.check import Check as Check
    from snn_core.testing.check import Result as Result
    from snn_core.testing.checks import EVERY as EVERY
    from snn_core.testing.conformance import BackendConformance as BackendConformance
    from snn_core.testing.neurons import Example as Example
    from snn_core.testing.neurons import every_neuron as every_neuron
    from snn_core.testing.run import run_all as run_all

_HOME: Dict[str, str] = {
    "BackendConformance": "conformance",
    "Check": "check",
    "EVERY": "checks",
    "Example": "neurons",
    "Result": "check",
    "every_neuron": "neurons",
    "run_all": "run",
}

__all__ = [*_HOME]


_find = finder(__name__, _HOME)


def __getattr__(name: str) -> Any:
    globals()[name] = value = _find(name)
    return value


def __dir__() -> List[str]:
    return sorted({*globals(), *__all__})
