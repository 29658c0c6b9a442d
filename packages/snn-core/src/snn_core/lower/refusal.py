"""Why a step cannot be lowered: which operation, which line of the user's code, and what to do instead."""

import linecache
import os
import sys
import sysconfig
import traceback
from functools import lru_cache
from types import CodeType, FrameType
from typing import Dict, Iterable, Iterator, NamedTuple, Optional, Tuple

import torch

from snn_core._entry_points import describe
from snn_core.errors import Unsupported

__all__ = [
    "READS",
    "LoweringError",
    "Place",
    "place_of_caller",
    "place_of_error",
    "refused_operation",
    "untraceable",
]

_NUMPYS = "numpy __array__ tolist __dlpack__"
_MEMORYS = "data_ptr storage untyped_storage _typed_storage apply_ map_ map2_ __reduce_ex__ __deepcopy__"
READS = frozenset(f"{_NUMPYS} {_MEMORYS}".split())
"""Methods of a tensor that hand its values to Python without an operation of torch."""

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_SKIPPED = (os.path.dirname(torch.__file__) + os.sep, os.path.join(_PACKAGE, "lower", ""))
_PYTHON = (os.path.join(sysconfig.get_path("stdlib"), ""), os.path.join(sysconfig.get_path("platstdlib"), ""))
_INSTALLED = tuple(f"{os.sep}{folder}{os.sep}" for folder in ("site-packages", "dist-packages"))


class Place(NamedTuple):
    """A line of source."""

    file: str
    line: int

    def __str__(self) -> str:
        text = linecache.getline(self.file, self.line).strip()
        return f"{self.file}:{self.line}" + (f": `{text}`" if text else "")


class LoweringError(Unsupported):
    """A neuron's step is no pointwise function of plain tensors, so no kernel can be made of it.

    place: the line that is in the way, None where it is not known.
    """

    def __init__(self, message: str, place: Optional[Place] = None) -> None:
        super().__init__(message)
        self.place = place


def place_of_caller(end: CodeType, skipped: Tuple[str, ...] = _SKIPPED) -> Optional[Place]:
    """The line that asked for an operation; None if that was nobody below `end`.

    skipped: how the names of files begin whose lines do not count: torch's and this package's. Lines of Python's own
    library and of numpy do not count either, and those of an installed one where the user's own are none.
    """
    return _users(_frames(sys._getframe(1), end), skipped)


def _frames(frame: Optional[FrameType], end: CodeType) -> Iterator[Tuple[FrameType, int]]:
    while frame is not None and frame.f_code is not end:
        yield frame, frame.f_lineno
        frame = frame.f_back


def place_of_error(error: BaseException, end: CodeType) -> Optional[Place]:
    """The line below `end` that an error came from, as `place_of_caller` counts lines."""
    frames = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    ends = [index for index, (frame, _) in enumerate(frames) if frame.f_code is end]
    return _users(reversed(frames[ends[-1] + 1 :]), _SKIPPED) if ends else None


def _users(frames: Iterable[Tuple[FrameType, int]], skipped: Tuple[str, ...]) -> Optional[Place]:
    installed: Optional[Place] = None
    for frame, line in frames:
        whose = _owner(frame.f_code.co_filename, skipped)
        if whose == "user":
            return Place(frame.f_code.co_filename, line)
        if whose == "installed" and installed is None:
            installed = Place(frame.f_code.co_filename, line)
    return installed


@lru_cache(maxsize=None)
def _owner(file: str, skipped: Tuple[str, ...]) -> str:
    """Whose lines a file has: "user", "installed" or, where they do not count, "nobody"."""
    if file.startswith((*skipped, "<")):
        return "nobody"
    folder = next((folder for folder in _INSTALLED if folder in file), None)
    if file.startswith(_PACKAGE):
        return "installed"
    if folder is None:
        return "nobody" if file.startswith(_PYTHON) else "user"
    return "nobody" if f"{folder}numpy{os.sep}" in file else "installed"


_REDUCTIONS = "mean sum prod amax amin max min argmax argmin var std norm logsumexp _softmax cumsum median any all"
_RANDOM = "rand randn rand_like randn_like bernoulli bernoulli_ normal normal_ uniform_ native_dropout multinomial"
_PRODUCTS = "mm addmm bmm baddbmm mv addmv dot convolution"
_PIECES = "__getitem__ select slice index gather cat stack unbind split narrow roll flip permute transpose t"
_REMAINDERS = "remainder fmod floor_divide"
_WRITES = "__setitem__ index_put index_put_ _index_put_impl_ masked_scatter_ masked_scatter scatter scatter_"
_UNKNOWN = (
    "is not an operation that kernels are made of; write it with arithmetic, exp, abs, clamp, where and comparisons"
)


def _advice() -> Dict[str, str]:
    groups = {
        _REDUCTIONS: "mixes neurons or samples, and a step must treat each neuron alone; compute it in a layer before",
        _RANDOM: "draws random numbers inside the step; draw them in a layer before the neuron and hand them in with x",
        _PRODUCTS: "has a weight between neurons inside the step; wrap the neuron: snn.Recurrent(neuron, connection)",
        _PIECES: "moves values between neurons; a step must treat each neuron alone and use whole tensors",
        _REMAINDERS: "takes a remainder, which torch corrects; write torch.floor(a / b) and a - b * torch.floor(a / b)",
        _WRITES: "writes into a part of a tensor; choose between two whole tensors: torch.where(mask, a, b)",
    }
    advice = {name: text for names, text in groups.items() for name in names.split()}
    reads = (
        "reads a tensor's value into Python (a branch on values, float(), .item(), numpy or tolist), which would "
        "freeze in the kernel; choose with torch.where(condition, a, b)"
    )
    return {**advice, **{name: reads for name in ("_local_scalar_dense", *READS)}}


_ADVICE = _advice()


def refused_operation(neuron: str, op: str, place: Optional[Place], why: Optional[str] = None) -> LoweringError:
    """The error for an operation that is not on the list. op: such as "aten.mean.dim".   why: and what to do instead,
    if that is not known by its name.
    """
    name = op.split(".")[1] if op.count(".") else op
    why = why or _ADVICE.get(name, _UNKNOWN)
    where = f"at {place}" if place is not None else "in the gradient of its step"
    return LoweringError(f"{neuron}.dynamics cannot be lowered: {name} ({op}) {where} {why}", place)


def untraceable(neuron: str, error: BaseException, place: Optional[Place], dtype: torch.dtype) -> LoweringError:
    """The error for a step that raised one of its own, or of torch's."""
    text = describe(error)
    where = f" at {place}" if place is not None else ""
    conditions = any(word in text.lower() for word in ("boolean", "bitwise", "not implemented for"))
    states = (
        f". States come in the input's type, here {dtype}, even where initial() makes conditions or whole numbers: "
        "keep a condition as 0 and 1, condition.to(x.dtype), and read it as `state[0] > 0`"
    )
    return LoweringError(
        f"{neuron}.dynamics cannot be traced{where}: {text}; it must be a function of whole tensors alone, and work "
        f"for an x of any shape [B, ...]{states if conditions else ''}",
        place,
    )
