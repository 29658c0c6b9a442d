"""`Recurrent` with each kind of connection against loops written out, and what it refuses."""

from typing import List

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from snn_core.errors import ConfigError, ShapeError
from snn_core.neurons import IF, LI, LIF, SLSTM, OneToOne, Recurrent, Synaptic


def by_hand(x: Tensor, weight: Tensor, bias: Tensor, beta: float) -> np.ndarray:
    """LIF with a reset by subtraction that hears `weight @ spikes + bias` of its last step. x: [T, B, N] -> spikes."""
    w, b = weight.detach().numpy(), bias.detach().numpy()
    outs: List[np.ndarray] = []
    mem, spk = np.zeros(x.shape[1:]), np.zeros(x.shape[1:])
    for x_t in x.numpy():
        mem = beta * mem + x_t + spk @ w.T + b
        spk = (mem >= 1.0).astype(float)
        mem = mem - spk
        outs.append(spk)
    return np.stack(outs)


def test_a_linear_connection_feeds_the_last_output_back() -> None:
    torch.manual_seed(0)
    connection = nn.Linear(5, 5).double()
    neuron = Recurrent(LIF(torch.tensor(0.9, dtype=torch.float64)).double(), connection)
    x = torch.randn(30, 3, 5, dtype=torch.float64) + 0.2
    wanted = by_hand(x, connection.weight, connection.bias, 0.9)
    assert wanted.sum() > 20
    np.testing.assert_array_equal(neuron(x).detach(), wanted)


def test_a_one_to_one_connection_equals_a_diagonal_matrix() -> None:
    torch.manual_seed(0)
    own = OneToOne(5)
    full = nn.Linear(5, 5, bias=False)
    with torch.no_grad():
        own.weight.copy_(torch.linspace(-1, 1, 5))
        full.weight.copy_(torch.diag(own.weight))
    x = torch.randn(30, 3, 5)
    assert torch.equal(Recurrent(LIF(0.9), own)(x), Recurrent(LIF(0.9), full)(x))


def test_one_weight_per_channel_is_aligned_with_dimension_1() -> None:
    own = OneToOne(2)
    depthwise = nn.Conv2d(2, 2, 1, groups=2, bias=False)
    with torch.no_grad():
        own.weight.copy_(torch.tensor([0.5, -1.0]))
        depthwise.weight.copy_(own.weight.reshape(2, 1, 1, 1))
    x = torch.randn(10, 3, 2, 4, 5, generator=torch.Generator().manual_seed(0)) + 0.3
    assert torch.equal(Recurrent(LIF(0.9), own)(x), Recurrent(LIF(0.9), depthwise)(x))
    assert torch.equal(own(x[0]), x[0] * own.weight.reshape(1, 2, 1, 1))


def test_a_convolution_reaches_the_neighbours_one_step_later() -> None:
    conv = nn.Conv2d(1, 1, 3, padding=1, bias=False)
    nn.init.ones_(conv.weight)
    x = torch.zeros(3, 1, 1, 5, 5)
    x[0, 0, 0, 2, 2] = 1.0
    out = Recurrent(IF(), conv)(x)
    assert out[0].sum().item() == 1
    assert out[1, 0, 0].tolist() == [[0] * 5, [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0, 1, 1, 1, 0], [0] * 5]


def test_the_gradient_reaches_the_connection_through_the_spike() -> None:
    # step 1 fires; step 2 is x + w; its derivative by w is the spike times the surrogate at the second membrane
    own = OneToOne(weight=0.25)
    neuron = Recurrent(IF(reset_mechanism="none"), own)
    x = torch.tensor([1.5, -1.0]).reshape(2, 1, 1)
    neuron(x)[1].sum().backward()
    membrane = 1.5 - 1.0 + 0.25
    assert own.weight.grad is not None
    assert own.weight.grad.item() == pytest.approx(1 / (1 + (np.pi * (membrane - 1)) ** 2), rel=1e-6)


