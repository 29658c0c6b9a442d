"""The backend "cpu": the reference's program, whose neurons run as fused kernels."""

import importlib.util
import platform
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import nn

from snn_backend_cpu.fused import Fused
from snn_backend_cpu.memory import keep_freed_memory
from snn_core.backend import API_VERSION, Backend, Capabilities, Finding, Health
from snn_core.capabilities import require_declared
from snn_core.eager import EagerBackend, EagerOptions, EagerProgram
from snn_core.errors import ConfigError
from snn_core.lower import LoweringError
from snn_core.neurons import OneToOne, Recurrent
from snn_core.neurons.base import Neuron
from snn_core.optimizers import Optimizer
from snn_core.specs import BatchSpec, TrainSpec
from snn_core.step import Step

__all__ = ["CpuBackend", "CpuOptions", "CpuProgram"]


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
        found = [*super().lint(step, optimizer, batch, train, samples)]
        refuses = self.options.not_lowered == "refuse"
        for name, made in _attempts(step.model, _width(batch)):
            if isinstance(made, LoweringError):
                found.append(_not_lowered(name, made, "error" if refuses else "warning"))
        return found


class CpuProgram(EagerProgram):
    """The reference's program with fused neurons; layers with weights inside the time loop run step by step."""

    def __init__(
        self, step: Step, optimizer: Optimizer, batch: BatchSpec, train: TrainSpec, options: CpuOptions
    ) -> None:
        if options.keep_memory:
            keep_freed_memory()
        runners = fused_neurons(step.model, _width(batch), options.not_lowered)
        super().__init__(step, optimizer, batch, train, EagerOptions("cpu", options.num_workers))
        for tree in (self._training.model, self._evaluation.model):
            for name, module in tree.named_modules():
                if name in runners:
                    module.runner = runners[name]


def fused_neurons(model: nn.Module, dtype: torch.dtype, not_lowered: str) -> dict[str, Fused]:
    """A runner for each neuron that can be fused, by name. Raises LoweringError for one that should be and cannot."""
    runners: dict[str, Fused] = {}
    for name, made in _attempts(model, dtype):
        if isinstance(made, Fused):
            runners[name] = made
        elif not_lowered == "refuse":
            raise made
    return runners


def _attempts(model: nn.Module, dtype: torch.dtype) -> Iterator[tuple[str, Fused | LoweringError]]:
    """By name, the runner of each neuron that should be fused, or why there is none."""
    inner: set[str] = set()
    for name, module in model.named_modules():
        if not isinstance(module, Neuron) or name in inner:
            continue
        inner.update(f"{name}.{child}" if name else child for child, _ in module.named_modules() if child)
        try:
            yield name, Fused(module, dtype)
        except LoweringError as exc:
            if not _has_weights_in_its_loop(module):
                said = f"layer {name!r}: {exc}; or set not_lowered='eager' to run it slowly"
                refusal = LoweringError(said, exc.place)
                refusal.__cause__ = exc
                yield name, refusal


def _not_lowered(name: str, refusal: LoweringError, severity: str) -> Finding:
    file, line = refusal.place if refusal.place is not None else (None, None)
    said = f"layer {name!r}: {refusal.__cause__}"
    remedy = "or set not_lowered='eager' to run it slowly" if severity == "error" else "it runs as on eager, slowly"
    return Finding("not-lowered", said, remedy, file, line, severity)


def _has_weights_in_its_loop(neuron: Neuron) -> bool:
    """Whether neurons hear each other within the loop: then torch runs the steps, as `recurrence` declares."""
    return neuron.recurrence and not (isinstance(neuron, Recurrent) and isinstance(neuron.connection, OneToOne))


def _width(batch: BatchSpec) -> torch.dtype:
    """The type in which kernels compute."""
    return torch.float64 if batch.x.dtype == "float64" else torch.float32
