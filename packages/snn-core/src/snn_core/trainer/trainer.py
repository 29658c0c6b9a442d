"""The trainer: it plans a run, hands the step to a backend, and lets the hooks do the rest."""

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import pluggy
from torch import Tensor, nn

from snn_core import choosing, registry
from snn_core._check import is_count
from snn_core.backend import Backend, Finding, Program
from snn_core.capabilities import require_distributed
from snn_core.data.checks import sample_spec
from snn_core.distributed import Processes, is_lost, join
from snn_core.errors import (
    ConfigError,
    DataError,
    DeviceError,
    NonFiniteError,
    RunFolderError,
    SnnError,
    TrainingInterrupted,
)
from snn_core.losses import as_loss
from snn_core.optimizers import Adam, Optimizer
from snn_core.options import from_mapping
from snn_core.plugins import plugin_manager
from snn_core.schedules import Schedule
from snn_core.specs import BatchSpec
from snn_core.step import Step
from snn_core.terms import Term
from snn_core.trainer import evaluation, loop
from snn_core.trainer.checkpointing import Checkpoints
from snn_core.trainer.folder import RunFolder
from snn_core.trainer.identity import differences
from snn_core.trainer.logs import JsonLog, NumbersOnly
from snn_core.trainer.place import Resume, opened
from snn_core.trainer.plots import Plots
from snn_core.trainer.progress import ProgressBar
from snn_core.trainer.run import Plan, Run, RunResult
from snn_core.trainer.settings import Settings
from snn_core.trainer.signals import Interrupted, Interrupts

__all__ = ["Trainer"]

_ADAM = Adam()
_OURS = ("accuracy", "epoch", "loss", "lr", "penalty", "seconds", "step")


class _Device(NamedTuple):
    """A backend, what its probe found, and why it was taken."""

    backend: Backend
    detail: str
    reason: str


