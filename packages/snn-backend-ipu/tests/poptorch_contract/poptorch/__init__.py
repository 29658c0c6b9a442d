"""A contract fake of PopTorch 3.4: it keeps the rules that code written for IPUs must keep, and computes on the host.

It is a test double. Nothing that passes with it supports the claim that anything runs on an IPU: it knows nothing of
compile time, memory, throughput, the device's own arithmetic or several machines.
"""

import copy

from . import _contract, optim
from ._dataloader import AsynchronousDataAccessor, DataLoader
from ._errors import Error, RecoverableError, UnrecoverableError
from ._executor import VERSION, PoplarExecutor
from ._extras import read
from ._strategies import PipelinedExecution, ShardedExecution, Stage
from ._wrapping import is_wrapped
from .enums import (
    AutoStage,
    ConnectionType,
    DataLoaderMode,
    HalfFloatCastingBehavior,
    Liveness,
    MeanReductionStrategy,
    OutputMode,
    OverlapMode,
    ReductionType,
    SharingStrategy,
    SyncPattern,
)
from .ops import (
    CPU,
    BeginBlock,
    Block,
    BlockFunction,
    for_loop,
    identity_loss,
    ipu_print_tensor,
    isRunningOnIpu,
    nop,
    recomputationCheckpoint,
    removeBlocks,
    set_available_memory,
)
from .options import Options, TensorLocationSettings

__version__ = VERSION
# The real package has no such name: a check on hardware refuses what has it.
is_contract_fake = True

__all__ = [
    "CPU",
    "AsynchronousDataAccessor",
    "AutoStage",
    "BeginBlock",
    "Block",
    "BlockFunction",
    "ConnectionType",
    "DataLoader",
    "DataLoaderMode",
    "Error",
    "HalfFloatCastingBehavior",
    "Liveness",
    "MeanReductionStrategy",
    "Options",
    "OutputMode",
    "OverlapMode",
    "PipelinedExecution",
    "PoplarExecutor",
    "RecoverableError",
    "ReductionType",
    "ShardedExecution",
    "SharingStrategy",
    "Stage",
    "SyncPattern",
    "TensorLocationSettings",
    "UnrecoverableError",
    "for_loop",
    "identity_loss",
    "inferenceModel",
    "ipuHardwareIsAvailable",
    "ipuHardwareVersion",
    "ipu_print_tensor",
    "isRunningOnIpu",
    "load",
    "nop",
    "optim",
    "recomputationCheckpoint",
    "removeBlocks",
    "setLogLevel",
    "set_available_memory",
    "trainingModel",
]


def trainingModel(model, options=None, optimizer=None):
    """Wrap a model for training; it stays wrapped until `destroy`."""
    if isinstance(model, PoplarExecutor):
        model = model._user_model
    if is_wrapped(model):
        raise RuntimeError(
            "Model has already been wrapped in 'poptorch.trainingModel'. "
            "Call model.destroy() on the model to unwrap before wrapping again."
        )
    return PoplarExecutor(copy.copy(model), options, True, __version__, optimizer, model)


def inferenceModel(model, options=None):
    """Wrap a model for inference."""
    if isinstance(model, PoplarExecutor):
        model = model._user_model
    return PoplarExecutor(copy.copy(model), options, False, __version__)


def load(filename, edit_opts_fn=None):
    """Load a model that was exported with its executable."""
    content = read(filename, __version__)
    assert content["training"] is not None, f"{filename} was created with 'export_model=False'"
    options = content["options"].clone()
    if edit_opts_fn:
        edit_opts_fn(options)
    make = trainingModel if content["training"] else inferenceModel
    executor = make(content["model"], options)
    executor.loadExecutable(filename)
    return executor


def ipuHardwareIsAvailable(num_ipus=1):
    """Say whether there are so many IPUs; see `_contract.hardware`."""
    return _contract.hardware_version(num_ipus) != 0


def ipuHardwareVersion():
    """Return the version of the IPUs."""
    version = _contract.hardware_version()
    assert version != 0, "No IPU hardware available on this system"
    return version


def setLogLevel(level):
    """Set how much is logged."""
    levels = ("TRACE", "DEBUG", "INFO", "WARN", "ERR", "OFF")
    if isinstance(level, int) and not 0 <= level < 5:
        raise ValueError("Invalid log level integer")
    if isinstance(level, str) and level not in levels:
        raise ValueError(f"Unknown log level: {level}. Valid values are DEBUG, ERR, INFO, OFF, TRACE and WARN")
