"""What each neuron model is known for, its limits, and what its constructor refuses."""

import math
from typing import Any, Callable, Dict

import numpy as np
import pytest
import torch

from snn_core.errors import ConfigError, ShapeError
from snn_core.neurons import (
    ALIF,
    IF,
    LI,
    LIF,
    QIF,
    AdEx,
    Alpha,
    ExpLIF,
    Izhikevich,
    Lapicque,
    ParametricLIF,
    SigmaDelta,
    Synaptic,
)


def constant(value: float, steps: int) -> torch.Tensor:
    return torch.full((steps, 1, 1), value)


def intervals(spikes: torch.Tensor) -> np.ndarray:
    return np.diff(np.flatnonzero(spikes.flatten().numpy()))


def test_lapicque_is_lif_with_its_decay_and_a_scaled_input() -> None:
    x = torch.randn(50, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.3
    circuit = Lapicque(5.0, 2.0, dt=1.0).double()
    lif = LIF(torch.tensor(0.9, dtype=torch.float64)).double()
    torch.testing.assert_close(circuit(4 * x), lif(2 * x))
    assert circuit(4 * x).sum() > 10


def test_synaptic_without_synaptic_memory_is_lif() -> None:
    x = torch.randn(50, 2, 3, generator=torch.Generator().manual_seed(0)) + 0.3
    assert torch.equal(Synaptic(0.0, 0.9)(x), LIF(0.9)(x))


def test_a_reset_leaves_the_synaptic_current_alone() -> None:
    _, (mem, syn) = Synaptic(0.5, 0.5, reset_mechanism="zero").unroll(constant(4.0, 1))
    assert (mem.item(), syn.item()) == (0.0, 4.0)


def test_the_membrane_of_alpha_rises_and_falls_after_one_input() -> None:
    x = torch.zeros(30, 1, 1)
    x[0] = 1.0
    _, _, traces = Alpha(0.9, 0.7, threshold=9.0).run(x, wanted=("mem",))
    mem = traces["mem"].flatten()
    k = math.log(0.7) / (math.log(0.7) - math.log(0.9))
    wanted = k * (0.9 ** np.arange(30) - 0.7 ** np.arange(30))
    np.testing.assert_allclose(mem, wanted, atol=1e-6)
    assert mem[0].item() == 0.0
    assert 1 <= int(mem.argmax()) < 10


def test_decays_of_alpha_that_learning_has_crossed_stay_apart() -> None:
    neuron = Alpha(0.9, 0.8, learn_alpha_syn=True, learn_beta=True)
    with torch.no_grad():
        neuron.alpha_syn.fill_(0.5)
    x = torch.randn(20, 2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()
    out, state = neuron.unroll(x)
    (out.sum() + state[0].sum()).backward()
    assert bool(torch.isfinite(state[0]).all())
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())


def test_an_adaptive_threshold_slows_a_constant_input_down() -> None:
    spikes = ALIF(0.9, 0.97, 5.0)(constant(0.4, 200))
    gaps = intervals(spikes)
    assert gaps[0] < gaps[-1]
    assert intervals(LIF(0.9)(constant(0.4, 200)))[:2].mean() == pytest.approx(gaps[0], abs=1)


def test_alif_without_scale_is_lif() -> None:
    x = torch.randn(50, 2, 3, generator=torch.Generator().manual_seed(0)) + 0.3
    assert torch.equal(ALIF(0.9, 0.9, 0.0)(x), LIF(0.9)(x))


def test_alif_subtracts_the_lifted_threshold() -> None:
    x = torch.tensor([2.0, 0.0, 5.0]).reshape(3, 1, 1)
    _, (mem, adaptation) = ALIF(1.0, 0.5, 2.0).unroll(x)
    # fires at 1 (2 left over 1); then b = 0.5 lifts to 2, 1 stays; then b = 0.25 lifts to 1.5 and 6 fires
    assert (mem.item(), adaptation.item()) == (4.5, 0.625)


@pytest.mark.parametrize("make", [lambda: ExpLIF(tau=10.0, dt=0.1), lambda: AdEx(tau=10.0, b=0.0, dt=0.1)])
def test_the_exponential_membrane_rests_where_leak_and_upstroke_cancel(make: Callable[[], ExpLIF]) -> None:
    neuron = make()
    _, state = neuron.unroll(torch.zeros(1, 1), steps=2_000)
    low, high = 0.0, 0.5
    for _ in range(60):  # -m + 0.2 exp((m - 0.8) / 0.2) = 0
        middle = (low + high) / 2
        low, high = (middle, high) if -middle + 0.2 * math.exp((middle - 0.8) / 0.2) > 0 else (low, middle)
    assert state[0].item() == pytest.approx(low, abs=1e-4)


def test_the_quadratic_membrane_falls_back_below_v_crit_and_runs_away_above() -> None:
    kick = torch.zeros(400, 1, 2)
    kick[0, 0] = torch.tensor([0.79, 0.81]) * 10.0  # dt / tau is 1/10
    spikes = QIF(tau=10.0, threshold=1.5, v_reset=-0.1)(kick)
    assert spikes.sum(dim=(0, 1)).tolist() == [0.0, 1.0]


def test_adex_adapts_and_exp_lif_does_not() -> None:
    adapting = intervals(AdEx(b=0.3)(constant(2.0, 400)))
    steady = intervals(ExpLIF()(constant(2.0, 400)))
    assert adapting[-1] > 1.5 * adapting[0]
    assert len(set(steady.tolist())) == 1


def rates(**numbers: float) -> np.ndarray:
    """Gaps in milliseconds between the spikes of Izhikevich's neuron for a current of 10 over 1 s."""
    return intervals(Izhikevich(**numbers, dt_ms=0.5)(constant(10.0, 2000))) / 2  # type: ignore[arg-type]


def test_izhikevich_shows_the_patterns_of_his_figure_2() -> None:
    regular = rates()
    fast = rates(a=0.1, d=2.0)
    chattering = rates(c=-50.0, d=2.0)
    # regular spiking slows down and settles; fast spiking does not adapt; chattering has bursts and pauses
    assert regular[0] < regular[-1]
    assert 15 < regular[-1] < 60
    assert fast[-1] < regular[-1]
    assert fast[-1] == pytest.approx(fast[2], rel=0.2)
    assert chattering.min() < 6
    assert chattering.max() > 15


def test_izhikevich_rests_at_the_fixed_point_of_his_equations() -> None:
    _, (v, u) = Izhikevich(v_start=-65.0, dt_ms=0.5).unroll(torch.zeros(1, 1), steps=1_500)
    assert v.item() == pytest.approx(-70.0, abs=0.05)
    assert u.item() == pytest.approx(-14.0, abs=0.05)


@pytest.mark.parametrize("drive", [1e3, -1e3, 1e6])
@pytest.mark.parametrize(
    "make",
    [
        lambda **o: ExpLIF(**o),
        lambda **o: ExpLIF(delta=1e-3, **o),
        lambda **o: QIF(**o),
        lambda **o: AdEx(a=0.5, **o),
        lambda **o: Izhikevich(**{k: v for k, v in o.items() if k == "fire_op"}),
    ],
)
@pytest.mark.parametrize("options", [{}, {"reset_mechanism": "subtract"}, {"reset_mechanism": "none"}])
def test_large_inputs_leave_states_and_gradients_finite(
    make: Callable[..., ExpLIF], drive: float, options: Dict[str, Any]
) -> None:
    x = (drive * torch.randn(50, 2, 3, generator=torch.Generator().manual_seed(0)).abs()).requires_grad_()
    out, state = make(**options).unroll(x)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in (out, *state))
    out.sum().backward()
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())