def test_a_non_spiking_neuron_can_hear_itself() -> None:
    out, _ = Recurrent(LI(0.5), OneToOne(weight=0.25)).unroll(torch.tensor([1.0, 0.0, 0.0]).reshape(3, 1, 1))
    # both feed the membrane back: 0.5 of its own and 0.25 of the output
    assert out.flatten().tolist() == [1.0, 0.75, 0.5625]


def test_the_states_are_the_output_and_then_the_neurons() -> None:
    neuron = Recurrent(Synaptic(), OneToOne())
    assert neuron.states == ("spk", "mem", "syn")
    assert Recurrent(LI(), OneToOne()).states == ("spk", "mem")
    out, state, traces = neuron.run(torch.ones(4, 1, 2), wanted=("spk", "syn"))
    assert torch.equal(traces["spk"], out)
    assert torch.equal(state[0], out[-1])


def test_weights_of_the_connection_follow_the_model_and_the_neurons_numbers_do_not() -> None:
    neuron = Recurrent(LIF(0.99, learn_beta=True), nn.Linear(4, 4)).half()
    assert isinstance(neuron.connection, nn.Linear)
    assert neuron.connection.weight.dtype == torch.float16
    assert isinstance(neuron.neuron, LIF)
    assert neuron.neuron.beta.dtype == torch.float32
    assert neuron.neuron.beta.item() == pytest.approx(0.99, abs=1e-7)
    neuron.neuron.beta.grad = torch.ones(())
    assert neuron.neuron.bfloat16().beta.grad is not None
    assert neuron.neuron.beta.grad.dtype == torch.float32


def test_a_coarse_connection_does_not_coarsen_the_input() -> None:
    x = torch.full((1, 1, 1), 0.3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, (_, mem) = Recurrent(IF(threshold=9.0), nn.Linear(1, 1, bias=False)).unroll(x)
    assert mem.item() == x.item()


def test_a_fixed_connection_learns_nothing_and_is_saved() -> None:
    own = OneToOne(3, weight=0.5, learn=False)
    assert list(own.parameters()) == []
    assert own.state_dict()["weight"].tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("connection", "got"), [(nn.Linear(4, 5), r"\(2, 5\)"), (nn.Linear(4, 1), r"\(2, 1\)"), (nn.Flatten(0), r"\(8,\)")]
)
def test_a_connection_that_changes_the_shape_is_refused(connection: nn.Module, got: str) -> None:
    # [2, 1] would be broadcast without complaint
    message = rf"Recurrent got {got} from its connection for an input of \(2, 4\) in one step; both must have the same"
    with pytest.raises(ShapeError, match=message):
        Recurrent(LIF(), connection)(torch.zeros(3, 2, 4))


def test_a_neuron_that_changes_the_shape_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"Recurrent got \(2, 5\) from its neuron SLSTM for an input of \(2, 4\)"):
        Recurrent(SLSTM(4, 5), nn.Identity())(torch.zeros(3, 2, 4))


def test_weights_for_other_channels_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"Recurrent.connection_weight has shape \(3,\) and one step's input \(2, 4\)"):
        Recurrent(LIF(), OneToOne(3))(torch.zeros(3, 2, 4))
    with pytest.raises(ShapeError, match=r"OneToOne has 3 weights and got x of shape \(2, 4\); dimension 1 must agree"):
        OneToOne(3)(torch.zeros(2, 4))


def test_what_is_no_neuron_or_holds_neurons_is_refused() -> None:
    with pytest.raises(ConfigError, match="Recurrent got Linear as its neuron; it takes a Neuron such as LIF"):
        Recurrent(nn.Linear(2, 2), nn.Linear(2, 2))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="for two connections give one module that adds them"):
        Recurrent(Recurrent(LIF(), OneToOne()), OneToOne())
    with pytest.raises(ConfigError, match="it takes a module without neurons"):
        Recurrent(LIF(), nn.Sequential(nn.Linear(2, 2), LIF()))
    with pytest.raises(ConfigError, match=r"OneToOne\.features is 0; it must be 1 or more"):
        OneToOne(0)
