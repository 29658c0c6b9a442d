"""The signatures of PopTorch 3.4 and PopDist as data: dotted name -> (parameter, default) in order, `self` left out.

Written down from the public sources of graphcore/poptorch: python/__init__.py, options.py, optim.py, ops.py and
_poplar_executor.py in the newest versions at hand, which may be somewhat older than 3.4, and its tests of PopDist. Code
that calls PopTorch is held against this, and so is the fake.
"""

REQUIRED = "required"
# The parameter takes what is left of the positional, or of the named, arguments.
VARIADIC, KEYWORDS = "*", "**"

_PARAMS = ("params", REQUIRED)
_MOMENTS = (("first_order_momentum_accum_type", None), ("second_order_momentum_accum_type", None))


def _unset(*names):
    return tuple((name, None) for name in names)


FUNCTIONS = {
    "AsynchronousDataAccessor": (
        ("dataset", REQUIRED),
        ("buffer_size", 3),
        ("miss_sleep_time_in_ms", 0.1),
        ("load_indefinitely", True),
        ("early_preload", False),
        ("sharing_strategy", "SharingStrategy.FileSystem"),
        ("rebatched_size", None),
    ),
    "BeginBlock": (("layer_to_call", REQUIRED), ("user_id", None), ("ipu_id", None)),
    "Block": _unset("user_id", "ipu_id"),
    "Block.start": _unset("user_id", "ipu_id"),
    "Block.useAutoId": (),
    "BlockFunction": _unset("user_id", "ipu_id"),
    "CPU": (("layer_to_call", REQUIRED), ("ID", REQUIRED)),
    "DataLoader": (
        ("options", REQUIRED),
        ("dataset", REQUIRED),
        ("batch_size", 1),
        ("shuffle", False),
        ("num_workers", 0),
        ("drop_last", True),
        ("persistent_workers", None),
        ("auto_distributed_partitioning", True),
        ("mode", "DataLoaderMode.Sync"),
        ("async_options", None),
        ("rebatched_worker_size", None),
        ("kwargs", KEYWORDS),
    ),
    "DataLoader.terminate": (),
    "Options": (),
    "PipelinedExecution": (("args", VARIADIC),),
    "ShardedExecution": (("args", VARIADIC),),
    "Stage": (("block_ids", VARIADIC),),
    "Stage.ipu": (("ipu", REQUIRED),),
    "TensorLocationSettings.minElementsForOffChip": (("min_elements", REQUIRED),),
    "TensorLocationSettings.useOnChipStorage": (("use", True),),
    "TensorLocationSettings.useReplicatedTensorSharding": (("use", True),),
    "for_loop": (("count", REQUIRED), ("body", REQUIRED), ("inputs", REQUIRED)),
    "identity_loss": (("x", REQUIRED), ("reduction", REQUIRED)),
    "inferenceModel": (("model", REQUIRED), ("options", None)),
    "ipuHardwareIsAvailable": (("num_ipus", 1),),
    "ipuHardwareVersion": (),
    "isRunningOnIpu": (),
    "load": (("filename", REQUIRED), ("edit_opts_fn", None)),
    "nop": (("tensor", REQUIRED),),
    "recomputationCheckpoint": (("tensors", VARIADIC),),
    "removeBlocks": (("module", REQUIRED),),
    "setLogLevel": (("level", REQUIRED),),
    "set_available_memory": (("tensor", REQUIRED), ("available_memory_proportion", REQUIRED)),
    "trainingModel": (("model", REQUIRED), ("options", None), ("optimizer", None)),
}

