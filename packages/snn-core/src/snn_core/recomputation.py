"""A forward that remembers states alone: the sequence in segments, each computed again when backward comes to it.

What training holds then grows with the length of one segment and with the number of segments, no longer with the number
of steps times all layers. Chen et al. 2016, "Training deep nets with sublinear memory cost", along time.

All segments are one operation of autograd, and its results and the remembered states lie in tensors made before the
second segment. Whatever a single segment left alive, be it a graph's node, would lie among the blocks that it frees;
the C library could not join these for the next segment, and the process would grow with the sequence after all.
"""

from typing import Any, Callable, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from snn_core.recording import CarriedStates, NeuronCall, Recorder
from snn_core.segments import Gathered, Gradients, Segment, flat
from snn_core.surroundings import Surroundings

__all__ = ["run_in_segments"]


def run_in_segments(
    model: nn.Module, recorder: Recorder, x: Tensor, steps: int, states: CarriedStates, outputs: bool
) -> Tensor:
    """Run the model on x `[T, B, ...]`, `steps` steps at a time; return its output `[T, B, ...]`.

    The recorder is left as if the model had run once: with traces, last states and weight layers' inputs of the whole
    sequence, and the neurons' outputs where `outputs` asks for them. The model must be one that may be cut in time.
    """

    def run(piece: Tensor, start: CarriedStates) -> Segment:
        recorder.begin(start)
        try:
            output = model(piece)
            neurons = [[_light(call, outputs) for call in tap.calls] for tap in recorder.neurons.values()]
            layers = [list(tap.calls) for tap in recorder.layers.values()]
            ran = [list(recorder.neurons.values()).index(tap) for tap in recorder.ran]
            return Segment(output, neurons, layers, ran)
        finally:
            recorder.end()

    weights = [weight for weight in model.parameters() if weight.requires_grad]
    past = _Past(run, steps, states, weights)
    results = _Segments.apply(past, x, *flat(states), *weights)
    past.gathered.tell(recorder, results)
    return results[0]


def _light(call: NeuronCall, output: bool) -> NeuronCall:
    return call if output else call._replace(out=call.out.new_empty((0, *call.out.shape[1:])))


class _Segments(torch.autograd.Function):
    """All segments as one operation on a `_Past`, x, the states to start from and the weights."""

    @staticmethod
    def forward(ctx: Any, past: "_Past", x: Tensor, *rest: Tensor) -> Tuple[Tensor, ...]:
        given = rest[: len(rest) - len(past.weights)]
        kept = past.forward(x, given)
        results = past.gathered.taken()
        ctx.past = past
        ctx.set_materialize_grads(False)
        ctx.mark_non_differentiable(*(r for r, learnt in zip(results, past.gathered.learnt) if not learnt))
        ctx.save_for_backward(x, *given, *kept)
        return tuple(results)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: Optional[Tensor]) -> Tuple[Optional[Tensor], ...]:
        x, *states = ctx.saved_tensors
        return (None, *ctx.past.backward(x, states, gradients, ctx.needs_input_grad[1]))


class _Start(NamedTuple):
    """The states that a segment starts from. nest: how many tensors each call of each layer has.

    learnt: for each tensor whether it has a gradient.
    """

    nest: Sequence[Sequence[int]]
    learnt: Sequence[bool]

    @classmethod
    def like(cls, states: CarriedStates) -> "_Start":
        nest = tuple(tuple(len(state) for state in calls) for calls in states)
        return cls(nest, tuple(tensor.requires_grad for tensor in flat(states)))

    def leaves(self, tensors: Iterable[Tensor]) -> List[Tensor]:
        return [tensor.detach().requires_grad_(learnt) for tensor, learnt in zip(tensors, self.learnt)]

    def states(self, tensors: Iterable[Tensor]) -> CarriedStates:
        left = iter(tensors)
        return tuple(tuple(tuple(next(left) for _ in range(count)) for count in calls) for calls in self.nest)


