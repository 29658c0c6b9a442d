"""One step of a neuron and its gradient, as the operations that torch performs: `make_fx` under a watch."""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor
from torch.fx import GraphModule
from torch.fx import Node as FxNode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from snn_core.lower.aten import ALIASES, QUESTIONS, TRANSLATIONS
from snn_core.lower.refusal import LoweringError, Place, place_of_caller, refused_operation
from snn_core.neurons.base import Neuron

__all__ = ["SHAPES", "Trace", "operation_name", "trace_step"]

SHAPES = ((3, 5), (2, 7))
"""Batch and neurons while tracing: different sizes above 1, so that a mixed-up axis shows, and twice, so that a branch
on a size shows.
"""


class Trace(NamedTuple):
    """What was recorded. names: of the inputs, in order.   outputs: names of the outputs; one that is None in the
    module's result has no gradient.   places: the user's line of each operation's node.
    """

    module: GraphModule
    inputs: Tuple[str, ...]
    outputs: Tuple[str, ...]
    places: Dict[str, Optional[Place]]


def operation_name(target: Any) -> str:
    """The name without namespace and overload: `add` of `aten.add.Tensor`."""
    return str(target).split(".")[1]


def trace_step(neuron: Neuron, shape: Tuple[int, int], dtype: torch.dtype) -> Trace:
    """Record `dynamics` and its vector-Jacobian product at one shape. Raises LoweringError for a step that is not
    pointwise.
    """
    label = type(neuron).__name__
    names = tuple(f"c.{name}" for name in neuron.coefficients())
    states = tuple(f"state.{name}" for name in neuron.states)
    inputs = ("x", *states, *names)
    results = ("out", *states)
    watch = _Watch(label, shape, dtype)

    def joint(values: Sequence[Tensor], cotangents: Sequence[Tensor]) -> List[Optional[Tensor]]:
        # leaves below the user's code, so that writing into an input is an error as it is there
        c = {name[2:]: value for name, value in zip(names, values[1 + len(states) :])}
        with watch:
            out, state = neuron.dynamics(values[0], tuple(values[1 : 1 + len(states)]), c)
            after = _checked(label, neuron.states, out, state, shape, dtype)
            smooth = [(value, cotangent) for value, cotangent in zip(after, cotangents) if value.requires_grad]
            grads: Sequence[Optional[Tensor]] = [None] * len(values)
            if smooth:
                watch.in_gradient = True
                grads = torch.autograd.grad([v for v, _ in smooth], values, [g for _, g in smooth], allow_unused=True)
        return [*after, *grads]

    watch.end = joint.__code__
    generator = torch.Generator().manual_seed(0)

    def example(grad: bool) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=dtype).requires_grad_(grad)

    with torch.enable_grad():
        values = [example(True) for _ in inputs]
        cotangents = [example(False) for _ in results]
        try:
            module = make_fx(joint)(values, cotangents)
        except LoweringError:
            raise
        except Exception as exc:
            where = f" at {watch.last}" if watch.last is not None else ""
            raise LoweringError(
                f"{label}.dynamics cannot be traced{where}: {type(exc).__name__}: {str(exc).splitlines()[0]}; it "
                "must be a function of whole tensors alone, and work for an x of any shape [B, ...]",
                watch.last,
            ) from exc
    outputs = (*results, *(f"grad.{name}" for name in inputs))
    return Trace(module, (*inputs, *(f"grad.{name}" for name in results)), outputs, _places(module, watch))


def _checked(
    label: str, states: Sequence[str], out: Tensor, state: Sequence[Tensor], shape: Tuple[int, int], dtype: torch.dtype
) -> List[Tensor]:
    if len(state) != len(states):
        raise LoweringError(f"{label}.dynamics returned {len(state)} states; it names {len(states)}: {tuple(states)}")
    for name, value in zip(("its output", *(f"state {name!r}" for name in states)), (out, *state)):
        if tuple(value.shape) != shape or value.dtype != dtype:
            raise LoweringError(
                f"{label}.dynamics gave {name} shape {tuple(value.shape)} and {value.dtype} for an x of shape {shape} "
                f"and {dtype}; both must be those of x"
            )
    return [out, *state]


