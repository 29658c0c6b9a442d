"""`SlidingPSN` as a neuron that remembers its last inputs: the same additions in one kernel, step by step."""

from collections.abc import Sequence

import torch
from torch import Tensor

from snn_backend_cpu.fused import Fused
from snn_core.neurons import SlidingPSN
from snn_core.neurons.base import Coefficients, Neuron, State, Unrolled, checked_state, widen
from snn_core.surrogate import spike

__all__ = ["Sliding"]


class _Remembering(Neuron):
    """The filter's weights are coefficients, the inputs that it still sees are states, oldest first."""

    def __init__(self, layer: SlidingPSN) -> None:
        super().__init__()
        self.layer = layer
        self.states = tuple(f"x{ago}" for ago in range(layer.order - 1, 0, -1))

    def coefficients(self) -> Coefficients:
        weights = {f"w{i}": weight for i, weight in enumerate(self.layer.weight.unbind(0))}
        return {**weights, "threshold": self.layer.threshold}

    def dynamics(self, x: Tensor, state: State, c: Coefficients) -> tuple[Tensor, State]:
        inputs = (*state, x)
        h = c["w0"] * inputs[0]
        for i in range(1, len(inputs)):
            h = h + c[f"w{i}"] * inputs[i]
        firing = self.layer.firing
        return spike(h - c["threshold"], firing.surrogate, firing.fire_op), inputs[1:]


class Sliding:
    """Stands in for a `SlidingPSN`'s own `run`. Raises LoweringError for a surrogate of which no kernel can be made."""

    def __init__(self, layer: SlidingPSN, dtype: torch.dtype) -> None:
        self._layer = layer
        self._neuron = _Remembering(layer)
        self._fused = Fused(self._neuron, dtype)

    def __call__(
        self, x: Tensor, state: State | None = None, steps: int | None = None, wanted: Sequence[str] = ()
    ) -> Unrolled:
        count = self._layer.check_input(x, steps)
        first = widen(x if steps is not None else x[0])
        before = None
        if state is not None:
            before = checked_state(self._layer, state, first)[0].unbind(1)
        out, after, _ = self._fused(self._neuron, x, before, steps, ())
        last = torch.stack(after, dim=1) if after else first.new_zeros((first.shape[0], 0, *first.shape[1:]))
        over_time = widen(x) if steps is None else first.expand(count, *first.shape)
        return out, (last,), {name: over_time for name in wanted}
