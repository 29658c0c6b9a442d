"""What a training step computes: updates, reports, and the options of TrainSpec, each against the reference."""

from dataclasses import replace
from typing import Dict, List, NamedTuple, Tuple

import torch
from torch import Tensor, nn

from snn_core.backend import Backend, Program, Tolerance
from snn_core.containers import Sequential
from snn_core.losses import MembraneCrossEntropy, OutputMSE
from snn_core.neurons import LI, LIF
from snn_core.optimizers import SGD, Adam, AdamW, Optimizer, RMSprop
from snn_core.testing.check import check
from snn_core.testing.compare import EXACT, require, require_close, require_equal, require_same_tensors
from snn_core.testing.fit import (
    GRADIENT_LR,
    Outcome,
    agree,
    fit,
    gradients,
    require_same_outcome,
    weights_of,
)
from snn_core.testing.nets import dense, labelled, readout
from snn_core.testing.pieces import Activity
from snn_core.testing.trial import Trial, compiled, reference, tolerance

__all__ = ["CHECKS"]


@check(cases={"float32": "float32", "float64": "float64"})
def losses_and_weights_equal_the_reference(backend: Backend, dtype: str) -> None:
    """After some SGD steps every report and every weight is the reference's, for each dtype."""
    got = agree(backend, dense(dtype=dtype), epochs=2)
    moved = [name for name, value in got.weights.items() if not torch.equal(value, got.start[name])]
    trained = [name for name, _ in dense(dtype=dtype).build().named_parameters()]
    require_equal("the parameters that training changed", moved, trained)


# eps is large on purpose: with 1e-8 a gradient that is nothing but rounding moves a weight as far as any other
_OPTIMIZERS: Dict[str, Optimizer] = {
    "sgd": SGD(lr=0.5),
    "sgd, momentum": SGD(lr=0.3, momentum=0.8),
    "sgd, momentum and dampening": SGD(lr=0.3, momentum=0.8, dampening=0.4),
    "sgd, nesterov": SGD(lr=0.3, momentum=0.8, nesterov=True),
    "sgd, weight decay": SGD(lr=0.3, momentum=0.5, weight_decay=0.1),
    "adam": Adam(lr=0.05, betas=(0.7, 0.9), eps=1e-2),
    "adam, weight decay": Adam(lr=0.05, betas=(0.7, 0.9), eps=1e-2, weight_decay=0.1),
    "adamw": AdamW(lr=0.05, betas=(0.7, 0.9), eps=1e-2, weight_decay=0.1),
    "rmsprop": RMSprop(lr=0.02, alpha=0.8, eps=1e-2),
    "rmsprop, momentum and weight decay": RMSprop(lr=0.02, alpha=0.8, eps=1e-2, momentum=0.5, weight_decay=0.1),
}
_PLAIN = {name: _OPTIMIZERS[name] for name in ("sgd", "adam", "adamw", "rmsprop")}


@check(cases=_OPTIMIZERS)
def optimizers_take_the_reference_steps(backend: Backend, optimizer: Optimizer) -> None:
    """Each optimiser follows its equations over several steps, with momentum, moments, bias correction and decay."""
    agree(backend, dense(16, optimizer=optimizer))


@check(cases=_PLAIN)
def a_learning_rate_of_zero_freezes(backend: Backend, optimizer: Optimizer) -> None:
    """set_lr(0) leaves every weight as it is, bit for bit, for each optimiser and its decay; another rate moves them
    again.
    """
    trial = dense(16, optimizer=replace(optimizer, weight_decay=0.1)).on(backend)
    model = trial.build()
    with compiled(backend, trial, model) as program:
        seen: List[Dict[str, Tensor]] = []
        for number, batch in enumerate(program.loader(trial.samples(), range(16), training=True)):
            program.set_lr(0.0 if number in (1, 2) else 0.1)
            program.train_step(batch)
            program.sync()
            seen.append(weights_of(model))
    require_same_tensors("after steps of learning rate 0, tensor", seen[2], seen[0], EXACT)
    still = [name for name in seen[2] if name.endswith("weight") and torch.equal(seen[2][name], seen[3][name])]
    require(not still, f"with the learning rate set back from 0, {still} does not move")


