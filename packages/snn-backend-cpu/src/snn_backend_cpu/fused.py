"""Running a neuron over time by its fused kernels: what a program gives its neurons as `runner`."""

import warnings
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from snn_backend_cpu.attributes import changed, fingerprint
from snn_backend_cpu.lanes import lanes, or_zeros, smallest, spread, summed, written
from snn_backend_cpu.printing import Layout
from snn_backend_cpu.reaching import reach_of
from snn_backend_cpu.step_kernels import StepKernels, span_of
from snn_backend_cpu.threads import memory
from snn_core.errors import Unsupported
from snn_core.lower import LoweringError, lower
from snn_core.neurons.base import Coefficients, Neuron, State, Unrolled, starting_state, widen
from snn_core.surrogate import spike_reference, spikes_by

__all__ = ["Fused", "Kernels"]

_KEPT = 16
"""Lowered steps of a neuron that are kept at most."""

_OFTEN = 10
"""Calls in a row that lower a step anew, before it is said."""


class Kernels:
    """A neuron's kernels by the type in which it is computed and by its attributes, each lowered when first needed."""

    def __init__(self, neuron: Neuron, dtype: torch.dtype) -> None:
        self._last = dtype, fingerprint(neuron)
        self._made = OrderedDict({self._last: _lowered(neuron, dtype)})
        self._in_a_row = 0

    def of(self, neuron: Neuron, first: Tensor, c: Coefficients) -> StepKernels:
        """The kernels for one step's widened input and coefficients, and for the neuron's attributes as they are now.

        Raises LoweringError for other coefficients than were lowered, and for attributes with which no kernel can be
        made.
        """
        key = first.dtype, fingerprint(neuron)
        kernels = self._made.get(key)
        if kernels is None:
            kernels = self._made[key] = _lowered(neuron, first.dtype)
            self._say_if_often(neuron, key)
            if len(self._made) > _KEPT:
                self._made.popitem(last=False)
        else:
            self._in_a_row = 0
            if key != self._last:
                self._made.move_to_end(key)
        self._last = key
        if set(c) != set(kernels.lowered.coefficients):
            raise LoweringError(
                f"{type(neuron).__name__}.coefficients() gives {sorted(c)}, and gave "
                f"{sorted(kernels.lowered.coefficients)} when its step was lowered; give the same names at every call, "
                "in training and in evaluation"
            )
        return kernels

    def _say_if_often(self, neuron: Neuron, key: "tuple[torch.dtype, tuple[Any, ...]]") -> None:
        self._in_a_row += 1
        if self._in_a_row == _OFTEN:
            names = ", ".join(changed(self._last[1], key[1]))
            warnings.warn(
                f"{type(neuron).__name__} has had another value of {names} at each of {_OFTEN} calls, and its step is "
                "lowered and compiled anew for each; return what changes as a tensor from coefficients(), and keep "
                "what the step does not read out of the neuron",
                stacklevel=3,
            )


def _lowered(neuron: Neuron, dtype: torch.dtype) -> StepKernels:
    # apart from the run that may be going on: its checkpoints count tensors, and it has spikes by kernels of their own
    with torch.inference_mode(False), saved_tensors_hooks(_as_it_is, _as_it_is), spikes_by(spike_reference):
        return StepKernels(lower(neuron, dtype), reach_of(neuron, dtype))


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


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
        state = starting_state(neuron, state, first, c)
        kernels = self._kernels.of(neuron, first, c)
        names, dtype = kernels.lowered.coefficients, kernels.lowered.dtype
        layout = Layout(
            static=steps is not None,
            vectors=tuple(name for name in names if c[name].numel() > 1),
            recorded=tuple(name for name in neuron.states if name in wanted),
            stored="float" if x.dtype == dtype else str(x.dtype).replace("torch.", ""),
        )
        given = [x.contiguous(), *(s.expand_as(first).to(dtype) for s in state), *(c[name].to(dtype) for name in names)]
        out, *others = _unroll(kernels, count, layout, given)
        last, recorded = others[: len(state)], others[len(state) :]
        traces = dict(zip(layout.recorded, recorded, strict=True))
        return out, tuple(last), {name: traces[name] for name in wanted}


def _unroll(kernels: StepKernels, steps: int, layout: Layout, given: Sequence[Tensor]) -> tuple[Tensor, ...]:
    if torch.is_grad_enabled() and any(t.requires_grad for t in given):
        return _Unrolled.apply(kernels, steps, layout, *given)
    return _forward(kernels, steps, layout, given, 0)[0]


