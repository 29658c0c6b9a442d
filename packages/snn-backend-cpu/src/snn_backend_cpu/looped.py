"""Recurrent neurons whose connection is a weight layer, run by kernels and products: a `runner`."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from snn_backend_cpu.fused import Kernels, lanes
from snn_backend_cpu.loop import Loop, Tensors
from snn_backend_cpu.printing import Layout
from snn_backend_cpu.products import is_plain, only_taps, product_dtype, product_of
from snn_core.neurons import Recurrent
from snn_core.neurons.base import Neuron, State, Unrolled, checked_state, unroll_reference, widen

__all__ = ["Looped", "can_be_looped"]


def can_be_looped(neuron: Neuron) -> bool:
    """Whether it is a `Recurrent` whose connection is one plain weight layer, `nn.Linear` or a convolution."""
    return type(neuron) is Recurrent and is_plain(neuron.connection)


class Looped:
    """Runs a recurrent neuron with its inner neuron's step lowered. Raises LoweringError where that cannot be."""

    def __init__(self, neuron: Neuron, dtype: torch.dtype) -> None:
        assert isinstance(neuron, Recurrent)
        self._kernels = Kernels(neuron.neuron, dtype)

    def __call__(
        self, neuron: Neuron, x: Tensor, state: State | None, steps: int | None, wanted: Sequence[str]
    ) -> Unrolled:
        assert isinstance(neuron, Recurrent)
        inner: Neuron = neuron.neuron
        connection: Any = neuron.connection
        if not only_taps(connection):
            return unroll_reference(neuron, x, state, steps, wanted)
        count = neuron.check_input(x, steps)
        wide = widen(x)
        first = wide if steps is not None else wide[0]
        c = neuron.aligned_coefficients(first)
        state = neuron.initial(first, c) if state is None else checked_state(neuron, state, first)
        kernels = self._kernels.of(inner, first, state, c)
        names, dtype = kernels.lowered.coefficients, kernels.lowered.dtype
        layout = Layout(
            static=False,
            vectors=tuple(name for name in names if c[name].numel() > 1),
            recorded=tuple(name for name in inner.states if name in wanted),
        )
        sent, *rest = (s.expand_as(first).to(dtype).contiguous() for s in state)
        weights = [w for w in (connection.weight, connection.bias) if w is not None]
        given = Tensors(wide.to(dtype), sent, rest, weights, [lanes(c[name], first, dtype) for name in names])
        multiplied = product_dtype(connection)
        loop = Loop(kernels, layout, product_of(connection), multiplied, count, static=steps is not None)
        out, *others = loop.run(given)
        traces = {"spk": out, **dict(zip(layout.recorded, others[len(rest) :], strict=True))}
        _tell_taps(connection, (sent, *out.unbind(0)[:-1]))
        return out.to(x.dtype), (out[-1], *others[: len(rest)]), {name: traces[name] for name in wanted}


def _tell_taps(connection: Any, inputs: Sequence[Tensor]) -> None:
    """Let a step's taps see the connection's input of each step, as if it had been called."""
    for hook in connection._forward_hooks.values():
        for x in inputs:
            hook(connection, (x.to(connection.weight.dtype),), {}, x)
