"""The check: run the composed step a few times on made-up batches, and hold the runs against the rules."""

import contextlib
import copy
from collections import Counter
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Set, Tuple

import torch
from torch import Tensor, nn

from snn_backend_ipu.lint.batches import check_batches
from snn_backend_ipu.lint.gradients import find_custom_functions, find_other_losses
from snn_backend_ipu.lint.hooks import check_backward_hooks, drop_backward_hooks
from snn_backend_ipu.lint.host_random import drawing_lines, restored
from snn_backend_ipu.lint.layers import check_layers, check_tensors
from snn_backend_ipu.lint.precision import halved, in_half, watching_types
from snn_backend_ipu.lint.rules import Findings
from snn_backend_ipu.lint.state import Change, Held
from snn_backend_ipu.lint.tensors import Tensors
from snn_backend_ipu.lint.watch import DEVICE, HOST, SKIPPED, Call, Watch
from snn_core._entry_points import describe
from snn_core.backend import Finding
from snn_core.linting import failure
from snn_core.losses import WeightedSum
from snn_core.losses.base import CallableLoss, Loss
from snn_core.lower.refusal import Place
from snn_core.specs import BatchSpec, TensorSpec, TrainSpec
from snn_core.step import Step, StepOutput

__all__ = ["check"]

_SIZE = 2
_BOOKKEEPING = ("detach", "alias", "lift_fresh")
_CHANGE_THE_GRAPH = (
    "control-flow", "host-value", "constant-index", "value-shape", "host-random", "buffer-reassigned", "integer-buffer",
    "module-state", "module-write", "parameter-written",
)  # fmt: skip


def check(
    step: Step, batch: BatchSpec, train: TrainSpec, options: Any = None, samples: Optional[int] = None
) -> List[Finding]:
    """Say what the device would refuse of a step, or do otherwise than the reference; nothing is compiled.

    train: its precision is what matters, and its factors.   options: of the backend; the number of `replicas` is what
    matters.   samples: of the training data, where known.
    A step that fails on the host is one finding, with the line that raised. The step, its weights and all random
    streams are left as they were.
    """
    findings = Findings()
    check_batches(batch, train, samples, findings)
    check_layers(step.model, findings)
    check_tensors(step.model, findings)
    check_backward_hooks(step.model, findings)
    with restored(), torch.random.fork_rng(devices=[]), torch.enable_grad():
        refused = _exception_of(lambda: step.validate(batch, train.chunk))
        probe = _Probe(step, batch, findings)
        replicas = int(getattr(options, "replicas", 1))
        failed = _exception_of(lambda: _check_runs(probe, findings, replicas))
        if failed is not None and refused is None:
            refused = _exception_of(lambda: probe.run(1, watched=False))
        if failed is not None and refused is None:
            failed = _check_again(_Probe(step, batch, findings, HOST), failed, findings, replicas)
        if failed is None and train.precision == "fp16":
            failed = _check_halved(probe, findings)
    if refused is not None and not findings.has("host-move"):  # to a device that is not here, where the host fails
        return [*findings.all(), failure(refused, SKIPPED)]
    if refused is None and failed is not None:
        findings.add("not-watched", None, describe(failed))
    return findings.all()


def _exception_of(call: Callable[[], object]) -> Optional[Exception]:
    try:
        call()
    except Exception as exc:
        return exc
    return None


def _check_again(probe: "_Probe", failed: Exception, findings: Findings, replicas: int) -> Optional[Exception]:
    """Check a step that runs, and failed under the watch, where tensors give the host's device: if that is well, the
    device's name was the reason. Return what failed still.
    """
    again = _exception_of(lambda: _check_runs(probe, findings, replicas))
    if again is None:
        place = _place(failure(failed, SKIPPED))
        if not findings.at(place):  # what is wrong there may be why it fails
            findings.add("device-name", place, describe(failed))
    return again


