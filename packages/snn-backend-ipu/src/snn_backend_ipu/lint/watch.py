"""A watch over one forward of a step: what the user's code asks of torch, and which operations come of it."""

import contextlib
import os
import sys
from types import CodeType, FrameType
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from snn_backend_ipu.lint.rules import ASKING, LOSSES, VALUE_SHAPED, Findings
from snn_backend_ipu.lint.tensors import Tensors, storage_of, tensors_in
from snn_backend_ipu.nodes import unvalidated
from snn_core import linting
from snn_core.lower.refusal import Place, place_of_caller

__all__ = ["DEVICE", "HOST", "SKIPPED", "Call", "Watch"]

SKIPPED = (*linting.NOT_THE_USERS, os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep)
_AUTOGRAD = os.path.join(os.path.dirname(torch.__file__), "autograd", "function.py")
DEVICE, HOST = torch.device("ipu", 0), torch.device("cpu")
_DEVICE, _IS_CPU = torch.Tensor.device.__get__, torch.Tensor.is_cpu.__get__  # type: ignore[attr-defined]
_DATA = (torch.Tensor.data.__get__, torch.Tensor.data.__set__)  # type: ignore[attr-defined]
_CLASS_WEIGHTED = ("cross_entropy", "nll_loss")
_FROM_PYTHON = ("tensor", "as_tensor", "asarray", "new_tensor")


class Call(NamedTuple):
    """An operation that torch performed: its name, its results' shapes and types, and the user's line."""

    op: str
    results: Tuple[Tuple[Tuple[int, ...], str], ...]
    place: Optional[Place]


class Watch:
    """Sees one forward, from `with watch.watching():` to its end, and adds what breaks a rule to `findings`.

    end: the code below which calls are the step's.   tensors: those that the device has.
    calls: the operations, in their order.
    losses: torch's own losses, by name, with their lines and results.
    written: the lines that wrote into a tensor in place, by its memory.
    applied: the lines that applied a `torch.autograd.Function`, by its class.
    """

    def __init__(self, findings: Findings, end: CodeType, tensors: Tensors) -> None:
        self.findings, self.end, self.tensors, self.excused = findings, end, tensors, 0
        self.calls: List[Call] = []
        self.losses: List[Tuple[str, Optional[Place], Tensor]] = []
        self.written: Dict[int, Place] = {}
        self.applied: Dict[type, Place] = {}

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        with unvalidated(), _Functions(self), _Operations(self):
            yield

    def place(self) -> Optional[Place]:
        return place_of_caller(self.end, SKIPPED)

    def report(self, rule: str, what: str = "") -> None:
        self.findings.add(rule, self.place(), what)

    def report_foreign(self, name: str) -> None:
        # on the device there is no second call, to which a tensor of the first could be handed over
        if self.tensors.earlier is None:
            self.report("host-tensor", name)

    def excuse(self, func: Any, args: Sequence[Any], kwargs: Dict[str, Any]) -> Any:
        """Call a function whose reading of values has been dealt with."""
        self.excused += 1
        try:
            return func(*args, **kwargs)
        finally:
            self.excused -= 1


