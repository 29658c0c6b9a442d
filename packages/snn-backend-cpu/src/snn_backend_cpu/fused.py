"""Running a neuron over time by its fused kernels: what a program gives its neurons as `runner`."""

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from snn_backend_cpu.printing import Layout
from snn_backend_cpu.step_kernels import StepKernels, span_of
from snn_backend_cpu.threads import memory
from snn_core.lower import LoweringError, lower
from snn_core.neurons.base import Coefficients, Neuron, State, Unrolled, checked_state, widen

__all__ = ["Fused", "Kernels", "lanes"]


class Kernels:
    """A neuron's kernels by the type in which it is computed, each lowered when it is first needed."""

    def __init__(self, neuron: Neuron, dtype: torch.dtype) -> None:
        self._by_dtype = {dtype: StepKernels(lower(neuron, dtype))}

    def of(self, neuron: Neuron, first: Tensor, state: State, c: Coefficients) -> StepKernels:
        """The kernels for one step's widened input, a state and coefficients: of the widest type of input and state.

        Raises LoweringError for other coefficients than were lowered.
        """
        dtype = functools.reduce(torch.promote_types, (t.dtype for t in (first, *state)))
        if dtype not in self._by_dtype:
            self._by_dtype[dtype] = StepKernels(lower(neuron, dtype))
        kernels = self._by_dtype[dtype]
        if set(c) != set(kernels.lowered.coefficients):
            raise LoweringError(
                f"{type(neuron).__name__}.coefficients() gives {sorted(c)}, and gave "
                f"{sorted(kernels.lowered.coefficients)} when its step was lowered; give the same names at every call, "
                "in training and in evaluation"
            )
        return kernels


def lanes(value: Tensor, first: Tensor, dtype: torch.dtype) -> Tensor:
    """A coefficient as a kernel takes it: one number, or one for each value of a step's input."""
    return _flat((value if value.numel() == 1 else value.expand_as(first)).to(dtype))


def _flat(value: Tensor) -> Tensor:
    """All numbers in order, one next to the other: what `reshape(-1)` gives alone may have gaps."""
    return value.contiguous().view(-1)


class Fused:
    """Runs one neuron's step, lowered, over all time steps in one kernel. Raises LoweringError where it cannot be."""

    def __init__(self, neuron: Neuron, dtype: torch.dtype) -> None:
        self._kernels = Kernels(neuron, dtype)

    def __call__(
        self, neuron: Neuron, x: Tensor, state: State | None, steps: int | None, wanted: Sequence[str]
    ) -> Unrolled:
        count = neuron.check_input(x, steps)
        first = widen(x if steps is not None else x[0])
        c = neuron.aligned_coefficients(first)
        state = neuron.initial(first, c) if state is None else checked_state(neuron, state, first)
        kernels = self._kernels.of(neuron, first, state, c)
        names, dtype = kernels.lowered.coefficients, kernels.lowered.dtype
        halved = x.dtype in (torch.bfloat16, torch.float16) and dtype == torch.float32
        layout = Layout(
            static=steps is not None,
            vectors=tuple(name for name in names if c[name].numel() > 1),
            recorded=tuple(name for name in neuron.states if name in wanted),
            stored=str(x.dtype).replace("torch.", "") if halved else "float",
        )
        flat = [_flat(x if halved else x.to(dtype)), *(_flat(s.expand_as(first).to(dtype)) for s in state)]
        results = _unroll(kernels, count, layout, [*flat, *(lanes(c[name], first, dtype) for name in names)])
        shape = tuple(first.shape)
        last = tuple(t.reshape(shape) for t in results[1 : 1 + len(state)])
        recorded = [t.reshape(count, *shape) for t in results[1 + len(state) :]]
        traces = dict(zip(layout.recorded, recorded, strict=True))
        return results[0].reshape(count, *shape).to(x.dtype), last, {name: traces[name] for name in wanted}


def _unroll(kernels: StepKernels, steps: int, layout: Layout, flat: Sequence[Tensor]) -> tuple[Tensor, ...]:
    if torch.is_grad_enabled() and any(t.requires_grad for t in flat):
        return _Unrolled.apply(kernels, steps, layout, *flat)
    return _forward(kernels, steps, layout, flat, 0)[0]


def _forward(
    kernels: StepKernels, steps: int, layout: Layout, flat: Sequence[Tensor], span: int
) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    states = len(kernels.lowered.states)
    x, rest, c = flat[0], flat[1 : 1 + states], flat[1 + states :]
    width = x.numel() if layout.static else x.numel() // steps
    dtype = kernels.lowered.dtype
    out = x.new_empty(steps * width)
    last = [s.clone() for s in rest]
    traces = [x.new_empty(steps * width, dtype=dtype) for _ in layout.recorded]
    kept = [x.new_empty((steps - 1) // span * width, dtype=dtype) for _ in rest] if span else []
    kernels.forward(layout, steps, width, [*map(memory, (x, out, *last, *traces, *kept, *c))], span)
    return (out, *last, *traces), kept


class _Unrolled(torch.autograd.Function):
    """All steps of a neuron: one kernel forward, one backward. Keeps x, the coefficients and every span's state."""

    @staticmethod
    def forward(ctx: Any, kernels: StepKernels, steps: int, layout: Layout, *flat: Tensor) -> tuple[Tensor, ...]:
        span = span_of(steps)
        results, kept = _forward(kernels, steps, layout, flat, span)
        lowered = kernels.lowered
        needed = ctx.needs_input_grad[3:]
        learnt = [name for name, need in zip(lowered.coefficients, needed[1 + len(lowered.states) :]) if need]
        ctx.kernels, ctx.steps, ctx.span = kernels, steps, span
        ctx.layout = layout.learning(("x",) * needed[0] + tuple(learnt))
        ctx.save_for_backward(*flat, *kept)
        return results

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        lowered, layout, steps = ctx.kernels.lowered, ctx.layout, ctx.steps
        states, names = len(lowered.states), lowered.coefficients
        x, *saved = ctx.saved_tensors  # once: a checkpointed forward gives them only once
        rest, c, kept = saved[:states], saved[states : states + len(names)], saved[states + len(names) :]
        width = x.numel() if layout.static else x.numel() // steps
        dout, dlast, dtraces = cotangents[0], cotangents[1 : 1 + states], cotangents[1 + states :]
        dx = [x.new_zeros(width, dtype=lowered.dtype) if layout.static else torch.empty_like(x)]
        dx = dx if "x" in layout.learnt else []
        carried = [d.clone() for d in dlast]
        sums = {name: x.new_zeros(width, dtype=lowered.dtype) for name in names if name in layout.learnt}
        shared = [x, dout.contiguous(), *rest, *kept, *c, *(d.contiguous() for d in dtraces), *dx, *carried]
        ctx.kernels.backward(layout, steps, width, [*map(memory, (*shared, *sums.values()))], ctx.span)
        by_coefficient = [
            None if name not in sums else sums[name] if name in layout.vectors else sums[name].sum().reshape(1)
            for name in names
        ]
        return (None, None, None, *(dx or (None,)), *carried, *by_coefficient)
