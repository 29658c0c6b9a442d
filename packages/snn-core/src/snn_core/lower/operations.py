"""The scalar operations of a lowered graph, each with its meaning in torch, and the reference interpreter."""

from typing import Callable, Dict, List, Mapping, NamedTuple

import torch
from torch import Tensor

from snn_core.lower.graph import Graph

__all__ = ["OPERATIONS", "TRANSCENDENTAL", "Operation", "interpret"]


class Operation(NamedTuple):
    """What an operation computes, in torch.   kind: of its result.   commutes: its first two arguments may change
    places without changing a bit.
    """

    compute: Callable[..., Tensor]
    kind: str = "float"
    commutes: bool = False


OPERATIONS: Dict[str, Operation] = {
    "add": Operation(torch.add, commutes=True),
    "sub": Operation(torch.sub),
    "mul": Operation(torch.mul, commutes=True),
    "div": Operation(torch.div),
    # a * b + c with one rounding, which is what torch's kernels do where they scale an addend
    "fma": Operation(lambda a, b, c: torch.addcmul(c, a, b), commutes=True),
    "neg": Operation(torch.neg),
    "abs": Operation(torch.abs),
    "sqrt": Operation(torch.sqrt),
    "rsqrt": Operation(torch.rsqrt),
    "floor": Operation(torch.floor),
    "ceil": Operation(torch.ceil),
    "trunc": Operation(torch.trunc),
    "round": Operation(torch.round),
    "sign": Operation(torch.sign),
    "minimum": Operation(torch.minimum, commutes=True),
    "maximum": Operation(torch.maximum, commutes=True),
    "exp": Operation(torch.exp),
    "expm1": Operation(torch.expm1),
    "log": Operation(torch.log),
    "log1p": Operation(torch.log1p),
    "sin": Operation(torch.sin),
    "cos": Operation(torch.cos),
    "tanh": Operation(torch.tanh),
    "atan": Operation(torch.atan),
    "erf": Operation(torch.erf),
    "pow": Operation(torch.pow),
    "where": Operation(torch.where),
    "eq": Operation(torch.eq, "bool", True),
    "ne": Operation(torch.ne, "bool", True),
    "lt": Operation(torch.lt, "bool"),
    "le": Operation(torch.le, "bool"),
    "gt": Operation(torch.gt, "bool"),
    "ge": Operation(torch.ge, "bool"),
    "and": Operation(torch.logical_and, "bool", True),
    "or": Operation(torch.logical_or, "bool", True),
    "not": Operation(torch.logical_not, "bool"),
}

_ROOTS = {"sqrt", "rsqrt"}  # torch takes them from such a library too, and not each rounds as IEEE 754 says
TRANSCENDENTAL = frozenset({"exp", "expm1", "log", "log1p", "sin", "cos", "tanh", "atan", "erf", "pow", *_ROOTS})
"""Operations whose last bits differ between mathematical libraries."""


def interpret(graph: Graph, inputs: Mapping[str, Tensor], dtype: torch.dtype) -> Dict[str, Tensor]:
    """Compute a graph's outputs in plain torch, operation by operation: what a printed kernel is compared with."""
    values: List[Tensor] = []
    for node in graph.nodes:
        if node.op == "input":
            values.append(inputs[str(node.name)])
        elif node.op == "constant":
            values.append(torch.tensor(node.value, dtype=torch.bool if node.kind == "bool" else dtype))
        else:
            values.append(OPERATIONS[node.op].compute(*(values[arg] for arg in node.args)))
    return {name: values[index] for name, index in graph.outputs.items()}
