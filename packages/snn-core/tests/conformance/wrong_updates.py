"""Backends that compute wrong gradients or take wrong steps."""

import copy
from dataclasses import replace
from typing import Any, Sequence

import torch
from torch import Tensor, nn
from wrong_backends import SeveralStepsACall, caught

from snn_core.backend import Report
from snn_core.eager import EagerOptions, EagerProgram
from snn_core.encoders import Constant
from snn_core.neurons.base import Temporal
from snn_core.neurons.spiking import SpikingNeuron
from snn_core.specs import BatchSpec, TrainSpec
from snn_core.step import Step, StepOutput
from snn_core.surrogate import StraightThrough

Batch = Any


@caught("a lost gradient", "losses_and_weights_equal_the_reference", "float64", "'0.weight'")
@caught("a lost gradient, of a neuron's input", "neurons_equal_the_reference", "LIF", "gradient of '0.weight'")
@caught("a lost gradient, of a convolution", "networks_train_as_on_the_reference", "images", "gradient of '0.weight'")
class LostGradient(EagerProgram):
    """A layer whose backward was not written."""

    def _clip(self) -> None:
        self._parameters[0].grad = torch.zeros_like(self._parameters[0])
        super()._clip()


@caught("a wrong surrogate", "surrogates_have_their_declared_derivative", "ATan", "gradient")
@caught("a wrong surrogate, through time", "surrogates_act_through_time", "Erf", "gradient")
class WrongSurrogate(EagerProgram):
    """Every spike is differentiated straight through."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        for module in (*self._training.modules(), *self._evaluation.modules()):
            if hasattr(module, "firing"):
                module.firing = replace(module.firing, surrogate=StraightThrough())


@caught("a wrong reset", "neurons_equal_the_reference", "LIF", "output differs")
@caught("a wrong reset, in its traces", "recorded_states_equal_the_reference", "LIF", "differs")
class WrongReset(EagerProgram):
    """A reset by subtraction is done as one to zero."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        for module in (*self._training.modules(), *self._evaluation.modules()):
            if isinstance(module, SpikingNeuron) and module.firing.reset_mechanism == "subtract":
                module.firing = replace(module.firing, reset_mechanism="zero")


@caught("a gradient through resets", "neurons_equal_the_reference", "LIF", "gradient")
class AttachedReset(EagerProgram):
    """The gradient runs through every reset: the forward is right."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        for module in (*self._training.modules(), *self._evaluation.modules()):
            if hasattr(module, "firing"):
                module.firing = replace(module.firing, detach_reset=False)


@caught("a frozen decay", "neurons_equal_the_reference", "LIF, learnt", "gradient of '1.threshold'")
@caught("a frozen decay, of a user's neuron", "neurons_equal_the_reference", "user's neuron", "gradient")
class FrozenDecay(EagerProgram):
    """A kernel that takes a neuron's coefficients as constants: they are never trained."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        for module in self._training.modules():
            if isinstance(module, Temporal):
                for parameter in module.parameters(recurse=False):
                    parameter.requires_grad_(False)


@caught("learning rate ignored", "a_learning_rate_of_zero_freezes", "sgd", "learning rate 0")
@caught("a schedule ignored", "the_learning_rate_follows_set_lr", "", "training batch 2")
class LearningRateIgnored(EagerProgram):
    def set_lr(self, lr: float) -> None:
        self._require_open()


@caught("momentum forgotten", "optimizers_take_the_reference_steps", "sgd, momentum", "differs")
class MomentumForgotten(EagerProgram):
    """The optimiser is made anew for every step."""

    def _clip(self) -> None:
        super()._clip()
        self._optimizer.state.clear()


@caught("decay of the wrong kind", "optimizers_take_the_reference_steps", "adamw", "differs")
class DecayOfTheWrongKind(EagerProgram):
    """AdamW is done as Adam: its decay goes through the moments."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if isinstance(self._optimizer, torch.optim.AdamW):
            group = {
                k: v for k, v in self._optimizer.param_groups[0].items() if k in ("lr", "betas", "eps", "weight_decay")
            }
            self._optimizer = torch.optim.Adam(self._parameters, **group)


@caught("clipping ignored", "clipping_bounds_the_gradient", "by norm", "differs")
@caught("clipping ignored, by its norm", "a_clipped_gradient_has_the_norm_asked_for", "", "norm")
class ClippingIgnored(EagerProgram):
    def _clip(self) -> None:
        pass


@caught("clipping by tensor", "clipping_bounds_the_gradient", "by norm", "differs")
class ClipsEachTensor(EagerProgram):
    """Bounds the norm of each parameter's gradient instead of the whole one's."""

    def _clip(self) -> None:
        for parameter in self._parameters:
            if self._train.clip_norm is not None:
                nn.utils.clip_grad_norm_([parameter], self._train.clip_norm)
            if self._train.clip_value is not None:
                nn.utils.clip_grad_value_([parameter], self._train.clip_value)


@caught("accumulation ignored", "accumulation_averages_gradients", "2", "number of training batches")
class AccumulationIgnored(EagerProgram):
    """Takes a step for each micro-batch."""

    def __init__(self, step: Step, optimizer: Any, batch: BatchSpec, train: TrainSpec, options: EagerOptions) -> None:
        super().__init__(step, optimizer, batch, replace(train, accumulation=1), options)


@caught("accumulation summed", "accumulation_averages_gradients", "3", "differs")
class AccumulationSummed(EagerProgram):
    """Adds the gradients of micro-batches up instead of averaging them."""

    def _clip(self) -> None:
        for parameter in self._parameters:
            if parameter.grad is not None:
                parameter.grad *= self._train.accumulation
        super()._clip()


@caught("precision ignored", "reduced_precision_is_used", "bf16", "differs from that under fp32 by 0")
class PrecisionIgnored(EagerProgram):
    def __init__(self, step: Step, optimizer: Any, batch: BatchSpec, train: TrainSpec, options: EagerOptions) -> None:
        super().__init__(step, optimizer, batch, replace(train, precision="fp32"), options)


@caught("states in half precision", "reduced_precision_leaves_states_wide", "bf16", "integrator")
class HalfStates(EagerProgram):
    """Keeps the membranes in bfloat16, where a large one swallows small inputs."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if self._train.precision == "bf16":
            for module in (*self._training.modules(), *self._evaluation.modules()):
                if isinstance(module, Temporal):
                    module.run = _rounded(module)  # type: ignore[method-assign]