@check()
def the_learning_rate_follows_set_lr(backend: Backend) -> None:
    """A schedule through set_lr, up and down, gives the reference's weights."""
    rates = (0.5, 0.1, 0.8, 0.25)

    def schedule(program: Program, number: int) -> None:
        program.set_lr(rates[number])

    agree(backend, dense(16, optimizer=SGD(lr=0.2, momentum=0.5)), before=schedule)


@check(cases={"2": 2, "3": 3})
def accumulation_averages_gradients(backend: Backend, count: int) -> None:
    """k micro-batches make one step by the mean of their gradients: as the reference does it, and as one batch k times
    as large.
    """
    trial = dense(24).training(accumulation=count).on(backend)
    got = agree(backend, trial)
    require_equal("optimizer steps of each call", {row.optimizer_steps for row in got.rows}, {1})
    joint = trial.but(size=4 * count).training(accumulation=1)
    require_same_outcome(got, fit(backend, joint), tolerance(backend, trial))


class _Clip(NamedTuple):
    options: Dict[str, float]
    accumulation: int = 1


_CLIPS: Dict[str, _Clip] = {
    "by norm": _Clip({"clip_norm": 0.05}),
    "by value": _Clip({"clip_value": 0.02}),
    "by both": _Clip({"clip_norm": 0.04, "clip_value": 0.02}),
    "by a norm that is never reached": _Clip({"clip_norm": 1e3}),
    "by norm, after accumulation": _Clip({"clip_norm": 0.05}, accumulation=2),
    "by value, after accumulation": _Clip({"clip_value": 0.02}, accumulation=2),
}


@check(cases=_CLIPS)
def clipping_bounds_the_gradient(backend: Backend, clip: _Clip) -> None:
    """Gradients are clipped by global norm and by value, after averaging over micro-batches, as in the reference."""
    agree(backend, dense(16).training(accumulation=clip.accumulation, **clip.options))


@check()
def a_clipped_gradient_has_the_norm_asked_for(backend: Backend) -> None:
    """clip_norm scales the whole gradient, of all parameters together, to that 2-norm and keeps its direction."""
    bound = 0.01
    trial = dense(4, optimizer=SGD(lr=GRADIENT_LR)).on(backend)
    clipped = _flat(gradients(fit(backend, trial.training(clip_norm=bound)), trial))
    free = _flat(gradients(fit(backend, trial), trial))
    within = tolerance(backend, trial)
    # torch adds 1e-6 to the norm that it divides by
    near = Tolerance(within.relative + 1e-6 / float(free.norm()), within.absolute)
    require_close("the clipped gradient's norm", clipped.norm(), torch.tensor(bound, dtype=clipped.dtype), near)
    require_close("the clipped gradient's direction", clipped / clipped.norm(), free / free.norm(), near)


def _flat(slopes: Dict[str, Tensor]) -> Tensor:
    return torch.cat([slope.flatten() for slope in slopes.values()])


@check(cases={"2 steps": (2, 1), "3 steps": (3, 1), "2 steps of 2 micro-batches": (2, 2)})
def several_steps_in_one_call_are_several_steps(backend: Backend, counts: Tuple[int, int]) -> None:
    """With steps_per_call = k one call takes k optimiser steps, one after the other, and reports on all of them."""
    steps, accumulation = counts
    trial = dense(48).training(steps_per_call=steps, accumulation=accumulation).on(backend)
    got = fit(backend, trial)
    single = fit(reference(), trial.training(steps_per_call=1))
    calls = 48 // (4 * steps * accumulation)
    require_equal("optimizer steps of each call", [row.optimizer_steps for row in got.rows], [steps] * calls)
    within = tolerance(backend, trial)
    require_same_tensors("after training, tensor", got.weights, single.weights, within)
    for number, row in enumerate(got.rows):
        part = single.rows[number * steps : (number + 1) * steps]
        mean = sum(r.loss * r.weight for r in part) / sum(r.weight for r in part)
        require_close(f"the loss of call {number + 1}", row.loss, mean, within)
        require_equal(f"the samples of call {number + 1}", row.samples, sum(r.samples for r in part))
        require_equal(f"the correct ones of call {number + 1}", row.correct, sum(r.correct or 0.0 for r in part))


