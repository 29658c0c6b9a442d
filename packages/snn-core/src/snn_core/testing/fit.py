"""Training and evaluating a trial through the Program contract alone, and holding the result to the reference's."""

from dataclasses import dataclass
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from snn_core.backend import Backend, Program, Report, Tolerance
from snn_core.errors import ConformanceError
from snn_core.optimizers import SGD
from snn_core.testing.compare import EXACT, require, require_close, require_equal, require_same_tensors
from snn_core.testing.trial import Data, Trial, compiled, reference, tolerance

__all__ = [
    "GRADIENT_LR",
    "Evaluation",
    "Outcome",
    "Row",
    "agree",
    "agree_on_gradients",
    "evaluate",
    "exact_or",
    "fit",
    "gradients",
    "one_by_one",
    "one_step",
    "require_same_evaluation",
    "require_same_outcome",
    "require_same_rows",
    "train",
    "weights_of",
]

GRADIENT_LR = 256.0
"""The learning rate of the one SGD step off which gradients are read. A power of two, and large: in w - lr g the
gradient keeps all its digits, where a small rate would leave it the few that the weight's own do not use."""

Before = Callable[[Program, int], None]


class Row(NamedTuple):
    """A report on the host: plain numbers."""

    objective: float
    loss: float
    weight: float
    samples: float
    correct: Optional[float]
    measures: Tuple[float, ...]
    penalties: Tuple[float, ...]
    optimizer_steps: int

    @classmethod
    def of(cls, report: Report) -> "Row":
        return cls(
            float(report.objective),
            float(report.loss),
            float(report.weight),
            float(report.samples),
            None if report.correct is None else float(report.correct),
            tuple(float(value) for value in report.measures),
            tuple(float(value) for value in report.penalties),
            report.optimizer_steps,
        )


@dataclass(frozen=True)
class Outcome:
    """What training left: a row for each call of `train_step`, and the user's model before it and after `sync`."""

    rows: List[Row]
    start: Dict[str, Tensor]
    weights: Dict[str, Tensor]


@dataclass(frozen=True)
class Evaluation:
    """What evaluation said: combined over its reports as the contract says; `output`: `[T, N, ...]`, in the order of
    the data.
    """

    loss: float
    weight: float
    samples: float
    accuracy: Optional[float]
    measures: Tuple[float, ...]
    output: Tensor


def weights_of(model: nn.Module) -> Dict[str, Tensor]:
    """A copy of parameters and buffers on the CPU, without batch norm's counter: not every device counts batches."""
    state = model.state_dict()
    return {name: t.detach().cpu().clone() for name, t in state.items() if not name.endswith("num_batches_tracked")}


def train(
    program: Program, data: Data, *, epochs: int = 1, start: int = 0, before: Optional[Before] = None
) -> List[Row]:
    """Train on `data` in its order, and return a row for each call. before: called before each with the program and its
    number.
    """
    rows: List[Row] = []
    for epoch in range(epochs):
        for batch in program.loader(data, range(len(data)), training=True, start=0 if epoch else start):
            if before is not None:
                before(program, len(rows))
            rows.append(Row.of(program.train_step(batch)))
    return rows


def fit(
    backend: Backend,
    trial: Trial,
    *,
    epochs: int = 1,
    before: Optional[Before] = None,
    model: Optional[nn.Module] = None,
) -> Outcome:
    """Compile a trial, train it and copy the weights back."""
    trial = trial.on(backend)
    model = trial.build() if model is None else model
    start = weights_of(model)
    with compiled(backend, trial, model) as program:
        rows = train(program, trial.samples(), epochs=epochs, before=before)
        program.sync()
    return Outcome(rows, start, weights_of(model))


def evaluate(program: Program, data: Data, order: Optional[Sequence[int]] = None) -> Evaluation:
    """Evaluate a program on `data`, and combine its reports: by weight the loss, by samples the measures."""
    rows: List[Row] = []
    outputs: List[Tensor] = []
    for batch in program.loader(data, range(len(data)) if order is None else order, training=False):
        report = program.eval_step(batch)
        require(report.output is not None, "eval_step's report has no output; evaluation must leave it: [T, B, ...]")
        outputs.append(torch.as_tensor(report.output).detach().cpu())
        rows.append(Row.of(report))
    require(bool(rows), "the evaluation's loader yields no batch")
    weight, samples = sum(r.weight for r in rows), sum(r.samples for r in rows)
    correct = [r.correct for r in rows if r.correct is not None]
    return Evaluation(
        loss=sum(r.loss * r.weight for r in rows) / weight,
        weight=weight,
        samples=samples,
        accuracy=sum(correct) / samples if correct else None,
        measures=tuple(sum(r.measures[i] * r.samples for r in rows) / samples for i in range(len(rows[0].measures))),
        output=torch.cat(outputs, dim=1),
    )


def one_by_one(trial: Trial, model: nn.Module) -> Evaluation:
    """What an evaluation must say, by brute force: the step on the host, on one sample after the other."""
    step = trial.step(model).eval()
    controls = {name: torch.tensor(value) for name, value in step.controls.items()}
    outs = []
    with torch.no_grad():
        for x, target in trial.samples():
            x, target = x.unsqueeze(0), target.unsqueeze(0)
            x = x if trial.time_axis is None else x.transpose(0, 1)
            target = target if trial.target_time_axis is None else target.transpose(0, 1)
            outs.append(step(x, target, controls))
    weight = sum(float(out.weight) for out in outs)
    correct = [float(out.correct) for out in outs if out.correct is not None]
    return Evaluation(
        loss=sum(float(out.loss) * float(out.weight) for out in outs) / weight,
        weight=weight,
        samples=float(len(outs)),
        accuracy=sum(correct) / len(outs) if correct else None,
        measures=tuple(sum(float(out.measures[i]) for out in outs) / len(outs) for i in range(len(step.measure_names))),
        output=torch.cat([out.output for out in outs], dim=1),
    )


