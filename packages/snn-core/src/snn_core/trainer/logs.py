"""The metric log: JSON lines in the run folder, and TensorBoard where it is asked for."""

import contextlib
import json
import math
from dataclasses import asdict
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Mapping

from snn_core.errors import ConfigError
from snn_core.hookspecs import hookimpl
from snn_core.trainer.folder import RunFolder, writing

if TYPE_CHECKING:
    from snn_core.trainer.run import Run, RunResult

__all__ = ["LOG", "SUMMARY", "JsonLog", "NumbersOnly", "TensorBoard", "read_log"]

LOG = "metrics.jsonl"
SUMMARY = "summary.json"


class NumbersOnly:
    """Holds what callbacks add to an epoch's metrics to plain numbers, before these are shown, logged and saved."""

    @hookimpl(trylast=True)
    def snn_epoch_end(self, run: "Run", metrics: Dict[str, float]) -> None:
        for name, value in metrics.items():
            if not isinstance(value, Real):
                raise ConfigError(
                    f"a callback put {name!r} = {value!r} ({type(value).__name__}) into the epoch's metrics; "
                    "it must be a number, since metrics are logged and saved: convert it with float(...)"
                )
            metrics[name] = int(value) if isinstance(value, Integral) else float(value)


class JsonLog:
    """Writes metrics.jsonl, a line at each `log_every` steps and each epoch, and summary.json when the run ends."""

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    @hookimpl(trylast=True)
    def snn_run_start(self, run: "Run") -> None:
        # a killed run logged more than its last checkpoint knows; those steps come again
        epochs, step = len(run.history), run.step
        self._folder.keep_lines(
            LOG, lambda line: line["epoch"] <= epochs if line["kind"] == "epoch" else line["step"] <= step
        )

    @hookimpl(trylast=True)
    def snn_step_end(self, run: "Run", metrics: Dict[str, float]) -> None:
        self._folder.append_line(LOG, {"kind": "step", **_plain(metrics)})

    @hookimpl(trylast=True)
    def snn_epoch_end(self, run: "Run", metrics: Dict[str, float]) -> None:
        self._folder.append_line(LOG, {"kind": "epoch", **_plain(metrics)})

    @hookimpl(trylast=True)
    def snn_run_end(self, run: "Run", result: "RunResult") -> None:
        self._folder.write_json(
            SUMMARY,
            {
                "epochs": result.epochs,
                "steps": result.steps,
                "seconds": run.seconds,
                "stopped": result.stopped,
                "backend": result.backend,
                "reason": result.reason,
                "best": None if result.best is None else asdict(result.best),
                "last": _plain(result.history[-1]) if result.history else {},
            },
        )


class TensorBoard:
    """A callback that writes the metrics for TensorBoard to RUN/tensorboard; needs the package `tensorboard`.

    Of several processes the first writes.

    Raises ConfigError at the run's start where that is not installed, or the run has no folder.
    """

    _writer: Any = None

    @hookimpl(trylast=True)
    def snn_run_start(self, run: "Run") -> None:
        if not run.processes.first:
            return
        if run.folder is None:
            raise ConfigError("TensorBoard() needs a run folder, and folder=None writes nothing; set folder='runs'")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as exc:
            raise ConfigError("TensorBoard() needs a package that is not installed: pip install tensorboard") from exc
        with writing(run.folder / "tensorboard"):
            # purge_step hides what a killed run wrote after the checkpoint from which this one goes on
            self._writer = SummaryWriter(
                str(run.folder / "tensorboard"), purge_step=run.step + 1 if run.resumed else None
            )
        run.on_exit(self._writer.close)

    @hookimpl(trylast=True)
    def snn_step_end(self, run: "Run", metrics: Dict[str, float]) -> None:
        self._write("step", metrics)

    @hookimpl(trylast=True)
    def snn_epoch_end(self, run: "Run", metrics: Dict[str, float]) -> None:
        self._write("epoch", metrics)
        if self._writer is not None:
            with writing("the TensorBoard log"):
                self._writer.flush()

    def _write(self, group: str, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            if self._writer is not None and name not in ("epoch", "step"):
                self._writer.add_scalar(f"{group}/{name}", value, int(metrics["step"]))


def read_log(folder: Path, kind: str) -> List[Dict[str, Any]]:
    """The lines of one kind, "step" or "epoch", that the run in `folder` has logged; a value that was not finite is
    None.
    """
    path = folder / LOG
    if not path.exists():
        return []
    return [line for line in _lines(path.read_text(encoding="utf-8")) if line["kind"] == kind]


def _lines(text: str) -> Iterator[Dict[str, Any]]:
    # a killed process leaves its last line half-written
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def _plain(metrics: Mapping[str, float]) -> Dict[str, Any]:
    # JSON has no NaN and no infinity
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}
