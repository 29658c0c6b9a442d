"""Half precision: the same step with half weights and inputs, to see which operations meet operands of two types."""

import contextlib
import copy
from types import CodeType
from typing import Any, Iterator, Set

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from snn_backend_ipu.lint.rules import Findings
from snn_backend_ipu.lint.watch import SKIPPED
from snn_backend_ipu.modules import halve
from snn_core.lower.refusal import place_of_caller
from snn_core.step import Step

__all__ = ["halved", "in_half", "watching_types"]

# torch on a CPU lacks operations on float16, and has them on this type, whose rules of mixing are the same
_STAND_IN = torch.bfloat16
_DTYPE = torch.Tensor.dtype.__get__  # type: ignore[attr-defined]
_PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "mv", "addmv", "dot", "convolution")
_NORMS = ("native_layer_norm", "native_group_norm")
_BATCH_NORMS = ("native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training")
# by the name of an operation, how many of its first arguments must be of one type; running statistics may be wide
_OF_ONE_TYPE = {**dict.fromkeys((*_PRODUCTS, *_NORMS), 3), **dict.fromkeys(_BATCH_NORMS, 2)}


def halved(step: Step) -> Step:
    """A copy whose model has the types that the device's has under precision "fp16"."""
    step = copy.deepcopy(step)
    halve(step.model)
    for tensor in (*step.model.parameters(), *step.model.buffers()):
        tensor.data = in_half(tensor.data) if tensor.dtype == torch.float16 else tensor.data
    return step


def in_half(x: Tensor) -> Tensor:
    """Floating point as a half, anything else as it is."""
    return x.to(_STAND_IN) if x.is_floating_point() else x


@contextlib.contextmanager
def watching_types(findings: Findings, end: CodeType) -> Iterator[None]:
    """Add each operation whose operands must be of one type and are not. end: the code below which calls are the
    step's.
    """
    with torch.no_grad(), _Names(), _Operands(findings, end):
        yield


class _Names(TorchFunctionMode):
    """Gives the stand-in the name of what it stands for."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        return torch.float16 if func == _DTYPE and result == _STAND_IN else result


class _Operands(TorchDispatchMode):
    """Looks at the types of operands, and goes on as if the wide ones were made halves."""

    def __init__(self, findings: Findings, end: CodeType) -> None:
        super().__init__()
        self.findings, self.end = findings, end

    def __torch_dispatch__(self, func: OpOverload, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(_stood_in, (args, kwargs or {}))
        name = str(func).split(".")[1]
        if name in _OF_ONE_TYPE:
            kinds = {value.dtype for value in args[: _OF_ONE_TYPE[name]] if isinstance(value, Tensor)}
            if _STAND_IN in kinds:
                self._compare(name, kinds)
                args = tuple(in_half(value) if isinstance(value, Tensor) else value for value in args)
        return func(*args, **kwargs)

    def _compare(self, name: str, kinds: Set[torch.dtype]) -> None:
        for wide in kinds - {_STAND_IN}:
            what = f"{name} of float16 and {str(wide).replace('torch.', '')}"
            self.findings.add("mixed-precision", place_of_caller(self.end, SKIPPED), what)


def _stood_in(value: Any) -> Any:
    return _STAND_IN if value is torch.float16 else value
