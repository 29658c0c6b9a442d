"""Backends with one mistake each, and some without: what the kit must catch, and what it must let pass.

Each is the reference with one thing changed, so that what a check finds is the mistake and nothing else.
"""

import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple, Type

import torch
from torch import Tensor

from snn_core.backend import Backend, Health, Report, Tolerance
from snn_core.capabilities import require_declared
from snn_core.eager import EagerBackend, EagerProgram
from snn_core.specs import BatchSpec, TrainSpec
from snn_core.step import Step, StepOutput

Batch = Any


class Mistake(NamedTuple):
    """A wrong backend, the check that is to catch it, one of the cases that fail, and words that the failure says."""

    name: str
    make: Callable[[], Backend]
    check: str
    case: str
    says: str


def backend_of(program: Type[EagerProgram], **capabilities: Any) -> Backend:
    """The reference, with another program and other declarations."""

    class Changed(EagerBackend):
        name = program.__name__

        def compile(self, step: Step, optimizer: Any, batch: BatchSpec, train: TrainSpec) -> EagerProgram:
            require_declared(self, step, optimizer, batch, train)
            return program(step, optimizer, batch, train, self.options)

        def __reduce__(self) -> Any:
            return partial(backend_of, program, **capabilities), ()  # the class itself has no name to import it by

    Changed.capabilities = replace(EagerBackend.capabilities, **capabilities)
    return Changed()


def caught(name: str, by: str, case: str, says: str, **capabilities: Any) -> Callable[[Any], Any]:
    """Note on a wrong program or backend which check catches it, in which case, and what the failure says."""

    def note(kind: Any) -> Any:
        make = (lambda: backend_of(kind, **capabilities)) if issubclass(kind, EagerProgram) else kind
        kind.mistakes = (*vars(kind).get("mistakes", ()), Mistake(name, make, by, case, says))
        return kind

    return note


class PadsEvaluation(EagerProgram):
    """Fills a short evaluation batch up and marks what is real, as devices with fixed shapes do."""

    def eval_step(self, batch: Batch) -> Report:
        count, size = len(batch[0]), self._batch.size
        self._valid = (torch.arange(size) < count).to(batch[0].dtype)
        report = super().eval_step(tuple(self._filled(part, size) for part in batch))
        self._valid = None
        assert report.output is not None
        return replace(report, output=report.output[:, :count])

    _valid: Optional[Tensor] = None

    def _filled(self, part: Tensor, size: int) -> Tensor:
        return torch.cat((part, part[-1:].expand(size - len(part), *part.shape[1:])))

    def _forward(self, step: Step, x: Tensor, target: Tensor, states: Any) -> StepOutput:
        if self._valid is None:
            return super()._forward(step, x, target, states)
        return step(x, target, self._controls, self._valid, states)


