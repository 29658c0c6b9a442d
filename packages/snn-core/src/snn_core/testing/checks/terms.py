"""Terms: what is measured, what it costs, its gradient, and controls that change while a run goes on."""

from functools import partial
from typing import Callable, Dict

from snn_core import plugins
from snn_core.backend import Backend, Program
from snn_core.optimizers import SGD
from snn_core.terms import Term
from snn_core.testing.check import check
from snn_core.testing.compare import require, require_close, require_equal, require_same_tensors
from snn_core.testing.fit import (
    GRADIENT_LR,
    agree,
    agree_on_gradients,
    evaluate,
    exact_or,
    fit,
    gradients,
    one_by_one,
    require_same_evaluation,
    train,
)
from snn_core.testing.nets import dense, images, static
from snn_core.testing.pieces import Activity, Drive, Shares, StateProbe
from snn_core.testing.trial import Trial, compiled, tolerance

__all__ = ["CHECKS"]


def _same(term: Term) -> Term:
    return term


def _installed() -> Dict[str, Callable[[], Term]]:
    """The examples of the terms that installed plugins offer."""
    offered = plugins.registered_terms(plugins.plugin_manager())
    examples = [(info, example) for info in offered for example in getattr(info.factory, "examples", tuple)()]
    return {f"{info.name} of {info.plugin}: {example!r}": partial(_same, example) for info, example in examples}


_TERMS: Dict[str, Callable[[], Term]] = {
    "outputs of neurons": Activity,
    "inputs of layers": Drive,
    "recorded states": lambda: StateProbe(("mem",)),
    "several values": Shares,
    **_installed(),
}


@check(cases=_TERMS)
def terms_train_as_on_the_reference(backend: Backend, make: Callable[[], Term]) -> None:
    """Each kind of term gives the reference's measure, penalty and gradient."""
    agree_on_gradients(backend, dense(4, terms=(make(),)))
    agree(backend, dense(terms=(make(),)))
    agree(backend, static(terms=(make(),)))
    agree(backend, images(terms=(make(),)))


@check()
def terms_come_back_in_their_order(backend: Backend) -> None:
    """Several terms of one run are all there, each in its place, and their penalties add up to the objective."""
    trial = dense(terms=(Drive(), StateProbe(("mem",)), Activity())).on(backend)
    got = agree(backend, trial)
    agree(backend, trial.but(terms=trial.terms[::-1]))
    for number, row in enumerate(got.rows, start=1):
        what = f"batch {number}: the objective less the loss"
        require_close(what, row.objective - row.loss, sum(row.penalties), tolerance(backend, trial))


@check(cases=_TERMS)
def measures_of_short_batches_count_every_sample_once(backend: Backend, make: Callable[[], Term]) -> None:
    """Over two batches and a half a measure is the mean over the samples one by one."""
    trial = dense(10, terms=(make(),)).on(backend)
    model = trial.build()
    with compiled(backend, trial, model) as program:
        got = evaluate(program, trial.samples())
    require_same_evaluation("over 10 samples in batches of 4", got, one_by_one(trial, model), tolerance(backend, trial))


@check()
def terms_reduce_over_micro_batches(backend: Backend) -> None:
    """Under accumulation each micro-batch has a measure and a penalty of its own: reports and weights as the
    reference's.
    """
    agree(backend, dense(24, terms=(Activity(), Drive())).training(accumulation=3))


@check()
def a_penalty_of_weight_zero_only_measures(backend: Backend) -> None:
    """A term whose penalty is 0 is measured and changes no weight."""
    trial, within = exact_or(backend, dense())
    got = fit(backend, trial.but(terms=(Activity(weight=0.0),)))
    require_same_tensors("with a penalty of 0, tensor", got.weights, fit(backend, trial).weights, within)
    require(all(row.measures[0] > 0 for row in got.rows), "the activity is 0; the network of this check fires")


