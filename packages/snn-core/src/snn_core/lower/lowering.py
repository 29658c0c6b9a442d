"""From a neuron to a graph: trace, translate, simplify, and divide between forward and backward."""

from dataclasses import dataclass
from typing import Any, Dict, List, Mapping, Sequence, Tuple

import torch
from torch import Tensor
from torch.fx import Node as FxNode

from snn_core.lower.aten import ALIASES, QUESTIONS, TRANSLATIONS, Ref, Translator
from snn_core.lower.builder import Builder
from snn_core.lower.cut import smallest_cut
from snn_core.lower.graph import Graph
from snn_core.lower.operations import TRANSCENDENTAL
from snn_core.lower.refusal import LoweringError
from snn_core.lower.trace import SHAPES, Trace, first_difference, operation_name, trace_step
from snn_core.neurons.base import Neuron

__all__ = ["Lowered", "Split", "lower"]

_BYTES = {"float": 4, "bool": 1}


@dataclass(frozen=True)
class Split:
    """One step cut in two. Inputs are named "x", "state.NAME" (before the step), "c.NAME" and, in `backward`,
    "kept.I" and the cotangents "grad.out" and "grad.state.NAME" (after the step).

    forward: gives "out", "state.NAME" (after the step) and "kept.I".   backward: gives "grad.x", "grad.state.NAME"
    (before the step) and "grad.c.NAME", as far as they were asked for.   kept: the kind of each kept value.
    """

    forward: Graph
    backward: Graph
    kept: Tuple[str, ...]


@dataclass(frozen=True)
class Lowered:
    """A neuron's step as scalar operations, with its gradient.

    neuron: its class's name.   states, coefficients: their names.   dtype: that of every number, float32 or float64.
    joint: forward and vector-Jacobian product in one graph, with the names that `Split` tells.
    """

    neuron: str
    states: Tuple[str, ...]
    coefficients: Tuple[str, ...]
    dtype: torch.dtype
    joint: Graph

    @property
    def forward(self) -> Graph:
        """The step alone: "out" and "state.NAME"."""
        return self.joint.extract(self._results())

    @property
    def exact(self) -> bool:
        """Whether forward uses arithmetic alone, so that every correct kernel gives the same bits."""
        return not any(node.op in TRANSCENDENTAL for node in self.forward.nodes)

    def split(self, wrt: Sequence[str], reread: Sequence[str] = ("x",)) -> Split:
        """Divide the step for training. wrt: the coefficients whose gradient is wanted, and "x" if its is.

        reread: inputs that backward may read again at no price, since somebody keeps them anyway.
        What backward needs beside these is kept or computed again, whichever holds the fewest bytes.
        """
        outputs = self.joint.outputs
        wanted = ["grad.x"] if "x" in wrt else []
        wanted += [f"grad.state.{name}" for name in self.states]
        wanted += [f"grad.c.{name}" for name in self.coefficients if name in wrt]
        grads = {name: outputs[name] for name in wanted}
        price, after = self._prices(reread)
        ends = {arg for index in self.joint.needed(grads.values()) & after for arg in self.joint.nodes[index].args}
        kept = [
            index
            for index in smallest_cut(self.joint, (ends - after) | (set(grads.values()) - after), price)
            if self.joint.nodes[index].name not in reread
        ]
        names = {index: f"kept.{place}" for place, index in enumerate(kept)}
        forward = self.joint.extract({**self._results(), **{name: index for index, name in names.items()}})
        kinds = tuple(self.joint.nodes[index].kind for index in kept)
        return Split(forward, self.joint.extract(grads, names), kinds)

    def _results(self) -> Dict[str, int]:
        return {name: self.joint.outputs[name] for name in ("out", *(f"state.{name}" for name in self.states))}

    def _prices(self, reread: Sequence[str]) -> "tuple[dict[int, int], set[int]]":
        """The bytes of each value that changes from step to step, and which nodes depend on a cotangent."""
        price: Dict[int, int] = {}
        after = set()
        for index, node in enumerate(self.joint.nodes):
            if node.name is not None:
                if node.name.startswith("grad."):
                    after.add(index)
                elif not node.name.startswith("c."):
                    price[index] = 0 if node.name in reread else _BYTES[node.kind]
            elif any(arg in after for arg in node.args):
                after.add(index)
            elif any(arg in price for arg in node.args):
                price[index] = _BYTES[node.kind]
        return price, after


