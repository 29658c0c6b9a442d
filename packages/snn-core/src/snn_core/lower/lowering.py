"""From a neuron to a graph: trace, translate, simplify, and divide between forward and backward."""

from dataclasses import dataclass, replace
from typing import Any, Dict, Optional, Sequence, Tuple

import torch
from torch import Tensor

from snn_core.lower.aten import ALIASES, TRANSLATIONS, Ref, Translator
from snn_core.lower.builder import Builder
from snn_core.lower.cut import smallest_cut
from snn_core.lower.graph import Graph
from snn_core.lower.operations import TRANSCENDENTAL
from snn_core.lower.refusal import LoweringError
from snn_core.lower.trace import REMEDY, SHAPES, Call, Foreign, Slot, Trace, first_difference, trace_step
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
        """Whether forward uses arithmetic alone, so that every correct kernel gives the same bits.

        What torch scales and adds in one, as in `torch.add(a, c["b"], alpha=0.3)`, it rounds once where it is a whole
        tensor; a coefficient it rounds once or twice, depending on the place in memory.
        """
        forward = self.forward
        full = forward.dependent("x", *(f"state.{name}" for name in self.states))
        return not any(
            node.op in TRANSCENDENTAL or (node.op == "fma" and full.isdisjoint(node.args[:2])) for node in forward.nodes
        )

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

    The graph computes the bits that eager torch computes for finite numbers where it is `exact`. Raises LoweringError,
    which names the operation and the line, for a step that does not treat each neuron alone, draws at random, branches
    on values, shapes or the gradient mode, or uses an operation that kernels have not.
    """
    label = type(neuron).__name__
    trace, *others = (trace_step(neuron, shape, dtype) for shape in SHAPES)
    for other in others:
        different = first_difference(trace, other)
        if different is not None:
            raise _depends(label, different, f"the shape of x, {REMEDY}")
    joint = _Translation(label, trace, dtype).graph()
    lowered = Lowered(label, tuple(neuron.states), tuple(neuron.coefficients()), dtype, joint)
    still = trace_step(neuron, SHAPES[0], dtype, learning=False)
    if str(replace(lowered, joint=_Translation(label, still, dtype).graph()).forward) != str(lowered.forward):
        raise _depends(label, first_difference(trace, still), _GRADIENTS)
    return lowered


_GRADIENTS = "whether gradients are wanted; leave torch.is_grad_enabled() and requires_grad out of the step"


def _depends(label: str, different: Optional[Call], on: str) -> LoweringError:
    what, place = ("it", None) if different is None else (f"{different.op}{_at(different)}", different.place)
    return LoweringError(f"{label}.dynamics cannot be lowered: {what} depends on {on}", place)


class _Translation:
    """One trace, operation by operation, in the graph's terms. A write in place gives all names of a tensor its new
    value.
    """

    def __init__(self, label: str, trace: Trace, dtype: torch.dtype) -> None:
        self.label, self.trace = label, trace
        self.builder = Builder(dtype)
        self.translator = Translator(self.builder)
        self.roots: Dict[Slot, Slot] = {}
        self.values: Dict[Slot, Ref] = {}

    def graph(self) -> Graph:
        for number, name in enumerate(self.trace.inputs):
            self._keep(Slot(number), Ref(self.builder.input(name)))
        for call in self.trace.calls:
            self._call(call)
        outputs = {
            name: self.builder.number(self.translator.index(0.0 if value is None else self._argument(value, None)))
            for name, value in self.trace.outputs.items()
        }
        return self.builder.graph(outputs)

    def _keep(self, slot: Slot, value: Ref) -> None:
        self.roots[slot] = slot
        self.values[slot] = value

    def _argument(self, value: Any, call: Optional[Call]) -> Any:
        if isinstance(value, Slot):
            return self.values[self.roots[value]]
        return self._literal(value.tensor, call) if isinstance(value, Foreign) else value

    def _call(self, call: Call) -> None:
        name = call.name
        first = call.args[0] if call.args else None
        if name in ALIASES and isinstance(first, Slot):
            self.roots[call.result] = self.roots[first]
            return
        if name in ALIASES:
            self._keep(call.result, self._argument(first, call))
            return
        in_place = name.endswith("_") and name[:-1] in TRANSLATIONS
        translate = TRANSLATIONS[name[:-1] if in_place else name]
        args = [self._argument(arg, call) for arg in call.args]
        try:
            result = translate(self.translator, *args, **{k: self._argument(v, call) for k, v in call.kwargs.items()})
        except TypeError as exc:
            raise LoweringError(
                f"{self.label}.dynamics cannot be lowered: {call.op}{_at(call)} has arguments that kernels do "
                f"not take ({exc})",
                call.place,
            ) from exc
        # torch's own kind decides: two conditions added are a condition
        result = Ref((self.builder.condition if call.kind == "bool" else self.builder.number)(result.index))
        if not in_place:
            self._keep(call.result, result)
            return
        root = self.roots[call.result]
        if root.number < len(self.trace.inputs):
            raise LoweringError(
                f"{self.label}.dynamics cannot be lowered: {call.op}{_at(call)} writes into its input; write "
                "`a = a + b` for `a += b`",
                call.place,
            )
        self.values[root] = result

    def _literal(self, tensor: Tensor, call: Optional[Call]) -> Ref:
        if tensor.numel() == 1 and call is not None and call.name == "lift_fresh":
            return self._number(tensor, call)
        what = f"{call.op}{_at(call)}" if call is not None else "what it returns"
        raise LoweringError(
            f"{self.label}.dynamics cannot be lowered: {what} reads a tensor of shape {tuple(tensor.shape)} that is "
            "no argument of the step, so that its value would freeze in the kernel; return it from coefficients() and "
            "read it from c",
            call.place if call is not None else None,
        )

    def _number(self, tensor: Tensor, call: Call) -> Ref:
        """A number that the step itself made a tensor."""
        value = tensor.item()
        kept = Ref(self.translator.index(value))
        if self.builder.nodes[kept.index].value != value and value == value:
            raise LoweringError(
                f"{self.label}.dynamics cannot be lowered: {call.op}{_at(call)} makes a tensor of {value!r} in "
                f"{tensor.dtype}, which {self.builder.dtype} cannot hold; make it with dtype=x.dtype",
                call.place,
            )
        return kept


def _at(call: Call) -> str:
    return f" at {call.place}" if call.place is not None else ""
