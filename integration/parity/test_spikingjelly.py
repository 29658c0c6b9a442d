"""Our SpikingJelly presets against SpikingJelly itself: spikes, states and gradients over randomised settings."""

import pytest
import torch
from harness import compare, current, dtypes, ours, precision, randomised, seeds
from hypothesis import given
from hypothesis import strategies as st
from spikingjelly.activation_based import neuron as peers
from spikingjelly.activation_based import surrogate as peer_surrogate

from snn_core import surrogate
from snn_core.presets import spikingjelly as presets

SURROGATES = {
    "atan": (surrogate.ATan(2.0), peer_surrogate.ATan(2.0)),
    "erf": (surrogate.Erf(2.0), peer_surrogate.Erf(2.0)),
    "piecewise_exponential": (surrogate.PiecewiseExponential(1.0), peer_surrogate.PiecewiseExp(1.0)),
    "piecewise_quadratic": (surrogate.PiecewiseQuadratic(1.0), peer_surrogate.PiecewiseQuadratic(1.0)),
    "rectangular": (surrogate.Rectangular(1.0), peer_surrogate.Rect(1.0)),
    "sigmoid": (surrogate.Sigmoid(4.0), peer_surrogate.Sigmoid(4.0)),
    "soft_sign": (surrogate.SoftSign(2.0), peer_surrogate.SoftSign(2.0)),
    "straight_through": (surrogate.StraightThrough(), peer_surrogate.DeterministicPass()),
    "super_spike": (surrogate.SuperSpike(1.0), peer_surrogate.SuperSpike(1.0)),
}
surrogates = st.sampled_from(sorted(SURROGATES))
taus = st.sampled_from([1.25, 2.0, 4.0, 10.0])
thresholds = st.sampled_from([1.0, 0.5, 0.7])
resets = st.sampled_from([None, 0.0, -0.25, 0.1])


def recorded(node, *names):
    """A SpikingJelly node step by step from rest; names of its states are those that it gives them."""

    def run(x):
        node.reset()
        outs, traces = [], {name: [] for name in names}
        for x_t in x:
            outs.append(node(x_t))
            for name in names:
                traces[name].append(getattr(node, name))
        return torch.stack(outs), {OURS[name]: torch.stack(kept) for name, kept in traces.items()}

    return run


OURS = {"v": "mem", "w": "recovery", "c": "syn"}


def check(mine, peer, x, states=("v",), learned=()):
    compare(ours(mine, *(OURS[name] for name in states)), recorded(peer, *states), x, learned)


def driving(seed, tau, decay_input, grid):
    """A current that makes a LIF fire now and then, whether it is divided by tau or not."""
    scale = 1.5 + tau / 2 if decay_input else 0.6
    return current(seed, 2, 6, grid=grid, scale=scale, offset=0.3 * scale)


@randomised()
@given(
    seed=seeds,
    dtype=dtypes,
    grid=st.booleans(),
    threshold=thresholds,
    reset=resets,
    detach=st.booleans(),
    name=surrogates,
)
def test_if_spikes_and_learns_as_in_spikingjelly(seed, dtype, grid, threshold, reset, detach, name):
    with precision(dtype):
        mine_surrogate, peer_surrogate = SURROGATES[name]
        options = {"v_threshold": threshold, "v_reset": reset, "detach_reset": detach}
        mine = presets.IFNode(surrogate_function=mine_surrogate, **options)
        peer = peers.IFNode(surrogate_function=peer_surrogate, **options)
        check(mine, peer, current(seed, 2, 6, grid=grid, scale=0.5, offset=0.1))


@randomised(100)
@given(
    seed=seeds,
    dtype=dtypes,
    grid=st.booleans(),
    tau=taus,
    decay_input=st.booleans(),
    threshold=thresholds,
    reset=resets,
    detach=st.booleans(),
    name=surrogates,
)
def test_lif_spikes_and_learns_as_in_spikingjelly(seed, dtype, grid, tau, decay_input, threshold, reset, detach, name):
    with precision(dtype):
        mine_surrogate, peer_surrogate = SURROGATES[name]
        options = {"decay_input": decay_input, "v_threshold": threshold, "v_reset": reset, "detach_reset": detach}
        mine = presets.LIFNode(tau, surrogate_function=mine_surrogate, **options)
        peer = peers.LIFNode(tau, surrogate_function=peer_surrogate, **options)
        check(mine, peer, driving(seed, tau, decay_input, grid))


