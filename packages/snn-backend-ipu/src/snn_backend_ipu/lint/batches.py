"""What the length of the data means for the batches that the device takes."""

from typing import Optional

from snn_backend_ipu.lint.rules import Findings
from snn_core.specs import BatchSpec, TrainSpec

__all__ = ["check_batches"]


def check_batches(batch: BatchSpec, train: TrainSpec, samples: Optional[int], findings: Findings) -> None:
    """Hold the combined batch, which one call of the device takes, against the number of training samples.

    samples: None for unknown. That there are too few for one batch, core says for every backend.
    """
    combined = batch.size * train.accumulation * train.steps_per_call
    if samples is None or samples < combined or not samples % combined:
        return
    findings.add(
        "short-batch",
        None,
        f"the combined batch is {combined} samples (batch_size {batch.size} x accumulation {train.accumulation} x "
        f"steps_per_call {train.steps_per_call}) and the device takes no short one, so {samples % combined} of "
        f"{samples} samples are left out of each epoch",
    )
