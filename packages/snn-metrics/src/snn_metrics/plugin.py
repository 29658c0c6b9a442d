"""What this package tells snn-core: the entry point of group "snn.plugins".

A run that names none of the terms here is left as it is.
"""

from typing import TYPE_CHECKING, Any, Callable, Dict

from snn_core import hookimpl
from snn_metrics import control, terms

if TYPE_CHECKING:
    from snn_core.trainer import Run

__all__ = ["snn_register_callbacks", "snn_register_terms", "snn_run_start"]


@hookimpl
def snn_register_terms() -> Dict[str, Callable[..., Any]]:
    """The terms of this package, by the names that they have in configuration files and reports."""
    return {getattr(terms, kind).name: getattr(terms, kind) for kind in terms.__all__}


@hookimpl
def snn_register_callbacks() -> Dict[str, Callable[..., object]]:
    """The callbacks of this package, by the names of their classes, as core's own."""
    return {kind: getattr(control, kind) for kind in control.__all__}


@hookimpl
def snn_run_start(run: "Run") -> None:
    """Refuse a budget that no training can keep."""
    if any(isinstance(term, terms.SynOpsBudget) for term in run.plan.terms):
        from snn_metrics.unavoidable import require_possible

        require_possible(run)
