"""The run that validates a step, as short for many time steps as for few."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from snn_backend_cpu.installing import plan
from snn_core.neurons.base import Neuron, State, Unrolled, unroll_reference
from snn_core.recording import LayerTap

__all__ = ["Trial"]

_TRIED = 2
"""Steps that a neuron takes: the one from rest, and one from a state that it made."""


class Trial:
    """What `Step.validate` takes as `prepare`: shapes are tried on the first steps, values by kernels.

    kernels: False leaves values to the reference, which lint does without Numba.
    """

    def __init__(self, dtype: torch.dtype, kernels: bool = True) -> None:
        self._dtype, self._kernels = dtype, kernels

    def __call__(self, model: nn.Module, values: bool) -> None:
        if not values:
            self._shorten(model)
        elif self._kernels:
            plan(model, self._dtype).install()

    def _shorten(self, model: nn.Module) -> None:
        for module in model.modules():
            if isinstance(module, Neuron):
                module.runner = _first_steps


def _first_steps(neuron: Neuron, x: Tensor, state: State | None, steps: int | None, wanted: Sequence[str]) -> Unrolled:
    """The reference's first steps, and the last of them for all others: a pure step has its shapes from then on."""
    count = neuron.check_input(x, steps)
    tried = min(count, _TRIED)
    with _repeated_taps(neuron, count - tried):
        short = x if steps is not None else x[:tried]
        out, last, traces = unroll_reference(neuron, short, state, None if steps is None else tried, wanted)
    return _lengthened(out, count), last, {name: _lengthened(trace, count) for name, trace in traces.items()}


@contextmanager
def _repeated_taps(neuron: Neuron, missing: int) -> Iterator[None]:
    """Let the taps of a step's weight layers hold as many calls more as steps were left out."""
    taps = [
        hook for module in neuron.modules() for hook in module._forward_hooks.values() if isinstance(hook, LayerTap)
    ]
    before = [len(tap.calls) for tap in taps]
    yield
    for tap, calls in zip(taps, before, strict=True):
        tap.calls += tap.calls[-1:] * missing if len(tap.calls) > calls else []


def _lengthened(tensor: Tensor, count: int) -> Tensor:
    return torch.cat((tensor, tensor[-1:].expand(count - len(tensor), *tensor.shape[1:])))