@randomised()
@given(
    seed=seeds,
    dtype=dtypes,
    grid=st.booleans(),
    tau=taus,
    decay_input=st.booleans(),
    reset=resets,
    detach=st.booleans(),
    name=surrogates,
)
def test_parametric_lif_spikes_and_learns_as_in_spikingjelly(seed, dtype, grid, tau, decay_input, reset, detach, name):
    with precision(dtype):
        mine_surrogate, peer_surrogate = SURROGATES[name]
        options = {"decay_input": decay_input, "v_reset": reset, "detach_reset": detach}
        mine = presets.ParametricLIFNode(tau, surrogate_function=mine_surrogate, **options)
        peer = peers.ParametricLIFNode(tau, surrogate_function=peer_surrogate, **options)
        check(mine, peer, driving(seed, tau, decay_input, grid), learned=[(mine.w, peer.w)])


@randomised()
@given(
    seed=seeds,
    dtype=dtypes,
    grid=st.booleans(),
    tau=taus,
    threshold=thresholds,
    most=st.integers(1, 6),
    window=st.sampled_from([None, (-0.5, 3.0)]),
    detach=st.booleans(),
)
def test_integer_lif_spikes_and_learns_as_in_spikingjelly(seed, dtype, grid, tau, threshold, most, window, detach):
    with precision(dtype):
        mine = presets.ILIFNode(tau, threshold, most, window, detach_reset=detach)
        count = peer_surrogate.MultiLevelSpikeCount(most, grad_window=window)
        # one step at a time SpikingJelly adds in another order than over a sequence; ours is the sequence's
        peer = peers.ILIFNode(tau, threshold, count, detach, step_mode="m", store_v_seq=True)
        x = current(seed, 2, 6, grid=grid, scale=1.5, offset=0.5)
        compare(ours(mine, "mem"), lambda x: (peer(x), {"mem": peer.v_seq}), x)


@randomised()
@given(
    seed=seeds,
    dtype=dtypes,
    grid=st.booleans(),
    tau=taus,
    reset=st.sampled_from([0.0, -0.1, -0.25]),
    detach=st.booleans(),
)
def test_quadratic_if_spikes_and_learns_as_in_spikingjelly(seed, dtype, grid, tau, reset, detach):
    with precision(dtype):
        options = {"v_c": 0.5, "a0": 0.75, "v_reset": reset, "detach_reset": detach}
        x = current(seed, 2, 6, grid=grid, scale=0.5 * tau, offset=0.3 * tau)
        check(presets.QIFNode(tau, **options), peers.QIFNode(tau, **options), x)


@randomised()
@given(
    seed=seeds,
    dtype=dtypes,
    grid=st.booleans(),
    tau=taus,
    reset=st.sampled_from([None, -0.1, -0.25]),
    detach=st.booleans(),
)
def test_exponential_if_spikes_and_learns_as_in_spikingjelly(seed, dtype, grid, tau, reset, detach):
    with precision(dtype):
        options = {"delta_T": 0.5, "theta_rh": 0.8, "v_reset": reset, "detach_reset": detach}
        x = current(seed, 2, 6, grid=grid, scale=0.5 * tau, offset=0.1 * tau)
        check(presets.EIFNode(tau, **options), peers.EIFNode(tau, **options), x)


@randomised()
@given(
    seed=seeds,
    dtype=dtypes,
    grid=st.booleans(),
    tau=taus,
    reset=st.sampled_from([0.0, 0.1, -0.25]),
    detach=st.booleans(),
)
def test_izhikevich_spikes_and_learns_as_in_spikingjelly(seed, dtype, grid, tau, reset, detach):
    with precision(dtype):
        options = {"a": 0.1, "b": 0.2, "tau_w": 3.0, "w_rest": 0.05, "v_reset": reset, "detach_reset": detach}
        x = current(seed, 2, 6, grid=grid, scale=0.5 * tau, offset=0.3 * tau)
        check(presets.IzhikevichNode(tau, **options), peers.IzhikevichNode(tau, **options), x, states=("v", "w"))


