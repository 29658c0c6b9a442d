"""Reports of the rows that the device returned, one for each micro-batch: exact means, by what each value counts by."""

from typing import List, Optional

import torch
from torch import Tensor

from snn_core.backend import Report
from snn_core.step import Step

__all__ = ["report"]


def report(rows: Tensor, step: Step, classified: bool, steps: int, output: Optional[Tensor] = None) -> Report:
    """rows: `[n, k]` as `modules.numbers` has them. A row without a valid sample counts for nothing."""
    # a copy, for the device may write over its memory at the next call
    objective, loss, weight, samples, correct, *values = rows.clone().unbind(1)
    measures, penalties = values[: len(step.measure_names)], values[len(step.measure_names) :]
    real = samples > 0
    return Report(
        objective=_mean(objective, real.to(objective.dtype)),
        loss=_mean(loss, weight),
        weight=weight[real].sum(),
        samples=samples[real].sum(),
        correct=correct[real].sum() if classified else None,
        measures=_means(measures, samples),
        penalties=_means(penalties, real.to(samples.dtype)),
        output=output,
        optimizer_steps=steps,
    )


def _means(columns: List[Tensor], by: Tensor) -> List[Tensor]:
    return [_mean(column, by) for column in columns]


def _mean(values: Tensor, by: Tensor) -> Tensor:
    # where, not a product: a mean over no sample is NaN, and 0 * NaN is NaN
    kept = torch.where(by > 0, values * by, torch.zeros_like(values))
    total = by.sum()
    return kept.sum() / torch.where(total > 0, total, torch.ones_like(total))
