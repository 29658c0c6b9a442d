"""PopTorch's options: the setters by name."""

import copy
import os

import torch

from ._options_parts import (
    OptionsDict,
    TensorLocationSettings,
    _DistributedOptions,
    _PopartOptions,
    _PrecisionOptions,
    _TensorLocationOptions,
    _TrainingOptions,
)
from ._strategies import PipelinedExecution, _IExecutionStrategy
from .enums import ConnectionType, OutputMode, SyncPattern

__all__ = ["Options", "TensorLocationSettings"]


class Options(OptionsDict):
    """All options."""

    def __init__(self):
        super().__init__(
            replication_factor=1,
            broadcast_buffers=True,
            device_iterations=1,
            log_dir=".",
            auto_round_num_ipus=False,
            anchored_tensors={},
            output_mode=OutputMode.Default.value,
            output_return_period=1,
            connection_type=ConnectionType.Always.value,
            sync_pattern=SyncPattern.Full.value,
            available_memory_proportion={},
        )
        self._popart = _PopartOptions()
        self._precision = _PrecisionOptions(self._popart)
        self._training = _TrainingOptions(self._popart)
        self._distributed = _DistributedOptions()
        self._tensor_locations = _TensorLocationOptions()
        self._execution_strategy = PipelinedExecution()
        self._relax_optimizer_checks = False
        path = os.environ.get("POPTORCH_CACHE_DIR", "")
        if path:
            self.enableExecutableCaching(path)

    def _parts(self):
        return self._popart, self._precision, self._training, self._distributed, self._tensor_locations

    def _freeze(self):
        for part in self._parts():
            part._freeze()
        super()._freeze()

    def _unfreeze(self):
        super()._unfreeze()
        for part in self._parts():
            part._unfreeze()

    @property
    def _Popart(self):
        return self._popart

    @property
    def Precision(self):
        """Options of precision."""
        return self._precision

    @property
    def Training(self):
        """Options of training."""
        return self._training

    @property
    def Distributed(self):
        """Options of several processes."""
        return self._distributed

    @property
    def TensorLocations(self):
        """Options of places."""
        return self._tensor_locations

    def autoRoundNumIPUs(self, auto_round_num_ipus=True):
        """Round the number of IPUs up to a power of two."""
        self.set(auto_round_num_ipus=auto_round_num_ipus)
        return self

    def deviceIterations(self, device_iterations):
        """Set the number of iterations of one call."""
        self.set(device_iterations=device_iterations)
        return self

    def setExecutionStrategy(self, strategy):
        """Set the strategy."""
        assert isinstance(strategy, _IExecutionStrategy)
        self._execution_strategy = strategy
        return self

    def setAvailableMemoryProportion(self, available_memory_proportion):
        """Set the share of each IPU's memory for temporary data: {"IPU0": 0.5}."""
        for key in available_memory_proportion:
            assert key.startswith("IPU"), f"Available memory proportions are expected as {{'IPU0': 0.5}}, not {key}"
        shares = {int(key[3:]): share for key, share in available_memory_proportion.items()}
        self.createOrSet(available_memory_proportion=shares)
        return self

    def replicationFactor(self, replication_factor):
        """Set the number of replicas."""
        self.set(replication_factor=replication_factor)
        return self

    def broadcastBuffers(self, broadcast_buffers=True):
        """Say that buffers are to be the same on all replicas."""
        self.set(broadcast_buffers=broadcast_buffers)
        return self

    def logDir(self, log_dir):
        """Set the folder of the logs."""
        self.set(log_dir=log_dir)
        return self

    def modelName(self, name):
        """Name the model."""
        self.createOrSet(model_name=name)
        return self

    def enableExecutableCaching(self, path):
        """Keep executables in a folder; None keeps none."""
        if path is not None:
            self._popart.set("cachePath", path)
        self._popart.set("enableEngineCaching", path is not None)
        return self

    def useIpuModel(self, use_model):
        """Use the IPU Model in the place of an IPU."""
        self.createOrSet(use_model=use_model)
        return self

    def connectionType(self, connection_type):
        """Set when the device is attached."""
        assert isinstance(connection_type, ConnectionType)
        self.set(connection_type=connection_type.value)
        return self

    def syncPattern(self, sync_pattern):
        """Set how IPUs wait for each other."""
        assert isinstance(sync_pattern, SyncPattern)
        self.set(sync_pattern=sync_pattern.value)
        return self

    def useIpuId(self, ipu_id):
        """Set the device by its id."""
        assert isinstance(ipu_id, int)
        self.createOrSet(ipu_id=ipu_id)
        return self

    def useOfflineIpuTarget(self, ipu_version=2):
        """Compile for a device that is not there."""
        self.connectionType(ConnectionType.Never)
        self.createOrSet(ipu_version=ipu_version)
        return self

    def outputMode(self, output_mode, output_return_period=None):
        """Set which results come back."""
        assert isinstance(output_mode, OutputMode)
        if output_mode == OutputMode.EveryN:
            assert output_return_period, "EveryN anchor must have output_return_period set to valid positive integer"
            assert output_return_period > 0
        self.set(output_mode=output_mode.value, output_return_period=output_return_period or 1)
        return self

    def defaultOutputMode(self):
        """Say whether the mode is the default."""
        return self.output_mode == OutputMode.Default

    def randomSeed(self, random_seed):
        """Set the seed."""
        assert isinstance(random_seed, int)
        torch.manual_seed(random_seed)
        self.createOrSet(random_seed=random_seed)
        return self

    def enableStableNorm(self, enabled):
        """Use the slower and more exact norms."""
        self._popart.set("enableStableNorm", enabled)
        return self

    def enableSyntheticData(self, enabled):
        """Make data on the device."""
        self._popart.set("syntheticDataMode", 2 if enabled else 0)
        return self

    def logCycleCount(self, log_cycle_count):
        """Count the cycles of each run."""
        self._popart.set("instrumentWithHardwareCycleCounter", log_cycle_count)
        return self

    def enableProfiling(self, profile_dir=None):
        """Write a profile."""
        engine = {"autoReport.directory": profile_dir or ".", "autoReport.all": "true"}
        self._popart.setEngineOptions({**self._popart.options.get("engineOptions", {}), **engine})
        return self

    def relaxOptimizerAttributesChecks(self, relax=True):
        """Say less of unknown attributes of optimisers."""
        self._relax_optimizer_checks = relax
        return self

    def showCompilationProgressBar(self, show=True):
        """Show a bar while compiling."""
        self._show_compilation_progress_bar = show
        return self

    def disableModuleNamescope(self):
        """Name operations without their modules."""
        self._module_namescope_enabled = False
        return self

    def clone(self):
        """Return a copy that is not frozen."""
        return copy.deepcopy(self)