def _check_halved(probe: "_Probe", findings: Findings) -> Optional[Exception]:
    """Check the types in a run in half precision. Return what failed where the reason is not the types."""
    failed = _exception_of(probe.run_halved)
    if failed is None or findings.has_errors():  # a value that is read in forward is read of a stand-in here
        return None
    if "not implemented for" in str(failed):
        return failed
    findings.add("mixed-precision", _place(failure(failed, SKIPPED)), describe(failed))
    return None


def _place(finding: Finding) -> Optional[Place]:
    return None if finding.file is None or finding.line is None else Place(finding.file, finding.line)


def _check_runs(probe: "_Probe", findings: Findings, replicas: int) -> None:
    held, runs, draws = [probe.held()], [], False
    for seed in (1, 1, 2):  # twice the same batch, then another
        with restored() as drawn:
            runs.append(probe.run(seed))
            draws = draws or drawn()
        held.append(probe.held())
    if draws:
        for place in drawing_lines(lambda: probe.run(1)):
            findings.add("host-random", place, "this")
    same = _equal(runs[0].results, runs[1].results) and _equal(runs[0].gradients, runs[1].gradients)
    statistics = _compare_held(held, runs, same, replicas, findings)
    if not findings.has(*_CHANGE_THE_GRAPH):
        _compare_graphs(runs, findings)
        if not same and not statistics and not findings.has("changing-graph"):
            findings.add("not-repeatable", None)
    probe.run(1, training=False)


def _compare_held(held: List[Held], runs: Sequence["_Run"], same: bool, replicas: int, findings: Findings) -> bool:
    """Add what calls changed of the modules. Return whether floating-point buffers, which may change, are among it."""
    changes = [
        change for before, after, run in zip(held, held[1:], runs) for change in before.changes(after, run.written)
    ]
    states = {change.what for change in changes if not same} | _carried_on(changes, runs)
    for change in changes:
        if change.rule != "replica-buffer" or replicas > 1:
            rule = change.rule or ("module-state" if change.what in states else "module-write")
            findings.add(rule, change.place, change.what)
    return any(change.rule == "replica-buffer" for change in changes)


def _carried_on(changes: Sequence[Change], runs: Sequence["_Run"]) -> Set[str]:
    """What a call uses of the call before, and writes again: a state even where all calls give the same, as those of a
    network do that is silent on made-up samples. What is made at the first call alone is a constant.
    """
    written = Counter(change.what for change in changes)
    carried = {memory for run in runs for memory in run.carried}
    return {change.what for change in changes if written[change.what] > 1 and change.memory & carried}


class _Run(NamedTuple):
    """One forward: its operations, the lines that wrote in place by memory, its results, and the gradients, which show
    what spikes hide of a state.   carried: of the tensors of the forward before, by their memory, those that it used.
    """

    calls: List[Call]
    written: Dict[int, Place]
    carried: Set[int]
    results: Tuple[Tensor, ...]
    gradients: Tuple[Tensor, ...]


