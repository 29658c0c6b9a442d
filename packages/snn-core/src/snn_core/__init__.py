"""Train spiking neural networks: one model, many devices.

Every public name is imported when it is first used (PEP 562), so that `import snn_core` is quick and needs no torch.
"""

from typing import TYPE_CHECKING, Any, Dict, List

from snn_core.lazy import finder

if TYPE_CHECKING:  # what type checkers and editors see; a test holds it against the table below
    from snn_core import bench as bench
    from snn_core import data as data
    from snn_core import encoders as encoders
    from snn_core import losses as losses
    from snn_core import presets as presets
    from snn_core import registry as registry
    from snn_core import surrogate as surrogate
    from snn_core import testing as testing
    from snn_core.accuracy import accuracy_membrane as accuracy_membrane
    from snn_core.accuracy import accuracy_rate as accuracy_rate
    from snn_core.accuracy import accuracy_temporal as accuracy_temporal
    from snn_core.backend import Backend as Backend
    from snn_core.backend import Capabilities as Capabilities
    from snn_core.backend import Finding as Finding
    from snn_core.backend import Health as Health
    from snn_core.backend import Program as Program
    from snn_core.backend import Report as Report
    from snn_core.backend import Tolerance as Tolerance
    from snn_core.containers import Sequential as Sequential
    from snn_core.eager import EagerBackend as EagerBackend
    from snn_core.eager import EagerOptions as EagerOptions
    from snn_core.encoders import Constant as Constant
    from snn_core.encoders import Delta as Delta
    from snn_core.encoders import Latency as Latency
    from snn_core.encoders import Poisson as Poisson
    from snn_core.encoders import Population as Population
    from snn_core.encoders import Rate as Rate
    from snn_core.errors import BackendBroken as BackendBroken
    from snn_core.errors import BackendConflict as BackendConflict
    from snn_core.errors import BackendIncompatible as BackendIncompatible
    from snn_core.errors import BackendNotFound as BackendNotFound
    from snn_core.errors import BackendUnavailable as BackendUnavailable
    from snn_core.errors import CheckpointError as CheckpointError
    from snn_core.errors import ConfigError as ConfigError
    from snn_core.errors import ConformanceError as ConformanceError
    from snn_core.errors import DataError as DataError
    from snn_core.errors import DeviceError as DeviceError
    from snn_core.errors import NonFiniteError as NonFiniteError
    from snn_core.errors import RunFolderError as RunFolderError
    from snn_core.errors import ShapeError as ShapeError
    from snn_core.errors import SnnError as SnnError
    from snn_core.errors import TrainingInterrupted as TrainingInterrupted
    from snn_core.errors import Unsupported as Unsupported
    from snn_core.hookspecs import hookimpl as hookimpl
    from snn_core.losses import TET as TET
    from snn_core.losses import CountCrossEntropy as CountCrossEntropy
    from snn_core.losses import CountMSE as CountMSE
    from snn_core.losses import Loss as Loss
    from snn_core.losses import MaxMembraneCrossEntropy as MaxMembraneCrossEntropy
    from snn_core.losses import MembraneCrossEntropy as MembraneCrossEntropy
    from snn_core.losses import MembraneMSE as MembraneMSE
    from snn_core.losses import OutputMAE as OutputMAE
    from snn_core.losses import OutputMSE as OutputMSE
    from snn_core.losses import RateCrossEntropy as RateCrossEntropy
    from snn_core.losses import RateMSE as RateMSE
    from snn_core.losses import SpikeRateL1 as SpikeRateL1
    from snn_core.losses import TemporalCrossEntropy as TemporalCrossEntropy
    from snn_core.losses import TemporalMSE as TemporalMSE
    from snn_core.losses import WeightedSum as WeightedSum
    from snn_core.neurons import ALIF as ALIF
    from snn_core.neurons import IF as IF
    from snn_core.neurons import LI as LI
    from snn_core.neurons import LIF as LIF
    from snn_core.neurons import PSN as PSN
    from snn_core.neurons import QIF as QIF
    from snn_core.neurons import SLSTM as SLSTM
    from snn_core.neurons import AdEx as AdEx
    from snn_core.neurons import Alpha as Alpha
    from snn_core.neurons import ExpLIF as ExpLIF
    from snn_core.neurons import Izhikevich as Izhikevich
    from snn_core.neurons import Lapicque as Lapicque
    from snn_core.neurons import MaskedPSN as MaskedPSN
    from snn_core.neurons import NeuromorphicReLU as NeuromorphicReLU
    from snn_core.neurons import Neuron as Neuron
    from snn_core.neurons import OneToOne as OneToOne
    from snn_core.neurons import ParallelLIF as ParallelLIF
    from snn_core.neurons import ParametricLIF as ParametricLIF
    from snn_core.neurons import Recurrent as Recurrent
    from snn_core.neurons import SConv2dLSTM as SConv2dLSTM
    from snn_core.neurons import SequenceLayer as SequenceLayer
    from snn_core.neurons import SigmaDelta as SigmaDelta
    from snn_core.neurons import SlidingPSN as SlidingPSN
    from snn_core.neurons import SpikingNeuron as SpikingNeuron
    from snn_core.neurons import SumPool2d as SumPool2d
    from snn_core.neurons import Synaptic as Synaptic
    from snn_core.optimizers import SGD as SGD
    from snn_core.optimizers import Adam as Adam
    from snn_core.optimizers import AdamW as AdamW
    from snn_core.optimizers import RMSprop as RMSprop
    from snn_core.schedules import CosineDecay as CosineDecay
    from snn_core.schedules import OneCycle as OneCycle
    from snn_core.schedules import StepDecay as StepDecay
    from snn_core.schedules import Warmup as Warmup
    from snn_core.specs import BatchSpec as BatchSpec
    from snn_core.specs import TensorSpec as TensorSpec
    from snn_core.specs import TrainSpec as TrainSpec
    from snn_core.step import Step as Step
    from snn_core.step import StepOutput as StepOutput
    from snn_core.terms import BoundTerm as BoundTerm
    from snn_core.terms import Recorded as Recorded
    from snn_core.terms import Term as Term
    from snn_core.trainer import EarlyStopping as EarlyStopping
    from snn_core.trainer import RunResult as RunResult
    from snn_core.trainer import TensorBoard as TensorBoard
    from snn_core.trainer import Trainer as Trainer
    from snn_core.trainer import load_weights as load_weights

