"""What a program says of a dataset without learning from it."""

from typing import Any, Callable, Dict, List, Optional, Sequence

import torch
from torch import Tensor

from snn_core.backend import Program
from snn_core.distributed import Processes, share
from snn_core.trainer.signals import Interrupted
from snn_core.trainer.sums import Sums, combined

__all__ = ["evaluate", "predict"]

_ALONE = Processes()


def evaluate(
    program: Program,
    dataset: Any,
    measure_names: Sequence[str],
    where: str = "batch {} of the evaluation",
    between: Optional[Callable[[], None]] = None,
    processes: Processes = _ALONE,
) -> Dict[str, float]:
    """Loss, accuracy and measures over every sample, of which each process takes its share.

    `between` is called after each batch and may raise.
    """
    sums = Sums(measure_names, where)
    mine = share(len(dataset), processes.rank, processes.count)
    with processes.together(Interrupted):
        for number, batch in enumerate(program.loader(dataset, mine, training=False), start=1):
            sums.add(program.eval_step(batch), number)
            if between is not None:
                between()
        sums.fold()
    # on every host the same numbers, added up in the same order
    sums.restore(combined(processes.gather(sums.state())))
    return sums.metrics()


def predict(program: Program, dataset: Any, indices: Sequence[int], processes: Processes = _ALONE) -> Tensor:
    """The model's output for samples `indices`, in their order, on the CPU: `[T, N, ...]`; whole in every process."""
    outputs: List[Tensor] = []
    mine = [indices[i] for i in share(len(indices), processes.rank, processes.count)]
    with processes.together():
        for batch in program.loader(dataset, mine, training=False):
            output = program.eval_step(batch).output
            if output is None:
                raise RuntimeError(
                    f"{type(program).__name__}.eval_step must leave the output in its report; it is None"
                )
            outputs.append(output.cpu())
    return torch.cat([output for part in processes.gather(outputs) for output in part], dim=1)
