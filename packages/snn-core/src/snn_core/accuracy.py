"""Accuracies on a whole batch, for a loop of one's own; a Trainer uses those of its loss. Of equal scores the lowest
class wins.
"""

from torch import Tensor

from snn_core.losses.readout import first_spike_time, hits, spike_count, trace

__all__ = ["accuracy_membrane", "accuracy_rate", "accuracy_temporal"]


def accuracy_rate(output: Tensor, target: Tensor, population: int = 1) -> Tensor:
    """The share of samples whose label has the most spikes, 0-d. output: `[T, B, C]`; target: labels `[B]`.

    population: neurons for each class; class k has the neurons k * population to (k + 1) * population - 1.
    """
    return hits(spike_count(output, population), target).mean()


def accuracy_temporal(output: Tensor, target: Tensor) -> Tensor:
    """The share of samples whose label fires first, 0-d; a silent neuron counts T - 1. output: `[T, B, C]`; target:
    `[B]`.
    """
    return hits(-first_spike_time(output), target).mean()


def accuracy_membrane(mem: Tensor, target: Tensor) -> Tensor:
    """The share of samples whose label has the highest membrane at any step, 0-d. mem: `[T, B, C]`; target: `[B]`."""
    return hits(trace({"mem": mem}, "mem").amax(0), target).mean()