# The module that defines each public name; "" for one that is a module itself.
_HOME: Dict[str, str] = {
    "bench": "",
    "data": "",
    "encoders": "",
    "losses": "",
    "presets": "",
    "registry": "",
    "surrogate": "",
    "testing": "",
    "accuracy_membrane": "accuracy",
    "accuracy_rate": "accuracy",
    "accuracy_temporal": "accuracy",
    "Backend": "backend",
    "Capabilities": "backend",
    "Finding": "backend",
    "Health": "backend",
    "Program": "backend",
    "Report": "backend",
    "Tolerance": "backend",
    "Sequential": "containers",
    "EagerBackend": "eager",
    "EagerOptions": "eager",
    "Constant": "encoders",
    "Delta": "encoders",
    "Latency": "encoders",
    "Poisson": "encoders",
    "Population": "encoders",
    "Rate": "encoders",
    "BackendBroken": "errors",
    "BackendConflict": "errors",
    "BackendIncompatible": "errors",
    "BackendNotFound": "errors",
    "BackendUnavailable": "errors",
    "CheckpointError": "errors",
    "ConfigError": "errors",
    "ConformanceError": "errors",
    "DataError": "errors",
    "DeviceError": "errors",
    "NonFiniteError": "errors",
    "RunFolderError": "errors",
    "ShapeError": "errors",
    "SnnError": "errors",
    "TrainingInterrupted": "errors",
    "Unsupported": "errors",
    "hookimpl": "hookspecs",
    "CountCrossEntropy": "losses",
    "CountMSE": "losses",
    "Loss": "losses",
    "MaxMembraneCrossEntropy": "losses",
    "MembraneCrossEntropy": "losses",
    "MembraneMSE": "losses",
    "OutputMAE": "losses",
    "OutputMSE": "losses",
    "RateCrossEntropy": "losses",
    "RateMSE": "losses",
    "SpikeRateL1": "losses",
    "TET": "losses",
    "TemporalCrossEntropy": "losses",
    "TemporalMSE": "losses",
    "WeightedSum": "losses",
    "ALIF": "neurons",
    "IF": "neurons",
    "LI": "neurons",
    "LIF": "neurons",
    "PSN": "neurons",
    "QIF": "neurons",
    "SLSTM": "neurons",
    "AdEx": "neurons",
    "Alpha": "neurons",
    "ExpLIF": "neurons",
    "Izhikevich": "neurons",
    "Lapicque": "neurons",
    "MaskedPSN": "neurons",
    "NeuromorphicReLU": "neurons",
    "Neuron": "neurons",
    "OneToOne": "neurons",
    "ParallelLIF": "neurons",
    "ParametricLIF": "neurons",
    "Recurrent": "neurons",
    "SConv2dLSTM": "neurons",
    "SequenceLayer": "neurons",
    "SigmaDelta": "neurons",
    "SlidingPSN": "neurons",
    "SpikingNeuron": "neurons",
    "SumPool2d": "neurons",
    "Synaptic": "neurons",
    "SGD": "optimizers",
    "Adam": "optimizers",
    "AdamW": "optimizers",
    "RMSprop": "optimizers",
    "CosineDecay": "schedules",
    "OneCycle": "schedules",
    "StepDecay": "schedules",
    "Warmup": "schedules",
    "BatchSpec": "specs",
    "TensorSpec": "specs",
    "TrainSpec": "specs",
    "Step": "step",
    "StepOutput": "step",
    "BoundTerm": "terms",
    "Recorded": "terms",
    "Term": "terms",
    "EarlyStopping": "trainer",
    "RunResult": "trainer",
    "TensorBoard": "trainer",
    "Trainer": "trainer",
    "load_weights": "trainer",
}

__all__ = [*_HOME, "__version__"]


_find = finder(__name__, _HOME, "snn-core")


def __getattr__(name: str) -> Any:
    globals()[name] = value = _find(name)
    return value


def __dir__() -> List[str]:
    return sorted({*globals(), *__all__})
