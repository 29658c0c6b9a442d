"""Networks as users build them: layers beside neurons, containers, inputs without time, shared and frozen weights."""

from typing import Callable, Dict

import torch
from torch import Tensor, nn

from snn_core.backend import Backend
from snn_core.containers import Sequential
from snn_core.encoders import Constant, Latency
from snn_core.neurons import LIF
from snn_core.neurons.stateless import NeuromorphicReLU, SumPool2d
from snn_core.optimizers import SGD
from snn_core.testing.check import check
from snn_core.testing.compare import EXACT, require, require_same_tensors
from snn_core.testing.fit import agree, agree_on_gradients, evaluate, fit, require_same_evaluation
from snn_core.testing.nets import CLASSES, FEATURES, STEPS, dense, images, labelled, readout, static
from snn_core.testing.pieces import Difference, TwoPaths
from snn_core.testing.trial import Trial, compiled, reference, tolerance

__all__ = ["CHECKS"]


class _Tied(nn.Module):
    """Two layers that share one weight, which is stored once and has one gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(FEATURES, FEATURES)
        self.fire = LIF(0.8, threshold=0.5)
        self.second = nn.Linear(FEATURES, FEATURES)
        self.second.weight = self.first.weight
        self.leave = Sequential(nn.Linear(FEATURES, CLASSES), LIF(0.9, threshold=0.3))

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.second(self.fire(self.first(x))))


class _StepByStep(nn.Module):
    """A user's own time loop, by a neuron's `step`."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(FEATURES, CLASSES)
        self.fire = LIF(0.8)

    def forward(self, x: Tensor) -> Tensor:
        state, outs = None, []
        for x_t in x.unbind(0):
            out, state = self.fire.step(self.linear(x_t), state)
            outs.append(out)
        return torch.stack(outs)


class _Times(nn.Module):
    deterministic = True

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def _mixed() -> nn.Module:
    return Sequential(
        nn.Conv2d(2, 4, 3, padding=1, stride=1, bias=False),
        LIF([0.5, 0.7, 0.8, 0.9], threshold=0.6),
        SumPool2d(2),
        NeuromorphicReLU(),
        nn.Conv2d(4, 4, 2, groups=2),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.LayerNorm(4),
        nn.Linear(4, CLASSES),
        LIF(0.9, threshold=0.5),
    )


_NETWORKS: Dict[str, Trial] = {
    "input without time": static(),
    "readout that does not fire": readout(),
    "deep": dense(
        model=lambda: Sequential(*dense().model().children(), nn.Linear(CLASSES, CLASSES), LIF(0.7, threshold=0.5))
    ),
    "plain nn.Sequential": dense(model=lambda: nn.Sequential(*dense().model().children())),
    "nested containers": dense(
        model=lambda: Sequential(
            Sequential(nn.Linear(FEATURES, 7), LIF(0.9)), nn.Sequential(nn.Linear(7, CLASSES), LIF(0.8))
        )
    ),
    "images": images(),
    "images, other layers": images(model=_mixed),
    "user's container": dense(model=lambda: TwoPaths(FEATURES, 7, CLASSES)),
    "user's layer over time": dense(
        model=lambda: Sequential(nn.Linear(FEATURES, 7), Difference(), nn.Linear(7, CLASSES), LIF(0.9))
    ),
    "user's own time loop": dense(model=_StepByStep),
    "tied weights": dense(model=_Tied),
    "latency encoder": static(
        data=[(x / 2, y) for x, y in labelled(12, (FEATURES,))],
        model=lambda: Sequential(Latency(STEPS, tau=4.0, linear=True), _Times(4.0), *dense().model().children()),
    ),
    "a longer sequence": dense(data=labelled(12, (9, FEATURES), seed=12)),
}


@check(cases=_NETWORKS)
def networks_train_as_on_the_reference(backend: Backend, trial: Trial) -> None:
    """Networks of every shape give the reference's reports and weights after some steps, outputs and gradients."""
    agree_on_gradients(backend, trial.but(data=trial.data[:4]))
    agree(backend, trial)


def _prefix(*before: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: Sequential(Constant(STEPS), *(make() for make in before), LIF(0.9), nn.Linear(7, CLASSES), LIF(0.8))


def _over_time(*before: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: Sequential(*(make() for make in before), LIF(0.9), nn.Linear(7, CLASSES), LIF(0.8))


def _linear() -> nn.Module:
    return nn.Linear(FEATURES, 7)


_PREFIXES: Dict[str, Callable[[], nn.Module]] = {
    "linear": _linear,
    "two layers": lambda: nn.Sequential(_linear(), nn.Tanh(), nn.Linear(7, 7)),
    "batch norm": lambda: nn.Sequential(_linear(), nn.BatchNorm1d(7)),
}


@check(cases=_PREFIXES)
def an_input_without_time_equals_the_same_at_every_step(backend: Backend, prefix: Callable[[], nn.Module]) -> None:
    """What is computed once before the first neuron means the same as computed at every step, batch norm's statistics
    included.
    """
    once = Trial(_prefix(prefix), labelled(12, (FEATURES,)), time_axis=None).on(backend)
    repeated = [(x.expand(STEPS, FEATURES).clone(), y) for x, y in once.data]
    every = once.but(model=_over_time(prefix), data=repeated, time_axis=1)
    got, want = fit(backend, once), fit(backend, every)
    # Constant is layer 0 of the one and nothing in the other
    shifted = {_without_first_index(name): value for name, value in got.weights.items()}
    within = tolerance(backend, once)
    require_same_tensors("of an input without time, after training, tensor", shifted, want.weights, within)
    agree(backend, once)


def _without_first_index(name: str) -> str:
    index, _, rest = name.partition(".")
    return f"{int(index) - 1}.{rest}"


@check()
def frozen_parameters_stay(backend: Backend) -> None:
    """A parameter that does not require a gradient keeps its bits, and a weight decay does not move it either."""

    def build() -> nn.Module:
        model = dense().model()
        for parameter in list(model.parameters())[:2]:
            parameter.requires_grad_(False)
        return model

    got = agree(backend, dense(model=build, optimizer=SGD(lr=0.5, weight_decay=0.1)))
    for name in ("0.weight", "0.bias"):
        require_same_tensors("frozen tensor", {name: got.weights[name]}, {name: got.start[name]}, EXACT)
    require(
        not torch.equal(got.weights["2.weight"], got.start["2.weight"]), "the weight that is not frozen did not move"
    )


@check(cases={"dense": dense(), "images": images()})
def evaluation_equals_the_reference_after_training(backend: Backend, trial: Trial) -> None:
    """An evaluation between training steps uses the weights and statistics of that moment, as the reference's does."""
    trial = trial.on(backend)
    data, evaluations = trial.samples(), []
    for runner in (backend, reference()):
        with compiled(runner, trial) as program:
            seen = [evaluate(program, data)]
            for batch in program.loader(data, range(len(data)), training=True):
                program.train_step(batch)
                seen.append(evaluate(program, data))
            evaluations.append(seen)
    for number, (got, want) in enumerate(zip(*evaluations)):
        require_same_evaluation(f"after {number} steps", got, want, tolerance(backend, trial))
    require(evaluations[0][0].loss != evaluations[0][-1].loss, "training does not show in the evaluation")


CHECKS = (
    networks_train_as_on_the_reference,
    an_input_without_time_equals_the_same_at_every_step,
    frozen_parameters_stay,
    evaluation_equals_the_reference_after_training,
)
