"""State: none between batches, and all of it in `state_dict`, so that a stopped run goes on as if it had not."""

import json
from typing import Any, Callable, Dict, NamedTuple

import torch
from torch import Tensor, nn

from snn_core.backend import Backend, Tolerance
from snn_core.checkpoint import pack, unpack
from snn_core.containers import Sequential
from snn_core.encoders import Rate
from snn_core.errors import CheckpointError
from snn_core.neurons import LIF
from snn_core.optimizers import SGD, Adam, AdamW, RMSprop
from snn_core.testing.check import check
from snn_core.testing.compare import require, require_close, require_equal, require_raises, require_same_tensors
from snn_core.testing.fit import evaluate, exact_or, train, weights_of
from snn_core.testing.nets import CLASSES, FEATURES, STEPS, dense, dropout, encoded, images, readout
from snn_core.testing.neurons import Example, every_neuron
from snn_core.testing.pieces import Activity
from snn_core.testing.trial import Trial, compiled

__all__ = ["CHECKS"]


@check(cases={"dense": dense(8), "readout": readout(8), "images": images(8)})
def nothing_of_a_batch_reaches_the_next_evaluation(backend: Backend, trial: Trial) -> None:
    """Evaluating batch A, then B, then A again gives A's outputs again."""
    trial, within = exact_or(backend, trial)
    data = trial.samples()
    with compiled(backend, trial) as program:
        first, other, again = (evaluate(program, data, order).output for order in (range(4), range(4, 8), range(4)))
    require_close("the output of a batch after another batch", again, first, within)
    require(not torch.equal(first, other), "two batches give one output; the data of this check differ")


@check(cases={"dense": dense(8), "readout": readout(8), "images": images(8)})
def nothing_of_a_batch_reaches_the_next_step(backend: Backend, trial: Trial) -> None:
    """With a learning rate of 0, training on A, then B, then A again costs the same, and evaluating between changes
    nothing.
    """
    trial, within = exact_or(backend, trial.but(optimizer=SGD(lr=0.0)))
    data = trial.samples()
    with compiled(backend, trial) as program:
        rows = train(program, data, epochs=2)
        evaluate(program, data[:5])
        rows += train(program, data)
    for number in (0, 1):
        for later in (number + 2, number + 4):
            require_close(f"the loss of batch {number + 1} again", rows[later].loss, rows[number].loss, within)


_STATEFUL = {
    name: example
    for name, example in every_neuron().items()
    if name
    in ("LIF", "Synaptic", "ALIF", "SLSTM", "Recurrent, linear", "ParallelLIF", "SlidingPSN", "SigmaDelta", "AdEx")
}


@check(cases=_STATEFUL)
def every_kind_of_neuron_starts_at_rest(backend: Backend, example: Example) -> None:
    """A neuron starts each batch at rest: the same batch gives the same output after any other."""
    steps, _, *features = example.shape
    generator = torch.Generator().manual_seed(9)
    data = [(torch.randn((steps, *features), generator=generator), torch.zeros(1)) for _ in range(4)]
    trial = Trial(lambda: nn.Sequential(_Scale(), example.make()), data, loss=_sum_of_output, size=2)
    trial, within = exact_or(backend, trial)
    with compiled(backend, trial) as program:
        first, _, again = (evaluate(program, trial.samples(), order).output for order in ((0, 1), (2, 3), (0, 1)))
    require_close("the output of a batch after another batch", again, first, within)


class _Scale(nn.Module):
    """One weight, so that a network of one neuron has something to train."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def _sum_of_output(output: Tensor, target: Tensor) -> Tensor:
    return output.transpose(0, 1).flatten(1).sum(1)


def _through_a_checkpoint(state: Dict[str, Any]) -> Dict[str, Any]:
    """What a run's checkpoint would give back: tensors copied, all else by way of JSON."""
    tensors, tree = pack(state)
    copied = {name: tensor.clone() for name, tensor in tensors.items()}
    return unpack(copied, json.loads(json.dumps(tree)))


_RESUMED: Dict[str, Trial] = {
    "sgd": dense(16),
    "sgd with momentum": dense(16, optimizer=SGD(lr=0.3, momentum=0.9)),
    "adam": dense(16, optimizer=Adam(lr=0.05, eps=1e-2)),
    "adamw": dense(16, optimizer=AdamW(lr=0.05, eps=1e-2)),
    "rmsprop": dense(16, optimizer=RMSprop(lr=0.02, eps=1e-2, momentum=0.5)),
    "batch norm": images(16),
    "terms": dense(16, terms=(Activity(),)),
    "dropout": dropout(16, optimizer=SGD(lr=0.3, momentum=0.9)),
    "random encoder": encoded(lambda: Rate(STEPS, gain=0.5), 16),
    "accumulation": dense(32, optimizer=SGD(lr=0.3, momentum=0.9)).training(accumulation=2),
    "truncated back-propagation": dense(16, optimizer=SGD(lr=0.3, momentum=0.9)).training(chunk=2),
}


