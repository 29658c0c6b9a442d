"""A user's own neuron: ten lines, and everything else follows."""

import copy
import pickle
from typing import Dict, Tuple

import pytest
import torch
from torch import Tensor, nn

from snn_core.errors import ShapeError
from snn_core.neurons import Neuron, Recurrent, SequenceLayer, SpikingNeuron, Temporal

State = Tuple[Tensor, ...]


class Resonator(SpikingNeuron):
    """A membrane with a velocity: charge is all that is written."""

    states = ("mem", "velocity")

    def __init__(self, stiffness: float = 0.3, **firing: object) -> None:
        super().__init__(**firing)
        self.add_value("stiffness", stiffness, learn=True)

    def coefficients(self) -> Dict[str, Tensor]:
        return {**super().coefficients(), "stiffness": self.stiffness}

    def charge(self, x: Tensor, state: State, c: Dict[str, Tensor]) -> State:
        mem, velocity = state
        velocity = 0.9 * velocity - c["stiffness"] * mem + x
        return mem + velocity, velocity


class Leak(Neuron):
    """The least there is: a state with a start of its own, and no spikes."""

    states = ("mem",)

    def initial(self, x: Tensor, c: Dict[str, Tensor]) -> State:
        return (torch.ones_like(x),)

    def dynamics(self, x: Tensor, state: State, c: Dict[str, Tensor]) -> Tuple[Tensor, State]:
        mem = 0.5 * state[0] + x
        return mem, (mem,)


def test_it_unrolls_steps_chunks_copies_and_learns() -> None:
    torch.manual_seed(0)
    neuron = Resonator(reset_mechanism="zero", reset_delay=True)
    x = torch.randn(20, 3, 4, requires_grad=True)
    out, last = neuron.unroll(x)
    out.sum().backward()
    assert neuron.stiffness.grad is not None  # type: ignore[union-attr]
    first, state = neuron.unroll(x[:7])
    second, state = neuron.unroll(x[7:], state)
    assert torch.equal(torch.cat((first, second)), out)
    assert all(torch.equal(a, b) for a, b in zip(state, last))
    for twin in (copy.deepcopy(neuron), pickle.loads(pickle.dumps(neuron))):
        assert torch.equal(twin(x), out)


def test_it_can_be_made_recurrent() -> None:
    torch.manual_seed(0)
    neuron = Recurrent(Resonator(), nn.Linear(4, 4))
    assert neuron.states == ("spk", "mem", "velocity")
    assert neuron(torch.randn(9, 2, 4)).shape == (9, 2, 4)


def test_its_own_start_is_where_it_starts() -> None:
    out, _ = Leak().unroll(torch.zeros(3, 1, 1))
    assert out.flatten().tolist() == [0.5, 0.25, 0.125]
    assert Leak()(torch.zeros(1, 1), steps=2).flatten().tolist() == [0.5, 0.25]


def test_a_state_that_is_handed_in_is_where_it_starts() -> None:
    out, _ = Leak().unroll(torch.zeros(2, 1, 1), (torch.full((1, 1), 8.0),))
    assert out.flatten().tolist() == [4.0, 2.0]


def test_a_half_precision_state_is_widened() -> None:
    _, (mem,) = Leak().unroll(torch.zeros(2, 1, 1), (torch.full((1, 1), 8.0, dtype=torch.float16),))
    assert mem.dtype == torch.float32


def test_the_runner_of_a_backend_takes_over() -> None:
    def silent(neuron: Neuron, x: Tensor, *_: object) -> Tuple[Tensor, State, Dict[str, Tensor]]:
        return torch.zeros_like(x), (x[0],), {}

    neuron = Leak()
    neuron.runner = silent  # type: ignore[assignment]
    assert neuron(torch.ones(3, 1, 1)).sum().item() == 0
    # of this one alone
    assert Leak()(torch.ones(3, 1, 1)).sum().item() > 0


def test_an_empty_layer_says_what_to_write() -> None:
    with pytest.raises(NotImplementedError, match=r"Temporal must define run\(x, state, steps, wanted\)"):
        Temporal()(torch.zeros(2, 1, 1))
    with pytest.raises(NotImplementedError, match=r"Neuron must define dynamics\(x, state, c\)"):
        Neuron()(torch.zeros(2, 1, 1))
    assert not SequenceLayer.chunkable


def test_no_time_steps_are_refused() -> None:
    with pytest.raises(ShapeError, match="Leak got 0 time steps; it takes 1 or more"):
        Leak()(torch.zeros(0, 2, 3))
    with pytest.raises(ShapeError, match="Leak got 0 time steps; it takes 1 or more"):
        Leak()(torch.zeros(2, 3), steps=0)
    with pytest.raises(ShapeError, match=r"with steps= it takes \[B, ...\] without time"):
        Leak()(torch.zeros(3), steps=2)


class Slow(Neuron):
    """Coefficients of any type, without shape and one for each channel, and arithmetic among them."""

    states = ("mem",)

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def coefficients(self) -> Dict[str, Tensor]:
        return {"kept": torch.tensor(0.9123456, dtype=self.dtype), "gain": torch.tensor([0.3, 0.7], dtype=self.dtype)}

    def dynamics(self, x: Tensor, state: State, c: Dict[str, Tensor]) -> Tuple[Tensor, State]:
        mem = c["kept"] * state[0] + (1 - c["kept"]) * c["gain"] * x
        return mem, (mem,)


@pytest.mark.parametrize("given", [torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_step_is_computed_in_its_inputs_type_whatever_its_coefficients_and_state_came_in(
    dtype: torch.dtype, given: torch.dtype
) -> None:
    neuron = Slow(given)
    x = torch.randn(9, 3, 2, generator=torch.Generator().manual_seed(0)).to(dtype)
    out, (mem,) = neuron.unroll(x, (torch.ones(3, 2, dtype=torch.float64),))
    kept, gain = (value.to(dtype) for value in neuron.coefficients().values())
    by_hand = torch.ones(3, 2, dtype=dtype)
    for current in x:
        by_hand = kept * by_hand + (1 - kept) * gain * current
    assert mem.dtype == dtype
    assert torch.equal(out[-1], by_hand)


class Doubled(Leak):
    """A start in float64, whatever the input is."""

    def initial(self, x: Tensor, c: Dict[str, Tensor]) -> State:
        return (torch.full(x.shape, 0.1, dtype=torch.float64),)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_a_state_at_rest_comes_to_a_step_in_the_type_of_its_input(dtype: torch.dtype) -> None:
    x = torch.full((3, 2, 4), 0.25, dtype=dtype)
    out, (mem,), traces = Doubled().run(x, wanted=("mem",))
    assert (out.dtype, mem.dtype, traces["mem"].dtype) == (dtype, torch.float32, torch.float32)
    start = torch.full((2, 4), 0.1)
    assert torch.equal(
        Recurrent(Doubled(), nn.Identity()).run(x)[1][0],
        Recurrent(Leak(), nn.Identity()).run(x, (torch.zeros(2, 4), start))[1][0],
    )
