"""Terms: what is measured inside the compiled step, and what it may cost the objective."""

from snn_metrics.terms.activity import ActivityL1, Silence, SpikeRate
from snn_metrics.terms.budget import SynOpsBudget
from snn_metrics.terms.membrane import MembraneBound
from snn_metrics.terms.operations import OperationCounts
from snn_metrics.terms.weights import WeightSparsity

__all__ = [
    "ActivityL1",
    "MembraneBound",
    "OperationCounts",
    "Silence",
    "SpikeRate",
    "SynOpsBudget",
    "WeightSparsity",
]
