"""Every neuron and every surrogate: outputs, the gradient by each input current and each parameter, and recorded
states.
"""

import inspect
from typing import Dict, NamedTuple, Tuple

import torch
from torch import Tensor

from snn_core import surrogate as surrogates
from snn_core.backend import Backend
from snn_core.neurons import IF, LIF, Izhikevich
from snn_core.neurons.base import Temporal
from snn_core.surrogate import ATan, Custom, Surrogate
from snn_core.testing.check import check
from snn_core.testing.compare import EXACT, require_close
from snn_core.testing.fit import agree_on_gradients, evaluate
from snn_core.testing.nets import lookup, table
from snn_core.testing.neurons import Example, every_neuron
from snn_core.testing.pieces import Difference, Resonator, StateProbe, bump
from snn_core.testing.trial import compiled, tolerance

__all__ = ["CHECKS", "normal_currents"]

_FLAT = (12, 3, 4)
_NEURONS: Dict[str, Example] = {
    **every_neuron(),
    "user's neuron": Example(Resonator, _FLAT),
    "user's layer over time": Example(Difference, _FLAT),
}


def normal_currents(shape: Tuple[int, ...], seed: int = 153) -> Tensor:
    """Standard normal input currents; the seed is one under which no neuron comes near a tie."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _slack(example: Example) -> float:
    # its membrane is a small difference of currents in the hundreds, which costs float32 a digit
    return 10.0 if isinstance(example.make(), Izhikevich) else 1.0


@check(cases=_NEURONS)
def neurons_equal_the_reference(backend: Backend, example: Example) -> None:
    """Each neuron gives the reference's output, and its gradient by every input current and every parameter."""
    agree_on_gradients(backend, lookup(normal_currents(example.shape), example.make), _slack(example))


_RECORDED = {name: example for name, example in _NEURONS.items() if example.make().states}


@check(cases=_RECORDED)
def recorded_states_equal_the_reference(backend: Backend, example: Example) -> None:
    """Each state of each neuron, recorded over time, is the reference's, and so is the gradient that flows back through
    it.
    """
    trial = lookup(normal_currents(example.shape), example.make)
    agree_on_gradients(backend, trial.but(terms=(StateProbe(example.make().states),)), _slack(example))


class _Lengths(NamedTuple):
    steps: int
    batch: int
    neurons: int


_SHAPES: Dict[str, _Lengths] = {
    "one step": _Lengths(1, 3, 4),
    "one sample": _Lengths(6, 1, 4),
    "one neuron": _Lengths(6, 3, 1),
    "all one": _Lengths(1, 1, 1),
    "many neurons": _Lengths(3, 2, 37),
    "many steps": _Lengths(40, 2, 3),
}


@check(cases=_SHAPES)
def shapes_of_any_size_will_do(backend: Backend, lengths: _Lengths) -> None:
    """Sizes of 1, odd sizes and long sequences give the reference's output and gradients."""
    agree_on_gradients(backend, lookup(normal_currents(tuple(lengths)), _learnt_lif))


def _learnt_lif() -> Temporal:
    return LIF(0.9, learn_beta=True, learn_threshold=True)


def _every_surrogate() -> Dict[str, Surrogate]:
    named = ((name, getattr(surrogates, name)) for name in surrogates.__all__)
    kinds = {name: kind for name, kind in named if inspect.isclass(kind) and issubclass(kind, Surrogate)}
    return {
        **{name: kind() for name, kind in kinds.items() if not inspect.isabstract(kind) and kind is not Custom},
        "ATan, steep": ATan(slope=10.0),
        "user's own": Custom(bump),
    }


_SURROGATES = _every_surrogate()


@check(cases=_SURROGATES)
def surrogates_have_their_declared_derivative(backend: Backend, surrogate: Surrogate) -> None:
    """The gradient through one spike is the surrogate's derivative at the membrane's distance from the threshold."""
    # 3/16 beside each eighth: clear of the kinks that some derivatives have at 0.5 and 1
    currents = (torch.arange(-24, 25) / 8 + 1 + 3 / 128).reshape(1, 1, -1)
    cotangents = torch.linspace(0.5, 1.5, currents.numel()).reshape(currents.shape)
    trial = lookup(currents, lambda: IF(reset_mechanism="none", surrogate=surrogate), cotangents=cotangents).on(backend)
    slopes = agree_on_gradients(backend, trial)
    want = cotangents.double() * surrogate.derivative(currents.double() - 1)
    require_close("the gradient by the currents", table(slopes["0.weight"], currents), want, tolerance(backend, trial))


@check(cases=_SURROGATES)
def surrogates_act_through_time(backend: Backend, surrogate: Surrogate) -> None:
    """Each surrogate's gradient through membranes and resets over several steps is the reference's."""

    def layer() -> Temporal:
        return LIF(0.8, surrogate=surrogate, detach_reset=False, learn_beta=True, learn_threshold=True)

    agree_on_gradients(backend, lookup(normal_currents((6, 2, 3), seed=8) * 1.5, layer))


@check(cases={">=": (">=", 1.0), ">": (">", 0.0)})
def ties_follow_the_fire_op(backend: Backend, rule: Tuple[str, float]) -> None:
    """A membrane exactly at the threshold fires under '>=' and does not under '>'; spikes are exactly 0 or 1."""
    fire_op, at_tie = rule
    # three steps of 0.25 reach the threshold of 0.75 without rounding; 8 and -8 are clear of it
    currents = torch.tensor([[0.75, 0.25, 8.0, -8.0], [-1.0, 0.25, 8.0, -8.0], [-1.0, 0.25, 8.0, -8.0]]).reshape(
        3, 1, 4
    )
    trial = lookup(currents, lambda: IF(threshold=0.75, fire_op=fire_op, reset_mechanism="none")).on(backend)
    with compiled(backend, trial) as program:
        output = evaluate(program, trial.samples()).output
    want = torch.tensor([[at_tie, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, at_tie, 1.0, 0.0]]).reshape(3, 1, 4)
    require_close("spikes at a tie", output, want, EXACT)


CHECKS = (
    neurons_equal_the_reference,
    recorded_states_equal_the_reference,
    shapes_of_any_size_will_do,
    surrogates_have_their_declared_derivative,
    surrogates_act_through_time,
    ties_follow_the_fire_op,
)
