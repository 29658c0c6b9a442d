"""The run that validates a step, as short for many time steps as for few, and the layers that it shows past kernels."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from snn_backend_cpu.installing import InTorch, Planned, plan
from snn_core.neurons.base import Neuron, State, Temporal, Unrolled, unroll_reference
from snn_core.recording import LayerTap

__all__ = ["Trial"]

_TRIED = 2
"""Steps that a neuron takes: the one from rest, and one from a state that it made."""

_OWN_FORWARD = (
    "it has a `forward` of its own that does not come to `run`",
    "write `dynamics` alone, or go by super().forward",
)
_FROM_OUTSIDE = ("its `dynamics` is called from outside", "call the layer itself, or its `unroll`")


@dataclass
class _Seen:
    """What a run showed of a layer that has kernels. called: as a module.   reached: what a kernel stands in for.
    apart: how often its `dynamics` ran otherwise.
    """

    name: str
    layer: Temporal
    called: bool = False
    reached: bool = False
    apart: int = 0

    def told(self) -> InTorch | None:
        """What to say of the layer, None where its kernels run it, or nothing does."""
        if self.apart < 2 and (self.reached or not self.called):  # one step alone is not slow
            return None
        own = getattr(self.layer.forward, "__func__", None) is not Temporal.forward
        how = "step by step" if self.apart else "in its own way"
        return InTorch(self.name, type(self.layer).__name__, how, *(_OWN_FORWARD if own else _FROM_OUTSIDE))


class Trial:
    """What `Step.validate` takes as `prepare`: shapes are tried on the first steps, values by kernels.

    kernels: False leaves values to the reference, which lint does without Numba.
    """

    def __init__(self, dtype: torch.dtype, kernels: bool = True) -> None:
        self._dtype, self._kernels = dtype, kernels
        self._seen: list[_Seen] = []
        self._running = 0

    def __call__(self, model: nn.Module, values: bool) -> None:
        if not values:
            self._watch(model)
        elif self._kernels:
            plan(model, self._dtype).install()

    def passed_by(self) -> list[InTorch]:
        """The layers that have kernels, and that the model runs past them."""
        return [told for seen in self._seen if (told := seen.told()) is not None]

    def _watch(self, model: nn.Module) -> None:
        found = plan(model, self._dtype)
        for other in found.in_torch:
            layer: Any = model.get_submodule(other.layer)
            layer.run = self._within(None, layer.run)  # the steps that it asks of other layers are its own
            if isinstance(layer, Neuron):
                layer.runner = self._within(None, _first_steps)
        self._seen = [_Seen(planned.layer_name, planned.layer) for planned in found.runners]
        for planned, seen in zip(found.runners, self._seen, strict=True):
            self._watch_layer(planned, seen)

    def _watch_layer(self, planned: Planned, seen: _Seen) -> None:
        layer: Any = planned.layer
        shorter = _first_steps if planned.attribute == "runner" else layer.run
        setattr(layer, planned.attribute, self._within(seen, shorter))

        def call(module: nn.Module, args: Any) -> None:
            seen.called = True

        layer.register_forward_pre_hook(call)
        if isinstance(planned.layer, Neuron):
            step = layer.dynamics

            def dynamics(*args: Any, **named: Any) -> Any:
                seen.apart += not self._running
                return step(*args, **named)

            layer.dynamics = dynamics

    def _within(self, seen: _Seen | None, run: Callable[..., Unrolled]) -> Callable[..., Unrolled]:
        def running(*args: Any, **named: Any) -> Unrolled:
            if seen is not None:
                seen.reached = True
            self._running += 1
            try:
                return run(*args, **named)
            finally:
                self._running -= 1

        return running


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
