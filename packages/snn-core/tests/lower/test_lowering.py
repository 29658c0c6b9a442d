"""The lowered step against the step itself: the same bits forward, the same gradients, whatever backward keeps."""

from typing import Any, Dict, Tuple

import pytest
import torch
from torch import Tensor

import snn_core as snn
from snn_core.lower import Lowered, interpret, lower
from snn_core.neurons import LIF, Neuron
from snn_core.surrogate import ATan, FastSigmoid, spike
from snn_core.testing.neurons import every_neuron


def pointwise() -> Dict[str, Neuron]:
    """The examples whose step treats each neuron alone."""
    made = {name: example.make() for name, example in every_neuron().items()}
    beside = (snn.SLSTM, snn.SConv2dLSTM)
    return {
        name: neuron
        for name, neuron in made.items()
        if isinstance(neuron, Neuron)
        and not isinstance(neuron, beside)
        and not (isinstance(neuron, snn.Recurrent) and not isinstance(neuron.connection, snn.OneToOne))
    }


NEURONS = pointwise()


def values(lowered: Lowered, shape: Tuple[int, ...] = (4, 9), seed: int = 0) -> Dict[str, Tensor]:
    """Normal inputs and states, coefficients in [0.1, 1), in another shape than was traced."""
    generator = torch.Generator().manual_seed(seed)
    names = ["x", *(f"state.{name}" for name in lowered.states)]
    drawn = {name: torch.randn(shape, generator=generator, dtype=lowered.dtype) for name in names}
    for name in lowered.coefficients:
        drawn[f"c.{name}"] = 0.1 + 0.9 * torch.rand(shape, generator=generator, dtype=lowered.dtype)
    return drawn


def run(neuron: Neuron, lowered: Lowered, given: Dict[str, Tensor]) -> Dict[str, Tensor]:
    """The step as the neuron's author wrote it."""
    state = tuple(given[f"state.{name}"] for name in lowered.states)
    out, after = neuron.dynamics(given["x"], state, {name: given[f"c.{name}"] for name in lowered.coefficients})
    return {"out": out, **{f"state.{name}": value for name, value in zip(lowered.states, after)}}


def cotangents(lowered: Lowered, shape: Tuple[int, ...] = (4, 9)) -> Dict[str, Tensor]:
    generator = torch.Generator().manual_seed(5)
    names = ["out", *(f"state.{name}" for name in lowered.states)]
    return {f"grad.{name}": torch.randn(shape, generator=generator, dtype=lowered.dtype) for name in names}


def gradients(neuron: Neuron, lowered: Lowered, given: Dict[str, Tensor]) -> Dict[str, Tensor]:
    """What autograd makes of the step for the cotangents."""
    leaves = {name: value.clone().requires_grad_() for name, value in given.items()}
    results, grads = run(neuron, lowered, leaves), cotangents(lowered)
    total = sum((results[name] * grads[f"grad.{name}"]).sum() for name in results if results[name].requires_grad)
    found = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    return {f"grad.{n}": torch.zeros_like(v) if g is None else g for (n, v), g in zip(leaves.items(), found)}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", NEURONS)
def test_the_lowered_step_gives_the_steps_own_bits(name: str, dtype: torch.dtype) -> None:
    neuron = NEURONS[name]
    lowered = lower(neuron, dtype)
    given = values(lowered)
    got = interpret(lowered.forward, given, dtype)
    for key, want in run(neuron, lowered, given).items():
        assert torch.equal(got[key], want), key


@pytest.mark.parametrize("reread", [("x",), ()], ids=["x is read again", "x is gone"])
@pytest.mark.parametrize("name", NEURONS)
def test_the_two_halves_together_have_autograds_gradients(name: str, reread: Tuple[str, ...]) -> None:
    neuron = NEURONS[name]
    lowered = lower(neuron, torch.float64)
    given = values(lowered)
    split = lowered.split(("x", *lowered.coefficients), reread)
    forward = interpret(split.forward, given, torch.float64)
    kept = {key: value for key, value in forward.items() if key.startswith("kept.")}
    known = {key: value for key, value in given.items() if key.startswith("c.") or key in reread}
    got = interpret(split.backward, {**known, **kept, **cotangents(lowered)}, torch.float64)
    want = gradients(neuron, lowered, given)
    assert set(got) == set(want)
    for key, value in want.items():
        # sums in another order, nothing else
        torch.testing.assert_close(got[key].expand_as(value), value, rtol=1e-12, atol=1e-12, msg=key)


def test_backward_keeps_one_tensor_for_a_lif() -> None:
    split = lower(LIF(0.9)).split(("x",), reread=())
    assert split.kept == ("float",)


@pytest.mark.parametrize("name", NEURONS)
def test_backward_keeps_no_more_than_the_states_where_x_is_read_again(name: str) -> None:
    lowered = lower(NEURONS[name])
    split = lowered.split(("x", *lowered.coefficients))
    assert len(split.kept) <= len(lowered.states)


def test_a_gradient_that_nobody_wants_costs_nothing() -> None:
    lowered = lower(LIF(0.9, learn_beta=True))
    assert "grad.c.beta" not in lowered.split(("x",)).backward.outputs
    assert len(lowered.split(("x",)).backward.nodes) < len(lowered.split(("x", "beta")).backward.nodes)


@pytest.mark.parametrize("name", ["LIF", "QIF", "ExpLIF", "AdEx"])
def test_exact_tells_neurons_with_transcendental_functions(name: str) -> None:
    assert lower(NEURONS[name]).exact is (name in ("LIF", "QIF"))


def test_a_surrogate_is_evaluated_in_backward_alone() -> None:
    lowered = lower(LIF(0.9, surrogate=FastSigmoid()))
    assert not {"div", "abs"} & {node.op for node in lowered.forward.nodes}


class InPlace(Neuron):
    """A user's step that writes over its own intermediate results, which other names of them see."""

    states = ("mem",)

    def coefficients(self) -> Any:
        return {"leak": torch.tensor(0.5)}

    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = state[0] * c["leak"]
        still = mem.detach()
        mem += x
        mem.clamp_(max=2.0)
        return spike(mem - 1.0, ATan()), (mem + 0.5 * still,)


class Constants(Neuron):
    """A user's step with a tensor made from a Python number, a condition in arithmetic and a scaled addition."""

    states = ("mem",)

    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        half = torch.tensor(0.5, dtype=x.dtype)
        mem = torch.add(state[0] * half, x, alpha=0.3)
        mem = mem + (mem > 0.2) * torch.full_like(x, 0.1) + torch.where(x > 0, x, torch.zeros_like(x)).square()
        return torch.sigmoid(mem) * mem.clamp(-1, 1), (mem,)


@pytest.mark.parametrize("make", [InPlace, Constants])
def test_users_steps_are_lowered_with_their_gradients(make: Any) -> None:
    neuron = make()
    lowered = lower(neuron, torch.float64)
    given = values(lowered)
    got = interpret(lowered.joint, {**given, **cotangents(lowered)}, torch.float64)
    for key, want in {**run(neuron, lowered, given), **gradients(neuron, lowered, given)}.items():
        torch.testing.assert_close(got[key].expand_as(want), want, rtol=1e-12, atol=1e-12, msg=key)


def test_lowering_leaves_the_hosts_random_stream_and_the_neuron_alone() -> None:
    neuron = LIF(0.9, learn_beta=True)
    before = torch.get_rng_state()
    lower(neuron)
    assert torch.equal(torch.get_rng_state(), before)
    assert neuron.beta.grad is None