_CHUNKS: Dict[str, Trial] = {
    "even": dense(data=labelled(12, (6, 6))).training(chunk=2),
    "with a shorter last one": dense(data=labelled(12, (5, 6))).training(chunk=2),
    "longer than the sequence": dense().training(chunk=50),
    "with momentum": dense(data=labelled(12, (6, 6)), optimizer=SGD(lr=0.3, momentum=0.8)).training(chunk=3),
    "accumulated": dense(data=labelled(16, (6, 6))).training(chunk=3, accumulation=2),
}


@check(cases=_CHUNKS)
def chunks_take_one_step_each_and_carry_the_state(backend: Backend, trial: Trial) -> None:
    """Truncated back-propagation takes an optimiser step for each chunk, from the state that the one before left."""
    got = agree(backend, trial)
    length, chunk = trial.data[0][0].shape[0], trial.train.chunk or 0
    require_equal("optimizer steps of each call", {row.optimizer_steps for row in got.rows}, {-(-length // chunk)})


@check()
def chunks_cut_a_target_with_time(backend: Backend) -> None:
    """A target with a time axis is cut along with the input."""
    data = [(x, torch.sin(x[:, :3])) for x, _ in labelled(8, (6, 6))]
    agree(backend, readout(data=data, loss=OutputMSE("steps"), target_time_axis=1).training(chunk=2))


@check()
def chunked_state_ends_with_its_batch(backend: Backend) -> None:
    """The state carried between chunks does not reach the next batch: with a learning rate of 0 the same batch costs
    the same.
    """
    trial = dense(data=labelled(8, (6, 6)), optimizer=SGD(lr=0.0)).training(chunk=2).on(backend)
    rows = fit(backend, trial, epochs=2).rows
    within = tolerance(backend, trial)
    for number in (0, 1):
        require_close(f"the loss of batch {number + 1} again", rows[number + 2].loss, rows[number].loss, within)


_RECOMPUTED: Dict[str, Trial] = {
    "even": dense(data=labelled(12, (6, 6))).training(recompute_every=2),
    "with a shorter last one": dense(data=labelled(12, (5, 6))).training(recompute_every=2),
    "longer than the sequence": dense().training(recompute_every=50),
    "a loss of states": dense(data=labelled(12, (6, 6)), loss=MembraneCrossEntropy()).training(recompute_every=4),
    "with a term": dense(data=labelled(12, (6, 6)), terms=(Activity(),)).training(recompute_every=4),
    "in chunks": dense(data=labelled(12, (6, 6))).training(recompute_every=2, chunk=3),
    "accumulated": dense(data=labelled(16, (6, 6))).training(recompute_every=3, accumulation=2),
}


@check(cases=_RECOMPUTED)
def computing_again_changes_no_step(backend: Backend, trial: Trial) -> None:
    """A forward that is computed again in backward gives the losses and weights of one that was remembered."""
    got = agree(backend, trial)
    whole = fit(reference(), trial.training(recompute_every=None).on(backend))
    within = tolerance(backend, trial)
    require_same_tensors("after training, tensor", got.weights, whole.weights, within)
    for number, (row, want) in enumerate(zip(got.rows, whole.rows)):
        require_close(f"the objective of call {number + 1}", row.objective, want.objective, within)


class _Precision(NamedTuple):
    name: str
    unit: float
    """Half the distance from 1 to the next number: the relative error of one rounding."""
    small: float
    """An input that 8.0 swallows in this precision."""


_PRECISIONS: Dict[str, _Precision] = {
    "bf16": _Precision("bf16", 2.0**-9, 2.0**-6),
    "fp16": _Precision("fp16", 2.0**-12, 2.0**-9),
}


def _dyadic() -> nn.Module:
    # weights in eighths and inputs of 0 and 1: products and sums are exact in every precision, so spikes must agree
    net = dense().model()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_((parameter * 16).round() / 8)
    return net


@check(cases=_PRECISIONS)
def reduced_precision_is_near_the_full_one(backend: Backend, precision: _Precision) -> None:
    """Under bf16 and fp16 exact inputs give the same spikes and loss as fp32, and gradients within the precision's
    rounding.
    """
    data = [((x > 1.0).float(), y) for x, y in labelled(8)]
    trial = dense(data=data, model=_dyadic, size=8, optimizer=SGD(lr=GRADIENT_LR), dtype="float32")
    got, want = _in_both(backend, trial, precision)
    require_close("the loss of exact inputs", got.rows[0].loss, want.rows[0].loss, tolerance(backend, trial))
    # two layers, each with a product, its sum and a cast on the way back
    near = Tolerance(8 * precision.unit, 8 * precision.unit * 1e-2)
    require_same_tensors("the gradient of", gradients(got, trial), gradients(want, trial), near)


@check(cases=_PRECISIONS)
def reduced_precision_is_used(backend: Backend, precision: _Precision) -> None:
    """A declared precision is not quietly replaced by fp32: its rounding shows in a layer's product."""
    trial = Trial(
        lambda: Sequential(nn.Linear(6, 3), LI(0.5)), readout().data[:8], loss=OutputMSE(), size=8, dtype="float32"
    )
    trial = trial.but(optimizer=SGD(lr=GRADIENT_LR))
    got, want = _in_both(backend, trial, precision)
    slopes, exact = (_flat(gradients(outcome, trial)) for outcome in (got, want))
    error = float((slopes - exact).abs().max() / exact.abs().max())
    least, most = precision.unit / 32, 32 * precision.unit
    require(
        least <= error <= most,
        f"the gradient under {precision.name} differs from that under fp32 by {error:.3g} of its size; by the rounding "
        f"of that precision it differs by {least:.3g} to {most:.3g}",
    )


@check(cases=_PRECISIONS)
def reduced_precision_leaves_states_wide(backend: Backend, precision: _Precision) -> None:
    """Neuron states stay float32 under any precision: an integrator at 8 still takes in what the precision would
    swallow.
    """
    small, steps = precision.small, 16
    x = torch.full((steps, 1), small)
    x[0] = 8.0
    trial = Trial(_integrator, [(x, torch.zeros(1))] * 2, loss=OutputMSE("last"), size=2, dtype="float32")
    rows = fit(backend, trial.training(precision=precision.name)).rows
    total = 8.0 + (steps - 1) * small
    near = Tolerance(4 * precision.unit, 0.0)
    require_close(f"8 + {steps - 1} x {small} in an integrator", rows[0].loss ** 0.5, total, near)
    require(rows[0].loss ** 0.5 > 8.0 + (total - 8.0) / 2, f"an integrator at 8 swallows {steps - 1} inputs of {small}")


def _integrator() -> nn.Module:
    linear = nn.Linear(1, 1, bias=False)
    nn.init.ones_(linear.weight)
    return Sequential(linear, LI(1.0))


@check(cases=_PRECISIONS)
def reduced_precision_keeps_the_weights_wide(backend: Backend, precision: _Precision) -> None:
    """The user's weights and a neuron's own numbers come back in float32: a decay of 0.99 is not rounded."""
    trial = Trial(lambda: Sequential(nn.Linear(6, 3), LIF(0.99)), labelled(8), dtype="float32", optimizer=SGD(lr=0.0))
    got = fit(backend, trial.training(precision=precision.name))
    require_same_tensors("under a learning rate of 0, tensor", got.weights, got.start, EXACT)
    odd = [name for name, value in got.weights.items() if value.dtype != torch.float32]
    require(not odd, f"{odd} came back in another dtype than float32")


def _in_both(backend: Backend, trial: Trial, precision: _Precision) -> Tuple[Outcome, Outcome]:
    return fit(backend, trial.training(precision=precision.name)), fit(reference(), trial)


CHECKS = (
    losses_and_weights_equal_the_reference,
    optimizers_take_the_reference_steps,
    a_learning_rate_of_zero_freezes,
    the_learning_rate_follows_set_lr,
    accumulation_averages_gradients,
    clipping_bounds_the_gradient,
    a_clipped_gradient_has_the_norm_asked_for,
    several_steps_in_one_call_are_several_steps,
    chunks_take_one_step_each_and_carry_the_state,
    chunks_cut_a_target_with_time,
    chunked_state_ends_with_its_batch,
    computing_again_changes_no_step,
    reduced_precision_is_near_the_full_one,
    reduced_precision_is_used,
    reduced_precision_leaves_states_wide,
    reduced_precision_keeps_the_weights_wide,
)
