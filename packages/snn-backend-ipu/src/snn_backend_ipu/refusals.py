"""What compile refuses of a step and the options together, before poptorch is asked; lint says the same."""

from pathlib import Path
from typing import Callable, List, Optional, TypeVar

from snn_backend_ipu.executables import description, require_executables
from snn_backend_ipu.layout import layout
from snn_backend_ipu.limits import require_one_replica, require_possible
from snn_backend_ipu.loading import require_picklable
from snn_backend_ipu.modules import require_stages
from snn_backend_ipu.nodes import Nodes, count_nodes
from snn_backend_ipu.options import IpuOptions
from snn_backend_ipu.sharing import require_one_owner, shared_buffers
from snn_core.errors import SnnError
from snn_core.optimizers import Optimizer
from snn_core.specs import BatchSpec, TrainSpec
from snn_core.step import Step

__all__ = ["refusals"]

T = TypeVar("T")


def refusals(
    step: Step, optimizer: Optimizer, batch: BatchSpec, train: TrainSpec, options: IpuOptions
) -> List[SnnError]:
    """All of it, each as the error that it is alone: ConfigError of the options, Unsupported of the model."""
    found: List[SnnError] = []

    def held(check: Callable[[], T]) -> Optional[T]:
        try:
            return check()
        except SnnError as exc:
            found.append(exc)
            return None

    held(lambda: require_possible(step.model))
    held(lambda: require_picklable("the loss", step.loss, options))
    cuts = held(lambda: {training: layout(batch, train, options, training) for training in (True, False)})
    if cuts is not None:
        held(lambda: require_one_replica(step.model, cuts[True]))
    asked = options.stages or options.executables is not None or shared_buffers(step.model)
    nodes = _traced(step, batch) if asked else None
    if nodes is not None:
        held(lambda: require_stages(step.model, options.stages, nodes.calls))
        held(lambda: require_one_owner(step.model, nodes.written))
    if options.executables is not None:
        folder, described = Path(options.executables), None
        if cuts is not None and nodes is not None:
            described = held(lambda: description(step.model, nodes, batch, train, optimizer, options, cuts))
        held(lambda: require_executables(folder, described))
    return found


def _traced(step: Step, batch: BatchSpec) -> Optional[Nodes]:
    """None for a step that itself fails, of which core and the rules tell with the line."""
    try:
        return count_nodes(step, batch)
    except Exception:
        return None
