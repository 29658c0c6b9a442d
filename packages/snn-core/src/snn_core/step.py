"""One training step as one pure module: the model, the loss and the terms, composed so that a backend can compile the
whole.
"""

import contextlib
import copy
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from snn_core.containers import Sequential, refuse_misread_time
from snn_core.encoders import Encoder
from snn_core.errors import ConfigError, ShapeError, SnnError
from snn_core.losses import Loss, as_loss
from snn_core.neurons.base import Temporal
from snn_core.pieces import Cut, Prepare, as_reference_fails, require_promised, require_shown
from snn_core.recomputation import run_in_segments
from snn_core.recording import WEIGHT_LAYERS, CarriedStates, Recorder
from snn_core.specs import BatchSpec, TensorSpec
from snn_core.terms import BoundTerm, Recorded, Term

__all__ = ["Reduction", "Step", "StepOutput", "zeros_of"]

Reduction = Callable[[Tensor, Tensor], Tensor]
"""From a process's measure and its number of valid samples to the measure of all processes' samples."""


class StepOutput(NamedTuple):
    """What one step returns; tensors are 0-d unless said otherwise.

    objective: loss plus penalties.    loss: the loss's weighted mean.    weight: its denominator.    samples: valid
    ones.
    correct: how many of them were classified rightly, or None.          output: the model's, `[T, B, ...]`.
    measures: in the order of `Step.measure_names`.    penalties: one for each term, in the order of `Step.term_names`.
    states: the last state of each call of each temporal layer, for truncated back-propagation.
    """

    objective: Tensor
    loss: Tensor
    weight: Tensor
    samples: Tensor
    correct: Optional[Tensor]
    output: Tensor
    measures: Tuple[Tensor, ...]
    penalties: Tuple[Tensor, ...]
    states: CarriedStates


