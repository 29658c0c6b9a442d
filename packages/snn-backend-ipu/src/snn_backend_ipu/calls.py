"""Every call into poptorch and popdist, each with the names of its arguments in their order; nothing else imports them.

`CALLS` is the list, and it is what runs: `call` looks a function up in it and refuses an argument that it does not
name. `VALUES` lists the attributes that are read. Names and order are those of PopTorch 3.4's public Python sources; a
test holds them against the documented ones.
"""

import contextlib
import importlib
from typing import Any, Dict, Iterator, Tuple

from snn_backend_ipu.failures import ATTRIBUTES, translated

__all__ = ["CALLS", "VALUES", "call", "guarded", "read", "value", "write"]

_OPTIMIZER = ("params", "lr")
_ADAM = (*_OPTIMIZER, "betas", "eps", "weight_decay", "loss_scaling", "accum_type", "max_grad_norm")

CALLS: Dict[str, Tuple[str, ...]] = {
    # functions and classes of poptorch
    "BeginBlock": ("layer_to_call", "user_id", "ipu_id"),
    "DataLoader": (
        "options",
        "dataset",
        "batch_size",
        "shuffle",
        "num_workers",
        "drop_last",
        "auto_distributed_partitioning",
        "mode",
    ),
    "Options": (),
    "identity_loss": ("x", "reduction"),
    "inferenceModel": ("model", "options"),
    "ipuHardwareIsAvailable": ("num_ipus",),
    "ipuHardwareVersion": (),
    "trainingModel": ("model", "options", "optimizer"),
    "optim.Adam": _ADAM,
    "optim.AdamW": _ADAM,
    "optim.RMSprop": (*_OPTIMIZER, "alpha", "eps", "weight_decay", "momentum", "loss_scaling", "accum_type"),
    "optim.SGD": (
        *_OPTIMIZER,
        "momentum",
        "dampening",
        "weight_decay",
        "loss_scaling",
        "accum_type",
        "max_grad_norm",
    ),
    # methods of poptorch.Options
    "Options.Precision.enableFloatingPointExceptions": ("enabled",),
    "Options.Precision.enableStochasticRounding": ("enabled",),
    "Options.Precision.setPartialsType": ("dtype",),
    "Options.Training.accumulationAndReplicationReductionType": ("reduction_type",),
    "Options.Training.gradientAccumulation": ("gradient_accumulation",),
    "Options.Training.setAutomaticLossScaling": ("enabled",),
    "Options._Popart.set": ("key", "value"),
    "Options.autoRoundNumIPUs": ("auto_round_num_ipus",),
    "Options.broadcastBuffers": ("broadcast_buffers",),
    "Options.connectionType": ("connection_type",),
    "Options.deviceIterations": ("device_iterations",),
    "Options.enableExecutableCaching": ("path",),
    "Options.outputMode": ("output_mode",),
    "Options.randomSeed": ("random_seed",),
    "Options.replicationFactor": ("replication_factor",),
    "Options.setAvailableMemoryProportion": ("available_memory_proportion",),
    "Options.showCompilationProgressBar": ("show",),
    "Options.useIpuModel": ("use_model",),
    "Options.useOfflineIpuTarget": ("ipu_version",),
    # methods of an executor, which trainingModel and inferenceModel return
    "PoplarExecutor.attachToDevice": (),
    "PoplarExecutor.compile": ("args",),
    "PoplarExecutor.copyWeightsToDevice": (),
    "PoplarExecutor.copyWeightsToHost": (),
    "PoplarExecutor.destroy": (),
    "PoplarExecutor.detachFromDevice": (),
    "PoplarExecutor.isAttachedToDevice": (),
    "PoplarExecutor.isCompiled": (),
    "PoplarExecutor.loadExecutable": ("filename",),
    "PoplarExecutor.save": ("filename", "export_model", "save_rng_state"),
    "PoplarExecutor.setOptimizer": ("optimizer",),
    "PoplarExecutor.__call__": ("args",),
    # methods of an optimiser and of a loader
    "optim.Optimizer.load_state_dict": ("state",),
    "optim.Optimizer.state_dict": (),
    "optim.VariableAttributes.markAsVariable": ("attr",),
    "DataLoader.terminate": (),
    # popdist, which poprun starts processes with
    "popdist.getInstanceIndex": (),
    "popdist.getNumInstances": (),
    "popdist.getNumTotalReplicas": (),
    "popdist.isPopdistEnvSet": (),
    "popdist.poptorch.Options": ("ipus_per_replica",),
}

