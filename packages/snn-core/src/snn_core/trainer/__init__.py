"""Training: plan a run, compile it, carry it out, and tell those who listen."""

from snn_core.trainer.checkpointing import load_weights
from snn_core.trainer.early_stopping import EarlyStopping
from snn_core.trainer.logs import TensorBoard
from snn_core.trainer.run import Best, Run, RunResult
from snn_core.trainer.settings import Settings
from snn_core.trainer.trainer import Trainer

__all__ = ["Best", "EarlyStopping", "Run", "RunResult", "Settings", "TensorBoard", "Trainer", "load_weights"]
