"""The user's model: not touched by a program, not shared with it, and given back whole by `sync`."""

import copy
import pickle
from typing import Callable, Dict, List

import torch
from torch import Tensor, nn

from snn_core.backend import Backend
from snn_core.containers import Sequential
from snn_core.neurons import LIF
from snn_core.optimizers import SGD
from snn_core.testing.check import check
from snn_core.testing.compare import EXACT, require, require_close, require_equal, require_same_tensors
from snn_core.testing.fit import (
    agree,
    evaluate,
    exact_or,
    fit,
    require_same_outcome,
    require_same_rows,
    train,
    weights_of,
)
from snn_core.testing.nets import CLASSES, FEATURES, dense, images
from snn_core.testing.pieces import Activity, StateProbe, TwoPaths
from snn_core.testing.trial import Trial, compiled, tolerance

__all__ = ["CHECKS"]

_MODELS: Dict[str, Trial] = {
    "dense": dense(terms=(Activity(), StateProbe(("mem",)))),
    "batch norm": images(),
    "user's container": dense(model=lambda: TwoPaths(FEATURES, 7, CLASSES)),
}


def _anatomy(model: nn.Module) -> Dict[str, object]:
    """What a program must leave alone in the user's model besides the numbers."""
    found: Dict[str, object] = {}
    for name, module in model.named_modules():
        hooks = [len(getattr(module, kind)) for kind in ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")]
        found[f"module {name!r}"] = (type(module), module.training, hooks, sorted(vars(module)))
    for name, parameter in model.named_parameters():
        found[f"parameter {name!r}"] = (
            type(parameter),
            id(parameter),
            parameter.requires_grad,
            parameter.grad,
            parameter.device,
        )
    return found


@check(cases=_MODELS)
def the_user_model_is_not_touched_before_sync(backend: Backend, trial: Trial) -> None:
    """compile, training, evaluation and close change neither a bit nor an attribute of the user's model."""
    trial = trial.on(backend)
    model, data = trial.build(), trial.samples()
    numbers, anatomy = weights_of(model), _anatomy(model)
    with compiled(backend, trial, model) as program:
        _require_untouched("compile", model, numbers, anatomy)
        train(program, data)
        _require_untouched("training", model, numbers, anatomy)
        evaluate(program, data)
        _require_untouched("evaluation", model, numbers, anatomy)
        program.load_state_dict(program.state_dict())
        _require_untouched("load_state_dict", model, numbers, anatomy)
    _require_untouched("close", model, numbers, anatomy)


def _require_untouched(what: str, model: nn.Module, numbers: Dict[str, Tensor], anatomy: Dict[str, object]) -> None:
    require_same_tensors(f"after {what} the user's tensor", weights_of(model), numbers, EXACT)
    changed = _differences(anatomy, _anatomy(model))
    require(not changed, f"{what} changed the user's model: {', '.join(changed)}; compile a deep copy of the step")


@check(cases=_MODELS)
def the_program_shares_nothing_with_the_user_model(backend: Backend, trial: Trial) -> None:
    """What the user writes into the model after compile does not reach the program."""
    trial, within = exact_or(backend, trial)
    model, data = trial.build(), trial.samples()
    start = weights_of(model)
    with compiled(backend, trial, model) as program:
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.fill_(float("nan") if tensor.is_floating_point() else 0)
        rows = train(program, data)
        program.sync()
    want = fit(backend, trial)
    got = type(want)(rows, start, weights_of(model))
    require_same_outcome(got, want, within)


@check()
def a_step_can_be_compiled_twice(backend: Backend) -> None:
    """compile takes a copy of the step, too: a second program of the same step begins where the first began."""
    trial, within = exact_or(backend, images())
    step = trial.step(trial.build())
    arguments = (trial.optimizer, trial.batch(), trial.train)
    rows = []
    with backend.compile(step, *arguments) as first, backend.compile(step, *arguments) as second:
        for program in (first, second):
            rows.append(train(program, trial.samples()))
    require_same_rows(rows[1], rows[0], within)


@check(cases=_MODELS)
def sync_copies_weights_and_buffers(backend: Backend, trial: Trial) -> None:
    """After sync the user's model computes on the host what the program computes, buffers such as batch norm's
    included.
    """
    trial = trial.on(backend)
    model, data = trial.build(), trial.samples()
    start, anatomy = weights_of(model), _anatomy(model)
    with compiled(backend, trial, model) as program:
        train(program, data)
        program.sync()
        output = evaluate(program, data).output
    trained = {name for name, _ in model.named_parameters()} | {
        n for n in start if n.endswith(("running_mean", "running_var"))
    }
    still = sorted(name for name in trained if torch.equal(weights_of(model)[name], start[name]))
    require(not still, f"after sync {', '.join(still)} has the value from before training; sync copies buffers too")
    require_equal(
        "parts of the user's model that sync changed besides numbers", _differences(anatomy, _anatomy(model)), []
    )
    x = torch.stack([x for x, _ in trial.samples()])
    model.eval()
    with torch.no_grad():
        host = model(x if trial.time_axis is None else x.transpose(0, 1))
    require_close("the program's output, against that of the synced model,", output, host, tolerance(backend, trial))


def _differences(before: Dict[str, object], after: Dict[str, object]) -> List[str]:
    return [name for name in {**before, **after} if before.get(name) != after.get(name)]


@check()
def sync_may_be_called_at_any_time(backend: Backend) -> None:
    """sync gives the weights of its moment: the first ones before training; later steps do not reach the model until
    the next.
    """
    trial, within = exact_or(backend, dense())
    model, data = trial.build(), trial.samples()
    start = weights_of(model)
    with compiled(backend, trial, model) as program:
        program.sync()
        require_same_tensors("synced before training, tensor", weights_of(model), start, EXACT)
        train(program, data)
        program.sync()
        middle = weights_of(model)
        train(program, data)
        require_same_tensors("after more training without sync, tensor", weights_of(model), middle, EXACT)
        program.sync()
        require_same_tensors(
            "synced in the end, tensor", weights_of(model), fit(backend, trial, epochs=2).weights, within
        )


_COPIES: Dict[str, Callable[[nn.Module], nn.Module]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
}


@check(cases=_COPIES)
def a_used_model_can_be_copied(backend: Backend, duplicate: Callable[[nn.Module], nn.Module]) -> None:
    """A model that was compiled, trained and synced can be copied, and the copy trains like it."""
    trial, within = exact_or(backend, images())
    model, data = trial.build(), trial.samples()
    with compiled(backend, trial, model) as program:
        train(program, data)
        program.sync()
        twin = duplicate(model)
        train(program, data)
    require_same_tensors("of the copy, tensor", weights_of(twin), weights_of(model), EXACT)
    require_same_outcome(fit(backend, trial, model=twin), fit(backend, trial, model=model), within)


def _shared_layer() -> nn.Module:
    layer = nn.Linear(FEATURES, FEATURES)
    return Sequential(layer, LIF(0.8), layer, LIF(0.9), nn.Linear(FEATURES, CLASSES), LIF(0.9))


@check()
def a_layer_used_twice_stays_one_layer(backend: Backend) -> None:
    """A layer that stands in two places has one weight, which learns from both, in the program and after sync."""
    trial = dense(model=_shared_layer, optimizer=SGD(lr=0.3)).on(backend)
    agree(backend, trial)
    model = trial.build()
    fit(backend, trial, model=model)
    require(model[0] is model[2], "after sync the two places hold two layers")  # type: ignore[index]
    require_same_tensors("of the second place, tensor", {"w": model[2].weight}, {"w": model[0].weight}, EXACT)  # type: ignore[index]


CHECKS = (
    the_user_model_is_not_touched_before_sync,
    the_program_shares_nothing_with_the_user_model,
    a_step_can_be_compiled_twice,
    sync_copies_weights_and_buffers,
    sync_may_be_called_at_any_time,
    a_used_model_can_be_copied,
    a_layer_used_twice_stays_one_layer,
)