VALUES: Tuple[str, ...] = (
    "ConnectionType.OnDemand",
    "DataLoaderMode.Async",
    "DataLoaderMode.AsyncRebatched",
    "DataLoaderMode.Sync",
    "OutputMode.All",
    "ReductionType.Mean",
    "PoplarExecutor.rng_state",
    "__version__",
    "optim.Optimizer.variable_attrs",
    *ATTRIBUTES,
)
"""Attributes of poptorch that are read, the executor's `rng_state` written too."""

# what reaches the device, so that an error there is one of the device and not of what poptorch was given
_ON_DEVICE = (
    "PoplarExecutor.__call__",
    "PoplarExecutor.copyWeightsToDevice",
    "PoplarExecutor.copyWeightsToHost",
    "PoplarExecutor.destroy",
    "PoplarExecutor.detachFromDevice",
    "PoplarExecutor.rng_state",
    "optim.Optimizer.state_dict",
)

_METHODS = ("PoplarExecutor.", "Options.", "optim.Optimizer.", "optim.VariableAttributes.", "DataLoader.")


def call(name: str, *target: Any, **arguments: Any) -> Any:
    """Call the function `name` of `CALLS`, or on `target` the method; "args" is a tuple of a model's inputs.

    Raises a SnnError for what poptorch raises, and TypeError for an argument that the list does not name.
    """
    unknown = set(arguments) - set(CALLS[name])
    if unknown:
        raise TypeError(f"{name} is listed with the arguments {CALLS[name]}; got {sorted(unknown)}")
    inputs = arguments.pop("args", ())
    with guarded(running=name in _ON_DEVICE):
        function = _found(name, *target)
        return function(*inputs, **arguments)


def value(name: str) -> Any:
    """The attribute `name` of poptorch, one of `VALUES`."""
    path = _listed(name)
    with guarded():
        return _attribute(_poptorch(), path)


def read(name: str, target: Any) -> Any:
    """The property of an object, such as "PoplarExecutor.rng_state"."""
    attribute = _listed(name).rpartition(".")[2]
    with guarded(running=name in _ON_DEVICE):
        return getattr(target, attribute)


def write(name: str, target: Any, content: Any) -> None:
    """Set the property of an object, "PoplarExecutor.rng_state"."""
    attribute = _listed(name).rpartition(".")[2]
    with guarded(running=name in _ON_DEVICE):
        setattr(target, attribute, content)


@contextlib.contextmanager
def guarded(running: bool = False, loading: bool = False) -> Iterator[None]:
    """Give what poptorch raises inside the block its meaning: a SnnError that says what to do.

    running: the block executes a step, or moves what the device has.   loading: it reads a batch.
    """
    try:
        yield
    except Exception as exc:
        translation = translated(exc, running, loading)
        if translation is exc:
            raise
        raise translation from exc


def _listed(name: str) -> str:
    if name not in VALUES:
        raise KeyError(f"{name} is not listed in VALUES")
    return name


def _found(name: str, *target: Any) -> Any:
    if target:
        prefix = next(prefix for prefix in _METHODS if name.startswith(prefix))
        return _attribute(target[0], name[len(prefix) :])
    if not name.startswith("popdist."):
        return _attribute(_poptorch(), name)
    # popdist.poptorch is a module of its own
    module, _, function = name.rpartition(".")
    return getattr(importlib.import_module(module), function)


def _poptorch() -> Any:
    return importlib.import_module("poptorch")


def _attribute(start: Any, path: str) -> Any:
    for part in path.split("."):
        start = getattr(start, part)
    return start
