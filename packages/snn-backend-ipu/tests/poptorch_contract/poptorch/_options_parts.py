"""The parts of PopTorch's options, and that they freeze when they are used."""

import copy
import logging
import os

import torch

from .enums import HalfFloatCastingBehavior, MeanReductionStrategy, ReductionType

logger = logging.getLogger("poptorch:contract")


class _Frozen:
    """What can be frozen; a deep copy is not."""

    _is_frozen = False

    def _freeze(self):
        object.__setattr__(self, "_is_frozen", True)

    def _unfreeze(self):
        object.__setattr__(self, "_is_frozen", False)

    def checkIsFrozen(self, option=None):
        """Raise when frozen."""
        if self._is_frozen and option != "_is_frozen":
            raise AttributeError("Can't modify frozen Options")

    def __setattr__(self, name, value):
        self.checkIsFrozen(name)
        object.__setattr__(self, name, value)

    def __deepcopy__(self, memory):
        made = type(self).__new__(type(self))
        memory[id(self)] = made
        for name, value in vars(self).items():
            object.__setattr__(made, name, copy.deepcopy(value, memory))
        made._unfreeze()
        return made


class OptionsDict(_Frozen):
    """Options by name; only known ones can be set, to values of their type."""

    def __init__(self, **values):
        object.__setattr__(self, "_values", values)

    def set(self, **values):
        """Set known options."""
        self.checkIsFrozen()
        for name, value in values.items():
            assert self.exists(name), f"Invalid option {name}, valid options are {list(self._values)}"
            known = type(self._values[name])
            assert isinstance(value, known), f"Unexpected type {type(value)} for option {name}. Expected {known}"
            self._values[name] = value

    def createOrSet(self, **values):
        """Set options, and make those that are not known."""
        self.checkIsFrozen()
        for name, value in values.items():
            if name in self._values:
                self.set(**{name: value})
            self._values[name] = value

    def exists(self, option):
        """Say whether an option is known."""
        return option in self._values

    def deleteIfExists(self, option):
        """Forget an option."""
        self.checkIsFrozen()
        self._values.pop(option, None)

    def __getattr__(self, option):
        values = object.__getattribute__(self, "__dict__").get("_values", {})
        if option.startswith("__") or "_values" not in vars(self):
            raise AttributeError(option)
        assert option in values, f"Invalid option {option}, valid options are {list(values)}"
        return values[option]


class _PopartOptions(_Frozen):
    def __init__(self):
        self.options = {"instrumentWithHardwareCycleCounter": False, "rearrangeAnchorsOnHost": False}

    def set(self, key, value):
        """Set an option of PopART."""
        self.checkIsFrozen()
        self.options[key] = value
        return self

    def setEngineOptions(self, engine_options):
        """Set the options of Poplar's engine."""
        return self.set("engineOptions", engine_options)

    def setPatterns(self, patterns, level=2):
        """Set the patterns of PopART's compiler."""
        assert isinstance(level, int)
        assert isinstance(patterns, dict)
        self.set("patterns_level", level)
        return self.set("patterns", patterns)


class _PrecisionOptions(OptionsDict):
    def __init__(self, popart):
        super().__init__(half_float_casting=HalfFloatCastingBehavior.Default)
        self._popart_options = popart

    def halfFloatCasting(self, half_float_casting):
        """Do nothing: deprecated."""
        if not isinstance(half_float_casting, HalfFloatCastingBehavior):
            raise ValueError("halfFloatCasting must be set to a poptorch.HalfFloatCastingBehavior")
        self.checkIsFrozen()
        logger.warning("halfFloatCasting is deprecated and has no effect")
        return self

    def runningStatisticsAlwaysFloat(self, value):
        """Keep the running statistics of batch normalisation in float32."""
        if not isinstance(value, bool):
            raise ValueError("runningStatisticsAlwaysFloat needs to be set to a bool")
        self.createOrSet(running_statistics_always_float=value)
        return self

    def enableFloatingPointExceptions(self, enabled):
        """Stop on floating point exceptions."""
        assert isinstance(enabled, bool), "enableFloatingPointExceptions needs to be set to a bool"
        self._popart_options.set("enableFloatingPointChecks", enabled)
        return self

    def enableStochasticRounding(self, enabled):
        """Round to half precision at random."""
        self._popart_options.set("enableStochasticRounding", enabled)
        return self

    def setPartialsType(self, dtype):
        """Set the type of the partial results of products."""
        if dtype not in (torch.float32, torch.float16):
            raise ValueError("parameter to setPartialsType should be either torch.float or torch.half")
        self._popart_options.set("partialsTypeMatMuls", "half" if dtype == torch.float16 else "float")
        return self


