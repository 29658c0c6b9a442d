"""A neuron's step as a graph of scalar operations: data alone, which knows no device and no printer."""

from dataclasses import dataclass
from typing import Dict, Iterable, List, Mapping, Optional, Set, Tuple

__all__ = ["Graph", "Node"]


@dataclass(frozen=True)
class Node:
    """One scalar value of each neuron and step.

    op: "input", "constant" or a name of `snn_core.lower.operations.OPERATIONS`.   args: the nodes it takes, by index.
    kind: "float" or "bool".   value: of a constant.   name: of an input.
    """

    op: str
    args: Tuple[int, ...] = ()
    kind: str = "float"
    value: Optional[float] = None
    name: Optional[str] = None


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which they can be computed, and the outputs by name, each the index of a node."""

    nodes: Tuple[Node, ...]
    outputs: Mapping[str, int]

    @property
    def inputs(self) -> Tuple[str, ...]:
        """The names of its inputs, in the order of their nodes."""
        return tuple(node.name for node in self.nodes if node.name is not None)

    def needed(self, ends: Iterable[int], stop: Iterable[int] = ()) -> Set[int]:
        """The nodes that `ends` depend on, these included; what lies behind `stop` is left out."""
        barrier, found, waiting = set(stop), set(), list(ends)
        while waiting:
            index = waiting.pop()
            if index in found:
                continue
            found.add(index)
            if index not in barrier:
                waiting.extend(self.nodes[index].args)
        return found

    def dependent(self, *inputs: str) -> Set[int]:
        """The nodes that depend on any of these inputs, these included."""
        found: Set[int] = set()
        for index, node in enumerate(self.nodes):
            if node.name in inputs or not found.isdisjoint(node.args):
                found.add(index)
        return found

    def extract(self, outputs: Mapping[str, int], given: Optional[Mapping[int, str]] = None) -> "Graph":
        """The part that computes `outputs`, without dead code. The nodes in `given` become inputs of that name."""
        given = given or {}
        kept = sorted(self.needed(outputs.values(), given))
        place: Dict[int, int] = {}
        nodes: List[Node] = []
        for index in kept:
            node = self.nodes[index]
            if index in given:
                node = Node("input", kind=node.kind, name=given[index])
            else:
                node = Node(node.op, tuple(place[arg] for arg in node.args), node.kind, node.value, node.name)
            place[index] = len(nodes)
            nodes.append(node)
        return Graph(tuple(nodes), {name: place[index] for name, index in outputs.items()})

    def __str__(self) -> str:
        lines = []
        for index, node in enumerate(self.nodes):
            what = node.name if node.op == "input" else repr(node.value) if node.op == "constant" else None
            lines.append(f"%{index} = {what or node.op + '(' + ', '.join(f'%{arg}' for arg in node.args) + ')'}")
        return "\n".join((*lines, *(f"{name} = %{index}" for name, index in self.outputs.items())))
