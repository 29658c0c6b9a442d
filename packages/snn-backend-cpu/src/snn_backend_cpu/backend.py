"""The backend "cpu": the reference's program, whose neurons run as fused kernels."""

import copy
import importlib.util
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from snn_backend_cpu.installing import InTorch, plan
from snn_backend_cpu.memory import keep_freed_memory
from snn_backend_cpu.spikes import fused_spike
from snn_backend_cpu.trying import Trial
from snn_core.backend import API_VERSION, Backend, Capabilities, Finding, Health, Report
from snn_core.batching import Batch
from snn_core.capabilities import require_declared
from snn_core.eager import EagerBackend, EagerOptions, EagerProgram
from snn_core.errors import ConfigError
from snn_core.linting import lint_step
from snn_core.lower import LoweringError
from snn_core.optimizers import Optimizer
from snn_core.specs import BatchSpec, TrainSpec
from snn_core.step import Step
from snn_core.surrogate import spikes_by

__all__ = ["CpuBackend", "CpuOptions", "CpuProgram"]


_NAMED = 4
"""Layers that a program's summary names at most."""


@dataclass(frozen=True)
class CpuOptions:
    """num_workers: processes that read the dataset, 0 for none.

    not_lowered: what becomes of a neuron of which no kernel can be made: "refuse" raises, with the line that is in the
    way; "eager" runs it as the reference does, and slowly.
    keep_memory: let the process hold up to 2 GiB of freed memory for the next step (`memory.keep_freed_memory`).
    """

    num_workers: int = 0
    not_lowered: str = "refuse"
    keep_memory: bool = True

    def __post_init__(self) -> None:
        if self.num_workers < 0:
            raise ConfigError(f"num_workers is {self.num_workers}; it must be 0 or more")
        if self.not_lowered not in ("refuse", "eager"):
            raise ConfigError(f"not_lowered is {self.not_lowered!r}; it must be 'refuse' or 'eager'")


class CpuBackend(Backend):
    """Fused CPU kernels, made by Numba: each neuron runs over all time steps in one pass over memory."""

    name = "cpu"
    api = API_VERSION
    Options = CpuOptions
    priority = 10
    capabilities: ClassVar[Capabilities] = replace(EagerBackend.capabilities)

    def probe(self) -> Health:
        if importlib.util.find_spec("numba") is None:
            return Health("unavailable", "Numba is not installed", "pip install numba")
        return Health("ready", f"{platform.machine()}, torch {torch.__version__}, {torch.get_num_threads()} threads")

    def compile(self, step: Step, optimizer: Optimizer, batch: BatchSpec, train: TrainSpec) -> "CpuProgram":
        require_declared(self, step, optimizer, batch, train)
        return CpuProgram(step, optimizer, batch, train, self.options)

    def lint(
        self, step: Step, optimizer: Optimizer, batch: BatchSpec, train: TrainSpec, samples: int | None = None
    ) -> list[Finding]:
        trial = Trial(_width(batch), kernels=False)
        found = lint_step(self, step, optimizer, batch, train, samples, trial)
        model = copy.deepcopy(step.model)  # whose mode is not the caller's
        planned = [layer for mode in (True, False) for layer in plan(model.train(mode), _width(batch)).in_torch]
        layers = _by_name([*planned, *trial.passed_by()])
        return [*found, *(_finding(layer, self.options.not_lowered) for layer in layers)]


class CpuProgram(EagerProgram):
    """The reference's program, in which kernels run the neurons and the spikes of layers over whole sequences."""

    def __init__(
        self, step: Step, optimizer: Optimizer, batch: BatchSpec, train: TrainSpec, options: CpuOptions
    ) -> None:
        if options.keep_memory:
            keep_freed_memory()
        trial = Trial(_width(batch))
        super().__init__(step, optimizer, batch, train, EagerOptions("cpu", options.num_workers), trial)
        # each tree in its own mode, since a step may differ between training and evaluation
        plans = [plan(tree.model, _width(batch)) for tree in (self._training, self._evaluation)]
        in_torch = _by_name([*(layer for each in plans for layer in each.in_torch), *trial.passed_by()])
        for layer in in_torch:
            if layer.refusal is not None and options.not_lowered == "refuse":
                raise LoweringError(f"layer {layer.layer!r}: {layer.why}; or {layer.remedy}", layer.refusal.place)
        for each in plans:
            each.install()
        self.summary = _summary(in_torch)

    def train_step(self, batch: Batch) -> Report:
        # backward too, which may compute a part of forward again
        with spikes_by(fused_spike):
            return super().train_step(batch)

    def eval_step(self, batch: Batch) -> Report:
        with spikes_by(fused_spike):
            return super().eval_step(batch)


def _by_name(layers: Iterable[InTorch]) -> list[InTorch]:
    """Each layer once, with the first that was said of it: the trees mostly agree."""
    found: dict[str, InTorch] = {}
    for layer in layers:
        found.setdefault(layer.layer, layer)
    return list(found.values())


def _finding(layer: InTorch, not_lowered: str) -> Finding:
    message = f"layer {layer.layer!r}: {layer.why}"
    if layer.refusal is None:
        message = f"layer {layer.layer!r} ({layer.kind}) runs {layer.how} in torch: {layer.why}"
        return Finding("in-torch", message, layer.remedy, severity="warning")
    file, line = layer.refusal.place if layer.refusal.place is not None else (None, None)
    if not_lowered == "refuse":
        return Finding("not-lowered", message, f"or {layer.remedy}", file, line)
    return Finding("not-lowered", message, "it runs as on eager, slowly", file, line, "warning")


def _summary(in_torch: Sequence[InTorch]) -> str:
    """One line: the layers that torch runs, empty where kernels run all."""
    named = [f"{layer.layer!r} ({layer.kind}) {layer.how}" for layer in in_torch[:_NAMED]]
    if len(in_torch) > len(named):
        named.append(f"{len(in_torch) - len(named)} more")
    return f"{', '.join(named)} in torch, the rest by kernels; snn lint says why" if named else ""


def _width(batch: BatchSpec) -> torch.dtype:
    """The type in which kernels compute."""
    return torch.float64 if batch.x.dtype == "float64" else torch.float32
