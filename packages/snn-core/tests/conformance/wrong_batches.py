"""Backends that are wrong about terms, batches or evaluation."""

import copy
import os
from dataclasses import replace
from typing import Any, Dict, Iterator, Sequence

import torch
from torch import Tensor
from wrong_backends import PadsEvaluation, caught

from snn_core.backend import Report
from snn_core.eager import EagerProgram
from snn_core.errors import DataError
from snn_core.step import Step, StepOutput

Batch = Any


@caught("a penalty ignored", "a_penalty_reaches_the_gradient", "", "it is ignored")
@caught("a penalty ignored, against the reference", "terms_train_as_on_the_reference", "inputs of layers", "gradient")
class PenaltyIgnored(EagerProgram):
    """Minimises the loss alone, and reports the rest."""

    def _forward(self, step: Step, x: Tensor, target: Tensor, states: Any) -> StepOutput:
        out = super()._forward(step, x, target, states)
        return out._replace(objective=out.loss + (out.objective - out.loss).detach())


@caught("a control frozen at compile", "controls_change_while_a_run_goes_on", "one step a call", "differs")
@caught("a control frozen in evaluation", "controls_hold_in_evaluation", "", "penalty")
class ControlFrozen(EagerProgram):
    """Controls are constants of the compiled graph."""

    def set_control(self, name: str, value: float) -> None:
        self._require_open()
        self._controls[name]


@caught("terms in another order", "terms_come_back_in_their_order", "", "measures differs")
class TermsInAnotherOrder(EagerProgram):
    def train_step(self, batch: Batch) -> Report:
        report = super().train_step(batch)
        return replace(report, measures=report.measures[::-1], penalties=report.penalties[::-1])


@caught("measures that cost", "a_penalty_of_weight_zero_only_measures", "", "differs")
class MeasuresCost(EagerProgram):
    """Adds each measure to the objective, whatever its penalty."""

    def _forward(self, step: Step, x: Tensor, target: Tensor, states: Any) -> StepOutput:
        out = super()._forward(step, x, target, states)
        return out._replace(objective=out.objective + sum(out.measures))


@caught("a penalty of one micro-batch", "terms_reduce_over_micro_batches", "", "differs")
class PenaltyOfTheFirstMicroBatch(EagerProgram):
    """Takes the penalties' gradient of one micro-batch for all."""

    _calls = 0

    def _forward(self, step: Step, x: Tensor, target: Tensor, states: Any) -> StepOutput:
        out = super()._forward(step, x, target, states)
        self._calls += 1
        if self._calls % self._train.accumulation != 1:
            return out._replace(objective=out.loss + (out.objective - out.loss).detach())
        return out


@caught("controls not saved", "controls_are_part_of_the_state", "", "controls of the state is {}")
class ControlsNotSaved(EagerProgram):
    def state_dict(self) -> Dict[str, Any]:
        return {**super().state_dict(), "controls": {}}


@caught("any control taken", "unknown_controls_are_refused", "", "raises nothing")
class AnyControl(EagerProgram):
    def set_control(self, name: str, value: float) -> None:
        if name in self._controls:
            super().set_control(name, value)


@caught("a wrong time axis", "time_is_the_second_axis_at_the_boundary", "", "differs")
class WrongTimeAxis(EagerProgram):
    """Hands `[B, T, ...]` to the model as it is."""

    def _place(self, x: Tensor, target: Tensor) -> Any:
        return x, target


@caught("a start ignored", "training_starts_where_it_is_told", "1", "samples of each training batch")
@caught("a start ignored in evaluation", "evaluation_starts_where_it_is_told", "", "shape")
class StartIgnored(EagerProgram):
    def loader(self, dataset: Any, order: Sequence[int], **options: Any) -> Iterator[Batch]:
        return super().loader(dataset, order, **{**options, "start": 0})


@caught("an order ignored", "evaluation_keeps_the_order", "", "order")
@caught("an order ignored in training", "training_sees_the_samples_asked_for", "", "samples of each")
class OrderIgnored(EagerProgram):
    def loader(self, dataset: Any, order: Sequence[int], **options: Any) -> Iterator[Batch]:
        return super().loader(dataset, sorted(order), **options)


@caught(
    "an evaluation batch dropped",
    "every_sample_counts_exactly_once",
    "two batches and a half",
    "is 8; it must",
)
@caught(
    "evaluation batches miscounted",
    "batches_counts_what_the_loader_yields",
    "evaluation, a short one",
    "yields is 2",
)
class LastEvaluationBatchDropped(EagerProgram):
    def loader(self, dataset: Any, order: Sequence[int], *, training: bool, **options: Any) -> Iterator[Batch]:
        kept = len(order) if training else len(order) - len(order) % self._batch.size
        return super().loader(dataset, order[:kept], training=training, **options)


@caught("padding that counts", "every_sample_counts_exactly_once", "two batches and a half", "samples is 12")
@caught(
    "padding that counts in losses", "losses_of_short_batches_count_every_sample_once", "CountMSE", "number of samples"
)
class PaddingCounts(PadsEvaluation):
    """Fills the last batch up and does not say which samples are real."""

    def _forward(self, step: Step, x: Tensor, target: Tensor, states: Any) -> StepOutput:
        return step(x, target, self._controls, None, states)


@caught(
    "padding that counts in terms",
    "measures_of_short_batches_count_every_sample_once",
    "outputs of neurons",
    "measures differs",
)
class PaddingCountsInTerms(PadsEvaluation):
    """The loss knows which samples are real; the terms do not."""

    def _forward(self, step: Step, x: Tensor, target: Tensor, states: Any) -> StepOutput:
        out = step(x, target, self._controls, self._valid, states)
        return out._replace(measures=step(x, target, self._controls, None, states).measures)


