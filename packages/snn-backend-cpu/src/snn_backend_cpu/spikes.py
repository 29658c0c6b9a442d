"""Spikes of whole sequences in one pass over memory, for layers with an own computation over time."""

import functools
from typing import Any

import torch
from torch import Tensor

from snn_backend_cpu.fused import Fused
from snn_core.lower import LoweringError
from snn_core.neurons.base import Coefficients, Neuron, State, Temporal
from snn_core.neurons.spiking import Firing
from snn_core.surrogate import Surrogate, spike_reference

__all__ = ["fused_spike", "kernels_for_spikes"]

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


def kernels_for_spikes(layer: Temporal) -> bool:
    """Whether kernels compute the spikes that the layer declares as `firing`; False where a surrogate cannot be hashed.

    Raises LoweringError for a surrogate of which no kernel can be made.
    """
    declared = (getattr(module, "firing", None) for module in layer.modules())
    found = [_neuron(firing.surrogate, firing.fire_op) for firing in declared if isinstance(firing, Firing)]
    for refusal in found:
        if isinstance(refusal, LoweringError):
            raise refusal
    return None not in found


class _Spike(Neuron):
    """The step function alone."""

    def __init__(self, surrogate: Surrogate, fire_op: str) -> None:
        super().__init__()
        self.surrogate, self.fire_op = surrogate, fire_op

    def dynamics(self, x: Tensor, state: State, c: Coefficients) -> tuple[Tensor, State]:
        return spike_reference(x, self.surrogate, self.fire_op), ()


def _neuron(surrogate: Surrogate, fire_op: str) -> Neuron | LoweringError | None:
    """The neuron that spikes by a kernel, or why there is none; None for a surrogate that no cache can tell apart."""
    try:
        # a subclass that is no dataclass of its own equals every other of its class, whatever it holds
        own = tuple(vars(surrogate).items())
        hash((surrogate, own))
    except TypeError:
        return None
    return _lowered(surrogate, own, fire_op)


@functools.lru_cache(maxsize=64)
def _lowered(surrogate: Surrogate, own: tuple[tuple[str, Any], ...], fire_op: str) -> Neuron | LoweringError:
    neuron = _Spike(surrogate, fire_op)
    try:
        neuron.runner = Fused(neuron, torch.float32)
    except LoweringError as exc:
        return exc
    return neuron
