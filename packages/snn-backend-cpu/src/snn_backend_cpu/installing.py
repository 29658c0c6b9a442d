"""Which of a model's temporal layers run by kernels, and how these are put into a program's copies of them."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from snn_backend_cpu.fused import Fused
from snn_backend_cpu.looped import Looped, can_be_looped
from snn_backend_cpu.sliding import Sliding
from snn_backend_cpu.spikes import require_lowerable
from snn_core.lower import LoweringError
from snn_core.neurons import OneToOne, Recurrent, SlidingPSN
from snn_core.neurons.base import Neuron, SequenceLayer

__all__ = ["Installer", "attempts", "installers"]

Installer = Callable[[Any], None]
"""Makes a copy of the layer run by kernels."""


def installers(model: nn.Module, dtype: torch.dtype, not_lowered: str) -> dict[str, Installer]:
    """An installer for each layer that kernels can run, by name.

    not_lowered: "refuse" raises LoweringError for a layer that should run by them and cannot; "eager" leaves it out.
    """
    found: dict[str, Installer] = {}
    for name, made in attempts(model, dtype):
        if not isinstance(made, LoweringError):
            found[name] = made
        elif not_lowered == "refuse":
            said = f"layer {name!r}: {made}; or set not_lowered='eager' to run it slowly"
            raise LoweringError(said, made.place) from made
    return found


def attempts(model: nn.Module, dtype: torch.dtype) -> Iterator[tuple[str, Installer | LoweringError]]:
    """By name, the installer of each layer that should run by kernels, or why there is none."""
    inner: set[str] = set()
    for name, module in model.named_modules():
        if name in inner or not isinstance(module, (Neuron, SequenceLayer)):
            continue
        inner.update(f"{name}.{child}" if name else child for child, _ in module.named_modules() if child)
        try:
            install = _installer(module, dtype)
        except LoweringError as exc:
            yield name, exc
        else:
            if install is not None:
                yield name, install


def _installer(layer: Neuron | SequenceLayer, dtype: torch.dtype) -> Installer | None:
    """None for a layer that only torch can run."""
    if type(layer) is SlidingPSN:
        Sliding(layer, dtype)  # refused now, not at the first step
        return lambda copied: setattr(copied, "run", Sliding(copied, dtype))
    if isinstance(layer, SequenceLayer):
        require_lowerable(layer)
        return None
    if layer.recurrence and not can_be_looped(layer) and not _one_to_one(layer):
        return None
    runner = Looped(layer, dtype) if can_be_looped(layer) else Fused(layer, dtype)
    return lambda copied: setattr(copied, "runner", runner)


def _one_to_one(neuron: Neuron) -> bool:
    return isinstance(neuron, Recurrent) and isinstance(neuron.connection, OneToOne)