class RoundsOtherwise(EagerProgram):
    """Takes and gives float32 and computes in float64: as far from the reference as float32 may be."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._training.double()
        shared = {id(t): t for t in (*self._training.parameters(), *self._training.buffers())}
        self._evaluation = copy.deepcopy(self._training, shared).eval()

    def _place(self, x: Tensor, target: Tensor) -> Any:
        return super()._place(x.double(), target.double() if target.is_floating_point() else target)

    def train_step(self, batch: Batch) -> Report:
        report = super().train_step(batch)
        for tensor in (*self._training.parameters(), *self._training.buffers()):
            if tensor.is_floating_point():
                tensor.data.copy_(tensor.data.float())
        return self._narrow(report)

    def eval_step(self, batch: Batch) -> Report:
        return self._narrow(super().eval_step(batch))

    def _narrow(self, report: Report) -> Report:
        return replace(
            report, loss=report.loss.float(), output=None if report.output is None else report.output.float()
        )

    def state_dict(self) -> Dict[str, Any]:
        state = super().state_dict()
        narrow = {n: t.float() if t.is_floating_point() else t for n, t in state["model"].items()}
        return {**state, "model": narrow}


class SeveralStepsACall(EagerProgram):
    """Takes `steps_per_call` optimiser steps in one call, as devices with a loop of their own do."""

    def _samples_per_batch(self, training: bool) -> int:
        return super()._samples_per_batch(training) * (self._train.steps_per_call if training else 1)

    def train_step(self, batch: Batch) -> Report:
        if self._train.steps_per_call == 1:
            return super().train_step(batch)
        size = self._batch.size * self._train.accumulation
        steps = [super(SeveralStepsACall, self).train_step(pair) for pair in zip(*(t.split(size) for t in batch))]
        weights = torch.stack([report.weight for report in steps])
        losses = torch.stack([report.loss for report in steps])
        return replace(
            steps[-1],
            loss=(losses * weights).sum() / weights.sum(),
            weight=weights.sum(),
            samples=torch.stack([report.samples for report in steps]).sum(),
            correct=None if steps[0].correct is None else sum(r.correct for r in steps if r.correct is not None),
            optimizer_steps=sum(report.optimizer_steps for report in steps),
        )


class SilentFallback(EagerBackend):
    """Takes whatever is asked for, declared or not."""

    name = "silent"

    def __init__(self, **undeclared: Any) -> None:
        super().__init__()
        self.capabilities = replace(EagerBackend.capabilities, **undeclared)  # type: ignore[misc]

    def compile(self, step: Step, optimizer: Any, batch: BatchSpec, train: TrainSpec) -> EagerProgram:
        return EagerProgram(step, optimizer, batch, train, self.options)


_UNDECLARED: Dict[str, Tuple[Dict[str, Any], str, str]] = {
    "recurrence": ({"recurrence": False}, "neurons_equal_the_reference", "Recurrent, linear"),
    "clipping": ({"clipping": False}, "clipping_bounds_the_gradient", "by norm"),
    "accumulation": ({"accumulation": False}, "accumulation_averages_gradients", "2"),
    "chunks": ({"carried_state": False}, "chunks_take_one_step_each_and_carry_the_state", "even"),
    "segments": ({"recomputation": False}, "computing_again_changes_no_step", "even"),
    "short batches": ({"ragged_batches": False}, "a_short_training_batch_counts_its_samples_alone", ""),
    "several steps": ({}, "several_steps_in_one_call_are_several_steps", "2 steps"),
    "precision": ({"precisions": frozenset({"fp32"})}, "reduced_precision_is_used", "bf16"),
    "dtype": ({"dtypes": frozenset({"float32"})}, "losses_and_weights_equal_the_reference", "float64"),
    "optimizer": ({"optimizers": frozenset({"sgd"})}, "optimizers_take_the_reference_steps", "adam"),
    "random draws": ({"random": False}, "another_seed_draws_otherwise", "dropout"),
    "deterministic": ({"deterministic": False}, "two_deterministic_runs_give_the_same_bits", "no draws"),
}
SilentFallback.mistakes = tuple(  # type: ignore[attr-defined]
    Mistake(f"a silent fall-back: {name}", partial(SilentFallback, **undeclared), check, case, "accepts what")
    for name, (undeclared, check, case) in _UNDECLARED.items()
)


@caught("a refusal that comes late", "clipping_bounds_the_gradient", "by norm", "accepts what")
class RefusesLate(SilentFallback):
    """Refuses what it does not declare when the first step is taken, not at compile."""

    def __init__(self) -> None:
        super().__init__(clipping=False)

    def compile(self, step: Step, optimizer: Any, batch: BatchSpec, train: TrainSpec) -> EagerProgram:
        backend = self

        class Late(EagerProgram):
            def train_step(self, data: Batch) -> Report:
                require_declared(backend, step, optimizer, batch, train)
                return super().train_step(data)

        return Late(step, optimizer, batch, train, self.options)


@caught("models not looked at", "misfits_are_refused_at_compile", "output without time first", "raises nothing")
class ValidatesNothing(EagerBackend):
    """Compiles without looking at what it compiles."""

    def compile(self, step: Step, optimizer: Any, batch: BatchSpec, train: TrainSpec) -> EagerProgram:
        object.__setattr__(step, "validate", lambda batch, *settings: (5, 4, 3))
        return super().compile(step, optimizer, batch, train)


@caught("not a program", "compile_returns_a_program", "", "must be a snn_core.Program")
class NotAProgram(EagerBackend):
    def compile(self, step: Step, optimizer: Any, batch: BatchSpec, train: TrainSpec) -> Any:
        program = super().compile(step, optimizer, batch, train)

        class Wrapper:
            def close(self) -> None:
                program.close()

        return Wrapper()


@caught("a refusal of what is declared", "accumulation_averages_gradients", "2", "for what the backend declares")
class RefusesWhatItDeclares(EagerBackend):
    """Declares accumulation, and refuses it."""

    def compile(self, step: Step, optimizer: Any, batch: BatchSpec, train: TrainSpec) -> EagerProgram:
        require_declared(backend_of(EagerProgram, accumulation=False), step, optimizer, batch, train)
        return super().compile(step, optimizer, batch, train)


@caught("nothing of use declared", "capabilities_are_of_the_known_kinds", "", "lacks 'float32'")
class DeclaresNothing(EagerBackend):
    """Without an optimiser of use everything could be refused."""

    capabilities = replace(EagerBackend.capabilities, optimizers=frozenset({"adam"}), dtypes=frozenset({"float64"}))


@caught("a tolerance that hides all", "tolerances_hide_no_mistake", "", "relative tolerance")
class HugeTolerance(EagerBackend):
    capabilities = replace(
        EagerBackend.capabilities, tolerances={d: Tolerance(0.5, 0.5) for d in ("float32", "float64")}
    )


@caught("a probe that raises", "probe_answers_with_health", "", "no driver")
class ProbeRaises(EagerBackend):
    def probe(self) -> Health:
        raise RuntimeError("no driver")


@caught("a probe of text", "probe_answers_with_health", "", "must be a snn_core.Health")
class ProbeOfText(EagerBackend):
    def probe(self) -> Any:
        return "ready"


@caught("an API that is text", "backend_names_itself", "", "must be an integer")
class TextApi(EagerBackend):
    api = "1"  # type: ignore[assignment]


@dataclass
class LooseOptions:
    device: str = "cpu"
    num_workers: int = 0


@caught("options that change", "options_are_a_frozen_dataclass", "", "frozen=True")
class MutableOptions(EagerBackend):
    Options = LooseOptions
