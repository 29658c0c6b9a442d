"""`SlidingPSN` by kernels: its filter over time, then its spikes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from snn_backend_cpu.fused import Fused
from snn_backend_cpu.taps import filtered
from snn_core.neurons import SlidingPSN
from snn_core.neurons.base import Coefficients, Neuron, State, Unrolled, checked_state, widen
from snn_core.surrogate import spike

__all__ = ["Sliding"]


class _Spiking(Neuron):
    """The layer's spikes of a membrane, which is its input."""

    def __init__(self, layer: SlidingPSN) -> None:
        super().__init__()
        self.layer = layer

    def coefficients(self) -> Coefficients:
        return {"threshold": self.layer.threshold}

    def dynamics(self, x: Tensor, state: State, c: Coefficients) -> tuple[Tensor, State]:
        firing = self.layer.firing
        return spike(x - c["threshold"], firing.surrogate, firing.fire_op), ()


class Sliding:
    """Stands in for a `SlidingPSN`'s own `run`. Raises LoweringError for a surrogate of which no kernel can be made."""

    def __init__(self, layer: SlidingPSN, dtype: torch.dtype) -> None:
        self._layer = layer
        self._spiking = _Spiking(layer)
        self._fused = Fused(self._spiking, dtype)

    def __call__(
        self, x: Tensor, state: State | None = None, steps: int | None = None, wanted: Sequence[str] = ()
    ) -> Unrolled:
        layer = self._layer
        count = layer.check_input(x, steps)
        over_time = widen(x if steps is None else x.unsqueeze(0).expand(count, *x.shape))
        first = over_time[0]
        if state is None:
            past = over_time.new_zeros((layer.order - 1, *first.shape))
        else:
            past = checked_state(layer, state, first)[0].transpose(0, 1)
        inputs = torch.cat((past, over_time))
        h = filtered(inputs, layer.weight.to(inputs.dtype))
        out = self._fused(self._spiking, h, None, None, ())[0]
        return out.to(x.dtype), (inputs[count:].transpose(0, 1),), {name: over_time for name in wanted}
