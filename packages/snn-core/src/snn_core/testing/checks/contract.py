"""What a backend says of itself, and how a program ends."""

import dataclasses
from typing import Any, Callable, Dict

from snn_core.backend import API_VERSION, Backend, Capabilities, Health, Program, Tolerance
from snn_core.testing.check import check
from snn_core.testing.compare import require, require_equal, require_raises, require_same_tensors
from snn_core.testing.fit import exact_or, fit, train, weights_of
from snn_core.testing.nets import dense, readout
from snn_core.testing.pieces import Activity, Drive
from snn_core.testing.trial import compiled

__all__ = ["CHECKS"]

_KNOWN = {
    "dtypes": {"float32", "float64"},
    "precisions": {"fp32", "bf16", "fp16"},
    "optimizers": {"sgd", "adam", "adamw", "rmsprop"},
    "lacks": {"nesterov", "dampening", "clip_value", "clip_norm of rmsprop"},
}
_FLAGS = (
    "recurrence",
    "carried_state",
    "recomputation",
    "ragged_batches",
    "accumulation",
    "clipping",
    "steps_per_call",
    "random",
)
_WIDEST = {"float32": Tolerance(1e-3, 1e-4), "float64": Tolerance(1e-7, 1e-9)}
"""A declared tolerance must stay below this: behind a wider one a wrong gradient could hide."""


@check()
def backend_names_itself(backend: Backend) -> None:
    """The class has a name, an API version that is this core's, and an integer priority."""
    require(isinstance(backend.name, str) and bool(backend.name), f"name is {backend.name!r}; it must be a text")
    for attribute in ("api", "priority"):
        value = getattr(backend, attribute, None)
        require(type(value) is int, f"{attribute} is {value!r}; it must be an integer")
    require_equal("api", backend.api, API_VERSION)


@check()
def options_are_a_frozen_dataclass(backend: Backend) -> None:
    """Options is a frozen dataclass that can be made without arguments, refuses unknown ones, and is what the backend
    holds.
    """
    options = backend.Options
    require(
        isinstance(options, type) and dataclasses.is_dataclass(options),
        f"Options is {options!r}; it must be a dataclass",
    )
    parameters: Any = getattr(options, "__dataclass_params__", None)
    require(parameters.frozen, f"{options.__name__} can be changed after it was made; write @dataclass(frozen=True)")
    require(
        isinstance(backend.options, options), f"backend.options is {backend.options!r}; it must be a {options.__name__}"
    )
    made = options()
    require(made == options(), f"two {options.__name__}() differ; options are values")
    require_raises(f"{options.__name__}(no_such_option=1)", TypeError, lambda: options(no_such_option=1))


@check()
def capabilities_are_of_the_known_kinds(backend: Backend) -> None:
    """Capabilities hold known names and truth values, and what every backend must have: float32, fp32, and sgd."""
    has = backend.capabilities
    require(isinstance(has, Capabilities), f"capabilities is {has!r}; it must be a snn_core.Capabilities")
    for field, known in _KNOWN.items():
        odd = set(getattr(has, field)) - known
        require(not odd, f"capabilities.{field} has {sorted(odd)}; it knows {sorted(known)}")
    # without these a backend could refuse everything and be said to conform
    for field, name in (("dtypes", "float32"), ("precisions", "fp32"), ("optimizers", "sgd")):
        require(name in getattr(has, field), f"capabilities.{field} lacks {name!r}, which every backend must have")
    for flag in (*_FLAGS, "deterministic", "distributed"):
        require(
            isinstance(getattr(has, flag), bool),
            f"capabilities.{flag} is {getattr(has, flag)!r}; it must be True or False",
        )


@check()
def tolerances_hide_no_mistake(backend: Backend) -> None:
    """Every declared dtype has a tolerance, and none so wide that a wrong gradient passes."""
    declared = backend.capabilities.tolerances
    for dtype in sorted(backend.capabilities.dtypes):
        require(dtype in declared, f"dtype {dtype!r} has no tolerance; capabilities.tolerances has {sorted(declared)}")
        widest = _WIDEST[dtype]
        for name in ("relative", "absolute"):
            value, bound = getattr(declared[dtype], name), getattr(widest, name)
            require(0 <= value <= bound, f"the {name} tolerance of {dtype} is {value}; it must be in [0, {bound}]")


@check()
def probe_answers_with_health(backend: Backend) -> None:
    """probe returns a Health, the same status when asked again, and a remedy where the device is not available."""
    found = backend.probe()
    require(isinstance(found, Health), f"probe() returned {found!r}; it must be a snn_core.Health")
    require(
        found.status in ("ready", "unavailable"), f"probe() says {found.status!r}; it must be 'ready' or 'unavailable'"
    )
    require_equal("the status of a second probe", backend.probe().status, found.status)
    require(found.ready or bool(found.remedy), "probe() finds no device and names no remedy; say what to do")


@check()
def compile_returns_a_program(backend: Backend) -> None:
    """compile returns a snn_core.Program."""
    with compiled(backend, dense()) as program:
        require(isinstance(program, Program), f"compile returned {program!r}; it must be a snn_core.Program")