def test_a_learnt_time_constant_below_the_step_does_not_overshoot() -> None:
    neuron = ExpLIF(tau=2.0, learn="tau", threshold=9.0)  # a single name works as a list of one
    with torch.no_grad():
        neuron.tau.fill_(0.1)
    _, _, traces = neuron.run(constant(0.5, 3), wanted=("mem",))
    bound = 0.5 + 0.2 * math.exp((0.6 - 0.8) / 0.2)
    assert bool((traces["mem"] <= bound).all())


def test_a_sigma_delta_pair_passes_a_signal_on_within_its_threshold() -> None:
    signal = torch.cumsum(0.1 * torch.randn(200, 1, 4, generator=torch.Generator().manual_seed(0)), 0)
    changes = SigmaDelta(0.25, sigma=False, rectify=False)(signal)
    decoded = LI(1.0)(changes)
    assert float((decoded - signal).abs().max()) < 0.25 + 1e-5
    assert changes.ne(0).float().mean() < 0.5


def test_a_change_as_large_as_the_threshold_is_sent() -> None:
    out = SigmaDelta(0.5)(torch.tensor([0.25, 0.25, 0.25, -0.5, -0.5]).reshape(5, 1, 1))
    # the sum is 0.25, 0.5, 0.75, 0.25, and -0.25, which relu makes 0
    assert out.flatten().tolist() == [0.0, 0.5, 0.0, 0.0, -0.5]