class _Probe:
    """A copy of a step on the CPU, to be run under a watch. device: what its tensors give as theirs."""

    def __init__(self, step: Step, batch: BatchSpec, findings: Findings, device: torch.device = DEVICE) -> None:
        self.step = copy.deepcopy(step).cpu()
        self.step.reduce = None
        drop_backward_hooks(self.step)
        self.batch, self.findings, self.device = batch, findings, device
        self.earlier: Optional[Tensors] = None
        self.modules = {**dict(self.step.model.named_modules()), **_modules_of(self.step.loss)}

    def held(self) -> Held:
        return Held(self.modules)

    def run(self, seed: int, training: bool = True, watched: bool = True) -> _Run:
        """Forward on the batch of that seed, with the same random numbers for every batch."""
        self.step.train(training)
        draws = torch.Generator().manual_seed(seed)
        x, target = _example(self.batch.x, draws), _example(self.batch.target, draws, labels=True)
        valid = None if training else torch.ones(_SIZE)
        own = [*self.step.parameters(), *self.step.buffers()]
        known = [x, target, *own, *(() if valid is None else (valid,))]
        self.earlier = Tensors(self.device, known, self.earlier)
        watch = Watch(self.findings, _forward.__code__, self.earlier)
        torch.manual_seed(0)
        with watch.watching() if watched else contextlib.nullcontext():
            out = _forward(self.step, x, target, valid)
        results = (out.objective, out.output, *out.measures)
        if training and watched:
            find_custom_functions(results, watch.applied, self.findings)
            find_other_losses(out.objective, watch.losses, self.findings)
        gradients = self._gradients(out.objective) if training else ()
        return _Run(watch.calls, watch.written, watch.tensors.carried, results, gradients)

    def run_halved(self) -> None:
        """Forward of a copy in half precision, which looks at the types of operands alone."""
        draws = torch.Generator().manual_seed(1)
        x, target = _example(self.batch.x, draws), _example(self.batch.target, draws, labels=True)
        step = halved(self.step.train())
        with watching_types(self.findings, _forward.__code__):
            _forward(step, in_half(x), target, None)

    def _gradients(self, objective: Tensor) -> Tuple[Tensor, ...]:
        self.step.zero_grad(set_to_none=True)
        if objective.requires_grad:
            # plain, as in training: torch's checkpoint refuses grad(); a carried state may need the graph once more
            objective.backward(retain_graph=True)
        return tuple(weight.grad for weight in self.step.parameters() if weight.grad is not None)


def _forward(step: Step, x: Tensor, target: Tensor, valid: Optional[Tensor]) -> StepOutput:
    controls = {name: torch.tensor(value) for name, value in step.controls.items()}
    return step(x, target, controls, valid)


def _example(spec: TensorSpec, draws: torch.Generator, labels: bool = False) -> Tensor:
    """A batch, time first. Floating point is drawn from [0, 2), whole numbers are 0 or 1, and labels 0."""
    dtype, shape = getattr(torch, spec.dtype), (_SIZE, *spec.shape)
    if dtype.is_floating_point:
        made = 2 * torch.rand(shape, generator=draws, dtype=dtype)
    else:
        made = torch.randint(1 if labels else 2, shape, generator=draws).to(dtype)
    return made if spec.time_axis is None else made.transpose(0, 1)


def _modules_of(loss: Loss) -> Dict[str, nn.Module]:
    parts = [part for _, part in loss.parts] if isinstance(loss, WeightedSum) else [loss]
    functions = [part.function for part in parts if isinstance(part, CallableLoss)]
    return {f"loss {n}": function for n, function in enumerate(functions) if isinstance(function, nn.Module)}


def _compare_graphs(runs: List[_Run], findings: Findings) -> None:
    for one, other, when in ((runs[0], runs[1], "a second call"), (runs[1], runs[2], "another batch")):
        different = _first_difference(one.calls, other.calls)
        if different is not None:
            what = f"{when} gives other operations or other shapes, from {different.op} on"
            findings.add("changing-graph", different.place, what)
            return


def _first_difference(first: List[Call], second: List[Call]) -> Optional[Call]:
    one, other = _asked_for(first), _asked_for(second)
    for a, b in zip(one, other):
        if a != b:
            return b
    longer = max(one, other, key=len)
    return longer[min(len(one), len(other))] if len(one) != len(other) else None


def _asked_for(calls: List[Call]) -> List[Call]:
    """The operations that a line of the user's asked for; torch makes a tensor anew at times of its own choice."""
    return [call for call in calls if call.place is not None and call.op.split(".")[1] not in _BOOKKEEPING]


def _equal(one: Tuple[Tensor, ...], other: Tuple[Tensor, ...]) -> bool:
    return len(one) == len(other) and all(
        a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True) for a, b in zip(one, other)
    )
