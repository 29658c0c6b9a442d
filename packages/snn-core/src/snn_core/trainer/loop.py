"""The training loop: epochs of steps, each followed by its validation, with the hooks between them."""

from typing import Any, Dict, Iterator, List, Optional

import torch

from snn_core.backend import Report
from snn_core.random_stream import derived_seed
from snn_core.trainer.evaluation import evaluate
from snn_core.trainer.run import Run
from snn_core.trainer.signals import Interrupted, Interrupts

__all__ = ["epoch_order", "train"]


def epoch_order(seed: int, epoch: int, samples: int) -> List[int]:
    """The order of an epoch's samples, a function of its arguments alone."""
    generator = torch.Generator().manual_seed(derived_seed(seed, epoch, "order"))
    return torch.randperm(samples, generator=generator).tolist()


def train(run: Run, interrupts: Interrupts) -> None:
    """Train from where `run` stands to its end. Raises Interrupted between two steps when a signal asks for it."""
    while len(run.history) < run.plan.epochs and run.stopped is None:
        _train_epoch(run, interrupts)
        _end_epoch(run, interrupts)


def _train_epoch(run: Run, interrupts: Interrupts) -> None:
    settings = run.settings
    run.epoch = len(run.history) + 1
    current: Optional[float] = None  # what the program has now is not known: it may have been resumed
    for batch in _batches(run, interrupts):
        run.lr = run.plan.lr(run.step)
        if run.lr != current:
            run.program.set_lr(run.lr)
            current = run.lr
        report = run.program.train_step(batch)
        before = run.step
        run.step += report.optimizer_steps
        run.batch += 1
        run.sums.add(report, run.step)
        if _passed(before, run.step, settings.log_every):
            _end_step(run, report)
        if settings.checkpoint_every is not None and _passed(before, run.step, settings.checkpoint_every):
            run.save()


def _passed(before: int, after: int, every: int) -> bool:
    """Whether a multiple of `every` lies in (before, after]: a call of the device may take several steps."""
    return before // every != after // every


def _batches(run: Run, interrupts: Interrupts) -> Iterator[Any]:
    """The batches that are left of this epoch. A signal ends them before the next step, in all processes before the
    same.
    """
    plan = run.plan
    with run.processes.together(Interrupted):
        loader = run.program.loader(
            plan.train,
            epoch_order(plan.settings.seed, run.epoch, len(plan.train)),
            training=True,
            start=run.batch,
            seed=derived_seed(plan.settings.seed, run.epoch, "samples"),
        )
    while True:
        with run.processes.together(Interrupted):
            batch = _next(loader, interrupts)
        if batch is None:
            return
        yield batch


def _next(loader: Iterator[Any], interrupts: Interrupts) -> Any:
    """The next batch, None after the last. Raises Interrupted where a signal arrived."""
    interrupts.check()
    try:
        return next(loader, None)
    except Exception as exc:
        # a reading process may have died of the very signal that this one is about to obey
        if interrupts.requested is not None:
            raise Interrupted(interrupts.requested) from exc
        raise


def _end_step(run: Run, report: Report) -> None:
    metrics: Dict[str, float] = {"epoch": run.epoch, "step": run.step, "lr": run.lr, **run.sums.last()}
    with run.agreeing():
        run.hooks.hook.snn_step_end(run=run, report=report, metrics=metrics)


def _end_epoch(run: Run, interrupts: Interrupts) -> None:
    metrics: Dict[str, float] = {"epoch": run.epoch, "step": run.step, "lr": run.lr}
    metrics.update({f"train_{name}": value for name, value in run.sums.metrics().items()})
    if run.val is not None:
        where = f"batch {{}} of the validation after epoch {run.epoch}"
        values = evaluate(run.program, run.val, run.plan.measure_names, where, interrupts.check, run.processes)
        metrics.update({f"val_{name}": value for name, value in values.items()})
    metrics["seconds"] = run.seconds
    run.sync()
    metrics = run.processes.broadcast(metrics)  # clocks differ, and decisions may hang on them
    run.history.append(metrics)
    with run.agreeing():
        run.hooks.hook.snn_epoch_end(run=run, metrics=metrics)
    run.begin_epoch()
    run.save()
