"""Neuron models: each is one pure function of one time step."""

from snn_core.neurons.adaptive import ALIF
from snn_core.neurons.base import Neuron, SequenceLayer, Temporal
from snn_core.neurons.lapicque import Lapicque
from snn_core.neurons.lif import IF, LI, LIF, ParametricLIF
from snn_core.neurons.memory import SLSTM, SConv2dLSTM
from snn_core.neurons.nonlinear import QIF, AdEx, ExpLIF, Izhikevich
from snn_core.neurons.parallel import PSN, MaskedPSN, ParallelLIF, SlidingPSN
from snn_core.neurons.recurrent import OneToOne, Recurrent
from snn_core.neurons.sigma_delta import SigmaDelta
from snn_core.neurons.spiking import Firing, SpikingNeuron
from snn_core.neurons.stateless import NeuromorphicReLU, SumPool2d
from snn_core.neurons.synaptic import Alpha, Synaptic

__all__ = [
    "ALIF",
    "IF",
    "LI",
    "LIF",
    "PSN",
    "QIF",
    "SLSTM",
    "AdEx",
    "Alpha",
    "ExpLIF",
    "Firing",
    "Izhikevich",
    "Lapicque",
    "MaskedPSN",
    "NeuromorphicReLU",
    "Neuron",
    "OneToOne",
    "ParallelLIF",
    "ParametricLIF",
    "Recurrent",
    "SConv2dLSTM",
    "SequenceLayer",
    "SigmaDelta",
    "SlidingPSN",
    "SpikingNeuron",
    "SumPool2d",
    "Synaptic",
    "Temporal",
]
