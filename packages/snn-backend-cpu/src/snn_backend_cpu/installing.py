"""Which of a model's temporal layers run by kernels, which by torch and why, and how kernels are put into a program."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from snn_backend_cpu.fused import Fused
from snn_backend_cpu.looped import Looped, can_be_looped
from snn_backend_cpu.products import obeys_hooks
from snn_backend_cpu.sliding import Sliding
from snn_backend_cpu.spikes import kernels_for_spikes
from snn_core.lower import LoweringError
from snn_core.neurons import OneToOne, Recurrent, SlidingPSN
from snn_core.neurons.base import Neuron, Temporal

__all__ = ["InTorch", "Plan", "Planned", "plan"]


@dataclass(frozen=True)
class InTorch:
    """A temporal layer that no kernel runs. layer, kind: its name and its class's.   how: "step by step", "whole
    sequences", or "in its own way". why: what is in the way.   remedy: what to do.

    refusal: why there is no kernel of a layer that should have one; None where there is one that the model goes past,
    or where torch runs the layer by its nature.
    """

    layer: str
    kind: str
    how: str
    why: str
    remedy: str
    refusal: LoweringError | None = None


class Planned(NamedTuple):
    """A layer of kernels, by its name in the model: the attribute that runs it, and what that is to be."""

    layer_name: str
    layer: Temporal
    attribute: str
    runner: Any


@dataclass(frozen=True)
class Plan:
    """What is to run a model's temporal layers, in the mode that it is in.   in_torch: those without kernels."""

    runners: tuple[Planned, ...]
    in_torch: tuple[InTorch, ...]

    def install(self) -> None:
        """Let kernels run the layers that they can run."""
        for planned in self.runners:
            setattr(planned.layer, planned.attribute, planned.runner)


_NOTHING = "none needed where its time goes into products; LIF(reset_mechanism='none') is one kernel"
_IN_THE_LOOP = "none needed where its time goes into products; Recurrent has kernels for one nn.Linear or convolution"


class _ByNature(Exception):
    """A layer that only torch can run. how, why, remedy: as in `InTorch`."""

    def __init__(self, how: str, why: str, remedy: str) -> None:
        super().__init__(why)
        self.how, self.remedy = how, remedy


def plan(model: nn.Module, dtype: torch.dtype) -> Plan:
    """Lower each temporal layer of a model, in the mode that it is in. dtype: in which kernels compute."""
    runners, in_torch = [], []
    for name, layer in _layers(model):
        kind = type(layer).__name__
        try:
            runners.append(Planned(name, layer, *_runner(layer, dtype)))
        except LoweringError as exc:
            how = "step by step" if isinstance(layer, Neuron) else "whole sequences"
            in_torch.append(InTorch(name, kind, how, str(exc), "set not_lowered='eager' to run it slowly", exc))
        except _ByNature as exc:
            in_torch.append(InTorch(name, kind, exc.how, str(exc), exc.remedy))
    return Plan(tuple(runners), tuple(in_torch))


def _layers(model: nn.Module) -> Iterator[tuple[str, Temporal]]:
    """Each temporal layer that may be called, once, by its first name. A neuron inside a neuron is a part of that one's
    step, unless it stands elsewhere too.
    """
    parts: list[str] = []
    seen: set[int] = set()
    for name, module in model.named_modules(remove_duplicate=False):
        if not isinstance(module, Temporal) or any(name.startswith(part) for part in parts):
            continue
        if isinstance(module, Neuron):
            parts.append(f"{name}." if name else "")
        if id(module) not in seen:
            seen.add(id(module))
            yield name, module


def _runner(layer: Temporal, dtype: torch.dtype) -> tuple[str, Any]:
    """The attribute that runs a layer, and the kernels for it. Raises LoweringError or _ByNature."""
    if type(layer) is SlidingPSN:
        return "run", Sliding(layer, dtype)
    if not isinstance(layer, Neuron):
        if kernels_for_spikes(layer):
            raise _ByNature("whole sequences", "it computes over the whole sequence itself", _NOTHING)
        why = "it computes over the whole sequence itself, and no spike's kernel is kept for an unhashable surrogate"
        raise _ByNature("whole sequences", why, "give the surrogate fields that can be hashed: a tuple, not a list")
    _refuse_what_kernels_would_skip(layer)
    if can_be_looped(layer):
        return "runner", Looped(layer, dtype)
    if not layer.recurrence or _one_to_one(layer):
        return "runner", Fused(layer, dtype)
    if _weights_inside(layer):
        raise _ByNature("step by step", "it calls modules inside its time loop", _IN_THE_LOOP)
    try:
        return "runner", Fused(layer, dtype)
    except LoweringError as exc:
        raise _ByNature("step by step", str(exc), _IN_THE_LOOP) from exc


def _refuse_what_kernels_would_skip(neuron: Neuron) -> None:
    """Raise _ByNature for what is the user's own in how a neuron runs, which a kernel would leave out."""
    if type(neuron).run is not Neuron.run:
        raise _ByNature("step by step", "it has a `run` of its own", "write `dynamics` alone")
    if any(obeys_hooks(module) for module in _inside(neuron)):
        raise _ByNature("step by step", "a module inside its step has hooks", "take them off before compiling")


def _inside(neuron: Neuron) -> Iterator[nn.Module]:
    """The modules that a neuron's step calls; an inner neuron's own step is not called as a module."""
    return (module for module in neuron.modules() if not isinstance(module, Temporal))


def _weights_inside(neuron: Neuron) -> bool:
    return any(True for _ in _inside(neuron))


def _one_to_one(neuron: Neuron) -> bool:
    return isinstance(neuron, Recurrent) and isinstance(neuron.connection, OneToOne)