@randomised()
@given(seed=seeds, dtype=dtypes, grid=st.booleans(), reset=resets)
def test_current_based_lif_spikes_and_learns_as_in_spikingjelly(seed, dtype, grid, reset):
    with precision(dtype):
        x = current(seed, 2, 6, grid=grid, scale=0.4, offset=0.05)
        check(presets.CUBALIFNode(v_reset=reset), peers.CUBALIFNode(v_reset=reset), x, states=("v", "c"))


@randomised(20)
@given(seed=seeds, dtype=dtypes, tau=taus)
def test_the_readout_follows_spikingjelly(seed, dtype, tau):
    with precision(dtype):
        peer = peers.NonSpikingLIFNode(tau)
        x = current(seed, 2, 6)
        compare(ours(presets.NonSpikingLIFNode(tau)), lambda x: (torch.stack(peer(x)), {}), x, spiking=False)


@randomised(40)
@given(seed=seeds, dtype=dtypes, kind=st.sampled_from(["full", "masked", "half masked", "sliding", "random sliding"]))
def test_parallel_neurons_spike_and_learn_as_in_spikingjelly(seed, dtype, kind):
    with precision(dtype):
        torch.manual_seed(seed)
        mine, peer = parallel_pair(kind, steps=50)
        pairs = [(mine.weight, peer.weight), (mine.threshold, peer.bias, -1.0)]
        with torch.no_grad():
            # on a grid every sum of products is exact, whatever its order, and membranes meet thresholds
            peer.weight.copy_((peer.weight * 8).round() / 8)
            mine.weight.copy_(peer.weight)
            peer.bias.copy_((torch.randn(peer.bias.shape) * 8).round() / 8 - 1)
            mine.threshold.copy_(-peer.bias.reshape(mine.threshold.shape))
        compare(ours(mine), lambda x: (peer(x), {}), current(seed, 2, 6, grid=True), pairs)


def parallel_pair(kind, steps):
    if kind == "full":
        return presets.PSN(steps), peers.PSN(steps)
    if "masked" in kind:
        masking = 1.0 if kind == "masked" else 0.5
        return presets.MaskedPSN(4, steps, masking), peers.MaskedPSN(4, steps, masking, step_mode="m")
    start = kind == "sliding"
    return presets.SlidingPSN(4, start), peers.SlidingPSN(4, start, step_mode="m")


@pytest.mark.parametrize("pair", [(presets.PSN(7), peers.PSN(7)), (presets.SlidingPSN(5), peers.SlidingPSN(5))])
def test_parallel_neurons_start_as_in_spikingjelly(pair):
    mine, peer = pair
    assert torch.equal(mine.threshold.reshape(-1), -peer.bias.reshape(-1))
    assert mine.weight.shape == peer.weight.shape
    if isinstance(peer, peers.SlidingPSN):
        assert torch.equal(mine.weight, peer.weight)


DEFAULTS = {
    "IFNode": ("v",),
    "LIFNode": ("v",),
    "ParametricLIFNode": ("v",),
    "QIFNode": ("v",),
    "EIFNode": ("v",),
    "IzhikevichNode": ("v", "w"),
    "CUBALIFNode": ("v", "c"),
}


@pytest.mark.parametrize("name", sorted(DEFAULTS))
def test_defaults_are_those_of_spikingjelly(name):
    check(getattr(presets, name)(), getattr(peers, name)(), current(1, 2, 6, offset=0.5), states=DEFAULTS[name])


def test_defaults_of_the_integer_lif_are_those_of_spikingjelly():
    peer = peers.ILIFNode(step_mode="m", store_v_seq=True)
    x = current(1, 2, 6, offset=0.5)
    compare(ours(presets.ILIFNode(), "mem"), lambda x: (peer(x), {"mem": peer.v_seq}), x)


def test_a_membrane_at_the_threshold_fires():
    x = torch.full((1, 1, 1), 1.0)
    assert float(peers.IFNode()(x[0])) == 1.0
    assert float(presets.IFNode()(x)) == 1.0
