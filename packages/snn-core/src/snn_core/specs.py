"""What a backend must know at compile time: the batch's shapes and the training options that a device may have to
fix.
"""

from dataclasses import dataclass
from typing import Optional, Tuple

from snn_core.errors import ConfigError

__all__ = ["BatchSpec", "TensorSpec", "TrainSpec"]


@dataclass(frozen=True)
class TensorSpec:
    """One tensor of a batch. `shape` is one sample's, `dtype` torch's name for it ("float32", "int64").

    `time_axis` is None for a sample without time, or 1: the batch is `[B, T, ...]` at the boundary and
    `[T, B, ...]` inside the model.
    """

    shape: Tuple[int, ...]
    dtype: str
    time_axis: Optional[int] = None

    def __post_init__(self) -> None:
        if self.time_axis not in (None, 1):
            raise ConfigError(f"time_axis is {self.time_axis!r}; it must be None (no time) or 1 (batch, then time)")
        if self.time_axis == 1 and not self.shape:
            raise ConfigError("a tensor with a time axis needs samples of rank 1 or more; got scalars")


@dataclass(frozen=True)
class BatchSpec:
    """The batch that a program is compiled for: `size` samples in each micro-batch; `x` and `target` of one sample."""

    size: int
    x: TensorSpec
    target: TensorSpec

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"the batch size is {self.size}; it must be 1 or more")


@dataclass(frozen=True)
class TrainSpec:
    """What a device may have to fix at compile time.

    accumulation: micro-batches for each optimiser step; their gradients are averaged.
    clip_norm, clip_value: bounds on the gradient's global 2-norm and on each element, after averaging.
    precision: "fp32", "bf16" or "fp16" for weights' products; neuron states stay float32.
    steps_per_call: optimiser steps in one call of the device.
    chunk: time steps for each optimiser step under truncated back-propagation through time; None is the whole sequence.
    recompute_every: time steps between two states that training remembers; all between is computed again in backward.
    None remembers everything.
    drop_last: leave out the last, short batch of a training epoch, so that every device sees the same batches.
    deterministic: the same seed gives the same bits; slower algorithms are allowed, non-deterministic ones are not.
    """

    accumulation: int = 1
    clip_norm: Optional[float] = None
    clip_value: Optional[float] = None
    precision: str = "fp32"
    steps_per_call: int = 1
    chunk: Optional[int] = None
    recompute_every: Optional[int] = None
    drop_last: bool = True
    deterministic: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("accumulation", "steps_per_call"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 1 or more")
        for name in ("clip_norm", "clip_value", "chunk", "recompute_every"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} is {value}; it must be positive, or None for none")
        if self.precision not in ("fp32", "bf16", "fp16"):
            raise ConfigError(f"precision is {self.precision!r}; it must be 'fp32', 'bf16' or 'fp16'")
