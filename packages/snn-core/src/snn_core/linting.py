"""What every backend can tell of a step without its device: what is undeclared, and whether the step runs at all."""

import os
from types import TracebackType
from typing import TYPE_CHECKING, List, Optional, Tuple

import torch

from snn_core._entry_points import describe
from snn_core.backend import Finding
from snn_core.capabilities import undeclared
from snn_core.errors import SnnError

if TYPE_CHECKING:
    from snn_core.backend import Backend
    from snn_core.optimizers import Optimizer
    from snn_core.pieces import Prepare
    from snn_core.specs import BatchSpec, TrainSpec
    from snn_core.step import Step

__all__ = ["failure", "lint_step"]

NOT_THE_USERS = (os.path.dirname(torch.__file__) + os.sep, os.path.dirname(os.path.abspath(__file__)) + os.sep, "<")
"""How the names of files begin that are not the user's code: torch's, core's and generated ones."""


def lint_step(
    backend: "Backend",
    step: "Step",
    optimizer: "Optimizer",
    batch: "BatchSpec",
    train: "TrainSpec",
    samples: Optional[int] = None,
    prepare: "Optional[Prepare]" = None,
) -> List[Finding]:
    """What any backend would say: features it does not declare, too few samples, and a step that fails on the host.

    samples: how many the training data has, None for unknown.   prepare: as in `Step.validate`.
    """
    found = [Finding("undeclared", *said) for said in undeclared(backend, step, optimizer, batch, train)]
    whole = batch.size * train.accumulation * train.steps_per_call
    if samples is not None and samples < whole and train.drop_last:
        found.append(
            Finding(
                "short-batch",
                f"the training data has {samples} samples, fewer than the {whole} of one batch (batch_size "
                f"{batch.size} x accumulation {train.accumulation} x steps_per_call {train.steps_per_call})",
                "lower these, or give more data",
            )
        )
    try:
        step.validate(batch, train.chunk, train.recompute_every, prepare)
    except Exception as exc:
        found.append(failure(exc))
    return found


def failure(exc: Exception, skipped: Tuple[str, ...] = NOT_THE_USERS) -> Finding:
    """A step that raised `exc` on the host: an error in the code or its use, whatever the device. The line is the
    innermost of the user's: of a file whose name begins with none of `skipped`.
    """
    place = _innermost(_first(exc).__traceback__, skipped)
    file, line = place if place is not None else (None, None)
    if isinstance(exc, SnnError):
        return Finding("refused", str(exc), "mend this first: no backend takes it", file, line)
    return Finding(
        "forward-fails",
        f"the step itself fails, on every device: {describe(exc)}",
        "mend this first; what else the device would refuse shows once the step runs",
        file,
        line,
    )


def _first(exc: BaseException) -> BaseException:
    """What an error of ours was made of, else `exc` itself."""
    while isinstance(exc, SnnError) and exc.__cause__ is not None:
        exc = exc.__cause__
    return exc


def _innermost(trace: Optional[TracebackType], skipped: Tuple[str, ...]) -> Optional[Tuple[str, int]]:
    place = None
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if not name.startswith(skipped):
            place = (name, trace.tb_lineno)
        trace = trace.tb_next
    return place
