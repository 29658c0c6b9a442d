"""One run: what was decided before its first step, where it stands, and how it ended."""

import contextlib
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, Optional, Tuple

import pluggy
import torch
from torch import nn

from snn_core.backend import Program
from snn_core.distributed import Processes
from snn_core.errors import ConfigError, NonFiniteError, nearest
from snn_core.losses import Loss
from snn_core.optimizers import Optimizer
from snn_core.schedules import Schedule
from snn_core.terms import Term
from snn_core.trainer.identity import identity, versions
from snn_core.trainer.settings import Settings
from snn_core.trainer.sums import REMEDY, Sums

__all__ = ["Best", "Plan", "Run", "RunResult", "best_of"]

Metrics = Dict[str, float]


@dataclass(frozen=True)
class Plan:
    """What a run does, fixed before its first step.

    measure_names, controls: of `Step`.   batches, steps: training batches, optimiser steps an epoch.
    processes: how many train together.
    """

    model: nn.Module
    loss: Loss
    terms: Tuple[Term, ...]
    measure_names: Tuple[str, ...]
    controls: Mapping[str, float]
    optimizer: Optimizer
    schedule: Optional[Schedule]
    settings: Settings
    backend: str
    device: str
    reason: str
    train: Any
    val: Any
    epochs: int
    batches: int
    steps: int
    processes: int = 1

    def lr(self, step: int) -> float:
        """The learning rate of the optimiser step that follows `step` earlier ones."""
        base = self.optimizer.lr
        return base if self.schedule is None else self.schedule.lr(step, self.epochs * self.steps, base)

    def identity(self) -> Dict[str, Any]:
        """What a run that goes on with this one must share with it."""
        return identity(
            self.model,
            self.settings,
            loss=self.loss,
            terms=self.terms,
            optimizer=self.optimizer,
            schedule=self.schedule,
            epochs=self.epochs,
            train=self.train,
            val=self.val,
        )

    def describe(self) -> Dict[str, Any]:
        """The plan as JSON values, for people and for settings.json."""
        return {
            "settings": asdict(self.settings),
            "epochs": self.epochs,
            "backend": self.backend,
            "device": self.device,
            "reason": self.reason,
            "processes": self.processes,
            "versions": versions(),
            "identity": self.identity(),
        }


@dataclass(frozen=True)
class Best:
    """The best epoch so far, by `metric`."""

    epoch: int
    metric: str
    value: float


@dataclass(frozen=True)
class RunResult:
    """How a run ended.

    folder: the run's, None where nothing was written.   epochs, steps: done in all, before a resume too.
    history: each epoch's metrics.   best: by validation accuracy, else validation loss, else training loss.
    stopped: why it ended before its last epoch, or None.   backend, reason: the device's name, and why it was taken.
    """

    folder: Optional[Path]
    epochs: int
    steps: int
    history: Tuple[Mapping[str, float], ...]
    best: Optional[Best]
    stopped: Optional[str]
    backend: str
    reason: str


