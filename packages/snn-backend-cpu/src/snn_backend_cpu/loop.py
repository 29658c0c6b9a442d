"""Neurons that hear each other through a weight layer: products step by step, everything else by kernels.

Autograd would keep some ten tensors of each step and take the weight's gradient of each step alone. Here forward keeps
what the neurons got, backward goes through the steps with the neuron's kernel and one product each, and the weight's
gradient is one product over all steps. What the neurons sent is computed again: the caller may have written over it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from snn_backend_cpu.lanes import lanes, or_zeros, smallest, spread, summed, written
from snn_backend_cpu.printing import Layout
from snn_backend_cpu.products import Product
from snn_backend_cpu.step_kernels import StepKernels, span_of
from snn_backend_cpu.threads import Array, memory
from snn_core.lower import Lowered

__all__ = ["Loop", "Tensors"]


@dataclass(frozen=True)
class Loop:
    """What a run over time is made of beside its tensors.

    product: from what the neurons sent in the step before to what they hear, multiplied in `multiplied`.
    static: the drive has no time.
    """

    kernels: StepKernels
    layout: Layout
    product: Product
    multiplied: torch.dtype
    steps: int
    static: bool

    def run(self, given: "Tensors") -> tuple[Tensor, ...]:
        """Return what was sent, `[T, B, ...]`, what was sent last, the last state, and the recorded states."""
        flat = given.flat()
        if torch.is_grad_enabled() and any(t.requires_grad for t in flat):
            return _Looped.apply(self, (len(given.state), len(given.weights)), *flat)
        return _forward(self, given, given.sent.new_empty((1, *given.sent.shape)), ())

    @property
    def span(self) -> int:
        return span_of(self.steps)

    def reached(self, cotangents: Sequence[Tensor | None]) -> frozenset[str]:
        """The inputs, by `Tensors.names`, to which these gradients of what `run` returns come."""
        states, recorded = ("spk", *self.kernels.lowered.states), self.layout.recorded
        there = [d is not None for d in cotangents]
        last = [f"state.{name}" for name, present in zip(states, there[1:]) if present]
        every = [f"state.{name}" for name, present in zip(recorded, there[1 + len(states) :], strict=True) if present]
        reach = self.kernels.reach.through_connection
        found = reach.over(self.steps, ["out", *every] if there[0] else every, last)
        return found | {"weight", "bias"} if "x" in found else found


@dataclass(frozen=True)
class Tensors:
    """drive: what comes from outside, `[T, B, ...]`, or without T.   sent, state: before the first step.
    weights: of the product.   c: the coefficients.
    """

    drive: Tensor
    sent: Tensor
    state: Sequence[Tensor]
    weights: Sequence[Tensor]
    c: Sequence[Tensor]

    def smallest(self) -> "Tensors":
        """What is kept of them for backward."""
        return replace(self, sent=smallest(self.sent), state=[*map(smallest, self.state)])

    def spread(self, shape: Sequence[int]) -> "Tensors":
        """The start again as it was, and coefficients as kernels take them."""
        state, c = [spread(s, shape) for s in self.state], [lanes(value, shape) for value in self.c]
        return replace(self, sent=spread(self.sent, shape), state=state, c=c)

    def names(self, lowered: Lowered) -> list[str]:
        """The names of `flat`'s tensors."""
        states, c = [f"state.{name}" for name in lowered.states], [f"c.{name}" for name in lowered.coefficients]
        return ["x", "state.spk", *states, *("weight", "bias")[: len(self.weights)], *c]

    def flat(self) -> list[Tensor]:
        return [self.drive, self.sent, *self.state, *self.weights, *self.c]

    @staticmethod
    def of(flat: Sequence[Tensor], counts: tuple[int, int]) -> "Tensors":
        drive, sent, *rest = flat
        states, weights = counts[0], sum(counts)
        return Tensors(drive, sent, rest[:states], rest[states:weights], rest[weights:])


def _rows(tensor: Tensor) -> Array:
    """A sequence's memory, one row for each step."""
    return memory(tensor).reshape(len(tensor), -1)


