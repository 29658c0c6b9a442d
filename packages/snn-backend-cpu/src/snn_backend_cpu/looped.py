"""Recurrent neurons whose connection is a weight layer, run by kernels and products: a `runner`."""

import warnings
from collections.abc import Sequence
from typing import Any, TypeGuard

import torch
from torch import Tensor

from snn_backend_cpu.fused import Kernels
from snn_backend_cpu.loop import Loop, Tensors
from snn_backend_cpu.printing import Layout
from snn_backend_cpu.products import is_plain, obeys_hooks, product_dtype, product_of
from snn_core.neurons import Recurrent
from snn_core.neurons.base import Neuron, State, Unrolled, starting_state, unroll_reference, widen

__all__ = ["Looped", "can_be_looped"]

_HOOKED = "the connection of a Recurrent got a hook after it was compiled, so it runs step by step in torch, and slowly"


def can_be_looped(neuron: Neuron) -> TypeGuard[Recurrent]:
    """Whether it takes the step of `Recurrent` over one plain weight layer, `nn.Linear` or a convolution."""
    if not isinstance(neuron, Recurrent) or not is_plain(neuron.connection):
        return False
    return all(getattr(type(neuron), name) is getattr(Recurrent, name) for name in ("dynamics", "_hear"))


class Looped:
    """Runs a recurrent neuron with its inner neuron's step lowered. Raises LoweringError where that cannot be."""

    def __init__(self, neuron: Recurrent, dtype: torch.dtype) -> None:
        self._kernels = Kernels(neuron.neuron, dtype)

    def __call__(
        self, neuron: Recurrent, x: Tensor, state: State | None, steps: int | None, wanted: Sequence[str]
    ) -> Unrolled:
        inner: Neuron = neuron.neuron
        connection: Any = neuron.connection
        if obeys_hooks(connection):  # since it was compiled: hooks of that time keep kernels away
            warnings.warn(_HOOKED, stacklevel=2)
            return unroll_reference(neuron, x, state, steps, wanted)
        count = neuron.check_input(x, steps)
        wide = widen(x)
        first = wide if steps is not None else wide[0]
        c = neuron.aligned_coefficients(first)
        state = starting_state(neuron, state, first, c)
        kernels = self._kernels.of(inner, first, c)
        names, dtype = kernels.lowered.coefficients, kernels.lowered.dtype
        layout = Layout(
            static=False,
            vectors=tuple(name for name in names if c[name].numel() > 1),
            recorded=tuple(name for name in inner.states if name in wanted),
        )
        sent, *rest = (s.expand_as(first).to(dtype) for s in state)
        weights = [w for w in (connection.weight, connection.bias) if w is not None]
        given = Tensors(wide, sent, rest, weights, [c[name].to(dtype) for name in names])
        multiplied = product_dtype(connection)
        loop = Loop(kernels, layout, product_of(connection), multiplied, count, static=steps is not None)
        out, last_sent, *others = loop.run(given)
        taps = connection._forward_hooks.values()
        # the caller may write over the output; what else holds its values gets a copy
        spk = out.clone() if taps or "spk" in wanted else out
        traces = {"spk": spk, **dict(zip(layout.recorded, others[len(rest) :], strict=True))}
        for tap in taps:
            for sent_before in (sent, *spk.unbind(0)[:-1]):
                # as if it had been called; a tap asks the output for its shape alone, which is the input's
                tap(connection, (sent_before.to(connection.weight.dtype),), {}, sent_before)
        return out.to(x.dtype), (last_sent, *others[: len(rest)]), {name: traces[name] for name in wanted}
