"""Spikes of whole sequences in one pass over memory, for layers with an own computation over time."""

import functools

import torch
from torch import Tensor

from snn_backend_cpu.fused import Fused
from snn_core.lower import LoweringError
from snn_core.neurons.base import Coefficients, Neuron, SequenceLayer, State
from snn_core.neurons.spiking import Firing
from snn_core.surrogate import Surrogate, spike_reference

__all__ = ["fused_spike", "require_lowerable"]

_WORTH_A_KERNEL = 1 << 14


def fused_spike(u: Tensor, surrogate: Surrogate, fire_op: str) -> Tensor:
    """`snn_core.surrogate.spike` by a kernel where u is large, by torch where the surrogate cannot be lowered.

    u, result: any shape.
    """
    worth = u.numel() >= _WORTH_A_KERNEL and u.is_floating_point() and u.device.type == "cpu"
    found = _neuron(surrogate, fire_op) if worth else None
    if not isinstance(found, Neuron):
        return spike_reference(u, surrogate, fire_op)
    return found.run(u.reshape(1, 1, -1))[0].view(u.shape)


def require_lowerable(layer: SequenceLayer) -> None:
    """Raise LoweringError where the layer declares, as `firing`, a surrogate of which no kernel can be made."""
    firing = getattr(layer, "firing", None)
    found = _neuron(firing.surrogate, firing.fire_op) if isinstance(firing, Firing) else None
    if isinstance(found, LoweringError):
        raise found


class _Spike(Neuron):
    """The step function alone."""

    def __init__(self, surrogate: Surrogate, fire_op: str) -> None:
        super().__init__()
        self.surrogate, self.fire_op = surrogate, fire_op

    def dynamics(self, x: Tensor, state: State, c: Coefficients) -> tuple[Tensor, State]:
        return spike_reference(x, self.surrogate, self.fire_op), ()


@functools.cache
def _neuron(surrogate: Surrogate, fire_op: str) -> Neuron | LoweringError:
    neuron = _Spike(surrogate, fire_op)
    try:
        neuron.runner = Fused(neuron, torch.float32)
    except LoweringError as exc:
        return exc
    return neuron
