"""Random draws inside the step, the program's own random stream, and determinism."""

from typing import Callable, Dict, List, Tuple

import torch
from torch import Tensor, nn

from snn_core.backend import Backend
from snn_core.containers import Sequential
from snn_core.encoders import Constant, Poisson, Rate
from snn_core.neurons import LI
from snn_core.optimizers import SGD
from snn_core.testing.check import check
from snn_core.testing.compare import EXACT, require, require_equal
from snn_core.testing.fit import Row, evaluate, fit, one_by_one, require_same_evaluation, require_same_outcome, train
from snn_core.testing.nets import STEPS, dense, dropout, encoded, images
from snn_core.testing.pieces import Activity
from snn_core.testing.trial import Trial, compiled, tolerance

__all__ = ["CHECKS"]


_RANDOM: Dict[str, Trial] = {
    "dropout": dropout(terms=(Activity(),)),
    "rate encoder": encoded(lambda: Rate(STEPS, gain=0.5), terms=(Activity(),)),
    "Poisson encoder": encoded(lambda: Poisson(STEPS, max_rate_hz=500.0), terms=(Activity(),)),
}


@check(cases={**_RANDOM, "no draws": dense(terms=(Activity(),)), "images": images()})
def two_deterministic_runs_give_the_same_bits(backend: Backend, trial: Trial) -> None:
    """Under deterministic=True two runs with the same seed agree in every bit of every report and weight."""
    trial = trial.training(deterministic=True, seed=5)
    first = fit(backend, trial, epochs=2)
    torch.rand(3)
    require_same_outcome(fit(backend, trial, epochs=2), first, EXACT)