class _Watch(TorchDispatchMode):
    """Sees each operation before torch performs it: refuses what no kernel can do, and notes the user's line."""

    def __init__(self, label: str, shape: Tuple[int, int], dtype: torch.dtype) -> None:
        super().__init__()
        self.label, self.shape, self.dtype = label, shape, dtype
        self.seen: List[Tuple[str, Optional[Place]]] = []
        self.last: Optional[Place] = None
        self.end: Any = None
        self.in_gradient = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if operation_name(func) in QUESTIONS:
            return func(*args, **(kwargs or {}))
        place = None if self.in_gradient else place_of_caller(self.end)
        self.last = place
        name = operation_name(func)
        plain = name[:-1] if name.endswith("_") and not name.startswith("__") else name
        if name not in ALIASES and plain not in TRANSLATIONS:
            raise refused_operation(self.label, str(func), place)
        self.seen.append((str(func), place))
        result = func(*args, **(kwargs or {}))
        if not _counts_a_condition(name, args):
            self._check(result, str(func), place)
        return result

    def _check(self, result: Any, op: str, place: Optional[Place]) -> None:
        where = f"at {place}" if place is not None else "in the gradient of its step"
        if not isinstance(result, Tensor):
            raise refused_operation(self.label, op, place)
        if result.dtype not in (self.dtype, torch.bool) and result.numel() > 1:
            raise LoweringError(
                f"{self.label}.dynamics cannot be lowered: {op} {where} gives {result.dtype} where x is {self.dtype}; "
                "keep to x's own floating point type and to conditions",
                place,
            )
        if result.numel() > 1 and operation_name(op) == "lift_fresh":
            raise LoweringError(
                f"{self.label}.dynamics cannot be lowered: {op} {where} makes a tensor of {result.numel()} numbers in "
                "the step; return it from coefficients() and read it from c",
                place,
            )
        if result.numel() > 1 and tuple(result.shape) != self.shape:
            raise LoweringError(
                f"{self.label}.dynamics cannot be lowered: {op} {where} gives a tensor of shape {tuple(result.shape)} "
                f"for an x of shape {self.shape}; a step must keep x's shape and treat each neuron alone",
                place,
            )


def _counts_a_condition(name: str, args: Sequence[Any]) -> bool:
    """Whether a condition becomes 0 and 1, which are the same numbers in every type: `(mem > 1).float()`."""
    return name == "_to_copy" and args[0].dtype == torch.bool


def _places(module: GraphModule, watch: _Watch) -> Dict[str, Optional[Place]]:
    # the module leaves out operations on numbers alone, the rest is in the order in which it was seen
    places: Dict[str, Optional[Place]] = {}
    ahead = 0
    for node in module.graph.nodes:
        for position in range(ahead, len(watch.seen)):
            op, place = watch.seen[position]
            if op == str(node.target):
                places[node.name], ahead = place, position + 1
                break
    return places


def first_difference(a: Trace, b: Trace) -> Optional[FxNode]:
    """The first operation of `a` that `b` does not have at its place, or None."""

    def calls(trace: Trace) -> List[FxNode]:
        return [node for node in trace.module.graph.nodes if node.op == "call_function"]

    def shape_free(node: FxNode) -> Tuple[Any, ...]:
        # sizes are lists; everything else must agree
        plain = [str(arg) for arg in node.args if not isinstance(arg, (list, tuple, torch.Size))]
        return (str(node.target), *plain)

    for one, other in zip(calls(a), calls(b)):
        if shape_free(one) != shape_free(other):
            return one
    longer = max(calls(a), calls(b), key=len)
    return longer[min(len(calls(a)), len(calls(b)))] if len(calls(a)) != len(calls(b)) else None