class Trainer:
    """Trains one model with one loss on one device, and evaluates it there.

    model: maps `[B, ...]` (with an encoder in it) or `[T, B, ...]` to `[T, B, ...]`.
    loss: a loss such as `CountCrossEntropy()`, or a function (output, target) -> `[B]`.
    backend: a name, "auto" for the best ready one, or a Backend object with options of its own.
    terms: what is measured and penalised beside the loss.   schedule: of the learning rate; None keeps it.
    callbacks: objects with hooks, called in this order, before the trainer's own (log, checkpoints, progress, plots).
    settings: the fields of `Settings` by keyword: seed, batch_size, accumulation, clip_norm, chunk, folder, …
    Raises ConfigError for a setting that is unknown or out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        loss: Any,
        optimizer: Optimizer = _ADAM,
        backend: Union[str, Backend] = "auto",
        terms: Iterable[Term] = (),
        schedule: Optional[Schedule] = None,
        callbacks: Iterable[object] = (),
        **settings: Any,
    ) -> None:
        if settings.get("folder") is not None:
            settings["folder"] = os.fspath(settings["folder"])
        self.model = model
        self.loss = as_loss(loss)
        self.optimizer = _of_kind("optimizer", optimizer, Optimizer, "snn.Adam(lr=1e-3)")
        self.schedule = (
            None if schedule is None else _of_kind("schedule", schedule, Schedule, "snn.CosineDecay(), or None")
        )
        self.terms: Tuple[Term, ...] = tuple(terms)
        self.callbacks: Tuple[object, ...] = tuple(callbacks)
        self.settings = from_mapping(Settings, settings, "Trainer")
        self._asked: Union[str, Backend] = _of_kind(
            "backend", backend, (str, Backend), "'auto', a name or a Backend object"
        )
        self._device: Optional[_Device] = None
        for term in self.terms:
            if term.name in _OURS:
                raise ConfigError(
                    f"a term is named {term.name!r}, which the trainer's metrics use; give it another name"
                )

    def fit(self, train: Any, val: Any = None, *, epochs: int, resume: Resume = None) -> RunResult:
        """Train for `epochs` epochs in all and leave the weights in the model.

        train, val: map-style datasets of (x, target).   resume: the folder of a run to go on with; what decides the
        weights (model, optimiser, loss, settings, numbers of samples) must be as it was; on another backend precision,
        steps_per_call and drop_last may change, with a warning. In deterministic mode the run
        then ends with the weights, bit for bit, of one never interrupted. True is the run of this `name`: it goes on
        from its last checkpoint, and begins where there is none yet, as a launcher that restarts needs it.

        Ctrl-C and SIGTERM end the step, save, and raise TrainingInterrupted. Raises DataError, ConfigError,
        Unsupported, CheckpointError and RunFolderError for what cannot be used, NonFiniteError for a loss of NaN, and
        DeviceError where the device fails, once what can be saved is saved.
        ProcessFailed in a process that another one let down.
        """
        with self._joined() as processes:
            with processes.together():
                spec, step = self._spec(train), self._step()
                plan = self._plan(train, val, spec, epochs, step, processes.count)
                manager = plugin_manager(self.callbacks)
            _require_one_plan(plan, processes)
            with contextlib.ExitStack() as stack:
                place = stack.enter_context(opened(plan, resume, processes))
                program = stack.enter_context(self._compile(step, spec))
                run = Run(plan, program, manager, None if place.folder is None else place.path, processes)
                if place.saved is not None:
                    run.restore(place.saved)
                self._register_own(manager, place.folder, processes)
                result = _carry_out(run, place.saved, place.folder)
        return replace(result, folder=place.path)

    def evaluate(self, data: Any) -> Dict[str, float]:
        """Return "loss", "accuracy" where the loss has one, and what the terms measure, over every sample of `data`."""
        step = self._step()
        with self._joined() as processes, self._compile(step, self._spec(data)) as program:
            return evaluation.evaluate(program, data, step.measure_names, processes=processes)

    def predict(self, data: Any) -> Tensor:
        """Return the model's output `[T, N, ...]` for every sample of `data`, in its order, on the CPU."""
        with self._joined() as processes, self._compile(self._step(), self._spec(data)) as program:
            return evaluation.predict(program, data, range(len(data)), processes)

    @contextlib.contextmanager
    def _joined(self) -> Iterator[Processes]:
        """The processes that work on this together; what ends one of them alone, the others come to know."""
        backend = self._backend().backend
        require_distributed(backend)
        processes = join(backend.collectives, self.settings.timeout_s)
        try:
            yield processes
        except (NonFiniteError, TrainingInterrupted):  # seen by all of them
            raise
        except BaseException as exc:
            if processes.count > 1 and is_lost(exc):
                failure = processes.lost(exc)
                processes.part(failure)
                raise failure from exc
            processes.part(exc)
            raise

    def lint(self, train: Any) -> Sequence[Finding]:
        """Say what the backend would refuse, or do otherwise than the reference, in a run on the data `train`.

        Runs on the host: of the device neither driver nor library is needed, unless the backend is "auto".
        """
        return self._unready().lint(
            self._step(), self.optimizer, self._spec(train), self.settings.train_spec(), len(train)
        )

    def _unready(self) -> Backend:
        """The backend, whether its device is here or not."""
        if self._device is None and isinstance(self._asked, Backend):
            return self._asked
        if self._device is None and self._asked != "auto":
            return registry.load(str(self._asked))
        return self._backend().backend

    def _backend(self) -> "_Device":
        """The device, chosen once."""
        if self._device is None:
            if self._asked == "auto":
                backend, reason = choosing.auto()
            else:
                backend = registry.load(self._asked) if isinstance(self._asked, str) else self._asked
                reason = backend.reason
            self._device = _Device(backend, registry.require_ready(backend).detail, reason)
        return self._device

    def _spec(self, data: Any) -> BatchSpec:
        x, target = sample_spec(data, self.settings.time_axis, self.settings.target_time_axis)
        return BatchSpec(self.settings.batch_size, x, target)

    def _step(self) -> Step:
        return Step(self.model, self.loss, self.terms)

    def _compile(self, step: Step, spec: BatchSpec) -> Program:
        return self._backend().backend.compile(step, self.optimizer, spec, self.settings.train_spec())

    def _plan(self, train: Any, val: Any, spec: BatchSpec, epochs: int, step: Step, processes: int) -> Plan:
        if not is_count(epochs):
            raise ConfigError(f"epochs is {epochs!r}; it must be an integer of 1 or more")
        settings = self.settings
        batches = self._batches(len(train))
        if val is not None:
            _require_alike(spec, self._spec(val))
        device = self._backend()
        chunks = 1 if settings.chunk is None else -(-spec.x.shape[0] // settings.chunk)
        return Plan(
            model=self.model,
            loss=self.loss,
            terms=self.terms,
            measure_names=step.measure_names,
            controls=step.controls,
            optimizer=self.optimizer,
            schedule=self.schedule,
            settings=settings,
            backend=device.backend.name,
            device=device.detail if processes == 1 else f"{device.detail}; {processes} processes",
            reason=device.reason,
            train=train,
            val=val,
            epochs=epochs,
            batches=batches,
            steps=batches * settings.steps_per_call * chunks,
            processes=processes,
        )

    def _batches(self, samples: int) -> int:
        settings, size = self.settings, self.settings.samples_per_batch
        if settings.drop_last and samples < size:
            factors = {name: getattr(settings, name) for name in ("batch_size", "accumulation", "steps_per_call")}
            product = " x ".join(f"{name} {factor}" for name, factor in factors.items() if factor > 1)
            raise DataError(
                f"the training data has {samples} samples, fewer than the {size} of one batch ({product}), and "
                "drop_last=True leaves out short batches: lower these, or set drop_last=False"
            )
        return samples // size if settings.drop_last else -(-samples // size)

    def _register_own(self, manager: pluggy.PluginManager, folder: Optional[RunFolder], processes: Processes) -> None:
        """The trainer's own listeners, in the order in which they are called, after all others."""
        own: List[object] = [NumbersOnly()]
        own += [ProgressBar()] if self.settings.progress and processes.first else []
        if folder is not None:
            own += [JsonLog(folder), Checkpoints(folder.path)]
            own += [Plots(folder.path)] if self.settings.plots else []
        for plugin in own:
            manager.register(plugin, type(plugin).__name__)


def _carry_out(run: Run, saved: Optional[Mapping[str, Any]], folder: Optional[RunFolder]) -> RunResult:
    """Train, with signals caught and hooks told, and leave model and folder as they should be however it ends."""
    hook = run.hooks.hook
    with Interrupts(run.processes.count) as interrupts, contextlib.closing(run):
        try:
            with run.agreeing():
                hook.snn_run_start(run=run)
                if folder is not None:
                    folder.write_json("settings.json", run.plan.describe())
                if saved is not None:
                    hook.snn_load_state(run=run, state=saved["plugins"])
            if saved is None:
                run.save()
            loop.train(run, interrupts)
            run.sync()
            result = run.result()
            with run.agreeing():
                hook.snn_run_end(run=run, result=result)
        except Interrupted as exc:
            raise _interruption(run, str(exc)) from None
        except RunFolderError:
            run.sync()  # the disk is gone, the training is not
            raise
        except DeviceError as exc:
            raise _failure(run, exc) from exc
    if interrupts.requested is not None:
        raise TrainingInterrupted(f"{interrupts.requested} arrived when training had ended; nothing of it is lost")
    return result


def _interruption(run: Run, signal: str) -> TrainingInterrupted:
    run.sync()
    run.save()
    where = f"interrupted by {signal} after step {run.step} (epoch {run.epoch} of {run.plan.epochs})"
    folder = run.processes.broadcast(run.folder)
    if folder is None:
        return TrainingInterrupted(
            f"{where}; the model holds the weights of that step; folder=None saved nothing to resume"
        )
    return TrainingInterrupted(f"{where}; the state is saved; go on with {_ways_on(folder)}")


def _failure(run: Run, error: DeviceError) -> DeviceError:
    """The device's error, with what was saved and how to go on; what the device still gives away is saved first."""
    where = f"{error}; it happened after step {run.step} (epoch {run.epoch} of {run.plan.epochs})"
    try:
        run.sync()
        run.hooks.hook.snn_checkpoint(run=run)
        given = True
    except SnnError:  # the device keeps its weights: what was saved before is what there is
        given = False
    held = "the model holds the weights of that step" if given else "the device did not give its weights back"
    if run.folder is None:
        text = f"{where}; {held}; folder=None saved nothing to resume"
        return DeviceError(text, recoverable=False, action=error.action)
    saved = "the state is saved" if given else "the checkpoint before that stands"
    then = f"; go on with {_ways_on(run.folder)}" if error.recoverable else ""
    return DeviceError(f"{where}; {held}; {saved}{then}", recoverable=error.recoverable, action=error.action)


def _ways_on(folder: Path) -> str:
    ways = [f"fit(..., resume={str(folder)!r})"]
    if (folder / "config.toml").exists():  # what the command needs to build the model
        ways.insert(0, f"`snn resume {folder}`")
    return " or ".join(ways)


def _require_one_plan(plan: Plan, processes: Processes) -> None:
    """Processes that do not do the same would wait for one another for ever."""
    if processes.count == 1:
        return
    settings = plan.settings
    mine = {name: getattr(settings, name) for name in ("log_every", "checkpoint_every", "deterministic")}
    identity = plan.identity()
    mine = {**mine, "backend": plan.backend, "epochs": plan.epochs, **identity["run"], **identity["model"]}
    first, *others = processes.gather(mine)
    with processes.together():
        for rank, other in enumerate(others, start=1):
            changed = differences(first, other)
            if changed:
                raise ConfigError(
                    f"process {rank} of {processes.count} was started otherwise than the first: "
                    f"{'; '.join(changed[:3])} there; start all with the same program, settings and data"
                )


def _require_alike(train: BatchSpec, val: BatchSpec) -> None:
    """The first validation comes after an epoch: validation data that does not fit must not wait so long."""
    for part in ("x", "target"):
        one, other = getattr(train, part), getattr(val, part)
        if one != other:
            raise DataError(
                f"a sample's {part} is {other.dtype}{list(other.shape)} in the validation data and "
                f"{one.dtype}{list(one.shape)} in the training data; they must agree: prepare both datasets alike"
            )


def _of_kind(name: str, value: Any, kind: Any, example: str) -> Any:
    if not isinstance(value, kind):
        raise ConfigError(f"{name} is {value!r}; it must be such as {example}")
    return value