def test_a_sigma_delta_network_computes_what_relu_layers_compute() -> None:
    torch.manual_seed(0)
    first, second = torch.nn.Linear(4, 8, bias=False), torch.nn.Linear(8, 3, bias=False)
    frames = torch.randn(10, 2, 4)
    net = torch.nn.Sequential(
        SigmaDelta(0.0, sigma=False, rectify=False), first, SigmaDelta(0.0), second, SigmaDelta(0.0), LI(1.0)
    )
    wanted = torch.relu(second(torch.relu(first(frames))))
    torch.testing.assert_close(net(frames), wanted, rtol=1e-4, atol=1e-5)


def test_the_sum_of_changes_has_the_gradient_of_the_activation() -> None:
    x = torch.randn(6, 1, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    neuron = SigmaDelta(0.5, bias=0.1, learn_bias=True).double()
    neuron(x).sum().backward()
    total = x.detach().sum(0) + neuron.bias.detach()
    assert x.grad is not None
    assert torch.equal(x.grad, (total > 0).double().expand_as(x))
    assert neuron.bias.grad is not None
    assert neuron.bias.grad.item() == (total > 0).sum().item()


def test_parametric_lif_starts_at_its_time_constant() -> None:
    neuron = ParametricLIF([2.0, 4.0])
    assert neuron.coefficients()["leak"].tolist() == pytest.approx([0.5, 0.25])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Synaptic(alpha_syn=1.2), r"alpha_syn is 1.2; a decay per step must lie in \[0, 1\]"),
        (lambda: Synaptic(beta=[0.5, -0.1]), r"beta is \[0.5, -0.1\]; a decay per step must lie in \[0, 1\]"),
        (lambda: Alpha(0.8, 0.8), r"Alpha.alpha_syn is .* and beta .*; the excitatory current must decay more slowly"),
        (lambda: Alpha(0.8, 0.0), "0.001 <= beta <= alpha_syn - 0.001"),
        (lambda: ALIF(reset_delay=True), "ALIF's threshold moves with each spike, so it resets at once"),
        (lambda: Lapicque(0.0), "Lapicque.resistance is 0.0, capacitance 10.0 and dt 1.0; all must be positive"),
        (lambda: Lapicque(1.0, 1.0, dt=2.0), "longer than the time constant R C = 1.0: the membrane would oscillate"),
        (
            lambda: ExpLIF(tau=0.5),
            "ExpLIF.tau is 0.5 and the time step 1.0; a time constant must be as long as the step",
        ),
        (lambda: ExpLIF(delta=0.0), "ExpLIF.delta is 0.0; it must be above 0"),
        (lambda: ExpLIF(dt=0.0), "ExpLIF: the time step is 0.0; it must be positive"),
        (lambda: QIF(a=-1.0), "QIF.a is -1.0; it must be above 0"),
        (lambda: AdEx(learn=("delt",)), r"AdEx.learn has 'delt' \(did you mean 'delta'\?\); it takes tau, tau_w, a, b"),
        (lambda: AdEx(tau_w=0.1), "AdEx.tau_w is .* and the time step 1.0"),
        (lambda: Izhikevich(v_reset=-50.0), "Izhikevich got v_reset = -50.0; here it is called c"),
        (lambda: Izhikevich(reset_mechanism="none"), "its spike sets v to c: leave it out"),
        (lambda: SigmaDelta(-0.1), "SigmaDelta.threshold is -0.1; it must be 0 or more"),
        (lambda: SigmaDelta(learn_bias=True), "learn_bias needs a bias to start from"),
        (lambda: ParametricLIF(1.0), "init_tau is 1.0; a time constant in steps must be above 1"),
        (lambda: LI(beta=2.0), r"beta is 2.0; a decay per step must lie in \[0, 1\]"),
    ],
)
def test_numbers_out_of_range_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    "neuron", [LIF([0.5, 0.6]), Synaptic(0.5, [0.5, 0.6]), ALIF(0.9, 0.9, [1.0, 2.0]), IF(threshold=[1.0, 2.0])]
)
def test_numbers_for_other_channels_are_refused_with_what_fits(neuron: IF) -> None:
    message = r"has shape \(2,\) and one step's input \(4, 3, 5\); give a scalar, one value for each of the 3 channels"
    with pytest.raises(ShapeError, match=message):
        neuron(torch.zeros(2, 4, 3, 5))


def test_a_learnt_decay_is_held_within_0_and_1() -> None:
    neuron = LIF(0.9, learn_beta=True, threshold=99.0)
    with torch.no_grad():
        neuron.beta.fill_(1.7)
    _, (mem,) = neuron.unroll(constant(1.0, 5))
    assert mem.item() == 5.0
