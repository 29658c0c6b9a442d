"""One step of a neuron and its gradient, as the operations that torch performs, seen below autograd."""

from typing import Any, Dict, List, NamedTuple, NoReturn, Optional, Sequence, Tuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from snn_core.lower.asked import AskWatch, Refusals
from snn_core.lower.aten import ALIASES, QUESTIONS, TRANSLATIONS
from snn_core.lower.refusal import (
    LoweringError,
    Place,
    place_of_caller,
    place_of_error,
    refused_operation,
    untraceable,
)
from snn_core.lower.seed import gradients
from snn_core.lower.views import ViewWatch
from snn_core.neurons.base import Neuron

__all__ = ["REMEDY", "SHAPES", "Call", "Foreign", "Slot", "Trace", "first_difference", "trace_step"]

SHAPES = ((3, 5), (2, 4, 5), (2, 3, 5, 6), (2, 3, 4, 6, 7))
"""x while tracing. Sizes above 1, different from each other and from the rank, so that a mixed-up axis shows; every
rank that a layer has, so that what depends on it shows.
"""

REMEDY = "and one kernel serves every shape; decide in __init__ and hand numbers in by coefficients()"


class Slot(NamedTuple):
    """A tensor of the trace: the inputs have the first numbers, each new tensor the next one."""

    number: int


class Foreign(NamedTuple):
    """A tensor that is neither an input nor made by an operation of the step."""

    tensor: Tensor


class Call(NamedTuple):
    """One operation. op: torch's name, such as "aten.add.Tensor".   args, kwargs: a tensor is a `Slot` or `Foreign`.
    result: what it made or, in place, wrote.   kind: "bool" if torch makes conditions of it, else "float".
    place: the user's line, None in the gradient.
    """

    op: str
    args: Tuple[Any, ...]
    kwargs: Dict[str, Any]
    result: Slot
    kind: str
    place: Optional[Place]

    @property
    def name(self) -> str:
        return operation_name(self.op)


class Trace(NamedTuple):
    """What was recorded. inputs: names of the inputs, in order of their slots.   outputs: each output's tensor by name,
    None for a gradient that there is none of.
    """

    inputs: Tuple[str, ...]
    calls: Tuple[Call, ...]
    outputs: Dict[str, Any]


def operation_name(op: str) -> str:
    """The name without namespace and overload: `add` of `aten.add.Tensor`."""
    return op.split(".")[1]


def trace_step(neuron: Neuron, shape: Tuple[int, ...], dtype: torch.dtype, learning: bool = True) -> Trace:
    """Record `dynamics` and its vector-Jacobian product at one shape. Raises LoweringError for a step that is not
    pointwise.

    learning: False records the step as evaluation runs it, where no gradient is wanted of anything.
    """
    label = type(neuron).__name__
    names = tuple(f"c.{name}" for name in _coefficients(neuron))
    states = tuple(f"state.{name}" for name in neuron.states)
    inputs = ("x", *states, *names)
    results = ("out", *states)
    generator = torch.Generator().manual_seed(0)
    watch = _Watch(label, shape, dtype)

    def example(grad: bool) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=dtype).requires_grad_(grad)

    def joint(values: Sequence[Tensor], cotangents: Sequence[Tensor]) -> List[Optional[Tensor]]:
        c = {name[2:]: value for name, value in zip(names, values[1 + len(states) :])}
        with watch:
            watch.asked.given(values, values[1 + len(states) :])
            with watch.asked:
                returned = neuron.dynamics(values[0], tuple(values[1 : 1 + len(states)]), c)
            out, state = returned
            after = _checked(watch, neuron.states, out, state)
            smooth = [(value, cotangent) for value, cotangent in zip(after, cotangents) if value.requires_grad]
            grads: Sequence[Optional[Tensor]] = [None] * len(values)
            if smooth:
                watch.in_gradient = True
                # a gradient summed to a coefficient's shape is the same as one that is summed later
                watch.asked.given(values, ())
                with watch.asked:
                    grads = gradients([value for value, _ in smooth], [seed for _, seed in smooth], values)
        return [*after, *grads]

    watch.end = joint.__code__
    with torch.set_grad_enabled(learning):
        # leaves, so that writing into an input is an error as it is in training
        values = [example(learning) for _ in inputs]
        cotangents = [example(False) for _ in results]
        for tensor in (*values, *cotangents):
            watch.slot(tensor)
        try:
            found = joint(values, cotangents)
        except LoweringError as exc:
            if exc.place is None and watch.views.suspect is not None:
                raise watch.views.suspect from exc
            raise
        except Exception as exc:
            place = place_of_error(exc, watch.end)
            raise watch.unseen or untraceable(label, exc, place or watch.last, dtype) from exc
    if watch.unseen is not None:
        raise watch.unseen
    outputs = zip((*results, *(f"grad.{name}" for name in inputs)), map(watch.known, found))
    return Trace((*inputs, *(f"grad.{name}" for name in results)), tuple(watch.calls), dict(outputs))


