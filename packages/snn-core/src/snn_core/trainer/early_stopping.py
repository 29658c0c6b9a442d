"""Stopping a run that no longer gets better."""

from typing import TYPE_CHECKING, Any, Dict, Mapping, Optional

from snn_core._check import is_count, is_number
from snn_core.errors import ConfigError, nearest
from snn_core.hookspecs import hookimpl

if TYPE_CHECKING:
    from snn_core.trainer.run import Run

__all__ = ["EarlyStopping"]


class EarlyStopping:
    """A callback that ends training after `patience` epochs in a row without a better value of one metric.

    monitor: a key of the epoch's metrics, such as "val_loss" or "val_accuracy".   mode: what is better, "min" or "max";
    None takes "max" for accuracies and "min" for all else.   min_delta: by how much a better value must be better.
    Its counters are part of the checkpoint. Raises ConfigError for other settings, or where the metric does not exist.
    """

    def __init__(
        self, monitor: str = "val_loss", patience: int = 5, mode: Optional[str] = None, min_delta: float = 0.0
    ) -> None:
        if not is_count(patience):
            raise ConfigError(f"EarlyStopping.patience is {patience!r}; it must be a number of epochs, 1 or more")
        if mode not in ("min", "max", None):
            raise ConfigError(f"EarlyStopping.mode is {mode!r}; it must be 'min', 'max', or None to go by the name")
        if not is_number(min_delta) or min_delta < 0:
            raise ConfigError(f"EarlyStopping.min_delta is {min_delta!r}; it must be a finite number >= 0")
        self.monitor = monitor
        self.patience = patience
        self.mode = mode or ("max" if monitor.endswith("accuracy") else "min")
        self.min_delta = min_delta
        self._forget()

    def _forget(self) -> None:
        self.best: Optional[float] = None
        self.waited = 0

    @property
    def _key(self) -> str:
        return f"early_stopping.{self.monitor}"

    @hookimpl
    def snn_run_start(self, run: "Run") -> None:
        self._forget()

    @hookimpl
    def snn_epoch_end(self, run: "Run", metrics: Dict[str, float]) -> None:
        if self.monitor not in metrics:
            known = sorted(metrics)
            hint = "; give fit(val=...)" if self.monitor.startswith("val_") and run.val is None else ""
            raise ConfigError(
                f"EarlyStopping monitors {self.monitor!r}{nearest(self.monitor, known)}, which this run does not have; "
                f"it has {', '.join(known)}{hint}"
            )
        value = metrics[self.monitor]
        if self._is_better(value):
            self.best, self.waited = value, 0
            return
        self.waited += 1
        if self.waited >= self.patience:
            run.stop(f"early stopping: {self.monitor} was not better than {self.best:.6g} for {self.patience} epochs")

    def _is_better(self, value: float) -> bool:
        if self.best is None:
            return True
        gain = self.best - value if self.mode == "min" else value - self.best
        return gain > self.min_delta

    @hookimpl
    def snn_save_state(self, run: "Run") -> Mapping[str, Any]:
        return {self._key: {"best": self.best, "waited": self.waited}}

    @hookimpl
    def snn_load_state(self, run: "Run", state: Mapping[str, Any]) -> None:
        if self._key in state:
            self.best, self.waited = state[self._key]["best"], state[self._key]["waited"]
