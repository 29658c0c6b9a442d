"""Our sinabs presets against sinabs itself: spikes, states and gradients over randomised settings."""

import pytest
import sinabs.activation as peer_activation
import sinabs.layers as peers
import torch
from harness import compare, copy_weights, current, dtypes, ours, precision, randomised, seeds, widened
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from snn_core.presets import sinabs as presets

SPIKE_FUNCTIONS = {
    "multi": (presets.MultiSpike, peer_activation.MultiSpike),
    "single": (presets.SingleSpike, peer_activation.SingleSpike),
    "at most 2": (presets.MaxSpike(2), peer_activation.MaxSpike(2)),
}
RESETS = {
    "subtract": (presets.MembraneSubtract(), peer_activation.MembraneSubtract()),
    "subtract 0.5": (presets.MembraneSubtract(0.5), peer_activation.MembraneSubtract(0.5)),
    "zero": (presets.MembraneReset(), peer_activation.MembraneReset()),
    "to 0.125": (presets.MembraneReset(0.125), peer_activation.MembraneReset(0.125)),
}
SURROGATES = {
    "single exponential": (presets.SingleExponential(0.4, 0.8), peer_activation.SingleExponential(0.4, 0.8)),
    "periodic exponential": (presets.PeriodicExponential(), peer_activation.PeriodicExponential()),
    "gaussian": (presets.Gaussian(0.4, 0.9), peer_activation.Gaussian(0.0, 0.4, 0.9)),
    "multi-gaussian": (presets.MultiGaussian(0.5, 0.15, 6.0), peer_activation.MultiGaussian()),
    "heaviside": (presets.Heaviside(0.75), peer_activation.Heaviside(0.75)),
}
spike_functions, resets, surrogates = (st.sampled_from(sorted(d)) for d in (SPIKE_FUNCTIONS, RESETS, SURROGATES))
# sinabs rounds time constants to float32 in every precision; those that float32 holds exactly are the same in both
taus = st.sampled_from([1.5, 5.0, 20.0, [1.5, 2.0, 5.0, 10.0, 20.0, 3.0]])
maybe_taus = st.sampled_from([None, 2.0, 8.0, [1.5, 2.0, 5.0, 10.0, 20.0, 3.0]])
thresholds = st.sampled_from([1.0, 0.5, [0.5, 1.0, 1.5, 0.75, 2.0, 1.0]])
floors = st.sampled_from([None, -1.0, -0.25])


class Widened:
    """A spike function of sinabs in the membrane's own precision."""

    required_states = ("v_mem",)

    def __init__(self, function):
        self.function = function

    def apply(self, v_mem, threshold, surrogate):
        threshold = threshold.detach()
        return widened(lambda v: self.function.apply(v, threshold, surrogate))(v_mem)


def options_of(spike_function, reset, surrogate, threshold, floor):
    """The arguments that all neurons share, ours and sinabs'."""
    mine = {"spike_threshold": threshold, "min_v_mem": floor}
    theirs = {"spike_threshold": torch.as_tensor(threshold), "min_v_mem": floor}
    for index, options in enumerate((mine, theirs)):
        options["spike_fn"] = SPIKE_FUNCTIONS[spike_function][index]
        options["reset_fn"] = RESETS[reset][index]
        options["surrogate_grad_fn"] = SURROGATES[surrogate][index]
    theirs["spike_fn"] = Widened(theirs["spike_fn"])
    return mine, theirs


def number(value):
    return value if value is None else torch.as_tensor(value, dtype=torch.get_default_dtype())


def whole(layer, **names):
    """A sinabs layer, which takes the batch first; `names` are our names for its states, which it records itself."""
    layer = layer.to(torch.get_default_dtype())

    def run(x):
        out = layer(x.transpose(0, 1)).transpose(0, 1)
        return out, {ours: layer.recordings[theirs].transpose(0, 1) for theirs, ours in names.items()}

    return run


def learned_pairs(mine, peer, *names):
    return [(getattr(mine, name), getattr(peer, name)) for name in names if getattr(peer, name, None) is not None]