OPTIONS = {
    "Options.Distributed.configureProcessId": (("process_id", REQUIRED), ("num_processes", REQUIRED)),
    "Options.Distributed.disable": (),
    "Options.Distributed.setEnvVarNames": (("var_num_processes", REQUIRED), ("var_process_id", REQUIRED)),
    "Options.Precision.enableFloatingPointExceptions": (("enabled", REQUIRED),),
    "Options.Precision.enableStochasticRounding": (("enabled", REQUIRED),),
    "Options.Precision.halfFloatCasting": (("half_float_casting", REQUIRED),),
    "Options.Precision.runningStatisticsAlwaysFloat": (("value", REQUIRED),),
    "Options.Precision.setPartialsType": (("dtype", REQUIRED),),
    "Options.TensorLocations.numIOTiles": (("num_tiles", REQUIRED),),
    "Options.TensorLocations.setAccumulatorLocation": (("location", REQUIRED),),
    "Options.TensorLocations.setActivationLocation": (("location", REQUIRED),),
    "Options.TensorLocations.setOptimizerLocation": (("location", REQUIRED),),
    "Options.TensorLocations.setWeightLocation": (("location", REQUIRED),),
    "Options.Training.accumulationAndReplicationReductionType": (("reduction_type", REQUIRED),),
    "Options.Training.gradientAccumulation": (("gradient_accumulation", REQUIRED),),
    "Options.Training.setAutomaticLossScaling": (("enabled", REQUIRED),),
    "Options.Training.setConvolutionDithering": (("enabled", REQUIRED),),
    "Options.Training.setMeanAccumulationAndReplicationReductionStrategy": (("mean_reduction_strategy", REQUIRED),),
    "Options._Popart.set": (("key", REQUIRED), ("value", REQUIRED)),
    "Options._Popart.setEngineOptions": (("engine_options", REQUIRED),),
    "Options._Popart.setPatterns": (("patterns", REQUIRED), ("level", 2)),
    "Options.autoRoundNumIPUs": (("auto_round_num_ipus", True),),
    "Options.broadcastBuffers": (("broadcast_buffers", True),),
    "Options.clone": (),
    "Options.connectionType": (("connection_type", REQUIRED),),
    "Options.defaultOutputMode": (),
    "Options.deviceIterations": (("device_iterations", REQUIRED),),
    "Options.disableModuleNamescope": (),
    "Options.enableExecutableCaching": (("path", REQUIRED),),
    "Options.enableProfiling": (("profile_dir", None),),
    "Options.enableStableNorm": (("enabled", REQUIRED),),
    "Options.enableSyntheticData": (("enabled", REQUIRED),),
    "Options.logCycleCount": (("log_cycle_count", REQUIRED),),
    "Options.logDir": (("log_dir", REQUIRED),),
    "Options.modelName": (("name", REQUIRED),),
    "Options.outputMode": (("output_mode", REQUIRED), ("output_return_period", None)),
    "Options.randomSeed": (("random_seed", REQUIRED),),
    "Options.relaxOptimizerAttributesChecks": (("relax", True),),
    "Options.replicationFactor": (("replication_factor", REQUIRED),),
    "Options.setAvailableMemoryProportion": (("available_memory_proportion", REQUIRED),),
    "Options.setExecutionStrategy": (("strategy", REQUIRED),),
    "Options.showCompilationProgressBar": (("show", True),),
    "Options.syncPattern": (("sync_pattern", REQUIRED),),
    "Options.useIpuId": (("ipu_id", REQUIRED),),
    "Options.useIpuModel": (("use_model", REQUIRED),),
    "Options.useOfflineIpuTarget": (("ipu_version", 2),),
}

EXECUTOR = {
    "PoplarExecutor.__call__": (("args", VARIADIC), ("kwargs", KEYWORDS)),
    "PoplarExecutor.attachToDevice": (),
    "PoplarExecutor.compile": (("args", VARIADIC), ("kwargs", KEYWORDS)),
    "PoplarExecutor.compileAndExport": (
        ("filename", REQUIRED),
        ("args", VARIADIC),
        ("export_model", True),
        ("kwargs", KEYWORDS),
    ),
    "PoplarExecutor.copyWeightsToDevice": (),
    "PoplarExecutor.copyWeightsToHost": (),
    "PoplarExecutor.copyWeightsToHostIfNeeded": (),
    "PoplarExecutor.cycleCount": (),
    "PoplarExecutor.destroy": (),
    "PoplarExecutor.detachFromDevice": (),
    "PoplarExecutor.getComputeLatency": (),
    "PoplarExecutor.getHostIpuLatency": (),
    "PoplarExecutor.getIpuHostLatency": (),
    "PoplarExecutor.getLatency": (),
    "PoplarExecutor.getPerfCounters": (),
    "PoplarExecutor.isAttachedToDevice": (),
    "PoplarExecutor.isCompiled": (),
    "PoplarExecutor.loadExecutable": (("filename", REQUIRED),),
    "PoplarExecutor.load_state_dict": (("state_dict", REQUIRED), ("strict", True)),
    "PoplarExecutor.save": (("filename", REQUIRED), ("export_model", True), ("save_rng_state", True)),
    "PoplarExecutor.setOptimizer": (("optimizer", REQUIRED),),
}

