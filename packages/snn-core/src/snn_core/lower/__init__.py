"""A neuron's step as a graph of scalar operations, which kernels are printed from.

`lower(neuron)` traces `dynamics` and its gradient; `Lowered.split` divides them between forward and backward. Nothing
here knows a device: the CPU and the CUDA backend print the same graphs.
"""

from snn_core.lower.graph import Graph, Node
from snn_core.lower.lowering import Lowered, Split, lower
from snn_core.lower.operations import OPERATIONS, TRANSCENDENTAL, Operation, interpret
from snn_core.lower.refusal import LoweringError

__all__ = [
    "OPERATIONS",
    "TRANSCENDENTAL",
    "Graph",
    "Lowered",
    "LoweringError",
    "Node",
    "Operation",
    "Split",
    "interpret",
    "lower",
]