class _TrainingOptions(OptionsDict):
    def __init__(self, popart):
        super().__init__(
            gradient_accumulation=1,
            accumulation_and_replication_reduction_type=ReductionType.Mean,
            meanAccumulationAndReplicationReductionStrategy=MeanReductionStrategy.Post,
        )
        self._popart_options = popart

    def gradientAccumulation(self, gradient_accumulation):
        """Set the number of micro-batches of one update."""
        self.set(gradient_accumulation=gradient_accumulation)
        return self

    def accumulationAndReplicationReductionType(self, reduction_type):
        """Set how the gradients of micro-batches and replicas are joined."""
        if not isinstance(reduction_type, ReductionType) or reduction_type == ReductionType.NoReduction:
            raise ValueError(
                "accumulationAndReplicationReductionType must be set to "
                "poptorch.ReductionType.Mean or poptorch.ReductionType.Sum"
            )
        self.set(accumulation_and_replication_reduction_type=reduction_type)
        return self

    def setMeanAccumulationAndReplicationReductionStrategy(self, mean_reduction_strategy):
        """Set when the mean is divided."""
        self.set(meanAccumulationAndReplicationReductionStrategy=mean_reduction_strategy)
        return self

    def setAutomaticLossScaling(self, enabled):
        """Let the device find the loss scaling."""
        self._popart_options.set("automaticLossScalingSettings.enabled", enabled)
        return self

    def setConvolutionDithering(self, enabled):
        """Lay convolutions out from different tiles."""
        self._popart_options.set("convolutionOptions", {"enableConvDithering": enabled})
        return self


class _DistributedOptions(OptionsDict):
    def __init__(self):
        super().__init__(num_distributed_processes=1, distributed_process_id=0)
        self.setEnvVarNames("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")

    def disable(self):
        """Make this the only process."""
        self.set(num_distributed_processes=1, distributed_process_id=0)
        return self

    def setEnvVarNames(self, var_num_processes, var_process_id):
        """Read the process's id and the number of processes from the environment."""
        read = os.environ.get
        return self.configureProcessId(int(read(var_process_id, "0")), int(read(var_num_processes, "1")))

    def configureProcessId(self, process_id, num_processes):
        """Set the process's id and the number of processes."""
        self.set(distributed_process_id=process_id, num_distributed_processes=num_processes)
        return self

    @property
    def processId(self):
        """The id of this process."""
        return self.distributed_process_id

    @property
    def numProcesses(self):
        """The number of processes."""
        return self.num_distributed_processes


class TensorLocationSettings(OptionsDict):
    """Where tensors of one kind are kept."""

    def minElementsForOffChip(self, min_elements):
        """Set the size below which a tensor stays on the chip."""
        assert isinstance(min_elements, int)
        self.createOrSet(minElementsForOffChip=min_elements)
        return self

    def useOnChipStorage(self, use=True):
        """Keep on the chip, or not."""
        self.createOrSet(onChip=int(use))
        return self

    def useReplicatedTensorSharding(self, use=True):
        """Divide among the replicas."""
        assert isinstance(use, bool)
        self.createOrSet(useReplicatedTensorSharding=int(use))
        return self


class _TensorLocationOptions(OptionsDict):
    def numIOTiles(self, num_tiles):
        """Set the number of tiles for input and output."""
        assert isinstance(num_tiles, int)
        message = "numIOTiles must be an even number between 32 and 192."
        assert 32 <= num_tiles <= 192, message
        assert num_tiles % 2 == 0, message
        self.createOrSet(numIOTiles=num_tiles)
        return self

    def _locate(self, kind, location):
        assert isinstance(location, TensorLocationSettings)
        self.createOrSet(**{f"location_{kind}": dict(location._values)})
        return self

    def setActivationLocation(self, location):
        """Set where activations are kept."""
        return self._locate("activation", location)

    def setWeightLocation(self, location):
        """Set where weights are kept."""
        return self._locate("weight", location)

    def setOptimizerLocation(self, location):
        """Set where the optimiser's states are kept."""
        return self._locate("optimizer", location)

    def setAccumulatorLocation(self, location):
        """Set where accumulators are kept."""
        return self._locate("accumulator", location)