@caught("evaluation in training mode", "evaluation_uses_running_statistics", "", "differs")
@caught("evaluation in training mode, seen by a module", "modules_see_their_mode", "", "differs")
@caught("evaluation in training mode, with dropout", "dropout_rests_in_evaluation", "", "differs")
@caught("evaluation that moves statistics", "evaluation_changes_nothing", "images", "running_mean")
@caught(
    "evaluation in training mode, of a sample",
    "a_sample_does_not_depend_on_its_neighbours",
    "",
    "another order",
)
class EvaluatesInTrainingMode(EagerProgram):
    def eval_step(self, batch: Batch) -> Report:
        kept, self._evaluation = self._evaluation, self._training
        try:
            return super().eval_step(batch)
        finally:
            self._evaluation = kept


@caught("evaluation of old weights", "evaluation_equals_the_reference_after_training", "dense", "after 1 steps")
@caught("evaluation of the weights before loading", "loading_serves_evaluation_too", "", "differs")
class EvaluatesOldWeights(EagerProgram):
    """Evaluation has weights of its own, which nobody brings up to date."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._evaluation = copy.deepcopy(self._training).eval()


@caught("evaluation that goes on drawing", "evaluating_twice_says_the_same", "random encoder", "differs")
class EvaluationGoesOnDrawing(EagerProgram):
    """The second evaluation draws where the first one stopped."""

    def loader(self, dataset: Any, order: Sequence[int], **options: Any) -> Iterator[Batch]:
        kept = getattr(self, "_evaluation_random", None)
        batches = super().loader(dataset, order, **options)
        self._evaluation_random = kept or self._evaluation_random
        return batches


@caught("evaluation that draws", "draws_belong_to_the_program", "dropout", "among host draws")
class EvaluationDrawsFromTraining(EagerProgram):
    def eval_step(self, batch: Batch) -> Report:
        with self._random.active():
            torch.rand(1)
        return super().eval_step(batch)


@caught("output batch first", "every_sample_counts_exactly_once", "whole batches", "number of samples evaluated")
class OutputBatchFirst(EagerProgram):
    def eval_step(self, batch: Batch) -> Report:
        report = super().eval_step(batch)
        assert report.output is not None
        return replace(report, output=report.output.transpose(0, 1))


@caught("sizes of 1 lost", "shapes_of_any_size_will_do", "one neuron", "output has shape")
class SqueezesOutput(EagerProgram):
    """Sizes of 1 are lost on the way."""

    def eval_step(self, batch: Batch) -> Report:
        report = super().eval_step(batch)
        assert report.output is not None
        return replace(report, output=report.output.squeeze(-1))


@caught("training on padding", "a_short_training_batch_counts_its_samples_alone", "", "batch 3: weight")
@caught(
    "training on padding, accumulated",
    "a_short_accumulated_batch_counts_its_samples_alone",
    "",
    "batch 3: weight",
)
class TrainsOnPadding(EagerProgram):
    """Fills a short training batch up by its last sample."""

    def train_step(self, batch: Batch) -> Report:
        size = self._samples_per_batch(True)
        return super().train_step(tuple(torch.cat((t, t[-1:].expand(size - len(t), *t.shape[1:]))) for t in batch))


@caught("tensors only", "any_map_style_dataset_will_do", "", "AttributeError")
class TensorsOnly(EagerProgram):
    """Takes what a dataset returns for tensors."""

    def loader(self, dataset: Any, order: Sequence[int], **options: Any) -> Iterator[Batch]:
        dataset[0][0].dim()
        return super().loader(dataset, order, **options)


@caught("a loader's seed ignored", "the_seed_fixes_what_the_dataset_draws", "", "another seed")
class LoaderSeedIgnored(EagerProgram):
    def loader(self, dataset: Any, order: Sequence[int], **options: Any) -> Iterator[Batch]:
        return super().loader(dataset, order, **{**options, "seed": 0})


@caught("broken by a refusal", "fit_samples_are_read_after_a_refusal", "", "stopped")
class BrokenByRefusal(EagerProgram):
    """After one unfit sample it takes no fit one."""

    _refused = False

    def loader(self, dataset: Any, order: Sequence[int], **options: Any) -> Iterator[Batch]:
        if self._refused:
            raise RuntimeError("the reader has stopped")
        try:
            yield from super().loader(dataset, order, **options)
        except DataError:
            self._refused = True
            raise


@caught("an evaluation of chance", "evaluating_twice_says_the_same", "images", "loss differs")
class EvaluationOfChance(EagerProgram):
    def eval_step(self, batch: Batch) -> Report:
        report = super().eval_step(batch)
        return replace(report, loss=report.loss * (1 + int.from_bytes(os.urandom(2), "big") * 1e-15))


@caught("labels not checked", "unfit_samples_are_refused_by_the_loader", "label above the classes", "raises nothing")
class LabelsUnchecked(EagerProgram):
    def _check_target(self, target: Tensor) -> None:
        pass


@caught("draws that repeat", "another_seed_draws_otherwise", "dropout", "draw anew")
class FixedDraws(EagerProgram):
    """Draws once, at compile, and repeats it: what a device does that folds random numbers into constants."""

    def train_step(self, batch: Batch) -> Report:
        state = self._random.state()
        report = super().train_step(batch)
        self._random.restore(state)
        return report