def _forward(loop: Loop, given: Tensors, h: Tensor, kept: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Run; fill h, what each step's neurons got (the last step's where h has one row), and the kept states."""
    before, shape, width, span = given.sent, given.sent.shape, given.sent.numel(), loop.span
    sent = before.new_empty((loop.steps, *shape))
    state = [s.clone(memory_format=torch.contiguous_format) for s in given.state]
    traces = [before.new_empty((loop.steps, *shape)) for _ in loop.layout.recorded]
    hs, outs, recorded = _rows(h), _rows(sent), [_rows(trace) for trace in traces]
    last, c = [*map(memory, state)], [memory(lanes(value, shape)) for value in given.c]
    drives = (given.drive,) * loop.steps if loop.static else given.drive.unbind(0)
    rows, after = h.unbind(0), sent.unbind(0)
    for t in range(loop.steps):
        if t and t % span == 0:
            for store, value in zip(kept, state):  # nothing is kept where no gradient is wanted
                store[t // span - 1].copy_(value)
        row = min(t, len(rows) - 1)
        heard = loop.product.forward(before.to(given.weights[0].dtype), *given.weights)
        torch.add(drives[t], heard.to(h.dtype), out=rows[row])
        loop.kernels.forward(loop.layout, 1, width, [hs[row], outs[t], *last, *(r[t] for r in recorded), *c])
        before = after[t]
    return (sent, after[-1].clone(), *state, *traces)


class _Looped(torch.autograd.Function):
    """Neurons over all their steps. Keeps what they got, and every span's state."""

    @staticmethod
    def forward(ctx: Any, loop: Loop, counts: tuple[int, int], *flat: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        given = Tensors.of(flat, counts)
        h = given.sent.new_empty((loop.steps, *given.sent.shape))
        kept = [s.new_empty(((loop.steps - 1) // loop.span, *s.shape)) for s in given.state]
        results = _forward(loop, given, h, kept)
        ctx.loop, ctx.counts = loop, counts
        ctx.save_for_backward(*given.smallest().flat()[1:], h, *kept)
        return results

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
        saved, needed, loop = ctx.saved_tensors, ctx.needs_input_grad[2:], ctx.loop
        h, *kept = saved[len(needed) - 1 :]
        given = Tensors.of((h, *saved[: len(needed) - 1]), ctx.counts)
        names = given.names(loop.kernels.lowered)
        wanted = {name for name, need in zip(names, needed, strict=True) if need} & loop.reached(cotangents)
        found = _Backward(loop, given, kept, cotangents, wanted).run() if wanted else {}
        return (None, None, *(found[name] if name in wanted else None for name in names))


class _Backward:
    """One way back through time. given: its drive is what each step's neurons got.   wanted: names of gradients."""

    def __init__(
        self,
        loop: Loop,
        given: Tensors,
        kept: Sequence[Tensor],
        cotangents: Sequence[Tensor | None],
        wanted: set[str],
    ) -> None:
        self.loop, self.kept, self.wanted = loop, kept, wanted
        self.coefficients, self.given = given.c, given.spread(given.drive.shape[1:])
        names, states = loop.kernels.lowered.coefficients, len(given.state)
        self.learnt = tuple(name for name in names if f"c.{name}" in wanted)
        self.layout = loop.layout.learning(("x", *self.learnt))
        self.weight = given.weights[0].to(loop.multiplied)
        like, shape = self.given.sent, self.given.sent.shape
        self.dsent = or_zeros(cotangents[0], like, given.drive.shape)
        self.dlast = cotangents[1]
        self.carried = [written(d, like, shape) for d in cotangents[2 : 2 + states]]
        self.dtraces = [or_zeros(d, like, given.drive.shape) for d in cotangents[2 + states :]]
        self.dh = torch.empty_like(given.drive)
        self.sums = {name: torch.zeros_like(like) for name in self.learnt}
        # what was sent before each step, and after the last
        self.sent = like.new_empty((loop.steps + 1, *shape))
        self.sent[0] = like

    def run(self) -> dict[str, Tensor]:
        """The gradients that are wanted, and some that came with them."""
        before = self._through_time()
        names, states = self.loop.kernels.lowered.coefficients, self.loop.kernels.lowered.states
        given = dict(zip(names, self.coefficients, strict=True))
        return {
            "x": self.dh.sum(0) if self.loop.static else self.dh,
            "state.spk": before,
            **{f"state.{name}": d for name, d in zip(states, self.carried, strict=True)},
            **(self._weights() if self.wanted & {"weight", "bias"} else {}),
            **{f"c.{name}": summed(total, given[name]) for name, total in self.sums.items()},
        }

    def _through_time(self) -> Tensor:
        """Fill all gradients but the weights'; return that of what was sent before the first step."""
        loop, width = self.loop, self.given.sent.numel()
        hs, dhs, traced = _rows(self.given.drive), _rows(self.dh), [_rows(d) for d in self.dtraces]
        c, own = [*map(memory, self.given.c)], [memory(t) for t in (*self.carried, *self.sums.values())]
        nothing = [np.empty(0, hs.dtype)] * len(self.carried)  # a run of one step keeps no state
        like = self.given.sent.to(loop.multiplied)
        douts, grads = self.dsent.unbind(0), self.dh.unbind(0)
        later = self.dlast  # the gradient of what a step sent by what the next one heard
        for first in reversed(range(0, loop.steps, loop.span)):
            end = min(first + loop.span, loop.steps)
            befores = self._again(first, end, hs, c)
            for t in reversed(range(first, end)):
                dout = memory((douts[t] if later is None else douts[t] + later).contiguous())
                arrays = [hs[t], dout, *(b[t - first] for b in befores), *nothing, *c, *(d[t] for d in traced), dhs[t]]
                loop.kernels.backward(self.layout, 1, width, [*arrays, *own], span=1)
                later = loop.product.to_input(grads[t].to(loop.multiplied), like, self.weight).to(self.dh.dtype)
        assert later is not None
        return later

    def _again(self, first: int, end: int, hs: Array, c: Sequence[Array]) -> list[Array]:
        """Compute a span again: fill what it sent, and return the states before each of its steps, `[steps, width]`."""
        loop = self.loop
        starts = self.given.state if first == 0 else [kept[first // loop.span - 1] for kept in self.kept]
        rows = [np.empty((end - first + 1, start.numel()), hs.dtype) for start in starts]
        for row, start in zip(rows, starts, strict=True):
            row[0] = memory(start)
        last, records = [row[0].copy() for row in rows], [row[1:].reshape(-1) for row in rows]
        arrays = [hs[first:end].reshape(-1), memory(self.sent[first + 1 : end + 1]), *last, *records, *c]
        layout = replace(loop.layout, recorded=loop.kernels.lowered.states)
        loop.kernels.forward(layout, end - first, hs.shape[1], arrays)
        return rows

    def _weights(self) -> dict[str, Tensor]:
        """The gradients of weight and bias: one product over all steps."""
        before = self.sent[:-1].to(self.loop.multiplied)
        both = self.loop.product.to_weights(self.dh.to(self.loop.multiplied), before, self.weight)
        return dict(zip(("weight", "bias"), both, strict=True))
