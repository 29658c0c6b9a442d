"""Running a neuron over time by its fused kernels: what a program gives its neurons as `runner`."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from snn_backend_cpu.kernels import Kernel, compiled
from snn_backend_cpu.printing import Layout, backward_source, forward_source
from snn_backend_cpu.threads import PIECE, run
from snn_core.lower import Lowered, lower
from snn_core.neurons.base import Neuron, State, Unrolled, checked_state, widen

__all__ = ["SPAN", "Fused"]

SPAN = 16
"""Steps between two kept states in training."""


class Kernels:
    """The kernels of one lowered step, each made when it is first needed."""

    def __init__(self, lowered: Lowered) -> None:
        self.lowered = lowered
        self._kind = str(lowered.dtype).replace("torch.", "")
        self._forward: dict[tuple[Layout, bool], Kernel] = {}
        self._backward: dict[Layout, tuple[Kernel, tuple[tuple[int, str], ...]]] = {}

    def forward(self, layout: Layout, keep: bool) -> Kernel:
        key = (layout, keep)
        if key not in self._forward:
            source, arrays = forward_source(self.lowered, layout, keep, SPAN)
            self._forward[key] = compiled(source, (self._kind,) * len(arrays))
        return self._forward[key]

    def backward(self, layout: Layout) -> tuple[Kernel, tuple[tuple[int, str], ...]]:
        """The kernel, and size and type of each scratch array that it takes last."""
        if layout not in self._backward:
            split = self.lowered.split(layout.learnt)
            source, arrays = backward_source(self.lowered, split, layout, SPAN)
            own = [(PIECE, self._kind)] * len(self.lowered.states)
            own += [(SPAN * PIECE, self._kind if kind == "float" else "uint8") for kind in split.kept]
            kinds = (self._kind,) * (len(arrays) - len(own)) + tuple(kind for _, kind in own)
            self._backward[layout] = compiled(source, kinds), tuple(own)
        return self._backward[layout]


class Fused:
    """Runs one neuron's step, lowered, over all time steps in one kernel. Raises LoweringError where it cannot be."""

    def __init__(self, neuron: Neuron, dtype: torch.dtype) -> None:
        self._kernels = {dtype: Kernels(lower(neuron, dtype))}

    def __call__(
        self, neuron: Neuron, x: Tensor, state: State | None, steps: int | None, wanted: Sequence[str]
    ) -> Unrolled:
        count = neuron.check_input(x, steps)
        wide = widen(x)
        first = wide if steps is not None else wide[0]
        c = neuron.aligned_coefficients(first)
        state = neuron.initial(first, c) if state is None else checked_state(neuron, state, first)
        dtype = functools.reduce(torch.promote_types, (t.dtype for t in (wide, *state)))
        dtype = functools.reduce(torch.promote_types, (t.dtype for t in c.values() if t.ndim), dtype)
        if dtype not in self._kernels:
            self._kernels[dtype] = Kernels(lower(neuron, dtype))
        kernels = self._kernels[dtype]
        names = kernels.lowered.coefficients
        layout = Layout(
            static=steps is not None,
            vectors=tuple(name for name in names if c[name].numel() > 1),
            recorded=tuple(name for name in neuron.states if name in wanted),
        )
        tensors = [wide, *(s.expand_as(first) for s in state), *(_lanes(c[name], first) for name in names)]
        results = _unroll(kernels, count, layout, [t.to(dtype).reshape(-1) for t in tensors])
        shape = tuple(first.shape)
        last = tuple(t.reshape(shape) for t in results[1 : 1 + len(state)])
        recorded = [t.reshape(count, *shape) for t in results[1 + len(state) :]]
        traces = dict(zip(layout.recorded, recorded, strict=True))
        return results[0].reshape(count, *shape).to(x.dtype), last, {name: traces[name] for name in wanted}


def _lanes(value: Tensor, first: Tensor) -> Tensor:
    return value if value.numel() == 1 else value.expand_as(first)


def _unroll(kernels: Kernels, steps: int, layout: Layout, flat: Sequence[Tensor]) -> tuple[Tensor, ...]:
    if torch.is_grad_enabled() and any(t.requires_grad for t in flat):
        return _Unrolled.apply(kernels, steps, layout, *flat)
    return _forward(kernels, steps, layout, flat, keep=False)[0]


def _forward(
    kernels: Kernels, steps: int, layout: Layout, flat: Sequence[Tensor], keep: bool
) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    states = len(kernels.lowered.states)
    x, rest, c = flat[0], flat[1 : 1 + states], flat[1 + states :]
    width = x.numel() if layout.static else x.numel() // steps
    out = x.new_empty(steps * width)
    last = [s.clone() for s in rest]
    traces = [x.new_empty(steps * width) for _ in layout.recorded]
    kept = [x.new_empty((steps - 1) // SPAN * width) for _ in rest] if keep else []
    run(kernels.forward(layout, keep), steps, width, [x, out, *last, *traces, *kept, *c], ())
    return (out, *last, *traces), kept


class _Unrolled(torch.autograd.Function):
    """All steps of a neuron: one kernel forward, one backward. Keeps x, the coefficients and every `SPAN`-th state."""

    @staticmethod
    def forward(ctx: Any, kernels: Kernels, steps: int, layout: Layout, *flat: Tensor) -> tuple[Tensor, ...]:
        results, kept = _forward(kernels, steps, layout, flat, keep=True)
        lowered = kernels.lowered
        needed = ctx.needs_input_grad[3:]
        learnt = [name for name, need in zip(lowered.coefficients, needed[1 + len(lowered.states) :]) if need]
        ctx.kernels, ctx.steps = kernels, steps
        ctx.layout = Layout(layout.static, layout.vectors, layout.recorded, ("x",) * needed[0] + tuple(learnt))
        ctx.save_for_backward(*flat, *kept)
        return results

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        lowered, layout, steps = ctx.kernels.lowered, ctx.layout, ctx.steps
        states, names = len(lowered.states), lowered.coefficients
        x, saved = ctx.saved_tensors[0], ctx.saved_tensors[1:]
        rest, c, kept = saved[:states], saved[states : states + len(names)], saved[states + len(names) :]
        width = x.numel() if layout.static else x.numel() // steps
        dout, dlast, dtraces = cotangents[0], cotangents[1 : 1 + states], cotangents[1 + states :]
        dx = [torch.zeros_like(x) if layout.static else torch.empty_like(x)] if "x" in layout.learnt else []
        carried = [d.clone() for d in dlast]
        sums = {name: x.new_zeros(width) for name in names if name in layout.learnt}
        shared = [x, dout.contiguous(), *rest, *kept, *c, *(d.contiguous() for d in dtraces), *dx, *carried]
        kernel, scratch = ctx.kernels.backward(layout)
        run(kernel, steps, width, [*shared, *sums.values()], scratch)
        by_coefficient = [
            None if name not in sums else sums[name] if name in layout.vectors else sums[name].sum().reshape(1)
            for name in names
        ]
        return (None, None, None, *(dx or (None,)), *carried, *by_coefficient)