class _Functions(TorchFunctionMode):
    """Sees what is called, by the name that the user knows it by."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch, self.tensors = watch, watch.tensors

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if isinstance(func, OpOverload):  # the other mode's own call, which torch 2.0 shows here
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in ("__get__", "__set__"):
            return self._attribute(func, args, kwargs)
        if name in ("to", "cuda", "cpu") and _moves(name, args[1:], kwargs):
            self.watch.report("host-move", f".{name}()")
            return args[0].clone() if name == "cpu" else args[0]
        outer, self.tensors.making = self.tensors.making, self.tensors.places(name, args, kwargs)
        try:
            return self._seen(func, name, tuple(map(_here, args)), {key: _here(kwargs[key]) for key in kwargs})
        finally:
            self.tensors.making = outer

    def _seen(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        if not torch.is_grad_enabled() and name != "detach":
            self._without_gradient(name, args, kwargs)
        if name in ASKING:
            rule, what = ASKING[name]
            self.watch.report(rule, what)
            return self.watch.excuse(func, args, kwargs)
        if name in _FROM_PYTHON and _holdstensors_in((*args, *kwargs.values())):
            self.watch.report("host-value", f"{name}([...]) of other tensors, in place of torch.stack,")
        if name in _CLASS_WEIGHTED and kwargs.get("weight", args[2] if len(args) > 2 else None) is not None:
            self.watch.report("weighted-loss")
        if name == "repeat_interleave" and isinstance(kwargs.get("repeats", args[:2][-1] if args else None), Tensor):
            self.watch.report("value-shape", "repeat_interleave with a tensor of repeats")
        if name == "one_hot" and (len(args) > 1 or "num_classes" in kwargs):
            return self.watch.excuse(func, args, kwargs)  # torch checks the range on the host alone
        return self._call(func, name, args, kwargs)

    def _call(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        moved = name == "to" and any(
            isinstance(value, (torch.device, Tensor)) for value in (*args[1:], *kwargs.values())
        )
        foreign, _ = self.tensors.foreign(args, kwargs)
        if moved:
            self.tensors.use(tensor for tensor in tensors_in(args[:1]) if not self.tensors.has(tensor))
        else:
            foreign = self._without_weights(foreign, name)
        result = func(*args, **kwargs)
        if not moved and isinstance(result, Tensor) and any(not t.ndim for t in foreign):
            self.watch.report_foreign(name)  # the other mode cannot tell it from a number of Python
        if (name.endswith("_loss") or name in LOSSES) and isinstance(result, Tensor):
            self.watch.losses.append((name, self.watch.place(), result))
        if moved or self.tensors.making:
            self.tensors.learn(result)
        return result

    def _without_weights(self, foreign: List[Tensor], name: str) -> List[Tensor]:
        weights = [tensor for tensor in foreign if isinstance(tensor, torch.nn.Parameter)]
        if weights:
            if self.tensors.earlier is None:
                self.watch.report("unregistered-layer", name)
            self.tensors.learn(weights)  # reported, and no host's tensor besides
        return [tensor for tensor in foreign if not isinstance(tensor, torch.nn.Parameter)]

    def _attribute(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func in (_DEVICE, _IS_CPU) and self.tensors.has(args[0]):
            return self.tensors.device if func == _DEVICE else self.tensors.device == HOST
        if func in _DATA and (args[0].requires_grad or func == _DATA[1]):
            self.watch.report("data", ".data")
        return func(*args, **kwargs)

    def _without_gradient(self, name: str, args: Any, kwargs: Any) -> None:
        tensors = tensors_in((args, kwargs))
        if any(t.requires_grad for t in tensors) and _apply_frame() is None:
            self.watch.report("no-grad", name)


class _Operations(TorchDispatchMode):
    """Sees what torch performs, however it was asked for."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self.watch, self.tensors = watch, watch.tensors

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = str(func).split(".")[1]
        if not torch.is_grad_enabled():
            self.watch.applied.update(_application())
        foreign, own = self.tensors.foreign(args, kwargs)
        if any(t.ndim for t in foreign):
            self.watch.report_foreign(name)
        self._judge(name, args, kwargs)
        result = func(*args, **kwargs)
        results = list(tensors_in(result))
        if own or (name == "lift_fresh" and self.tensors.making):
            self.tensors.learn(results)
        else:
            self.tensors.derive(results, tensors_in((args, kwargs)))
        for t in results:
            rule = "complex" if t.dtype.is_complex else "float64" if t.dtype == torch.float64 and t.ndim else None
            if rule is not None and not self.watch.findings.has(rule):  # once: what comes of it is of that type too
                self.watch.report(rule, f"a tensor of {str(t.dtype).replace('torch.', '')}")
        place = self.watch.place()
        if place is not None:
            for t in _written_by(func, args):
                self.watch.written.setdefault(storage_of(t), place)
        self.watch.calls.append(Call(str(func), tuple((tuple(t.shape), str(t.dtype)) for t in results), place))
        return result

    def _judge(self, name: str, args: Any, kwargs: Any) -> None:
        watch = self.watch
        if name == "_local_scalar_dense" and not watch.excused:
            watch.report(*_reading(args[0].dtype))
        elif name in VALUE_SHAPED:
            watch.report("value-shape", VALUE_SHAPED[name])
        elif name == "index" and _has_mask(args[1]):
            watch.report("value-shape", "a boolean index")
        elif name in ("index_put", "index_put_") and len(args[1]) > 1 and _has_mask(args[1]):
            watch.report("masked-write")
        elif name in ("cumsum", "cumsum_"):
            watch.report("cumsum")
        if kwargs.get("generator") is not None:
            watch.report("own-generator", name)


def _reading(dtype: torch.dtype) -> Tuple[str, str]:
    """What a value is read for, where nothing else tells: whole numbers are indices and sizes."""
    if dtype == torch.bool:
        return "control-flow", "a branch in a scripted function"
    whole = not dtype.is_floating_point and not dtype.is_complex
    return ("constant-index" if whole else "host-value"), "this"


def _moves(name: str, args: Sequence[Any], kwargs: Dict[str, Any]) -> bool:
    """Whether another device than the tensors' own is asked for."""
    given = [value for value in (*args, *kwargs.values()) if isinstance(value, (str, torch.device))]
    return name != "to" or any(torch.device(device).type != DEVICE.type for device in given)


def _holdstensors_in(given: Sequence[Any]) -> bool:
    """Whether a list among these has a tensor for a number."""
    return any(isinstance(value, (list, tuple)) and next(tensors_in(value), None) is not None for value in given)


def _here(value: Any) -> Any:
    """The device that computes in the place of the one that tensors give."""
    return HOST if isinstance(value, torch.device) and value.type == DEVICE.type else value


def _has_mask(indices: Sequence[Optional[Tensor]]) -> bool:
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in indices)


def _written_by(func: OpOverload, args: Sequence[Any]) -> Iterator[Tensor]:
    for argument, given in zip(func._schema.arguments, args):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from tensors_in(given)


def _apply_frame() -> Optional[FrameType]:
    """The frame that applies a `torch.autograd.Function`, whose forward torch itself runs without gradient."""
    frame: Optional[FrameType] = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename != _AUTOGRAD:
        frame = frame.f_back
    return frame


def _application() -> Dict[type, Place]:
    """The `torch.autograd.Function` whose forward runs, with the user's line that applied it; empty where none runs."""
    frame = _apply_frame()
    kind = None if frame is None else frame.f_locals.get("cls")
    while frame is not None and frame.f_code.co_filename.startswith(SKIPPED):
        frame = frame.f_back
    return {} if frame is None or kind is None else {kind: Place(frame.f_code.co_filename, frame.f_lineno)}