def _forward(
    kernels: StepKernels, steps: int, layout: Layout, given: Sequence[Tensor], span: int
) -> tuple[tuple[Tensor, ...], list[Tensor]]:
    """The output, the last state and the recorded states; and the state of every `span`-th step, 0 keeping none."""
    states, dtype = len(kernels.lowered.states), kernels.lowered.dtype
    x, state, c = given[0], given[1 : 1 + states], given[1 + states :]
    shape = x.shape if layout.static else x.shape[1:]
    out = x.new_empty((steps, *shape))
    last = [s.clone(memory_format=torch.contiguous_format) for s in state]
    traces = [x.new_empty((steps, *shape), dtype=dtype) for _ in layout.recorded]
    kept = [x.new_empty(((steps - 1) // span, *shape), dtype=dtype) for _ in state] if span else []
    arrays = (x, out, *last, *traces, *kept, *(lanes(value, shape) for value in c))
    kernels.forward(layout, steps, shape.numel(), [*map(memory, arrays)], span)
    return (out, *last, *traces), kept


class _Unrolled(torch.autograd.Function):
    """All steps of a neuron: one kernel forward, one backward. Keeps x, the coefficients and every span's state."""

    @staticmethod
    def forward(ctx: Any, kernels: StepKernels, steps: int, layout: Layout, *given: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        span, states = span_of(steps), len(kernels.lowered.states)
        results, kept = _forward(kernels, steps, layout, given, span)
        ctx.kernels, ctx.steps, ctx.layout, ctx.span = kernels, steps, layout, span
        x, state, c = given[0], given[1 : 1 + states], given[1 + states :]
        ctx.save_for_backward(x, *map(smallest, state), *c, *kept)
        return results

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        lowered = ctx.kernels.lowered
        names = ("x", *(f"state.{name}" for name in lowered.states), *(f"c.{name}" for name in lowered.coefficients))
        needed = {name for name, need in zip(names, ctx.needs_input_grad[3:], strict=True) if need}
        wanted = needed & _reached(ctx, cotangents)
        found = _gradients(ctx, cotangents, wanted) if wanted else {}
        return (None, None, None, *(found[name] if name in wanted else None for name in names))


def _reached(ctx: Any, cotangents: Sequence[Tensor | None]) -> frozenset[str]:
    """The inputs that these gradients come to, as autograd would tell."""
    there = [d is not None for d in cotangents]
    states, recorded = ctx.kernels.lowered.states, ctx.layout.recorded
    last = [f"state.{name}" for name, present in zip(states, there[1:]) if present]
    every = [f"state.{name}" for name, present in zip(recorded, there[1 + len(states) :], strict=True) if present]
    return ctx.kernels.reach.over(ctx.steps, ["out", *every] if there[0] else every, last)


def _gradients(ctx: Any, cotangents: Sequence[Tensor | None], wanted: set[str]) -> dict[str, Tensor]:
    """Go back over all steps, for the gradients that are wanted and those of the first state."""
    lowered, steps = ctx.kernels.lowered, ctx.steps
    states, names = len(lowered.states), lowered.coefficients
    x, *saved = _saved(ctx)
    state, c, kept = saved[:states], saved[states : states + len(names)], saved[states + len(names) :]
    shape = x.shape if ctx.layout.static else x.shape[1:]
    learnt = [name for name in names if f"c.{name}" in wanted]
    layout = ctx.layout.learning((*(["x"] if "x" in wanted else []), *learnt))
    like, whole = x.new_empty(0, dtype=lowered.dtype), (steps, *shape)
    dout = or_zeros(cotangents[0], x, whole)
    carried = [written(d, like, shape) for d in cotangents[1 : 1 + states]]
    dtraces = [or_zeros(d, like, whole) for d in cotangents[1 + states :]]
    dx = [like.new_zeros(shape) if layout.static else torch.empty_like(x)] if "x" in wanted else []
    sums = [like.new_zeros(shape) for _ in learnt]
    arrays = [x, dout, *(spread(s, shape) for s in state), *kept, *(lanes(value, shape) for value in c)]
    arrays += [*dtraces, *dx, *carried, *sums]
    ctx.kernels.backward(layout, steps, shape.numel(), [*map(memory, arrays)], ctx.span)
    given = dict(zip(names, c, strict=True))
    return {
        **dict(zip(["x"] if dx else [], dx)),
        **{f"state.{name}": d for name, d in zip(lowered.states, carried, strict=True)},
        **{f"c.{name}": summed(total, given[name]) for name, total in zip(learnt, sums, strict=True)},
    }


def _saved(ctx: Any) -> tuple[Tensor, ...]:
    """What forward kept; once, since a checkpointed forward gives it only once."""
    try:
        return ctx.saved_tensors
    except RuntimeError as exc:
        if "modified by an inplace operation" not in str(exc):
            raise
        raise Unsupported(
            f"{ctx.kernels.lowered.neuron} keeps its input for backward, and the model wrote over that (or over a "
            "state or coefficient of it) after the call: write h = h + z instead of h += z"
        ) from exc