@randomised(120)
@given(
    seed=seeds,
    dtype=dtypes,
    grid=st.booleans(),
    tau_mem=taus,
    tau_syn=maybe_taus,
    alphas=st.booleans(),
    norm=st.booleans(),
    function=spike_functions,
    reset=resets,
    surrogate=surrogates,
    threshold=thresholds,
    floor=floors,
)
def test_lif_spikes_and_learns_as_in_sinabs(
    seed, dtype, grid, tau_mem, tau_syn, alphas, norm, function, reset, surrogate, threshold, floor
):
    with precision(dtype):
        options, peer_options = options_of(function, reset, surrogate, threshold, floor)
        shared = {"train_alphas": alphas, "norm_input": norm}
        mine = presets.LIF(tau_mem, tau_syn, **options, **shared)
        peer = peers.LIF(number(tau_mem), number(tau_syn), record_states=True, **peer_options, **shared).to(dtype)
        copy_decays(mine, peer)
        pairs = learned_pairs(mine, peer, "tau_mem", "tau_syn", "alpha_mem", "alpha_syn")
        states = {"v_mem": "mem", "i_syn": "syn"} if tau_syn else {"v_mem": "mem"}
        x = current(seed, 2, 6, grid=grid, scale=6.0 if norm else 0.8, offset=3.0 if norm else 0.3)
        compare(ours(mine, *states.values()), whole(peer, **states), x, pairs)


@randomised()
@given(
    seed=seeds,
    dtype=dtypes,
    grid=st.booleans(),
    tau_syn=maybe_taus,
    function=spike_functions,
    reset=resets,
    threshold=thresholds,
    floor=floors,
)
def test_iaf_spikes_and_learns_as_in_sinabs(seed, dtype, grid, tau_syn, function, reset, threshold, floor):
    with precision(dtype):
        options, peer_options = options_of(function, reset, "single exponential", threshold, floor)
        mine = presets.IAF(tau_syn=tau_syn, **options)
        peer = peers.IAF(tau_syn=number(tau_syn), record_states=True, **peer_options)
        x = current(seed, 2, 6, grid=grid, scale=0.5, offset=0.05)
        compare(ours(mine, "mem"), whole(peer, v_mem="mem"), x, learned_pairs(mine, peer, "tau_syn"))


@randomised()
@given(
    seed=seeds,
    dtype=dtypes,
    grid=st.booleans(),
    tau_mem=taus,
    tau_adapt=taus,
    # sinabs' ALIF cannot be made with one tau_syn per channel
    tau_syn=st.sampled_from([None, 2.0, 8.0]),
    scale=st.sampled_from([0.0, 0.5, 1.8]),
    alphas=st.booleans(),
    norm=st.booleans(),
    function=spike_functions,
    reset=resets,
    surrogate=surrogates,
    floor=floors,
)
def test_alif_spikes_and_learns_as_in_sinabs(
    seed, dtype, grid, tau_mem, tau_adapt, tau_syn, scale, alphas, norm, function, reset, surrogate, floor
):
    with precision(dtype):
        options, peer_options = options_of(function, reset, surrogate, 1.0, floor)
        shared = {"adapt_scale": scale, "train_alphas": alphas, "norm_input": norm}
        mine = presets.ALIF(tau_mem, tau_adapt, tau_syn, **options, **shared)
        peer = peers.ALIF(number(tau_mem), number(tau_adapt), number(tau_syn), **peer_options, **shared)
        copy_decays(mine, peer)
        names = [f"{kind}_{name}" for kind in ("tau", "alpha") for name in ("mem", "syn", "adapt")]
        x = current(seed, 2, 6, grid=grid, scale=6.0 if norm else 0.8, offset=4.0 if norm else 0.5)
        compare(ours(mine), whole(peer), x, learned_pairs(mine, peer, *names))


@randomised(30)
@given(seed=seeds, dtype=dtypes, tau=taus, alphas=st.booleans(), norm=st.booleans(), floor=floors)
def test_exponential_leak_follows_sinabs(seed, dtype, tau, alphas, norm, floor):
    with precision(dtype):
        options = {"train_alphas": alphas, "norm_input": norm, "min_v_mem": floor}
        mine = presets.ExpLeak(tau, **options)
        peer = peers.ExpLeak(number(tau), record_states=True, **options).to(dtype)
        copy_decays(mine, peer)
        pairs = learned_pairs(mine, peer, "tau_mem", "alpha_mem")
        x = current(seed, 2, 6, offset=-0.2)
        compare(ours(mine, "mem"), whole(peer, v_mem="mem"), x, pairs, spiking=False)