def lower(neuron: Neuron, dtype: torch.dtype = torch.float32) -> Lowered:
    """Turn a neuron's step into scalar operations. dtype: float32 or float64, in which it is to be computed.

    The graph computes the bits that eager torch computes for finite numbers, transcendental functions apart. Raises
    LoweringError, which names the operation and the line, for a step that does not treat each neuron alone, draws at
    random, branches on values or shapes, or uses an operation that kernels have not.
    """
    traces = [trace_step(neuron, shape, dtype) for shape in SHAPES]
    different = first_difference(*traces)
    label = type(neuron).__name__
    if different is not None:
        place = traces[0].places.get(different.name) or traces[1].places.get(different.name)
        where = f" at {place}" if place is not None else ""
        raise LoweringError(
            f"{label}.dynamics cannot be lowered: {different.target}{where} depends on the shape of x, and one kernel "
            "serves every shape; take sizes in coefficients() and hand them in as numbers",
            place,
        )
    joint = _Translation(label, traces[0], dtype).graph()
    return Lowered(label, tuple(neuron.states), tuple(neuron.coefficients()), dtype, joint)


class _Translation:
    """One trace, operation by operation, in the graph's terms. A write in place gives all names of a tensor its new
    value.
    """

    def __init__(self, label: str, trace: Trace, dtype: torch.dtype) -> None:
        self.label, self.trace = label, trace
        self.builder = Builder(dtype)
        self.translator = Translator(self.builder)
        self.roots: Dict[FxNode, FxNode] = {}
        self.values: Dict[FxNode, Ref] = {}

    def graph(self) -> Graph:
        names = iter(self.trace.inputs)
        results: List[Any] = []
        for node in self.trace.module.graph.nodes:
            if node.op == "placeholder":
                self._keep(node, Ref(self.builder.input(next(names))))
            elif node.op == "get_attr":
                self._keep(node, self._literal(node))
            elif node.op == "call_function":
                self._call(node)
            else:
                results = node.args[0]
        nodes = [0.0 if value is None else self._argument(value) for value in results]
        outputs = {
            name: self.builder.number(self.translator.index(value)) for name, value in zip(self.trace.outputs, nodes)
        }
        return self.builder.graph(outputs)

    def _keep(self, node: FxNode, value: Ref) -> None:
        self.roots[node] = node
        self.values[node] = value

    def _root(self, node: FxNode) -> FxNode:
        """The node that made the tensor which is the first argument."""
        first = node.args[0]
        if not isinstance(first, FxNode):
            raise LoweringError(f"{self.label}.dynamics cannot be lowered: {node.target}{self._at(node)} has no tensor")
        return self.roots[first]

    def _argument(self, value: Any) -> Any:
        return self.values[self.roots[value]] if isinstance(value, FxNode) else value

    def _call(self, node: FxNode) -> None:
        name = operation_name(node.target)
        if name in QUESTIONS:
            return
        if name in ALIASES:
            self.roots[node] = self._root(node)
            return
        in_place = name.endswith("_") and name[:-1] in TRANSLATIONS
        translate = TRANSLATIONS[name[:-1] if in_place else name]
        try:
            result = translate(self.translator, *map(self._argument, node.args), **_mapped(node.kwargs, self._argument))
        except TypeError as exc:
            raise LoweringError(
                f"{self.label}.dynamics cannot be lowered: {node.target}{self._at(node)} has arguments that kernels do "
                f"not take ({exc})"
            ) from exc
        if not in_place:
            self._keep(node, result)
            return
        root = self._root(node)
        if root.op != "call_function":
            raise LoweringError(
                f"{self.label}.dynamics cannot be lowered: {node.target}{self._at(node)} writes into its input; write "
                "`a = a + b` for `a += b`"
            )
        self.values[root] = result
        self.roots[node] = root

    def _literal(self, node: FxNode) -> Ref:
        value = getattr(self.trace.module, str(node.target))
        user = next(iter(node.users))
        made_here = all(operation_name(other.target).startswith("lift_fresh") for other in node.users)
        if isinstance(value, Tensor) and value.numel() == 1 and made_here:
            return Ref(self.translator.index(value.item()))
        raise LoweringError(
            f"{self.label}.dynamics cannot be lowered: {user.target}{self._at(user)} reads a tensor of shape "
            f"{tuple(value.shape)} that is no argument of the step, so that its value would freeze in the kernel; "
            "return it from coefficients() and read it from c"
        )

    def _at(self, node: FxNode) -> str:
        place = self.trace.places.get(node.name)
        return f" at {place}" if place is not None else ""


def _mapped(kwargs: Mapping[str, Any], change: Any) -> Dict[str, Any]:
    return {name: change(value) for name, value in kwargs.items()}
