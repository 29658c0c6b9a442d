"""Making a graph, simplified while it is made: constants are folded, equal expressions shared, idle operations dropped.

No rule changes a finite result, the sign of a zero apart. Of values that are not finite there is no promise: what torch
makes NaN by inf - inf or inf * 0 can be a number here.
"""

from typing import Dict, List, Mapping, Optional

import torch

from snn_core.lower.graph import Graph, Node
from snn_core.lower.operations import OPERATIONS

__all__ = ["Builder"]


class Builder:
    """Collects nodes. dtype: in which constants are rounded and folded, float32 or float64."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.nodes: List[Node] = []
        self._known: Dict[Node, int] = {}

    def input(self, name: str) -> int:
        return self._add(Node("input", name=name))

    def constant(self, value: float) -> int:
        """A number, rounded as torch rounds a Python number that meets a tensor."""
        return self._add(Node("constant", value=float(torch.tensor(float(value), dtype=self.dtype))))

    def truth(self, value: bool) -> int:
        return self._add(Node("constant", kind="bool", value=float(value)))

    def kind(self, index: int) -> str:
        return self.nodes[index].kind

    def number(self, index: int) -> int:
        """A value as a number: 1 for True and 0 for False."""
        if self.kind(index) == "float":
            return index
        return self.emit("where", index, self.constant(1), self.constant(0))

    def condition(self, index: int) -> int:
        """A value as a condition: whether it differs from 0."""
        return index if self.kind(index) == "bool" else self.emit("ne", index, self.constant(0))

    def emit(self, op: str, *args: int) -> int:
        """One operation, or the node that already holds its result."""
        simpler = self._simplified(op, args)
        if simpler is not None:
            return simpler
        rule = OPERATIONS[op]
        kind = self.kind(args[1]) if op == "where" else rule.kind
        if all(self.nodes[arg].op == "constant" for arg in args):
            return self._fold(op, kind, args)
        if rule.commutes:
            args = (*sorted(args[:2]), *args[2:])
        return self._add(Node(op, tuple(args), kind))

    def graph(self, outputs: Mapping[str, int]) -> Graph:
        return Graph(tuple(self.nodes), outputs).extract(outputs)

    def _add(self, node: Node) -> int:
        if node.op == "constant" and node.value == 0.0 and str(node.value) == "-0.0":
            node = Node("constant", kind=node.kind, value=0.0)
        if node not in self._known:
            self._known[node] = len(self.nodes)
            self.nodes.append(node)
        return self._known[node]

    def _value(self, index: int) -> Optional[float]:
        node = self.nodes[index]
        return node.value if node.op == "constant" and node.kind == "float" else None

    def _fold(self, op: str, kind: str, args: "tuple[int, ...]") -> int:
        values = [self.nodes[arg] for arg in args]
        tensors = [torch.tensor(v.value, dtype=torch.bool if v.kind == "bool" else self.dtype) for v in values]
        result = OPERATIONS[op].compute(*tensors)
        return self.truth(bool(result)) if kind == "bool" else self.constant(float(result))

    def _simplified(self, op: str, args: "tuple[int, ...]") -> Optional[int]:
        first, last = args[0], args[-1]
        if op == "where":
            condition = self.nodes[first]
            if condition.op == "constant":
                return args[1] if condition.value else args[2]
            return args[1] if args[1] == args[2] else None
        if op in ("minimum", "maximum", "and", "or") and first == last:
            return first
        if op == "not" and self.nodes[first].op == "not":
            return self.nodes[first].args[0]
        values = [self._value(arg) for arg in args]
        if op == "add":
            return last if values[0] == 0 else first if values[1] == 0 else None
        if op == "sub":
            return self.constant(0) if first == last else first if values[1] == 0 else None
        if op == "mul":
            if 0 in values:
                return self.constant(0)
            return last if values[0] == 1 else first if values[1] == 1 else self._negated(args, values)
        if op == "div":
            return first if values[1] == 1 else None
        if op == "fma":
            if 0 in values[:2]:
                return last
            return self.emit("mul", *args[:2]) if values[2] == 0 else None
        if op == "neg" and self.nodes[first].op == "neg":
            return self.nodes[first].args[0]
        return self._fired(op, args)

    def _fired(self, op: str, args: "tuple[int, ...]") -> Optional[int]:
        """The two forms of a spike from the sign of u, `sign(sign(u) + 1)` and `relu(sign(u))`, as one comparison."""
        nodes = self.nodes
        if op == "sign" and nodes[args[0]].op == "add":
            sign, one = sorted(nodes[args[0]].args, key=lambda arg: nodes[arg].op == "constant")
            compare = "ge"
            if self._value(one) != 1:
                return None
        elif op == "maximum" and self._value(args[1]) == 0:
            sign, compare = args[0], "gt"
        else:
            return None
        if nodes[sign].op != "sign":
            return None
        fires = self.emit(compare, nodes[sign].args[0], self.constant(0))
        return self.emit("where", fires, self.constant(1), self.constant(0))

    def _negated(self, args: "tuple[int, ...]", values: "list[Optional[float]]") -> Optional[int]:
        if -1 not in values:
            return None
        return self.emit("neg", args[1] if values[0] == -1 else args[0])