def _coefficients(neuron: Neuron) -> List[str]:
    """The names of its coefficients, all of which are floating point, as they are drawn while tracing."""
    given = neuron.coefficients()
    for name, value in given.items():
        if isinstance(value, Tensor) and not value.is_floating_point():
            raise LoweringError(
                f"{type(neuron).__name__}.coefficients() gives {name!r} as {value.dtype}, and kernels take floating "
                f"point alone; return it with .float(), and where a condition is needed write c[{name!r}] > 0"
            )
    return list(given)


def _checked(watch: "_Watch", states: Sequence[str], out: Tensor, state: Sequence[Tensor]) -> List[Tensor]:
    label, shape, dtype = watch.label, watch.shape, watch.dtype
    if len(state) != len(states):
        raise LoweringError(f"{label}.dynamics returned {len(state)} states; it names {len(states)}: {tuple(states)}")
    for name, value in zip(("its output", *(f"state {name!r}" for name in states)), (out, *state)):
        if tuple(value.shape) != shape or value.dtype != dtype:
            condition = "; return a condition as 0 and 1, condition.to(x.dtype)" if value.dtype == torch.bool else ""
            raise LoweringError(
                f"{label}.dynamics gave {name} shape {tuple(value.shape)} and {value.dtype} for an x of shape {shape} "
                f"and {dtype}; both must be those of x{condition}"
            )
    return [out, *state]