class _Past:
    """A forward in segments: how to run each, and how it ran. Tensors are autograd's to keep."""

    def __init__(
        self,
        run: Callable[[Tensor, CarriedStates], Segment],
        steps: int,
        states: CarriedStates,
        weights: Sequence[Tensor],
    ) -> None:
        self._run, self._steps, self.weights = run, steps, weights
        self._starts = [_Start.like(states)]
        self.gathered = Gathered()

    def forward(self, x: Tensor, given: Sequence[Tensor]) -> List[Tensor]:
        """Run all segments; return the states between them."""
        pieces = x.split(self._steps)
        self._surroundings = Surroundings(x.device, len(pieces))
        kept: List[List[Tensor]] = []
        before = list(given)
        for index, piece in enumerate(pieces):
            self._surroundings.remember(index)
            segment = self._first_run(piece, before)
            if not kept:  # the first one shows how large states are
                kept = [[torch.empty_like(end) for end in segment.ends] for _ in pieces]
            before = [_stored(*pair) for pair in zip(segment.ends, kept[index])]
            kept[index] = before
            self._starts.append(_Start.like(segment.states))
            self.gathered.add(segment, before, len(piece), len(x))
            del segment  # before the next one takes as much again
        return [tensor for states in kept[:-1] for tensor in states]

    def _first_run(self, piece: Tensor, states: Sequence[Tensor]) -> Segment:
        # with gradients, which is what backward will run, and shows what has some; the graph keeps nothing
        start = self._starts[-1]
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(_forget, _forget):
            return self._run(piece, start.states(start.leaves(states)))

    def backward(self, x: Tensor, states: Sequence[Tensor], gradients: Gradients, of_x: bool) -> Gradients:
        """Run each segment again, the last one first. Return the gradients of x, the given states and the weights."""
        by_x = torch.zeros_like(x) if of_x else None
        by_weights: Gradients = [None] * len(self.weights)
        by_ends, left = self.gathered.of_ends(gradients), list(states)
        for index, piece in reversed(list(enumerate(x.split(self._steps)))):
            start = self._starts[index]
            split = len(left) - len(start.learnt)
            left, before = left[:split], left[split:]
            leaves = [piece.detach().requires_grad_(of_x), *start.leaves(before), *self.weights]
            by_rows, by_singles = self.gathered.of_segment(index, gradients)
            by_piece, *found = self._second_run(index, leaves, [*by_rows, *by_ends, *by_singles])
            if by_x is not None and by_piece is not None:
                by_x[index * self._steps : index * self._steps + len(piece)] = by_piece
            by_ends = found[: len(before)]
            by_weights = [_sum(*pair) for pair in zip(by_weights, found[len(before) :])]
        return [by_x, *by_ends, *by_weights]

    def _second_run(self, index: int, leaves: Sequence[Tensor], gradients: Gradients) -> Gradients:
        """The gradients of a piece, of the states that its segment starts from, and of the weights."""
        with torch.enable_grad(), self._surroundings.again(index):
            segment = self._run(leaves[0], self._starts[index].states(leaves[1:]))
        results = [*segment.rows, *segment.ends, *segment.singles]
        pairs = [(r, gradient) for r, gradient in zip(results, gradients) if r.requires_grad and gradient is not None]
        if not pairs:
            return [None] * len(leaves)
        learnt = [leaf for leaf in leaves if leaf.requires_grad]
        ends, seeds = zip(*pairs)
        found = iter(torch.autograd.grad(ends, learnt, seeds, allow_unused=True))
        return [next(found) if leaf.requires_grad else None for leaf in leaves]


def _forget(_: Any) -> Any:
    """What a graph keeps of a tensor that nobody will ask it for."""


def _stored(state: Tensor, place: Tensor) -> Tensor:
    return place.copy_(state) if (place.shape, place.dtype) == (state.shape, state.dtype) else state.clone()


def _sum(total: Optional[Tensor], other: Optional[Tensor]) -> Optional[Tensor]:
    if total is None or other is None:
        return total if other is None else other.clone()  # which autograd may have given to two
    return total.add_(other)