OPTIMISERS = {
    "optim.Adam": (
        _PARAMS,
        *_unset("lr", "betas", "eps", "weight_decay", "amsgrad", "foreach", "maximize", "capturable"),
        *_unset("differentiable", "fused", "loss_scaling", "accum_type"),
        *_MOMENTS,
        ("max_grad_norm", None),
    ),
    "optim.AdamW": (
        _PARAMS,
        *_unset("lr", "betas", "eps", "weight_decay", "amsgrad", "maximize", "foreach", "capturable"),
        *_unset("differentiable", "fused", "loss_scaling", "bias_correction", "accum_type"),
        *_MOMENTS,
        ("max_grad_norm", None),
    ),
    "optim.LAMB": (
        _PARAMS,
        *_unset("lr", "betas", "eps", "weight_decay", "bias_correction", "loss_scaling", "max_weight_norm"),
        ("accum_type", None),
        *_MOMENTS,
    ),
    "optim.Optimizer.load_state_dict": (("state", REQUIRED),),
    "optim.Optimizer.state_dict": (),
    "optim.RMSprop": (
        _PARAMS,
        *_unset("lr", "alpha", "eps", "weight_decay", "momentum", "centered", "foreach", "maximize"),
        *_unset("differentiable", "loss_scaling", "accum_type"),
        *_MOMENTS,
        ("use_tf_variant", None),
    ),
    "optim.SGD": (
        _PARAMS,
        ("lr", REQUIRED),
        *_unset("momentum", "dampening", "weight_decay", "nesterov", "maximize", "foreach", "differentiable"),
        *_unset("loss_scaling", "velocity_scaling", "use_combined_accum", "accum_type", "velocity_accum_type"),
        ("max_grad_norm", None),
    ),
    "optim.VariableAttributes.isConstant": (("attr", REQUIRED),),
    "optim.VariableAttributes.markAsConstant": (("attr", REQUIRED),),
    "optim.VariableAttributes.markAsVariable": (("attr", REQUIRED),),
}

POPDIST = {
    "popdist.getInstanceIndex": (),
    "popdist.getNumInstances": (),
    "popdist.getNumLocalReplicas": (),
    "popdist.getNumTotalReplicas": (),
    "popdist.getReplicaIndexOffset": (),
    "popdist.isPopdistEnvSet": (),
    "popdist.poptorch.Options": (("ipus_per_replica", 1),),
}

SIGNATURES = {**FUNCTIONS, **OPTIONS, **EXECUTOR, **OPTIMISERS, **POPDIST}

# Attributes and members of enumerations that can be read, beside the functions.
VALUES = {
    "AutoStage": ("SameAsIpu", "AutoIncrement"),
    "ConnectionType": ("Always", "OnDemand", "Never"),
    "DataLoaderMode": ("Sync", "Async", "AsyncRebatched"),
    "HalfFloatCastingBehavior": ("FloatDowncastToHalf", "HalfUpcastToFloat", "Default"),
    "MeanReductionStrategy": ("Running", "Post", "PostAndLoss"),
    "OutputMode": ("Final", "EveryN", "All", "Sum", "Default"),
    "ReductionType": ("Sum", "Mean", "NoReduction"),
    "SharingStrategy": ("SharedMemory", "FileSystem", "Fork", "ForkServer"),
    "SyncPattern": ("Full", "SinglePipeline", "ReplicaAndLadder"),
    "PoplarExecutor": ("model", "options", "rng_state"),
    "Error": ("message", "type", "location"),
    "RecoverableError": ("message", "type", "location", "recovery_action"),
    "optim.Optimizer": ("variable_attrs",),
}
PLAIN = ("__version__",)
