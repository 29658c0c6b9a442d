"""Checkpoints of a run: when they are written, how they are found and what they must fit."""

import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Union

from torch import nn

from snn_core import checkpoint
from snn_core.errors import CheckpointError, ConfigError
from snn_core.hookspecs import hookimpl
from snn_core.trainer.identity import require_same
from snn_core.trainer.run import best_of
from snn_core.trainer.settings import OF_THE_DEVICE

if TYPE_CHECKING:
    from snn_core.trainer.run import Plan, Run

__all__ = ["Checkpoints", "checkpoint_path", "load_weights", "read_checkpoint"]

PathLike = Union[str, "os.PathLike[str]"]


class Checkpoints:
    """Writes checkpoints/last.safetensors whenever a run asks for it, best.safetensors after each best epoch so far."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @hookimpl(trylast=True)
    def snn_checkpoint(self, run: "Run") -> None:
        state = run.state()
        best = best_of(run.history)
        if best is not None and best.epoch == len(run.history) and run.batch == 0:
            # first: a process killed between the two repeats the epoch, and writes the same file again
            checkpoint.save(checkpoint_path(self._folder, "best"), state, {"kind": "run"})
        checkpoint.save(checkpoint_path(self._folder, "last"), state, {"kind": "run"})


def checkpoint_path(folder: PathLike, which: str) -> Path:
    """Where a run folder keeps its checkpoint `which`, "last" or "best"."""
    return Path(folder) / "checkpoints" / f"{which}.safetensors"


def read_checkpoint(folder: PathLike, plan: "Plan") -> Dict[str, Any]:
    """Return the last state of the run in `folder`, for a run of this `plan`; warn of other settings of a device.

    Raises CheckpointError where there is none, it is damaged or of another model, ConfigError where settings differ.
    """
    path = checkpoint_path(folder, "last")
    state = _read(path)
    free = () if state["backend"] == plan.backend else OF_THE_DEVICE
    changed = require_same(state["identity"], plan.identity(), path, free)
    if changed:
        warnings.warn(
            f"{path} was saved on the backend {state['backend']!r} and goes on on {plan.backend!r} with other "
            f"settings: {'; '.join(changed)}; the weights become others than they would have there",
            UserWarning,
            stacklevel=2,
        )
    # at the same place of the epoch, in calls of another size
    steps, at_once = state["loop"]["batch"] * state["settings"]["steps_per_call"], plan.settings.steps_per_call
    if steps % at_once:
        raise ConfigError(
            f"{path} stands {steps} optimiser steps into an epoch, and steps_per_call is {at_once}; set it to "
            f"a divisor of {steps}"
        )
    state["loop"]["batch"] = steps // at_once
    return state


def load_weights(model: nn.Module, source: PathLike, which: str = "best") -> None:
    """Copy trained weights into `model`. source: a run folder, whose checkpoint `which` is "best" or "last"; or a file.

    Raises CheckpointError where there is none, it is damaged, or it belongs to another model.
    """
    path = checkpoint_path(source, which) if Path(source).is_dir() else Path(source)
    weights = _read(path)["program"]["model"]
    try:
        model.load_state_dict(weights)
    except RuntimeError as exc:
        raise CheckpointError(f"{path} belongs to another model: {exc}; build the model as in that run") from exc


def _read(path: Path) -> Dict[str, Any]:
    state, meta = checkpoint.load(path)
    if meta.get("kind") != "run":
        raise CheckpointError(
            f"{path} is no training run's checkpoint; give RUN/checkpoints/last.safetensors of a run folder RUN"
        )
    return dict(state)
