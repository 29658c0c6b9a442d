"""The trainer's settings: plain values, the same by keyword and in a configuration file's [train] section."""

from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Tuple

from snn_core.distributed.processes import TIMEOUT_S
from snn_core.errors import ConfigError
from snn_core.specs import TrainSpec

__all__ = ["MATHEMATICAL", "OF_THE_DEVICE", "Settings"]

MATHEMATICAL: Tuple[str, ...] = (
    "seed",
    "batch_size",
    "accumulation",
    "clip_norm",
    "clip_value",
    "precision",
    "steps_per_call",
    "chunk",
    "drop_last",
    "time_axis",
    "target_time_axis",
)
"""Settings that decide which weights a run ends with. A resumed run must keep them; the others may change."""

OF_THE_DEVICE: Tuple[str, ...] = ("precision", "steps_per_call", "drop_last")
"""Those of them in which devices differ: they may change too where a run goes on on another backend."""


@dataclass(frozen=True)
class Settings:
    """How a model is trained, in plain values. Raises ConfigError for a value out of range.

    seed: of the epochs' order, of dropout and of what a dataset draws; the model's first weights are the user's.
    batch_size: samples in a micro-batch.   accumulation: micro-batches whose gradients are averaged for one step.
    clip_norm, clip_value: bounds on the gradient's global 2-norm and on each element; None is none.
    precision: "fp32", "bf16" or "fp16".   steps_per_call: optimiser steps in one call of the device.
    chunk: time steps for each optimiser step (truncated back-propagation through time); None is the whole sequence.
    recompute_every: time steps between two states that training remembers, for long sequences; None remembers all.
    drop_last: leave out the last, short batch of a training epoch.
    deterministic: the same seed gives the same bits; may be slower.
    time_axis, target_time_axis: None, or 1 where a sample's x (target) has time first, `[T, ...]`; a configuration
    file has them in its [data] section.
    folder: where a run makes its folder; None writes nothing.   name: of the run's folder; None takes date and time.
    log_every: optimiser steps between two lines of the log; device values are read only then.
    checkpoint_every: optimiser steps between two checkpoints; there is one before the first step and after each epoch.
    timeout_s: how long the processes of a distributed run wait for one another.
    progress: show what happens.   plots: draw curves and a raster when the run ends.
    """

    seed: int = 0
    batch_size: int = 128
    accumulation: int = 1
    clip_norm: Optional[float] = None
    clip_value: Optional[float] = None
    precision: str = "fp32"
    steps_per_call: int = 1
    chunk: Optional[int] = None
    recompute_every: Optional[int] = None
    drop_last: bool = True
    deterministic: bool = False
    time_axis: Optional[int] = None
    target_time_axis: Optional[int] = None
    folder: Optional[str] = "runs"
    name: Optional[str] = None
    log_every: int = 50
    checkpoint_every: Optional[int] = None
    timeout_s: float = TIMEOUT_S
    progress: bool = True
    plots: bool = True

    def __post_init__(self) -> None:
        for name in ("batch_size", "log_every", "checkpoint_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} is {value}; it must be 1 or more")
        if not self.timeout_s > 0:
            raise ConfigError(f"timeout_s is {self.timeout_s}; it must be a number of seconds above 0")
        if not 0 <= self.seed < 2**63:
            raise ConfigError(f"seed is {self.seed}; it must be in [0, 2^63)")
        for name in ("time_axis", "target_time_axis"):
            if getattr(self, name) not in (None, 1):
                raise ConfigError(
                    f"{name} is {getattr(self, name)!r}; it must be None (no time) or 1 (a sample is [T, ...])"
                )
        self.train_spec()  # has the checks of what it holds
        for name in ("chunk", "recompute_every"):
            value = getattr(self, name)
            if value is not None and self.time_axis is None:
                raise ConfigError(
                    f"{name} is {value}, but x has no time that could be cut; give x as [T, ...] and set time_axis=1 "
                    "(in a configuration file under [data])"
                )
        if self.name is not None and (not self.name or Path(self.name).name != self.name):
            raise ConfigError(
                f"name is {self.name!r}; it must be one folder's name, without a path: set folder= for that"
            )

    @property
    def samples_per_batch(self) -> int:
        """Samples that one training call takes: all micro-batches of all its optimiser steps."""
        return self.batch_size * self.accumulation * self.steps_per_call

    def train_spec(self) -> TrainSpec:
        """What of this a device may have to fix at compile time."""
        return TrainSpec(
            accumulation=self.accumulation,
            clip_norm=self.clip_norm,
            clip_value=self.clip_value,
            precision=self.precision,
            steps_per_call=self.steps_per_call,
            chunk=self.chunk,
            recompute_every=self.recompute_every,
            drop_last=self.drop_last,
            deterministic=self.deterministic,
            seed=self.seed,
        )