def _rounded(layer: Temporal) -> Any:
    def run(x: Tensor, state: Any = None, steps: Any = None, wanted: Sequence[str] = ()) -> Any:
        outs = []
        for x_t in x.unbind(0):
            out, state = layer.step(x_t, state)
            state = tuple(t.bfloat16().float() for t in state)
            outs.append(out)
        return torch.stack(outs), state, {}

    return run


@caught("chunks that forget", "chunks_take_one_step_each_and_carry_the_state", "even", "differs")
class ChunkForgetsState(EagerProgram):
    """Each chunk starts at rest."""

    def _forward(self, step: Step, x: Tensor, target: Tensor, states: Any) -> StepOutput:
        return super()._forward(step, x, target, ())


@caught(
    "one step instead of several",
    "several_steps_in_one_call_are_several_steps",
    "2 steps",
    "optimizer steps",
    steps_per_call=True,
)
class OneStepInsteadOfSeveral(SeveralStepsACall):
    """Declares several steps a call and takes one on all their samples."""

    def train_step(self, batch: Batch) -> Report:
        return EagerProgram.train_step(self, tuple(t[: self._batch.size * self._train.accumulation] for t in batch))


@caught("coarse gradients", "reduced_precision_is_near_the_full_one", "bf16", "gradient")
class CoarseGradients(EagerProgram):
    """Keeps of each gradient its sign and its power of two."""

    def _clip(self) -> None:
        for parameter in self._parameters:
            if parameter.grad is not None and self._train.precision != "fp32":
                parameter.grad = parameter.grad.sign() * parameter.grad.abs().log2().round().exp2()
        super()._clip()


@caught("rounded weights", "reduced_precision_keeps_the_weights_wide", "bf16", "differs")
class RoundsTheWeights(EagerProgram):
    """Halves the model and what it holds with it."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        if self._train.precision == "bf16":
            for tensor in (*self._training.parameters(), *self._training.buffers()):
                tensor.data = tensor.data.bfloat16().float()


@caught("a frozen parameter trained", "frozen_parameters_stay", "", "'0.weight'")
class TrainsFrozen(EagerProgram):
    def __init__(self, step: Step, *args: Any) -> None:
        super().__init__(copy.deepcopy(step).requires_grad_(True), *args)
        self._source = step


@caught("a layer untied", "a_layer_used_twice_stays_one_layer", "", "differs")
class UntiesLayers(EagerProgram):
    """Copies layer by layer, so that a layer in two places becomes two."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        seen = set()
        for container in list(self._training.model.modules()):
            for name, child in list(container._modules.items()):
                if id(child) in seen:
                    container._modules[name] = copy.deepcopy(child)
                seen.add(id(child))


@caught("a constant input cut short", "an_input_without_time_equals_the_same_at_every_step", "linear", "differs")
class StaticInputCutShort(EagerProgram):
    """Runs what follows a constant input for one step too few."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        for module in (*self._training.modules(), *self._evaluation.modules()):
            if isinstance(module, Constant):
                module.steps -= 1  # type: ignore[operator]


@caught("class weights ignored", "losses_train_as_on_the_reference", "CountCrossEntropy, class weights", "differs")
class ClassWeightsIgnored(EagerProgram):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        for step in (self._training, self._evaluation):
            if getattr(step.loss, "class_weights", None) is not None:
                step.loss = replace(step.loss, class_weights=None)  # type: ignore[type-var]


@caught("ties that do not fire", "ties_follow_the_fire_op", ">=", "at a tie differs")
class FiresAbove(EagerProgram):
    """A membrane exactly at the threshold never fires."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        for module in (*self._training.modules(), *self._evaluation.modules()):
            if hasattr(module, "firing"):
                module.firing = replace(module.firing, fire_op=">")


@caught("programs that share a place", "two_programs_live_side_by_side", "", "")
class TheLatestOnly(EagerProgram):
    """Keeps what it runs in one global place, where the next program takes it."""

    _latest: Any = None

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        TheLatestOnly._latest = self

    def train_step(self, batch: Batch) -> Report:
        return EagerProgram.train_step(TheLatestOnly._latest, batch)


@caught("chunks that keep the target", "chunks_cut_a_target_with_time", "", "differs")
class ChunksKeepTheTarget(EagerProgram):
    """Cuts the input along time, and gives each piece the target's beginning."""

    def _chunks(self, x: Tensor, target: Tensor) -> Any:
        pieces = super()._chunks(x, target)
        timed = self._train.chunk is not None and self._batch.target.time_axis is not None
        return [(part, target[: len(part)]) for part, _ in pieces] if timed else pieces
