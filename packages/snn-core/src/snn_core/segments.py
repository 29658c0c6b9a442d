"""What the segments of a sequence leave behind, joined into what the whole sequence would have left."""

from typing import Iterator, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from snn_core.recording import CarriedStates, LayerCall, Layout, NeuronCall, Recorder, State

__all__ = ["Gathered", "Gradients", "Segment", "flat"]

Gradients = Sequence[Optional[Tensor]]


class Segment(NamedTuple):
    """What one segment leaves. neurons, layers: the calls of each tap.   ran: the neurons' taps in order of calls."""

    output: Tensor
    neurons: Sequence[Sequence[NeuronCall]]
    layers: Sequence[Sequence[LayerCall]]
    ran: Sequence[int]

    @property
    def states(self) -> CarriedStates:
        return tuple(tuple(call.state for call in calls) for calls in self.neurons)

    @property
    def rows(self) -> List[Tensor]:
        """What runs along time: output, neurons' outputs and traces, inputs of layers that saw sequences."""
        of_neurons = (t for calls in self.neurons for call in calls for t in (call.out, *call.traces.values()))
        return [self.output, *of_neurons, *(call.x for calls in self.layers if _of_sequences(calls) for call in calls)]

    @property
    def ends(self) -> List[Tensor]:
        """All tensors of the last states."""
        return flat(self.states)

    @property
    def singles(self) -> List[Tensor]:
        """The inputs of layers that saw one step at a time."""
        return [call.x for calls in self.layers if not _of_sequences(calls) for call in calls]


def flat(states: CarriedStates) -> List[Tensor]:
    return [tensor for calls in states for state in calls for tensor in state]


def _of_sequences(calls: Sequence[LayerCall]) -> bool:
    return all(call.layout is not None and call.layout.kind in ("first", "folded") for call in calls)


class Gathered:
    """The results of all segments: first what runs along time, then the last states, then the single tensors.

    learnt: for each result whether it has a gradient. Tensors are held until they are `taken`, and not after.
    """

    def __init__(self) -> None:
        self._rows: List[_Rows] = []
        self._ends: List[Tensor] = []
        self._singles: List[Tensor] = []
        self._single_cuts = [0]
        self._learnt_ends: List[bool] = []
        self._learnt_singles: List[bool] = []
        self._bare: List[Segment] = []

    @property
    def learnt(self) -> List[bool]:
        return [*(rows.learnt for rows in self._rows), *self._learnt_ends, *self._learnt_singles]

    def add(self, segment: Segment, ends: Sequence[Tensor], part: int, whole: int) -> None:
        """Take over a segment's tensors. ends: copies of its last states.   part, whole: its and all time steps."""
        if not self._bare:
            self._rows = [_Rows(tensor, part, whole) for tensor in segment.rows]
        for rows, tensor in zip(self._rows, segment.rows):
            rows.append(tensor)
        self._ends, self._learnt_ends = list(ends), [end.requires_grad for end in segment.ends]
        # copies, since each holds the whole segment
        self._singles.extend(single.clone() for single in segment.singles)
        self._learnt_singles.extend(single.requires_grad for single in segment.singles)
        self._single_cuts.append(len(self._singles))
        self._bare.append(_bare(segment))

    def taken(self) -> List[Tensor]:
        """The results, once."""
        results = [*(rows.taken() for rows in self._rows), *self._ends, *self._singles]
        self._ends, self._singles = [], []
        return results

    def of_ends(self, gradients: Gradients) -> Gradients:
        """Of the results' gradients those of the last states."""
        return gradients[len(self._rows) : len(self._rows) + len(self._learnt_ends)]

    def of_segment(self, index: int, gradients: Gradients) -> Tuple[Gradients, Gradients]:
        """Of the results' gradients those of one segment: of what runs along time, and of its single tensors."""
        by_rows = [
            None if gradient is None else gradient[rows.cuts[index] : rows.cuts[index + 1]]
            for rows, gradient in zip(self._rows, gradients)
        ]
        first = len(self._rows) + len(self._learnt_ends)
        return by_rows, gradients[first + self._single_cuts[index] : first + self._single_cuts[index + 1]]

    def tell(self, recorder: Recorder, results: Sequence[Tensor]) -> None:
        """Hand the recorder the results, as if the model had run once."""
        recorder.end()
        split = len(self._rows) + len(self._learnt_ends)
        rows, ends = iter(results[1 : len(self._rows)]), iter(results[len(self._rows) : split])
        singles, last = iter(results[split:]), self._bare[-1]
        taps = list(recorder.neurons.values())
        for tap, neurons in zip(taps, last.neurons):
            tap.calls.extend(_whole_neuron(call, rows, ends) for call in neurons)
        recorder.ran.extend(taps[place] for place in last.ran)
        layers = list(recorder.layers.values())
        for place, calls in enumerate(last.layers):
            if _of_sequences(calls):
                by_call = zip(*(segment.layers[place] for segment in self._bare))
                layers[place].calls.extend(_whole_layer(parts, next(rows)) for parts in by_call)
        for segment in self._bare:
            for layer, calls in zip(layers, segment.layers):
                if not _of_sequences(calls):
                    layer.calls.extend(call._replace(x=next(singles)) for call in calls)


class _Rows:
    """Tensors joined along their first dimension, in one that is made for all when the first comes.

    cuts: where each begins, and the last one ends.   learnt: whether any has a gradient.
    """

    def __init__(self, first: Tensor, part: int, whole: int) -> None:
        self._joined = first.new_empty((-(-len(first) * whole // max(1, part)), *first.shape[1:]))
        self.cuts, self.learnt = [0], False

    def append(self, piece: Tensor) -> None:
        start, stop = self.cuts[-1], self.cuts[-1] + len(piece)
        if stop > len(self._joined) or piece.dtype != self._joined.dtype:
            self._joined = torch.cat([self._joined[:start], piece])
        else:
            self._joined[start:stop] = piece
        self.cuts.append(stop)
        self.learnt = self.learnt or piece.requires_grad

    def taken(self) -> Tensor:
        joined = self._joined
        del self._joined
        return joined if len(joined) == self.cuts[-1] else joined[: self.cuts[-1]].clone()


_NOTHING = torch.empty(0)


def _bare(segment: Segment) -> Segment:
    """A segment without its tensors."""
    neurons = [
        [NeuronCall(_NOTHING, (_NOTHING,) * len(call.state), dict.fromkeys(call.traces, _NOTHING)) for call in calls]
        for calls in segment.neurons
    ]
    layers = [[call._replace(x=_NOTHING) for call in calls] for calls in segment.layers]
    return Segment(_NOTHING, neurons, layers, segment.ran)


def _whole_neuron(call: NeuronCall, rows: Iterator[Tensor], ends: Iterator[Tensor]) -> NeuronCall:
    out = next(rows)
    state: State = tuple(next(ends) for _ in call.state)
    return NeuronCall(out, state, {name: next(rows) for name in call.traces})


def _whole_layer(parts: Sequence[LayerCall], x: Tensor) -> LayerCall:
    layouts = [part.layout for part in parts if part.layout is not None]
    shape = (sum(part.out_shape[0] for part in parts), *parts[0].out_shape[1:])
    return LayerCall(x, Layout(layouts[0].kind, sum(layout.steps for layout in layouts)), shape)
