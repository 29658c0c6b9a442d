"""Why a step cannot be lowered: which operation, which line of the user's code, and what to do instead."""

import linecache
import os
import sys
from types import CodeType
from typing import Dict, NamedTuple, Optional, Tuple

import torch

from snn_core.errors import Unsupported

__all__ = ["LoweringError", "Place", "place_of_caller", "refused_operation"]

_SKIPPED = (os.path.dirname(torch.__file__) + os.sep, os.path.dirname(os.path.abspath(__file__)) + os.sep)


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

    skipped: how the names of files begin whose lines do not count: torch's and this package's.
    """
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not end:
        name = frame.f_code.co_filename
        if not name.startswith(skipped) and not name.startswith("<"):
            return Place(name, frame.f_lineno)
        if frame.f_back is None:
            break
        frame = frame.f_back
    return None


_REDUCTIONS = "mean sum prod amax amin max min argmax argmin var std norm logsumexp _softmax cumsum median any all"
_RANDOM = "rand randn rand_like randn_like bernoulli bernoulli_ normal normal_ uniform_ native_dropout multinomial"
_PRODUCTS = "mm addmm bmm baddbmm mv addmv dot convolution"
_PIECES = "select slice index gather cat stack unbind split narrow roll flip permute transpose t"
_REMAINDERS = "remainder fmod floor_divide"
_WRITES = "index_put index_put_ _index_put_impl_ masked_scatter_ masked_scatter scatter scatter_ copy_"
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
    advice["_local_scalar_dense"] = (
        "reads a tensor's value into Python (a branch on values, float() or .item()), which would freeze in the "
        "kernel; choose with torch.where(condition, a, b)"
    )
    return advice


_ADVICE = _advice()


def refused_operation(neuron: str, op: str, place: Optional[Place]) -> LoweringError:
    """The error for an operation that is not on the list. op: such as "aten.mean.dim"."""
    name = op.split(".")[1] if op.count(".") else op
    why = _ADVICE.get(name, _UNKNOWN)
    where = f"at {place}" if place is not None else "in the gradient of its step"
    return LoweringError(f"{neuron}.dynamics cannot be lowered: {name} ({op}) {where} {why}", place)
