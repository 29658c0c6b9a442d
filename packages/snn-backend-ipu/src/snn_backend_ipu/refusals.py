"""What compile refuses of a step and the options together, before poptorch is asked; lint says the same."""

from pathlib import Path
from typing import Callable, List, Tuple

from snn_backend_ipu.executors import require_executables
from snn_backend_ipu.layout import layout
from snn_backend_ipu.limits import require_one_replica, require_possible
from snn_backend_ipu.modules import require_stages
from snn_backend_ipu.nodes import count_nodes
from snn_backend_ipu.options import IpuOptions
from snn_core.errors import SnnError
from snn_core.specs import BatchSpec, TrainSpec
from snn_core.step import Step

__all__ = ["refusals"]


def refusals(step: Step, batch: BatchSpec, train: TrainSpec, options: IpuOptions) -> List[SnnError]:
    """All of it, each as the error that it is alone: ConfigError of the options, Unsupported of the model."""
    checks: Tuple[Callable[[], None], ...] = (
        lambda: require_possible(step.model),
        lambda: require_one_replica(step.model, layout(batch, train, options, training=True)),
        lambda: require_executables(None if options.executables is None else Path(options.executables)),
        lambda: _require_stages(step, batch, options),
    )
    found: List[SnnError] = []
    for check in checks:
        try:
            check()
        except SnnError as exc:
            found.append(exc)
    return found


def _require_stages(step: Step, batch: BatchSpec, options: IpuOptions) -> None:
    if not options.stages:
        return
    try:
        calls = count_nodes(step, batch).calls
    except Exception:  # the step itself fails, of which core and the rules tell with the line
        return
    require_stages(step.model, options.stages, calls)