class _Watch(TorchDispatchMode):
    """Sees each operation before torch performs it: refuses what no kernel can do, and records the rest."""

    def __init__(self, label: str, shape: Tuple[int, ...], dtype: torch.dtype) -> None:
        super().__init__()
        self.label, self.shape, self.dtype = label, shape, dtype
        self.asked = AskWatch(Refusals(self._depends_on, self._refuse, self._writes, self._is_torchs))
        self.calls: List[Call] = []
        self.last: Optional[Place] = None
        self.end: Any = None
        self.in_gradient = False
        self.unseen: Optional[LoweringError] = None  # kept, since TorchScript lets no error of ours through
        self.views = ViewWatch(label, lambda tensor: self.slot(tensor).number)
        self._alive: List[Tensor] = []  # a tensor that is gone would hand its identity to another
        self._slots: Dict[int, Slot] = {}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # newer torch imports its compiler to keep it out of a mode's code, which takes longer than all traces
        return False

    def slot(self, tensor: Tensor) -> Slot:
        """The tensor's slot, a new one if it has none."""
        if id(tensor) not in self._slots:
            self._slots[id(tensor)] = Slot(len(self._alive))
            self._alive.append(tensor)
        return self._slots[id(tensor)]

    def known(self, value: Any) -> Any:
        """An argument as a call keeps it."""
        if isinstance(value, (list, tuple)):
            return type(value)(map(self.known, value)) if type(value) in (list, tuple) else value
        if not isinstance(value, Tensor):
            return value
        # a number is kept as it is now: the step may write over it
        return self._slots.get(id(value)) or Foreign(value.clone() if value.numel() == 1 else value)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        op = str(func)
        name = operation_name(op)
        if name in QUESTIONS:
            return func(*args, **kwargs)
        place = None if self.in_gradient else place_of_caller(self.end)
        self.last = place
        in_place = name.endswith("_") and not name.startswith("__")
        if name not in ALIASES and (name[:-1] if in_place else name) not in TRANSLATIONS:
            raise refused_operation(self.label, op, place)
        if not self.in_gradient and not self.asked.within_torch and name not in ALIASES:
            where = f" at {place}" if place is not None else ""
            source, remedy = "TorchScript or an extension, whose branches cannot be seen", "write it in plain torch"
            if name == "copy_":  # torch 2.0 shows no assignment by index
                source, remedy = f"an assignment by index, or {source}", f"write a.copy_(b) for a[...] = b, or {remedy}"
            said = f"{self.label}.dynamics cannot be lowered: {op}{where} comes from {source}; {remedy}"
            self.unseen = LoweringError(said, place)
        return self._record(func, op, args, kwargs, place)

    def _record(self, func: Any, op: str, args: Any, kwargs: Any, place: Optional[Place]) -> Any:
        """Perform an operation and keep it as a call."""
        name = operation_name(op)
        before, self.asked.within_torch = self.asked.within_torch, True
        try:
            if not self.in_gradient:
                self.views.note(op, name.endswith("_"), args, place, len(self._alive))
            seen = self.known(tuple(args)), {key: self.known(value) for key, value in kwargs.items()}
            result = func(*args, **kwargs)
            if not _counts_a_condition(name, args):
                self._check(result, op, place)
            if not before and not self.in_gradient:
                self.asked.follow((args, kwargs), result)
            kind = "bool" if result.dtype == torch.bool else "float"
            self.calls.append(Call(op, *seen, self.slot(result), kind, place))
        finally:
            self.asked.within_torch = before
        return result

    def _is_torchs(self) -> bool:
        """Whether torch's own Python runs, as some of its gradients do."""
        return self.in_gradient and place_of_caller(self.end) is None

    def _depends_on(self, shape: str) -> NoReturn:
        place = place_of_caller(self.end)
        what = f"what it makes of a size{f' at {place}' if place is not None else ''}"
        raise LoweringError(f"{self.label}.dynamics cannot be lowered: {what} depends on {shape}, {REMEDY}", place)

    def _refuse(self, op: str, why: Optional[str] = None) -> NoReturn:
        self.unseen = refused_operation(self.label, op, place_of_caller(self.end), why)
        raise self.unseen

    def _writes(self, op: str) -> NoReturn:
        self._refuse(op, "writes into its input; write `a = a + b` for `a += b`")

    def _check(self, result: Any, op: str, place: Optional[Place]) -> None:
        where = f"at {place}" if place is not None else "in the gradient of its step"
        if not isinstance(result, Tensor):
            raise refused_operation(self.label, op, place)
        a_number = result.numel() == 1 and operation_name(op) in ALIASES and op != "aten.view.dtype"
        if result.dtype not in (self.dtype, torch.bool) and not a_number:
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


def first_difference(a: Trace, b: Trace) -> Optional[Call]:
    """The first operation that both do not share, of `a` if it has a line and of `b` if not; None if there is none."""

    def shape_free(call: Call) -> Tuple[Any, ...]:
        return (call.op, *map(_plain, call.args), *((name, _plain(arg)) for name, arg in call.kwargs.items()))

    for one, other in zip(a.calls, b.calls):
        if shape_free(one) != shape_free(other):
            return one if one.place is not None else other
    longer = max(a.calls, b.calls, key=len)
    return longer[min(len(a.calls), len(b.calls))] if len(a.calls) != len(b.calls) else None


def _plain(arg: Any) -> Any:
    """An argument as it compares: no sizes, which are lists, and a NaN as itself."""
    value = arg.tensor if isinstance(arg, Foreign) else arg
    return None if isinstance(value, list) else repr(value) if isinstance(value, (float, Tensor)) else value
