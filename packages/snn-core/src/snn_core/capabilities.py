"""The one check of what a run asks for against what a backend declares; every backend calls it first in `compile`."""

from typing import TYPE_CHECKING, FrozenSet, List, Tuple

from snn_core.errors import Unsupported

if TYPE_CHECKING:
    from snn_core.backend import Backend
    from snn_core.optimizers import Optimizer
    from snn_core.specs import BatchSpec, TrainSpec
    from snn_core.step import Step

__all__ = ["require_declared", "require_distributed", "undeclared"]


def require_declared(
    backend: "Backend", step: "Step", optimizer: "Optimizer", batch: "BatchSpec", train: "TrainSpec"
) -> None:
    """Raise Unsupported, naming the feature and the remedy, for the first thing asked for that `backend` does not
    declare.
    """
    require_distributed(backend)
    for message, remedy in undeclared(backend, step, optimizer, batch, train):
        raise Unsupported(f"{message}; {remedy}")


def undeclared(
    backend: "Backend", step: "Step", optimizer: "Optimizer", batch: "BatchSpec", train: "TrainSpec"
) -> List[Tuple[str, str]]:
    """Everything asked for that `backend` does not declare: what it is, and what to do."""
    has = backend.capabilities
    found: List[Tuple[str, str]] = []

    def one_of(what: str, got: str, allowed: "FrozenSet[str]") -> None:
        if got not in allowed:
            found.append((f"backend {backend.name!r} has no {what} {got!r}", f"it has {', '.join(sorted(allowed))}"))

    def declared(asked: bool, name: str, feature: str, remedy: str) -> None:
        if asked and not getattr(has, name):
            found.append((f"backend {backend.name!r} does not support {feature}", remedy))

    def lacking(asked: bool, part: str, feature: str, remedy: str) -> None:
        if asked and part in has.lacks:
            found.append((f"backend {backend.name!r} does not support {feature}", remedy))

    one_of("optimizer", optimizer.name, has.optimizers)
    one_of("precision", train.precision, has.precisions)
    dtypes = {str(t.dtype).replace("torch.", "") for t in step.model.parameters()} | {batch.x.dtype}
    for dtype in sorted(d for d in dtypes if d.startswith(("float", "bfloat"))):
        one_of("dtype", dtype, has.dtypes)
    declared(step.recurrence, "recurrence", "weights inside the time loop", "use a network without recurrent layers")
    declared(step.random, "random", "random draws inside the step", "remove dropout and random encoders")
    declared(train.chunk is not None, "carried_state", "truncated back-propagation", "leave chunk unset")
    again = "forward computed again in backward"
    declared(train.recompute_every is not None, "recomputation", again, "leave recompute_every unset")
    declared(not train.drop_last, "ragged_batches", "a short last batch in training", "set drop_last=True")
    declared(train.accumulation > 1, "accumulation", "gradient accumulation", "set accumulation=1")
    clips = train.clip_norm is not None or train.clip_value is not None
    declared(clips, "clipping", "gradient clipping", "leave clip_norm and clip_value unset")
    lacking(train.clip_value is not None, "clip_value", "clipping by value", "use clip_norm")
    by_norm = train.clip_norm is not None and optimizer.name == "rmsprop"
    lacking(by_norm, "clip_norm of rmsprop", "clipping by norm with rmsprop", "use sgd, adam or adamw, or no clipping")
    lacking(getattr(optimizer, "nesterov", False), "nesterov", "Nesterov's momentum", "set nesterov=False")
    damped = bool(getattr(optimizer, "dampening", 0.0)) and bool(getattr(optimizer, "momentum", 0.0))
    lacking(damped, "dampening", "dampening, whose first step counts whole in torch", "set dampening=0.0")
    declared(train.steps_per_call > 1, "steps_per_call", "several optimiser steps in a call", "set steps_per_call=1")
    declared(train.deterministic, "deterministic", "deterministic training", "set deterministic=False")
    return found


def require_distributed(backend: "Backend") -> None:
    """Raise Unsupported where a launcher started several processes and `backend` does not train in them together."""
    from snn_core.distributed.processes import expected  # torch is imported when somebody compiles, not before

    count = expected()
    if count > 1 and not backend.capabilities.distributed:
        raise Unsupported(
            f"backend {backend.name!r} does not train in several processes, and WORLD_SIZE is {count}: each would "
            "train a model of its own; start one process, or choose a backend that declares `distributed`, as "
            "'eager' does"
        )
