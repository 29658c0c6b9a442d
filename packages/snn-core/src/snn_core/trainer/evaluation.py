"""What a program says of a dataset without learning from it."""

from typing import Any, Callable, Dict, List, Optional, Sequence

import torch
from torch import Tensor

from snn_core.backend import Program
from snn_core.trainer.sums import Sums

__all__ = ["evaluate", "predict"]


def evaluate(
    program: Program,
    dataset: Any,
    measure_names: Sequence[str],
    where: str = "batch {} of the evaluation",
    between: Optional[Callable[[], None]] = None,
) -> Dict[str, float]:
    """Loss, accuracy and measures over every sample. `between` is called after each batch and may raise."""
    sums = Sums(measure_names, where)
    for number, batch in enumerate(program.loader(dataset, range(len(dataset)), training=False), start=1):
        sums.add(program.eval_step(batch), number)
        if between is not None:
            between()
    return sums.metrics()


def predict(program: Program, dataset: Any, indices: Sequence[int]) -> Tensor:
    """The model's output for samples `indices`, in their order, on the CPU: `[T, N, ...]`."""
    outputs: List[Tensor] = []
    for batch in program.loader(dataset, indices, training=False):
        output = program.eval_step(batch).output
        if output is None:
            raise RuntimeError(f"{type(program).__name__}.eval_step must leave the output in its report; it is None")
        outputs.append(output.cpu())
    return torch.cat(outputs, dim=1)