@check(cases=_RESUMED)
def a_resumed_run_ends_with_the_same_weights(backend: Backend, trial: Trial) -> None:
    """A run saved in the middle through a checkpoint, and gone on with in a fresh program from other weights, ends the
    same.
    """
    trial, within = exact_or(backend, trial)
    data = trial.samples()
    models = trial.build(), trial.but(seed=77).build()
    with compiled(backend, trial, models[0]) as program:
        state: Dict[str, Any] = {}
        for number, batch in enumerate(program.loader(data, range(len(data)), training=True)):
            if number == 2:
                evaluate(program, data[:5])
                state = _through_a_checkpoint(program.state_dict())
            program.train_step(batch)
        program.sync()
    with compiled(backend, trial, models[1]) as program:
        program.load_state_dict(state)
        train(program, data, start=2)
        program.sync()
    require_same_tensors("after resuming, tensor", weights_of(models[1]), weights_of(models[0]), within)


@check()
def saving_changes_nothing(backend: Backend) -> None:
    """state_dict and load_state_dict of the same state leave a run where it was."""
    trial, within = exact_or(backend, dense(16, optimizer=SGD(lr=0.3, momentum=0.9)))
    weights = []
    for saves in (False, True):
        model = trial.build()
        with compiled(backend, trial, model) as program:
            for batch in program.loader(trial.samples(), range(16), training=True):
                if saves:
                    program.load_state_dict(_through_a_checkpoint(program.state_dict()))
                program.train_step(batch)
            program.sync()
        weights.append(weights_of(model))
    require_same_tensors("with saves in between, tensor", weights[1], weights[0], within)


@check()
def a_saved_state_is_a_copy(backend: Backend) -> None:
    """Steps that follow state_dict() do not reach what it returned: loading it takes the program back."""
    trial, within = exact_or(backend, dense(12, optimizer=SGD(lr=0.3, momentum=0.9)))
    data, model, ends = trial.samples(), trial.build(), []
    with compiled(backend, trial, model) as program:
        train(program, data)
        state = program.state_dict()
        for _ in range(2):
            train(program, data)
            program.sync()
            ends.append(weights_of(model))
            program.load_state_dict(state)
    require_same_tensors("trained again from a kept state, tensor", ends[1], ends[0], within)


@check()
def loading_serves_evaluation_too(backend: Backend) -> None:
    """After load_state_dict an evaluation uses the loaded weights and statistics."""
    trial, within = exact_or(backend, images(12))
    data = trial.samples()
    with compiled(backend, trial) as program:
        train(program, data)
        state = _through_a_checkpoint(program.state_dict())
        want = evaluate(program, data).output
    with compiled(backend, trial.but(seed=77)) as program:
        evaluate(program, data)
        program.load_state_dict(state)
        require_close("the output after loading", evaluate(program, data).output, want, within)


@check()
def the_state_holds_the_weights_by_their_names(backend: Backend) -> None:
    """state_dict()["model"] is the user's model's state dict: weights move between backends."""
    trial = images(8).on(backend)
    model = trial.build()
    with compiled(backend, trial, model) as program:
        train(program, trial.samples())
        program.sync()
        state = program.state_dict()
    require_equal("the parts of the state", sorted(set(state) & _PARTS), sorted(_PARTS))
    require_equal("the names of the model's state", sorted(state["model"]), sorted(model.state_dict()))
    saved = {name: torch.as_tensor(state["model"][name]).cpu() for name in weights_of(model)}
    require_same_tensors("the model's part of the state: tensor", saved, weights_of(model), Tolerance(0.0, 0.0))


_PARTS = {"model", "optimizer", "rng", "controls"}


class _Foreign(NamedTuple):
    trial: Trial
    spoil: Callable[[Dict[str, Any]], Any] = lambda state: None


def _drop(*path: str) -> Callable[[Dict[str, Any]], Any]:
    def spoil(state: Dict[str, Any]) -> None:
        for name in path[:-1]:
            state = state[name]
        del state[path[-1]]

    return spoil


def _wider() -> nn.Module:
    return Sequential(nn.Linear(FEATURES, 9), LIF(0.9), nn.Linear(9, CLASSES), LIF(0.8, threshold=0.5))


_FOREIGN: Dict[str, _Foreign] = {
    "another layer's size": _Foreign(dense(model=_wider)),
    "other names": _Foreign(dense(model=lambda: Sequential(Sequential(*dense().model().children())))),
    "a weight missing": _Foreign(dense(), _drop("model", "0.weight")),
    "no optimizer": _Foreign(dense(), _drop("optimizer")),
    "no weights": _Foreign(dense(), _drop("model")),
}


@check(cases=_FOREIGN)
def a_foreign_state_is_refused(backend: Backend, foreign: _Foreign) -> None:
    """load_state_dict raises CheckpointError for another model's state, and for one that lacks something."""
    with compiled(backend, foreign.trial) as program:
        train(program, foreign.trial.on(backend).samples())
        state = _through_a_checkpoint(program.state_dict())
    foreign.spoil(state)
    with compiled(backend, dense()) as program:
        require_raises("load_state_dict", CheckpointError, lambda: program.load_state_dict(state))


CHECKS = (
    nothing_of_a_batch_reaches_the_next_evaluation,
    nothing_of_a_batch_reaches_the_next_step,
    every_kind_of_neuron_starts_at_rest,
    a_resumed_run_ends_with_the_same_weights,
    saving_changes_nothing,
    a_saved_state_is_a_copy,
    loading_serves_evaluation_too,
    the_state_holds_the_weights_by_their_names,
    a_foreign_state_is_refused,
)