def require_same_evaluation(what: str, got: Evaluation, want: Evaluation, within: Tolerance) -> None:
    """Raise ConformanceError unless two evaluations agree; numbers of samples exactly."""
    require_equal(f"{what}: the number of samples", got.samples, want.samples)
    require_close(f"{what}: output", got.output, want.output, within)
    for name in ("loss", "weight", "accuracy", "measures"):
        _require_close_field(f"{what}: {name}", getattr(got, name), getattr(want, name), within)


def require_same_outcome(got: Outcome, want: Outcome, within: Tolerance) -> None:
    """Raise ConformanceError unless two trainings agree in every report and in the weights that they end with.

    A difference in the reports comes with the names of the tensors that differ in the end: they say where to look.
    """
    try:
        require_same_rows(got.rows, want.rows, within)
    except ConformanceError as exc:
        apart = [name for name in want.weights if not _close(got.weights[name], want.weights[name], within)]
        where = f"in the end {', '.join(map(repr, apart))} differ" if apart else "the weights agree in the end"
        raise ConformanceError(f"{exc}; {where}") from exc
    require_same_tensors("after training, tensor", got.weights, want.weights, within)


def require_same_rows(got: Sequence[Row], want: Sequence[Row], within: Tolerance) -> None:
    """Raise ConformanceError unless two trainings agree in every report; counts exactly."""
    require_equal("the number of training batches", len(got), len(want))
    for number, (row, expected) in enumerate(zip(got, want), start=1):
        for name in Row._fields:
            what = f"training batch {number}: {name}"
            if name in ("samples", "correct", "optimizer_steps"):
                require_equal(what, getattr(row, name), getattr(expected, name))
            else:
                _require_close_field(what, getattr(row, name), getattr(expected, name), within)


def _close(got: Tensor, want: Tensor, within: Tolerance) -> bool:
    try:
        require_close("", got, want, within)
    except ConformanceError:
        return False
    return True


def _require_close_field(what: str, got: Any, want: Any, within: Tolerance) -> None:
    if want is None or got is None:
        require_equal(what, got, want)
    else:
        as_floats = [torch.tensor(value, dtype=torch.float64) for value in (got, want)]
        require_close(what, as_floats[0], as_floats[1], within)


def agree(
    backend: Backend,
    trial: Trial,
    *,
    epochs: int = 1,
    before: Optional[Before] = None,
    within: Optional[Tolerance] = None,
) -> Outcome:
    """Train a trial on the backend and on the reference, demand equal reports and weights, and return the backend's."""
    trial = trial.on(backend)
    within = tolerance(backend, trial) if within is None else within
    got = fit(backend, trial, epochs=epochs, before=before)
    want = fit(reference(), trial, epochs=epochs, before=before)
    require_same_outcome(got, want, within)
    return got


def gradients(outcome: Outcome, trial: Trial) -> Dict[str, Tensor]:
    """The gradient of each parameter, off the weights before and after one plain SGD step. Buffers are left out."""
    lr = trial.optimizer.lr
    names = [name for name, _ in trial.build().named_parameters()]
    return {name: (outcome.start[name] - outcome.weights[name]) / lr for name in names}


def agree_on_gradients(backend: Backend, trial: Trial, slack: float = 1.0) -> Dict[str, Tensor]:
    """Take one SGD step on the whole data, on the backend and on the reference, and return the backend's gradients.

    Outputs, loss, terms and gradients must agree. slack: how many times the tolerance is allowed.
    """
    trial = trial.on(backend).but(optimizer=SGD(lr=GRADIENT_LR), size=len(trial.data))
    declared = tolerance(backend, trial)
    within = Tolerance(slack * declared.relative, slack * declared.absolute)
    (got, seen), (want, expected) = (one_step(b, trial) for b in (backend, reference()))
    require_same_evaluation("before the step", seen, expected, within)
    for name in Row._fields:
        _require_close_field(f"{name} of the step", getattr(got.rows[0], name), getattr(want.rows[0], name), within)
    slopes = gradients(got, trial)
    require_same_tensors("the gradient of", slopes, gradients(want, trial), within)
    return slopes


def one_step(backend: Backend, trial: Trial) -> Tuple[Outcome, Evaluation]:
    """Evaluate the whole data, then train on it: what training left, and what the evaluation before it said."""
    model, data = trial.build(), trial.samples()
    start = weights_of(model)
    with compiled(backend, trial, model) as program:
        seen = evaluate(program, data)
        rows = train(program, data)
        program.sync()
    return Outcome(rows, start, weights_of(model)), seen


def exact_or(backend: Backend, trial: Trial) -> Tuple[Trial, Tolerance]:
    """The trial in deterministic mode and equal bits, where the backend declares it; else the trial and the tolerance.

    For claims that two ways to a result agree on one backend. A trial that draws at random is always in deterministic
    mode, which `compile` must refuse where it is not declared: no other mode can draw the same twice.
    """
    trial = trial.on(backend)
    if backend.capabilities.deterministic:
        return trial.training(deterministic=True), EXACT
    draws = trial.step(trial.build()).random
    return (trial.training(deterministic=True) if draws else trial), tolerance(backend, trial)
