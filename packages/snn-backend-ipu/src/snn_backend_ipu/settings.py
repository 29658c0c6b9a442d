"""IpuOptions and TrainSpec as poptorch's Options: one object for training, one for evaluation, each frozen on use."""

from typing import Any

import torch

from snn_backend_ipu.calls import call, value
from snn_backend_ipu.layout import Layout
from snn_backend_ipu.options import IpuOptions
from snn_core.specs import TrainSpec

__all__ = ["make_settings"]

# the values of PopART's RecomputationType
_RECOMPUTATION = {"none": 0, "standard": 1, "norm_only": 2, "pipeline": 3, "all": 4}


def make_settings(options: IpuOptions, train: TrainSpec, cut: Layout, training: bool) -> Any:
    """poptorch's Options for one executor."""
    if options.popdist:
        # it sets replicationFactor and the place among the processes itself, and forbids both to us
        made = call("popdist.poptorch.Options", ipus_per_replica=options.ipus)
    else:
        made = call("Options")
        call("Options.replicationFactor", made, replication_factor=cut.replicas)
    call("Options.deviceIterations", made, device_iterations=cut.iterations)
    # the value of every micro-batch: the mean over them is ours to take, by their weights
    call("Options.outputMode", made, output_mode=value("OutputMode.All"))
    # it sets torch's own seed too: callers keep the process's random numbers
    call("Options.randomSeed", made, random_seed=train.seed)
    call("Options.showCompilationProgressBar", made, show=options.progress_bar)
    _place(made, options, cut)
    _precise(made, options)
    if training:
        call("Options.Training.gradientAccumulation", made, gradient_accumulation=cut.accumulation)
        call(
            "Options.Training.accumulationAndReplicationReductionType",
            made,
            reduction_type=value("ReductionType.Mean"),
        )
        if options.automatic_loss_scaling:
            call("Options.Training.setAutomaticLossScaling", made, enabled=True)
        if options.recomputation != "default":
            number = _RECOMPUTATION[options.recomputation]
            call("Options._Popart.set", made, key="autoRecomputation", value=number)
    return made


def _place(made: Any, options: IpuOptions, cut: Layout) -> None:
    """Where it compiles and runs."""
    if options.ipu_model:
        call("Options.useIpuModel", made, use_model=True)
    if options.offline is not None:
        call("Options.useOfflineIpuTarget", made, ipu_version=options.offline)
    else:
        # not from the start: while the one executor compiles, the other may still hold the IPUs
        call("Options.connectionType", made, connection_type=value("ConnectionType.OnDemand"))
    if options.auto_round_ipus:
        call("Options.autoRoundNumIPUs", made, auto_round_num_ipus=True)
    if options.cache is not None:
        call("Options.enableExecutableCaching", made, path=options.cache)
    if options.available_memory is not None:
        call("Options.setAvailableMemoryProportion", made, available_memory_proportion=options.available_memory)
    if cut.replicas * cut.processes > 1:
        call("Options.broadcastBuffers", made, broadcast_buffers=False)


def _precise(made: Any, options: IpuOptions) -> None:
    """How numbers are rounded."""
    call("Options.Precision.enableStochasticRounding", made, enabled=options.stochastic_rounding)
    call("Options.Precision.setPartialsType", made, dtype=getattr(torch, options.partials))
    if options.floating_point_exceptions:
        call("Options.Precision.enableFloatingPointExceptions", made, enabled=True)
