"""The backend "ipu": what it declares, whether there is an IPU, and the way from a step to a program."""

from typing import ClassVar, List, Optional

from snn_backend_ipu import lint
from snn_backend_ipu.health import health
from snn_backend_ipu.optimizers import NAMES
from snn_backend_ipu.options import IpuOptions
from snn_backend_ipu.program import IpuProgram
from snn_backend_ipu.refusals import refusals
from snn_core.backend import API_VERSION, Backend, Capabilities, Finding, Health
from snn_core.capabilities import require_distributed, undeclared
from snn_core.errors import SnnError, Unsupported
from snn_core.optimizers import Optimizer
from snn_core.specs import BatchSpec, TrainSpec
from snn_core.step import Step

__all__ = ["IpuBackend"]


class IpuBackend(Backend):
    """Graphcore IPUs through poptorch, which compiles the whole training step: forward, backward and update."""

    name = "ipu"
    api = API_VERSION
    Options = IpuOptions
    priority = 20
    options: IpuOptions
    capabilities: ClassVar[Capabilities] = Capabilities(
        dtypes=frozenset({"float32"}),
        precisions=frozenset({"fp32", "fp16"}),
        optimizers=NAMES,
        recurrence=True,
        accumulation=True,
        clipping=True,
        steps_per_call=True,
        random=True,
        lacks=frozenset({"nesterov", "dampening", "clip_value", "clip_norm of rmsprop"}),
    )

    def probe(self) -> Health:
        return health(self.options)

    def compile(self, step: Step, optimizer: Optimizer, batch: BatchSpec, train: TrainSpec) -> IpuProgram:
        require_distributed(self)
        asked = undeclared(self, step, optimizer, batch, train)
        if not asked:
            step.validate(batch, train.chunk)  # so that what no backend takes is refused as everywhere
        refused: List[SnnError] = [Unsupported(f"{message}; {remedy}") for message, remedy in asked]
        refused += refusals(step, optimizer, batch, train, self.options)
        errors = [found for found in lint.check(step, batch, train, self.options) if found.severity == "error"]
        if len(refused) == 1 and not errors:
            raise refused[0]
        if refused or errors:
            kind = type(refused[0]) if refused else Unsupported
            raise kind("an IPU cannot run this step as it is meant:\n" + "\n".join(map(str, [*refused, *errors])))
        return IpuProgram(step, optimizer, batch, train, self.options)

    def lint(
        self,
        step: Step,
        optimizer: Optimizer,
        batch: BatchSpec,
        train: TrainSpec,
        samples: Optional[int] = None,
    ) -> List[Finding]:
        found = list(super().lint(step, optimizer, batch, train, samples))
        for exc in refusals(step, optimizer, batch, train, self.options):
            found.append(Finding("refused", str(exc), "mend this first: compile refuses it"))
        # a step that fails on the host is told once
        told = {finding.message for finding in found}
        return found + [
            finding for finding in lint.check(step, batch, train, self.options, samples) if finding.message not in told
        ]