@check()
def a_penalty_reaches_the_gradient(backend: Backend) -> None:
    """The gradient of a penalty is a gradient: twice the multiplier adds twice as much to the loss's."""
    slopes = []
    for weight in (0.0, 3.0, 6.0):
        trial = dense(4, terms=(Activity(weight=weight),), optimizer=SGD(lr=GRADIENT_LR)).on(backend)
        slopes.append(gradients(fit(backend, trial), trial))
    once = {name: slopes[1][name] - slopes[0][name] for name in slopes[0]}
    half = {name: (slopes[2][name] - slopes[0][name]) / 2 for name in slopes[0]}
    require_same_tensors(
        "half of what a multiplier of 6 adds to the gradient of", half, once, tolerance(backend, trial)
    )
    largest = max(float(slope.abs().max()) for slope in once.values())
    require(largest > 1e-3, f"a penalty adds {largest:.3g} to the gradient at most; it is ignored")


# exact in float32, which is how a device may keep a control
_WEIGHTS, _TARGETS = (2.0, 8.0, 0.5), (0.125, 0.375, 0.75)


def _raise_weight(program: Program, number: int) -> None:
    program.set_control("activity.weight", _WEIGHTS[number])
    program.set_control("activity.target", _TARGETS[number])


_CONTROLLED: Dict[str, Trial] = {
    "one step a call": dense(terms=(Drive(), Activity())),
    "accumulated": dense(24, terms=(Drive(), Activity())).training(accumulation=2),
    "images": images(12, terms=(Drive(), Activity())),
}


@check(cases=_CONTROLLED)
def controls_change_while_a_run_goes_on(backend: Backend, trial: Trial) -> None:
    """What set_control sets holds from the next step on, in the penalty and in its gradient."""
    got = agree(backend, trial, before=_raise_weight)
    if trial.train.accumulation == 1:
        for number, row in enumerate(got.rows):
            want = _WEIGHTS[number] * (row.measures[1] - _TARGETS[number]) ** 2
            require_close(f"the penalty of batch {number + 1}", row.penalties[1], want, tolerance(backend, trial))


@check()
def controls_hold_in_evaluation(backend: Backend) -> None:
    """An evaluation uses the controls of the moment, in its penalty and its objective."""
    trial = dense(4, terms=(Activity(),)).on(backend)
    with compiled(backend, trial) as program:
        data = trial.samples()
        program.set_control("activity.weight", 9.0)
        batch = next(iter(program.loader(data, range(4), training=False)))
        report = program.eval_step(batch)
        want = 9.0 * (float(report.measures[0]) - 0.125) ** 2
        within = tolerance(backend, trial)
        require_close("the penalty of an evaluation", float(report.penalties[0]), want, within)
        require_close("its objective less its loss", float(report.objective) - float(report.loss), want, within)


@check()
def controls_are_part_of_the_state(backend: Backend) -> None:
    """state_dict holds the controls by name as plain numbers, and load_state_dict sets them."""
    trial = dense(terms=(Activity(),)).on(backend)
    data = trial.samples()
    with compiled(backend, trial) as program:
        program.set_control("activity.weight", 5.0)
        state = program.state_dict()
        require_equal("controls of the state", state["controls"], {"activity.weight": 5.0, "activity.target": 0.125})
        want = train(program, data)
    with compiled(backend, trial) as program:
        program.load_state_dict(state)
        got = train(program, data)
    for number, (row, expected) in enumerate(zip(got, want), start=1):
        require_close(f"penalty of batch {number}", row.penalties[0], expected.penalties[0], tolerance(backend, trial))


CHECKS = (
    terms_train_as_on_the_reference,
    terms_come_back_in_their_order,
    measures_of_short_batches_count_every_sample_once,
    terms_reduce_over_micro_batches,
    a_penalty_of_weight_zero_only_measures,
    a_penalty_reaches_the_gradient,
    controls_change_while_a_run_goes_on,
    controls_hold_in_evaluation,
    controls_are_part_of_the_state,
)