class Step(nn.Module):
    """`Step(x, target, controls) -> StepOutput`: what a backend compiles, on a copy of the user's model, `source`.

    model: any module that maps `[B, ...]` (with an encoder in it) or `[T, B, ...]` to `[T, B, ...]`.
    loss: a `Loss`, or a function of output and target that returns one value for each sample.
    `reduce` is for backends that train in several processes: what makes the whole batch's measure of this process's
    (`snn_core.distributed.GlobalMean`), before the penalty, which does not reduce by a mean.
    `recompute_every`, `TrainSpec.recompute_every`, is for backends as well.
    Raises ConfigError for terms of one name, or layers that would misread the time axis.
    """

    def __init__(self, model: nn.Module, loss: Any, terms: Sequence[Term] = ()) -> None:
        super().__init__()
        refuse_misread_time(model)
        self.source: Optional[nn.Module] = None
        self.model = copy.deepcopy(model)
        self.loss: Loss = as_loss(loss)
        self.term_names = tuple(term.name for term in terms)
        doubled = {name for name in self.term_names if self.term_names.count(name) > 1}
        if doubled:
            raise ConfigError(f"two terms are named {sorted(doubled)[0]!r}; give each term of a run a name of its own")
        self.controls: Dict[str, float] = {f"{t.name}.{key}": v for t in terms for key, v in t.controls.items()}
        self.terms: List[BoundTerm] = [term.bind(self.model) for term in terms]
        self.reduce: Optional[Reduction] = None
        self.recompute_every: Optional[int] = None
        self._term_traces = tuple(dict.fromkeys(name for term in terms for name in term.traces))
        self.recorder = self._listen(layers=any(term.layers for term in terms))
        object.__setattr__(self, "source", model)  # not a child: the user's model is no part of the step

    def _listen(self, layers: bool) -> Recorder:
        wanted = tuple(dict.fromkeys((*self.loss.needs, *self._term_traces)))
        temporal = {
            name: tuple(state for state in wanted if state in module.states)
            for name, module in self.model.named_modules()
            if isinstance(module, Temporal)
        }
        weighted = [n for n, m in self.model.named_modules() if layers and isinstance(m, WEIGHT_LAYERS)]
        recorder = Recorder(temporal, weighted)
        for name, module in self.model.named_modules():
            if name in recorder.neurons:
                module.tap = recorder.neurons[name]
            elif isinstance(module, Sequential):
                module.clock = recorder.clock
            if name in recorder.layers:
                module.register_forward_hook(recorder.layers[name], with_kwargs=True)
        return recorder

    def __getstate__(self) -> Dict[str, Any]:
        # copies (deepcopy, pickle, poptorch's copy.copy) are compiled or sent away: they must not carry the user's
        # model
        return {**self.__dict__, "source": None}

    @property
    def measure_names(self) -> Tuple[str, ...]:
        """What a step's measures are called: "TERM", or "TERM.PART" for each part of a term that has parts."""
        return tuple(
            f"{name}.{part}" if part else name
            for name, term in zip(self.term_names, self.terms)
            for part in term.parts or ("",)
        )

    @property
    def recurrence(self) -> bool:
        """Whether a weight stands inside the time loop of some layer."""
        return any(isinstance(m, Temporal) and m.recurrence for m in self.model.modules())

    @property
    def random(self) -> bool:
        """Whether the step draws random numbers in training: dropout, or a random encoder."""
        dropouts = (nn.modules.dropout._DropoutNd, nn.RReLU)
        return any(isinstance(m, dropouts) or (isinstance(m, Encoder) and m.random) for m in self.model.modules())

    def forward(
        self,
        x: Tensor,
        target: Tensor,
        controls: Mapping[str, Tensor],
        valid: Optional[Tensor] = None,
        states: CarriedStates = (),
    ) -> StepOutput:
        """One forward. x: `[B, ...]` or `[T, B, ...]`; target: `[B, ...]`; valid: `[B]` of 0 and 1, None for all.

        states: of an earlier step, detached, to go on from; empty is rest.
        """
        self.recorder.begin(states)
        return self._judge(self._run(x, states), target, controls, valid)

    def _judge(
        self, output: Tensor, target: Tensor, controls: Mapping[str, Tensor], valid: Optional[Tensor] = None
    ) -> StepOutput:
        """Apply loss and terms to the model's output, and to what the recorder holds of its run."""
        traces = self._loss_traces()
        recorded = Recorded(
            output,
            {name: tuple(tap.calls) for name, tap in self.recorder.neurons.items()},
            {name: tuple(tap.calls) for name, tap in self.recorder.layers.items()},
        )
        finals = self.recorder.states()
        self.recorder.end()
        loss, weight = self.loss.reduce(output, target, traces, valid)
        samples = torch.full_like(weight, output.shape[1]) if valid is None else valid.sum()
        measures = [term.measure(recorded, valid) for term in self.terms]
        if self.reduce is not None:
            measures = [self.reduce(measure, samples) for measure in measures]
        penalties = tuple(
            term.penalty(measure, _controls_of(name, controls))
            for name, term, measure in zip(self.term_names, self.terms, measures)
        )
        objective = loss
        for penalty in penalties:
            objective = objective + penalty
        correct = self.loss.correct(output, target, traces)
        if correct is not None:
            correct = (correct if valid is None else correct * valid).sum()
        values = tuple(value for term, measure in zip(self.terms, measures) for value in _values(term, measure))
        return StepOutput(objective, loss, weight, samples, correct, output, values, penalties, finals)

    def _run(self, x: Tensor, states: CarriedStates) -> Tensor:
        if self.recompute_every is None or not torch.is_grad_enabled():
            return self.model(x)
        outputs = bool(self.terms)
        return run_in_segments(self.model, self.recorder, x, self.recompute_every, states, outputs)

    def _loss_traces(self) -> Dict[str, Tensor]:
        if not self.loss.needs:
            return {}
        traces = self.recorder.readout_traces()
        missing = [name for name in self.loss.needs if name not in traces]
        if missing:
            last = self.recorder.readout
            raise ConfigError(
                f"the loss {type(self.loss).__name__} needs {', '.join(map(repr, missing))} of the model's "
                "last neuron; "
                + (f"layer {last!r} has no such state" if last is not None else "no neuron ran over the sequence")
                + ": end the network with a neuron that has it, such as snn.LIF or snn.LI"
            )
        return {name: traces[name] for name in self.loss.needs}

    def validate(
        self,
        batch: BatchSpec,
        chunk: Optional[int] = None,
        recompute_every: Optional[int] = None,
        prepare: Optional[Prepare] = None,
    ) -> Tuple[int, ...]:
        """Run once on zeros, on the CPU, leaving weights and random state alone; return the output's shape (T, B, ...).

        chunk, recompute_every: those of the `TrainSpec`.
        prepare: for a backend that runs layers faster than the reference: lets them run so in a copy of the model. What
        fails then is run as the reference runs it, so that errors are everywhere the same.
        Raises ShapeError, ConfigError or DataError for what would fail on the device, or be silently wrong there.
        """
        cuts = [Cut("chunk", chunk, twice=False)] if chunk is not None else []
        cuts += [Cut("recompute_every", recompute_every, twice=True)] if recompute_every is not None else []
        for cut in cuts:
            require_promised(self.model, batch, cut)
        shape, recorder = as_reference_fails(lambda given: self._try(batch, given), prepare)
        silent = [name for name, tap in recorder.layers.items() if not tap.fired]
        if silent:
            raise ConfigError(
                f"weight layer {silent[0]!r} never ran as a module (its weights are used some other way), so no term "
                "can count it; call the layer itself in the model's forward"
            )
        for cut in cuts:
            require_shown(self, batch, cut, prepare)
        self.recorder.narrow(recorder.readout, self.loss.needs, self._term_traces)
        return (shape[0], batch.size, *shape[2:])

    def _try(self, batch: BatchSpec, prepare: Optional[Prepare]) -> Tuple[Tuple[int, ...], Recorder]:
        """Run a copy on two samples of zeros; return the output's shape, and the copy's recorder."""
        x, target = zeros_of(batch.x, 2), zeros_of(batch.target, 2)
        controls = {name: torch.tensor(value) for name, value in self.controls.items()}
        probe = copy.deepcopy(self).cpu().eval()  # the user's model may be on any device
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            if prepare is not None:
                prepare(probe.model, False)
            probe.recorder.begin(())
            with _explained(
                f"the model cannot take a batch of shape {tuple(x.shape)} ({batch.x.dtype})", "its first layer"
            ):
                output = probe.model(x)
            if not isinstance(output, Tensor):
                raise ShapeError(f"the model returned {type(output).__name__}; it must return one tensor, [T, B, ...]")
            shape = tuple(output.shape)
            if len(shape) < 2 or shape[1] != 2:
                raise ShapeError(
                    f"for a batch of 2 the model returned shape {shape}; it must return [T, B, ...] with time first"
                )
            self.loss.check_target(target, shape)
            with _explained(f"the loss or a term cannot take an output of shape {shape}", "the target's"):
                probe._judge(output, target, controls)
        return shape, probe.recorder


@contextlib.contextmanager
def _explained(what: str, compare: str) -> Iterator[None]:
    try:
        yield
    except SnnError:
        raise
    except RuntimeError as exc:
        reason = str(exc) or type(exc).__name__
        raise ShapeError(f"{what}: {reason}; compare it with the size of {compare}") from exc


def _values(term: BoundTerm, measure: Tensor) -> Tuple[Tensor, ...]:
    return measure.unbind() if term.parts else (measure,)


def _controls_of(name: str, controls: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    return {key[len(name) + 1 :]: value for key, value in controls.items() if key.startswith(name + ".")}


def zeros_of(spec: TensorSpec, size: int) -> Tensor:
    """A batch of zeros as a forward takes it: time first where there is time."""
    zeros = torch.zeros((size, *spec.shape), dtype=getattr(torch, spec.dtype))
    return zeros if spec.time_axis is None else zeros.transpose(0, 1)