@check(cases=_RANDOM)
def another_seed_draws_otherwise(backend: Backend, trial: Trial) -> None:
    """Another seed gives other draws, and each step draws anew."""
    rows = [fit(backend, trial.but(optimizer=SGD(lr=0.0)).training(seed=seed), epochs=3).rows for seed in (5, 6)]
    require(
        _numbers(rows[0]) != _numbers(rows[1]), "seeds 5 and 6 give the same run; the seed does not reach the draws"
    )
    again = {row.measures for row in rows[0][:: len(trial.data) // trial.size]}
    require(len(again) > 1, "the same batch gives the same measure three times; each step must draw anew")


def _numbers(rows: List[Row]) -> List[Tuple[float, Tuple[float, ...]]]:
    return [(row.loss, row.measures) for row in rows]


class _Draw:
    """A linear model on ones whose readout is what dropout left, for counting."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        self.make = make

    def __call__(self) -> nn.Module:
        linear = nn.Linear(64, 64, bias=False)
        with torch.no_grad():
            linear.weight.copy_(torch.eye(64))
        return Sequential(*_as_layers(self.make(), linear), LI(0.0))


def _as_layers(drawn: nn.Module, linear: nn.Module) -> Tuple[nn.Module, ...]:
    # an encoder comes first, dropout after the layer
    return (drawn, linear) if isinstance(drawn, (Rate, Poisson)) else (Constant(16), linear, drawn)


_RATES: Dict[str, Tuple[Callable[[], nn.Module], float, float]] = {
    # what the output is, where it is not 0, and how often that is
    "dropout": (lambda: nn.Dropout(0.25), 4 / 3, 0.75),
    "rate encoder": (lambda: Rate(16, gain=0.6), 1.0, 0.6),
    "Poisson encoder": (lambda: Poisson(16, max_rate_hz=500.0), 1.0, 0.3934693402873666),
}


@check(cases=_RATES)
def draws_have_their_probability(backend: Backend, rate: Tuple[Callable[[], nn.Module], float, float]) -> None:
    """Dropout keeps and scales, encoders fire, with the probability that they state: within 5 standard deviations."""
    make, value, probability = rate
    data = [(torch.ones(64), torch.zeros(64))] * 4
    rows = fit(backend, Trial(_Draw(make), data, loss=_mean_square, optimizer=SGD(lr=0.0), time_axis=None)).rows
    # the mean square of values that are 0 or `value`, over 4 samples x 16 steps x 64 neurons
    share, count = rows[0].loss / value**2, 4 * 16 * 64
    deviation = (probability * (1 - probability) / count) ** 0.5
    require(
        abs(share - probability) <= 5 * deviation,
        f"{share:.4f} of {count} draws are not 0; their probability is {probability:.4f}, and {5 * deviation:.4f} is "
        "the most that chance allows",
    )


def _mean_square(output: Tensor, target: Tensor) -> Tensor:
    return output.square().mean((0, 2))


@check(cases=_RATES)
def draws_are_new_at_every_step(backend: Backend, rate: Tuple[Callable[[], nn.Module], float, float]) -> None:
    """Dropout and encoders draw anew for each time step, behind a constant input too: within 5 standard deviations."""
    make, _, probability = rate
    data = [(torch.ones(64), torch.zeros(64))] * 4
    rows = fit(backend, Trial(_Draw(make), data, loss=_changes, optimizer=SGD(lr=0.0), time_axis=None)).rows
    # two draws differ where one is 0 and the other is not, over 4 samples x 15 pairs of steps x 64 neurons;
    # neighbouring pairs share a step, which at most doubles the variance
    chance, count = 2 * probability * (1 - probability), 4 * 15 * 64
    deviation = (2 * chance * (1 - chance) / count) ** 0.5
    require(
        abs(rows[0].loss - chance) <= 5 * deviation,
        f"{rows[0].loss:.4f} of {count} draws differ from the step before; with draws of their own {chance:.4f} "
        f"do, and {5 * deviation:.4f} is the most that chance allows",
    )


def _changes(output: Tensor, target: Tensor) -> Tensor:
    changed = (output[1:] != output[:-1]).to(output.dtype).mean((0, 2))
    return changed + 0 * output.sum((0, 2))  # a loss must have a gradient


@check()
def dropout_rests_in_evaluation(backend: Backend) -> None:
    """In evaluation dropout passes everything on: the result is that of the network without it."""
    trial = _RANDOM["dropout"].on(backend)
    model = trial.build()
    with compiled(backend, trial, model) as program:
        got = evaluate(program, trial.samples())
    require_same_evaluation("with dropout in the network", got, one_by_one(trial, model), tolerance(backend, trial))


@check(cases=_RANDOM)
def draws_belong_to_the_program(backend: Backend, trial: Trial) -> None:
    """What the host draws, and any evaluation, leave the training's draws as they are."""
    trial = trial.training(deterministic=True, seed=5)
    data = trial.on(backend).samples()
    results = []
    for disturbed in (False, True):
        with compiled(backend, trial) as program:
            rows: List[Row] = []
            for batch in program.loader(data, range(len(data)), training=True):
                if disturbed:
                    torch.manual_seed(len(rows))
                    torch.rand(5)
                    evaluate(program, data[:5])
                rows.append(Row.of(program.train_step(batch)))
            results.append(rows)
    require_equal("the reports of a run among host draws and evaluations", results[1], results[0])


@check(cases={"dropout": _RANDOM["dropout"], "rate encoder": _RANDOM["rate encoder"], "no draws": dense()})
def the_host_keeps_its_random_stream(backend: Backend, trial: Trial) -> None:
    """compile, training, evaluation and saving draw nothing from the process's own generator."""
    trial = trial.on(backend)
    data, model = trial.samples(), trial.build()
    before = torch.get_rng_state()
    with compiled(backend, trial, model) as program:
        _require_same_stream("compile", before)
        train(program, data)
        _require_same_stream("training", before)
        evaluate(program, data)
        _require_same_stream("evaluation", before)
        program.load_state_dict(program.state_dict())
        program.sync()
        _require_same_stream("saving and sync", before)


def _require_same_stream(what: str, before: Tensor) -> None:
    require(
        torch.equal(torch.get_rng_state(), before),
        f"{what} drew from torch's global generator; use a stream of the program's own",
    )


CHECKS = (
    two_deterministic_runs_give_the_same_bits,
    another_seed_draws_otherwise,
    draws_have_their_probability,
    draws_are_new_at_every_step,
    dropout_rests_in_evaluation,
    draws_belong_to_the_program,
    the_host_keeps_its_random_stream,
)