CONNECTIONS = {
    "linear": lambda: nn.Linear(6, 6, bias=False),
    "biased": lambda: nn.Linear(6, 6),
    "reshaping": lambda: nn.Sequential(nn.Flatten(), nn.Linear(6, 6)),
}


@randomised()
@given(
    seed=seeds,
    dtype=dtypes,
    grid=st.booleans(),
    kind=st.sampled_from(["lif", "iaf", "alif"]),
    connection=st.sampled_from(sorted(CONNECTIONS)),
    tau_syn=st.sampled_from([None, 4.0]),
    reset=resets,
)
def test_recurrent_neurons_spike_and_learn_as_in_sinabs(seed, dtype, grid, kind, connection, tau_syn, reset):
    with precision(dtype):
        torch.manual_seed(seed)
        mine_connection, peer_connection = CONNECTIONS[connection](), CONNECTIONS[connection]()
        copy_weights(mine_connection, peer_connection)
        options, peer_options = options_of("multi", reset, "single exponential", 1.0, -1.0)
        options["tau_syn"], peer_options["tau_syn"] = tau_syn, number(tau_syn)
        if kind == "lif":
            mine = presets.LIFRecurrent(5.0, mine_connection, norm_input=False, **options)
            peer = peers.LIFRecurrent(number(5.0), peer_connection, norm_input=False, **peer_options)
        elif kind == "iaf":
            mine = presets.IAFRecurrent(mine_connection, **options)
            peer = peers.IAFRecurrent(peer_connection, **peer_options)
        else:
            mine = presets.ALIFRecurrent(5.0, 3.0, mine_connection, norm_input=False, **options)
            peer = peers.ALIFRecurrent(number(5.0), number(3.0), peer_connection, norm_input=False, **peer_options)
        pairs = list(zip(mine_connection.parameters(), peer_connection.parameters()))
        shape = (2, 3) if connection == "reshaping" else (6,)
        compare(ours(mine), whole(peer), current(seed, 2, *shape, grid=grid, scale=0.5, offset=0.05), pairs)


@randomised(30)
@given(seed=seeds, dtype=dtypes, quantize=st.booleans())
def test_neuromorphic_relu_is_that_of_sinabs(seed, dtype, quantize):
    with precision(dtype):
        mine, peer = presets.NeuromorphicReLU(quantize), peers.NeuromorphicReLU(quantize)
        x = current(seed, 2, 6, scale=3.0)
        compare(lambda x: (mine(x), {}), lambda x: (peer(x), {}), x, spiking=False)


@randomised(30)
@given(seed=seeds, dtype=dtypes, size=st.sampled_from([2, (2, 3)]), stride=st.sampled_from([None, 1]))
def test_sum_pool_is_that_of_sinabs(seed, dtype, size, stride):
    with precision(dtype):
        mine, peer = presets.SumPool2d(size, stride), peers.SumPool2d(size, stride)
        # positive everywhere: sinabs passes no gradient into a window whose sum is 0
        x = current(seed, 2, 5, 6, grid=True).abs() + 1
        compare(lambda x: (mine(x), {}), lambda x: (peer(x), {}), x, spiking=False, rounding=1e-6)


def copy_decays(mine, peer):
    with torch.no_grad():
        for name, parameter in mine.named_parameters():
            parameter.copy_(getattr(peer, name))


@pytest.mark.parametrize("name", ["LIF", "IAF", "ALIF", "ExpLeak"])
def test_defaults_are_those_of_sinabs(name):
    numbers = {"LIF": (10.0,), "IAF": (), "ALIF": (10.0, 20.0), "ExpLeak": (10.0,)}[name]
    mine, peer = getattr(presets, name)(*numbers), getattr(peers, name)(*numbers)
    spiking = name != "ExpLeak"
    compare(ours(mine), whole(peer), current(1, 2, 6, scale=3.0, offset=2.0), spiking=spiking)


def test_a_membrane_at_the_threshold_fires():
    x = torch.full((1, 1, 1), 1.0)
    assert float(peers.IAF()(x)) == 1.0
    assert float(presets.IAF()(x)) == 1.0
