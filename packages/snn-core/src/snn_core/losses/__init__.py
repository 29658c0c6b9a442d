"""Losses on `[T, B, C]`, each with its accuracy: frozen values that every backend can trace."""

from snn_core.losses.base import CallableLoss, Loss, Traces, WeightedSum, as_loss
from snn_core.losses.count import CountCrossEntropy, CountMSE
from snn_core.losses.labels import LabelLoss
from snn_core.losses.membrane import MaxMembraneCrossEntropy, MembraneCrossEntropy, MembraneMSE
from snn_core.losses.rate import TET, RateCrossEntropy, RateMSE
from snn_core.losses.regression import OutputMAE, OutputMSE
from snn_core.losses.sparsity import SpikeRateL1
from snn_core.losses.temporal import TemporalCrossEntropy, TemporalMSE

__all__ = [
    "TET",
    "CallableLoss",
    "CountCrossEntropy",
    "CountMSE",
    "LabelLoss",
    "Loss",
    "MaxMembraneCrossEntropy",
    "MembraneCrossEntropy",
    "MembraneMSE",
    "OutputMAE",
    "OutputMSE",
    "RateCrossEntropy",
    "RateMSE",
    "SpikeRateL1",
    "TemporalCrossEntropy",
    "TemporalMSE",
    "Traces",
    "WeightedSum",
    "as_loss",
]
