"""A forward that remembers states alone: the sequence in segments, each computed again when backward comes to it.

What training holds then grows with the length of one segment and with the number of segments, no longer with the number
of steps times all layers. Chen et al. 2016, "Training deep nets with sublinear memory cost", along time.
"""

from typing import List, NamedTuple, Tuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from snn_core.recording import CarriedStates, LayerCall, Layout, NeuronCall, Recorder

__all__ = ["run_in_segments"]


def run_in_segments(
    model: nn.Module, recorder: Recorder, x: Tensor, steps: int, states: CarriedStates, outputs: bool
) -> Tensor:
    """Run the model on x `[T, B, ...]`, `steps` steps at a time; return its output `[T, B, ...]`.

    The recorder is left as if the model had run once: with traces, last states and weight layers' inputs of the whole
    sequence, and the neurons' outputs where `outputs` asks for them. The model must be one that may be cut in time.
    """

    def run(piece: Tensor, start: CarriedStates) -> _Segment:
        recorder.begin(start)
        try:
            output = model(piece)
            neurons = [[_light(call, outputs) for call in tap.calls] for tap in recorder.neurons.values()]
            ends = tuple(tuple(call.state for call in calls) for calls in neurons)
            layers = [list(tap.calls) for tap in recorder.layers.values()]
            ran = [list(recorder.neurons.values()).index(tap) for tap in recorder.ran]
            return _Segment(output, ends, neurons, layers, ran)
        finally:
            # the second computation stops as soon as it has what backward asked for
            recorder.end()

    segments: List[_Segment] = []
    before = states
    for piece in x.split(steps):
        segments.append(checkpoint(run, piece, before, use_reentrant=False))
        before = segments[-1].states
    _tell(recorder, segments)
    return torch.cat([segment.output for segment in segments])


class _Segment(NamedTuple):
    """What one segment leaves. neurons, layers: the calls of each tap.   ran: the neurons' taps in order of calls."""

    output: Tensor
    states: CarriedStates
    neurons: List[List[NeuronCall]]
    layers: List[List[LayerCall]]
    ran: List[int]


def _light(call: NeuronCall, output: bool) -> NeuronCall:
    # copies, since a piece of a tensor holds all of it: an output that nobody reads, and the sequence behind a state
    out = call.out if output else call.out.new_empty((0, *call.out.shape[1:]))
    return NeuronCall(out, tuple(state.clone() for state in call.state), call.traces)


def _tell(recorder: Recorder, segments: List[_Segment]) -> None:
    """Hand the recorder the calls of all segments, each joined to one."""
    recorder.end()
    taps = list(recorder.neurons.values())
    for place, tap in enumerate(taps):
        tap.calls.extend(_joined(calls) for calls in zip(*(segment.neurons[place] for segment in segments)))
    recorder.ran.extend(taps[place] for place in segments[-1].ran)
    for place, layer in enumerate(recorder.layers.values()):
        layer.calls.extend(_joined_inputs([segment.layers[place] for segment in segments]))


def _joined(calls: Tuple[NeuronCall, ...]) -> NeuronCall:
    traces = {name: torch.cat([call.traces[name] for call in calls]) for name in calls[0].traces}
    return NeuronCall(torch.cat([call.out for call in calls]), calls[-1].state, traces)


def _joined_inputs(segments: List[List[LayerCall]]) -> List[LayerCall]:
    """The calls of the whole sequence: segments joined where a call saw a sequence, as they are where it saw a step."""
    if not all(call.layout is not None and call.layout.kind in ("first", "folded") for call in segments[0]):
        return [call for calls in segments for call in calls]
    joined = []
    for calls in zip(*segments):
        layouts = [call.layout for call in calls if call.layout is not None]
        layout = Layout(layouts[0].kind, sum(layout.steps for layout in layouts))
        rows = sum(call.out_shape[0] for call in calls)
        joined.append(LayerCall(torch.cat([call.x for call in calls]), layout, (rows, *calls[0].out_shape[1:])))
    return joined