@check()
def close_may_be_called_twice(backend: Backend) -> None:
    """close may be called again, before and after any use, and leaves the user's model usable."""
    trial = dense().on(backend)
    model = trial.build()
    with compiled(backend, trial, model) as program:
        train(program, trial.samples())
        program.sync()
        synced = weights_of(model)
        program.close()
        program.close()
    require_same_tensors("after close the user's model: tensor", weights_of(model), synced)


@check()
def leaving_the_context_closes(backend: Backend) -> None:
    """A program used as a context manager is closed when the block is left, by an exception too."""

    class Stop(Exception):
        pass

    with compiled(backend, dense()) as program:
        try:
            with program as entered:
                require(
                    entered is program, "entering a program returns another object; __enter__ must return the program"
                )
                raise Stop
        except Stop:
            pass
        require_raises("state_dict() after the block", RuntimeError, program.state_dict)


_AFTER_CLOSE: Dict[str, Callable[[Program, Any, Any, Any], Any]] = {
    "loader": lambda p, data, batch, state: next(iter(p.loader(data, range(len(data)), training=True))),
    "batches": lambda p, data, batch, state: p.batches(len(data), training=True),
    "train_step": lambda p, data, batch, state: p.train_step(batch),
    "eval_step": lambda p, data, batch, state: p.eval_step(batch),
    "set_lr": lambda p, data, batch, state: p.set_lr(0.1),
    "set_control": lambda p, data, batch, state: p.set_control("none", 0.0),
    "state_dict": lambda p, data, batch, state: p.state_dict(),
    "load_state_dict": lambda p, data, batch, state: p.load_state_dict(state),
    "sync": lambda p, data, batch, state: p.sync(),
}


@check(cases=_AFTER_CLOSE)
def use_after_close_is_an_error(backend: Backend, use: Callable[[Program, Any, Any, Any], Any]) -> None:
    """Any call but close raises RuntimeError after close."""
    trial = dense().on(backend)
    data = trial.samples()
    with compiled(backend, trial) as program:
        batch = next(iter(program.loader(data, range(len(data)), training=True)))
        state = program.state_dict()
        program.close()
        require_raises("the call after close", RuntimeError, lambda: use(program, data, batch, state))


@check()
def two_programs_live_side_by_side(backend: Backend) -> None:
    """Two programs that take turns end as if each had been alone: nothing of a program is global."""
    first, within = exact_or(backend, dense())
    second = readout().on(backend).but(train=first.train)
    models = first.build(), second.build()
    with compiled(backend, first, models[0]) as one, compiled(backend, second, models[1]) as other:
        pairs = zip(
            one.loader(first.samples(), range(12), training=True),
            other.loader(second.samples(), range(12), training=True),
        )
        for a, b in pairs:
            one.train_step(a)
            other.train_step(b)
        one.sync()
        other.sync()
    for trial, trained in zip((first, second), models):
        require_same_tensors("beside another program, tensor", weights_of(trained), fit(backend, trial).weights, within)


@check()
def reports_are_detached_scalars(backend: Backend) -> None:
    """A training report holds 0-d tensors without a graph, one measure and penalty for each term, and no output."""
    trial = dense(terms=(Activity(), Drive())).on(backend)
    data = trial.samples()
    with compiled(backend, trial) as program:
        report = program.train_step(next(iter(program.loader(data, range(12), training=True))))
        for name in ("objective", "loss", "weight", "samples", "correct"):
            value = getattr(report, name)
            require(getattr(value, "shape", None) == (), f"report.{name} is {value!r}; it must be a 0-d tensor")
            require(not value.requires_grad, f"report.{name} keeps the graph alive; detach it")
        for name in ("measures", "penalties"):
            values = getattr(report, name)
            require_equal(f"the length of report.{name} with two terms", len(values), 2)
            for value in values:
                require(getattr(value, "shape", None) == (), f"report.{name} has {value!r}; it must hold 0-d tensors")
                require(not value.requires_grad, f"report.{name} keeps the graph alive; detach it")
        require(report.output is None, "the report of a training step has an output; only an evaluation leaves one")
        require_equal("report.optimizer_steps", report.optimizer_steps, 1)
        evaluated = program.eval_step(next(iter(program.loader(data, range(12), training=False))))
        require_equal("report.optimizer_steps of an evaluation", evaluated.optimizer_steps, 0)
        kept = [float(report.loss), float(report.objective)]
        for batch in program.loader(data, range(4, 12), training=True):
            program.train_step(batch)
        # asynchronous devices hand out memory that the next call writes over
        require_equal("a report read again after later steps", [float(report.loss), float(report.objective)], kept)


CHECKS = (
    backend_names_itself,
    options_are_a_frozen_dataclass,
    capabilities_are_of_the_known_kinds,
    tolerances_hide_no_mistake,
    probe_answers_with_health,
    compile_returns_a_program,
    close_may_be_called_twice,
    leaving_the_context_closes,
    use_after_close_is_an_error,
    two_programs_live_side_by_side,
    reports_are_detached_scalars,
)