@dataclass
class Run:
    """One run, as hooks see it. They may read all of it, and call `stop`, `on_exit` and `set_control`.

    folder: the run's, or None where this process writes nothing.   processes: those that train together, of which each
    has such a run and calls the same hooks with the same values; `processes.first` is true in one of them.
    epoch: from 1, the one that goes on or has just ended.   batch: batches done of it.
    step: optimiser steps done in all.   history: the metrics of each epoch that has ended.   lr: of the step done last.
    resumed: whether it goes on from a checkpoint.   stopped: why it ends early, or None.
    controls: the step's controls as they are now, "TERM.CONTROL" to number.
    """

    plan: Plan
    program: Program
    hooks: pluggy.PluginManager
    folder: Optional[Path] = None
    processes: Processes = field(default_factory=Processes)
    resumed: bool = False
    epoch: int = 1
    batch: int = 0
    step: int = 0
    lr: float = 0.0
    history: List[Metrics] = field(default_factory=list)
    stopped: Optional[str] = None
    controls: Dict[str, float] = field(init=False)
    sums: Sums = field(init=False)
    _exits: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _earlier_s: float = 0.0
    _started_s: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.controls = dict(self.plan.controls)
        self.begin_epoch()

    def begin_epoch(self) -> None:
        """Make ready to count the epoch that follows those in `history`."""
        self.batch = 0
        self.sums = Sums(self.plan.measure_names, f"step {{}} (epoch {len(self.history) + 1})")

    @property
    def model(self) -> nn.Module:
        """The user's model; it holds the run's weights at each epoch's end and when the run ends."""
        return self.plan.model

    @property
    def settings(self) -> Settings:
        return self.plan.settings

    @property
    def val(self) -> Any:
        """The validation data, or None."""
        return self.plan.val

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the whole run, unless it is stopped."""
        return self.plan.epochs * self.plan.steps

    @property
    def seconds(self) -> float:
        """Time that the run has taken, earlier parts of a resumed one included."""
        return self._earlier_s + time.monotonic() - self._started_s

    def stop(self, reason: str) -> None:
        """End training after this epoch. The first reason counts."""
        self.stopped = self.stopped or reason

    def set_control(self, name: str, value: float) -> None:
        """Set a control of a term, "TERM.CONTROL", for the steps that follow. Raises ConfigError for an unknown one."""
        if name not in self.controls:
            known = f"its controls are {', '.join(self.controls)}" if self.controls else "its terms have none"
            raise ConfigError(f"the run has no control {name!r}{nearest(name, self.controls)}; {known}")
        self.program.set_control(name, value)
        self.controls[name] = value

    @contextlib.contextmanager
    def agreeing(self) -> Iterator[None]:
        """Around hooks in several processes: what fails in one ends the run in all, a stop in one stops all, and
        controls are as the first process has them.
        """
        with self.processes.together():
            yield
        if self.processes.count == 1:
            return
        said = self.processes.gather((self.stopped, self.controls))
        self.stopped = next((stopped for stopped, _ in said if stopped is not None), None)
        for name, value in said[0][1].items():
            if value != self.controls[name]:
                self.set_control(name, value)

    def save(self) -> None:
        """Let the checkpoint be written, by the first process alone."""
        with self.processes.together():
            if self.processes.first:
                self.hooks.hook.snn_checkpoint(run=self)

    def on_exit(self, action: Callable[[], object]) -> None:
        """Call `action` when the run is left, however that happens."""
        self._exits.callback(action)

    def close(self) -> None:
        self._exits.close()

    def sync(self) -> None:
        """Copy the weights to the user's model, unless they are not finite. Raises NonFiniteError."""
        self._require_finite_weights(self.program.state_dict())
        self.program.sync()

    def state(self) -> Dict[str, Any]:
        """Everything that a checkpoint holds. Raises NonFiniteError where a loss or weight is NaN or infinite."""
        sums = self.sums.state()
        program = self.program.state_dict()
        self._require_finite_weights(program)
        return {
            "program": program,
            "loop": {
                "batch": self.batch,
                "step": self.step,
                "lr": self.lr,
                "history": [dict(metrics) for metrics in self.history],
                "stopped": self.stopped,
                "seconds": self.seconds,
                "sums": sums,
            },
            "plugins": self._plugin_states(),
            "identity": self.plan.identity(),
            "epochs": self.plan.epochs,
            "settings": asdict(self.settings),
            "backend": self.plan.backend,
            "versions": versions(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state()`; the plugins' part is handed out when the run starts."""
        self.program.load_state_dict(state["program"])
        self.controls = dict(state["program"]["controls"])
        loop = state["loop"]
        self.history = [dict(metrics) for metrics in loop["history"]]
        self.begin_epoch()
        self.epoch = min(len(self.history) + 1, self.plan.epochs)
        self.batch, self.step, self.lr = loop["batch"], loop["step"], loop["lr"]
        self.sums.restore(loop["sums"])
        # whoever asks for more epochs than the stopped run had wants it to go on
        self.stopped = loop["stopped"] if self.plan.epochs <= state["epochs"] else None
        self._earlier_s = loop["seconds"]
        self.resumed = True

    def result(self) -> RunResult:
        return RunResult(
            folder=self.folder,
            epochs=len(self.history),
            steps=self.step,
            history=tuple(self.history),
            best=best_of(self.history),
            stopped=self.stopped,
            backend=self.plan.backend,
            reason=self.plan.reason,
        )

    def _plugin_states(self) -> Dict[str, Any]:
        merged: Dict[str, Any] = {}
        for state in self.hooks.hook.snn_save_state(run=self):
            doubled = sorted(set(state) & set(merged))
            if doubled:
                raise ConfigError(f"two callbacks save their state under the key {doubled[0]!r}; give each its own key")
            merged.update(state)
        return merged

    def _require_finite_weights(self, program: Mapping[str, Any]) -> None:
        for name, parameter in self.model.named_parameters():
            # buffers are left out: a mask may well hold infinities
            weight = program["model"].get(name, parameter)
            if not bool(torch.isfinite(weight).all()):
                raise NonFiniteError(
                    f"weight {name!r} is not finite after step {self.step} (epoch {self.epoch}); {REMEDY}"
                )


def best_of(history: List[Metrics]) -> Optional[Best]:
    """The best epoch, the earlier of equals: by val_accuracy, else val_loss, else train_loss."""
    if not history:
        return None
    metric = next(name for name in ("val_accuracy", "val_loss", "train_loss") if name in history[-1])
    sign = 1.0 if metric == "val_accuracy" else -1.0
    values = [
        (sign * metrics.get(metric, -sign * float("inf")), -index) for index, metrics in enumerate(history, start=1)
    ]
    value, index = max(values)
    return Best(-index, metric, sign * value)
