"""Count synaptic operations exactly, and train networks to a budget, on every backend of snn-core.

Every public name is imported when it is first used (PEP 562), so that installing this package slows no command.
"""

from typing import TYPE_CHECKING, Any, Dict, List

from snn_core.lazy import finder

if TYPE_CHECKING:  # what type checkers and editors see; a test holds it against the table below
    from snn_metrics import energy as energy
    from snn_metrics import metrics as metrics
    from snn_metrics import report as report
    from snn_metrics.control import BudgetSchedule as BudgetSchedule
    from snn_metrics.control import Lagrangian as Lagrangian
    from snn_metrics.hooks import SynOpsHandle as SynOpsHandle
    from snn_metrics.hooks import register_synops_hooks as register_synops_hooks
    from snn_metrics.terms import ActivityL1 as ActivityL1
    from snn_metrics.terms import MembraneBound as MembraneBound
    from snn_metrics.terms import OperationCounts as OperationCounts
    from snn_metrics.terms import Silence as Silence
    from snn_metrics.terms import SpikeRate as SpikeRate
    from snn_metrics.terms import SynOpsBudget as SynOpsBudget
    from snn_metrics.terms import WeightSparsity as WeightSparsity

# name -> module of this package; "" is a module itself
_HOME: Dict[str, str] = {
    "energy": "",
    "metrics": "",
    "report": "",
    "BudgetSchedule": "control",
    "Lagrangian": "control",
    "SynOpsHandle": "hooks",
    "register_synops_hooks": "hooks",
    "ActivityL1": "terms",
    "MembraneBound": "terms",
    "OperationCounts": "terms",
    "Silence": "terms",
    "SpikeRate": "terms",
    "SynOpsBudget": "terms",
    "WeightSparsity": "terms",
}

__all__ = [*_HOME, "__version__"]


_find = finder(__name__, _HOME, "snn-metrics")


def __getattr__(name: str) -> Any:
    globals()[name] = value = _find(name)
    return value


def __dir__() -> List[str]:
    return sorted({*globals(), *__all__})
