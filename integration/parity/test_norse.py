"""Our Norse presets against Norse itself: spikes, states and gradients over randomised settings."""

import norse.torch as peers
import pytest
import torch
from harness import compare, current, dtypes, ours, precision, randomised, seeds
from hypothesis import given
from hypothesis import strategies as st
from norse.torch.functional.izhikevich import IzhikevichParameters, IzhikevichSpikingBehavior, IzhikevichState
from norse.torch.functional.reset import reset_subtract, reset_value
from norse.torch.module.izhikevich import IzhikevichCell, IzhikevichRecurrentCell

from snn_core.presets import norse as presets

# with dt = 1e-3 these make the rates 0.5, 0.25 and 0.125, so that on a grid membranes meet thresholds
exact_rates = st.sampled_from([500.0, 250.0, 125.0])
rates = st.one_of(exact_rates, st.sampled_from([100.0, 200.0, 37.0]))
levels = st.sampled_from([0.0, 0.25, -0.125])
methods = st.sampled_from(["super", "triangle", "tanh", "circ", "heavi_erfc"])
NAMES = {"v": "mem", "i": "syn", "a": "adapt", "u": "recovery", "b": "threshold", "z": "spk"}
ALPHA = 0.7


def tensors(**numbers):
    """Norse's parameters: tensors of the default dtype, differentiable."""
    return {name: torch.tensor(value, requires_grad=True) for name, value in numbers.items()}


def stepwise(cell):
    """A cell of Norse from rest, step by step, with its states under our names."""

    def run(x):
        state, outs, traces = None, [], {name: [] for name in NAMES.values()}
        for x_t in x:
            out, state = cell(x_t, state)
            outs.append(out)
            for name, value in state._asdict().items():
                traces[NAMES[name]].append(value)
        return torch.stack(outs), {name: torch.stack(kept) for name, kept in traces.items() if kept}

    return run


def check(mine, cell, x, learned, spiking=True):
    pairs = [(getattr(mine, name), value) for name, value in learned.items()]
    states = [name for name in mine.states if name != "spk"]
    compare(ours(mine, *states), stepwise(cell), x, pairs, spiking=spiking)


def values(numbers):
    return {name: value.item() for name, value in numbers.items()}


@randomised(100)
@given(
    seed=seeds,
    dtype=dtypes,
    grid=st.booleans(),
    tau_mem=rates,
    tau_syn=rates,
    leak=levels,
    reset=levels,
    threshold=st.sampled_from([1.0, 0.5, 0.7]),
    method=methods,
)
def test_lif_spikes_and_learns_as_in_norse(seed, dtype, grid, tau_mem, tau_syn, leak, reset, threshold, method):
    with precision(dtype):
        numbers = tensors(tau_syn_inv=tau_syn, tau_mem_inv=tau_mem, v_leak=leak, v_th=threshold, v_reset=reset)
        mine = presets.LIF(**values(numbers), method=method, alpha=ALPHA, learn=list(numbers))
        cell = peers.LIFCell(peers.LIFParameters(**numbers, method=method, alpha=ALPHA))
        check(mine, cell, driving(seed, tau_syn, grid), numbers)


def driving(seed, tau_syn, grid):
    """A current whose synaptic sum makes a membrane fire now and then."""
    scale = 4 * tau_syn * 1e-3
    return current(seed, 2, 6, grid=grid, scale=scale, offset=0.3 * scale)


@randomised()
@given(
    seed=seeds,
    dtype=dtypes,
    grid=st.booleans(),
    tau_mem=rates,
    leak=levels,
    reset=levels,
    way=st.sampled_from([(presets.reset_value, reset_value), (presets.reset_subtract, reset_subtract)]),
)
def test_lif_box_spikes_and_learns_as_in_norse(seed, dtype, grid, tau_mem, leak, reset, way):
    with precision(dtype):
        numbers = tensors(tau_mem_inv=tau_mem, v_leak=leak, v_th=1.0, v_reset=reset)
        mine = presets.LIFBox(**values(numbers), reset_method=way[0], learn=list(numbers))
        cell = peers.LIFBoxCell(peers.LIFBoxParameters(**numbers, reset_method=way[1]))
        x = current(seed, 2, 6, grid=grid, scale=3.0, offset=1.0)
        check(mine, cell, x, numbers)


@randomised()
@given(
    seed=seeds, dtype=dtypes, grid=st.booleans(), tau_mem=rates, tau_syn=rates, steep=st.sampled_from([0.5, 0.25, 1.0])
)
def test_exponential_lif_spikes_and_learns_as_in_norse(seed, dtype, grid, tau_mem, tau_syn, steep):
    with precision(dtype):
        numbers = tensors(delta_T=steep, tau_syn_inv=tau_syn, tau_mem_inv=tau_mem, v_th=1.0, v_leak=0.0, v_reset=-0.125)
        mine = presets.LIFEx(**values(numbers), learn=list(numbers))
        cell = peers.LIFExCell(peers.LIFExParameters(**numbers))
        check(mine, cell, driving(seed, tau_syn, grid), numbers)


@randomised()
@given(seed=seeds, dtype=dtypes, grid=st.booleans(), tau_mem=rates, tau_ada=st.sampled_from([2.0, 50.0]))
def test_adaptive_exponential_lif_spikes_and_learns_as_in_norse(seed, dtype, grid, tau_mem, tau_ada):
    with precision(dtype):
        numbers = tensors(
            adaptation_current=4.0,
            adaptation_spike=0.02,
            delta_T=0.5,
            tau_ada_inv=tau_ada,
            tau_syn_inv=200.0,
            tau_mem_inv=tau_mem,
            v_leak=0.0,
            v_th=1.0,
            v_reset=0.0,
        )
        mine = presets.LIFAdEx(**values(numbers), learn=list(numbers))
        cell = peers.LIFAdExCell(peers.LIFAdExParameters(**numbers))
        check(mine, cell, driving(seed, 200.0, grid), numbers)


@randomised()
@given(seed=seeds, dtype=dtypes, grid=st.booleans(), tau_mem=rates, tau_adapt=st.sampled_from([1 / 800, 2.0, 125.0]))
def test_lsnn_spikes_and_learns_as_in_norse(seed, dtype, grid, tau_mem, tau_adapt):
    with precision(dtype):
        numbers = tensors(
            tau_syn_inv=250.0, tau_mem_inv=tau_mem, tau_adapt_inv=tau_adapt, v_leak=0.0, v_th=0.5, v_reset=0.0, beta=0.5
        )
        mine = presets.LSNN(**values(numbers), learn=list(numbers))
        cell = peers.LSNNCell(peers.LSNNParameters(**numbers))
        check(mine, cell, driving(seed, 250.0, grid), numbers)


@randomised()
@given(
    seed=seeds, dtype=dtypes, grid=st.booleans(), threshold=st.sampled_from([1.0, 0.7]), reset=levels, method=methods
)
def test_iaf_spikes_and_learns_as_in_norse(seed, dtype, grid, threshold, reset, method):
    with precision(dtype):
        numbers = tensors(v_th=threshold, v_reset=reset)
        mine = presets.IAF(**values(numbers), method=method, alpha=ALPHA, learn=list(numbers))
        cell = peers.IAFCell(peers.IAFParameters(**numbers, method=method, alpha=ALPHA))
        check(mine, cell, current(seed, 2, 6, grid=grid, scale=0.4, offset=0.1), numbers)


BEHAVIOURS = {
    "tonic": {"a": 0.02, "b": 0.2, "c": -65.0, "d": 6.0},
    "bursting": {"a": 0.02, "b": 0.2, "c": -50.0, "d": 2.0, "tau_inv": 200.0},
    "class 1": {"a": 0.02, "b": -0.1, "c": -55.0, "d": 6.0, "mn": 4.1, "bias": 108.0},
}
behaviours = st.sampled_from(sorted(BEHAVIOURS))


@randomised()
@given(seed=seeds, dtype=dtypes, grid=st.booleans(), name=behaviours)
def test_izhikevich_spikes_and_learns_as_in_norse(seed, dtype, grid, name):
    with precision(dtype):
        behaviour = BEHAVIOURS[name]
        cell = IzhikevichCell(spiking_method(behaviour))
        x = current(seed, 2, 6, grid=grid, scale=20.0, offset=30.0)
        check(presets.Izhikevich(**behaviour, v_rest=-64.0), cell, x, {})


def spiking_method(behaviour, shape=()):
    start = IzhikevichState(v=torch.full(shape, -64.0), u=torch.full(shape, behaviour["b"] * -64.0))
    return IzhikevichSpikingBehavior(IzhikevichParameters(**behaviour), start)


@randomised(30)
@given(seed=seeds, dtype=dtypes, tau_mem=rates, tau_syn=rates, leak=levels, box=st.booleans())
def test_readouts_follow_norse(seed, dtype, tau_mem, tau_syn, leak, box):
    with precision(dtype):
        numbers = (
            tensors(tau_mem_inv=tau_mem, v_leak=leak)
            if box
            else tensors(tau_syn_inv=tau_syn, tau_mem_inv=tau_mem, v_leak=leak)
        )
        kind = presets.LIBox if box else presets.LI
        mine = kind(**values(numbers), learn=list(numbers))
        cell = box_readout(numbers) if box else peers.LICell(peers.LIParameters(**numbers))
        check(mine, cell, current(seed, 2, 6), numbers, spiking=False)


def box_readout(numbers):
    p = peers.LIBoxParameters(**numbers)
    start = peers.LIBoxState(v=p.v_leak.detach())
    return lambda x, state: peers.li_box_feed_forward_step(x, start if state is None else state, p)


RECURRENT = {
    "lif": (presets.LIFRecurrent, peers.LIFRecurrentCell, peers.LIFParameters, ("mem", "syn")),
    "ex": (presets.LIFExRecurrent, peers.LIFExRecurrentCell, peers.LIFExParameters, ("mem", "syn")),
    "adex": (presets.LIFAdExRecurrent, peers.LIFAdExRecurrentCell, peers.LIFAdExParameters, ("mem", "syn", "adapt")),
    "lsnn": (presets.LSNNRecurrent, peers.LSNNRecurrentCell, peers.LSNNParameters, ("mem", "syn", "threshold")),
}


@randomised(100)
@given(
    seed=seeds,
    dtype=dtypes,
    grid=st.booleans(),
    kind=st.sampled_from([*RECURRENT, "izhikevich"]),
    autapses=st.booleans(),
    name=behaviours,
)
def test_recurrent_neurons_spike_and_learn_as_in_norse(seed, dtype, grid, kind, autapses, name):
    with precision(dtype):
        torch.manual_seed(seed)
        if kind == "izhikevich":
            behaviour, states, scale = BEHAVIOURS[name], ("mem", "recovery"), 20.0
            mine = presets.IzhikevichRecurrent(4, 5, **behaviour, v_rest=-64.0, autapses=autapses)
            peer = IzhikevichRecurrentCell(4, 5, spiking_method(behaviour), autapses=autapses)
        else:
            make, cell, parameters, states = RECURRENT[kind]
            given = {"tau_syn_inv": 250.0, "tau_mem_inv": 250.0, "v_leak": 0.0, "v_th": 0.25, "v_reset": 0.0}
            numbers = tensors(**{**make.defaults, **given})
            mine = make(4, 5, **values(numbers), autapses=autapses, learn=["tau_mem_inv"])
            peer = cell(4, 5, parameters(**numbers), autapses=autapses)
            scale = 2.0
        pairs = [(mine.input_weights, peer.input_weights), (mine.recurrent_weights, peer.recurrent_weights)]
        with torch.no_grad():
            for ours_weight, peer_weight in pairs:
                ours_weight.copy_(peer_weight)
        if kind != "izhikevich":
            pairs.append((mine.tau_mem_inv, numbers["tau_mem_inv"]))
        x = current(seed, 2, 4, grid=grid, scale=scale, offset=scale)
        compare(ours(mine, *states), stepwise(peer), x, pairs)


CELLS = {
    "LIF": peers.LIFCell,
    "LIFBox": peers.LIFBoxCell,
    "LIFEx": peers.LIFExCell,
    "LIFAdEx": peers.LIFAdExCell,
    "LSNN": peers.LSNNCell,
    "IAF": peers.IAFCell,
    "LI": peers.LICell,
}


@pytest.mark.parametrize("name", sorted(CELLS))
def test_defaults_are_those_of_norse(name):
    x = current(1, 2, 6, scale=4.0 if name == "LIFBox" else 1.5, offset=0.5)
    check(getattr(presets, name)(), CELLS[name](), x, {}, spiking=name != "LI")


def test_a_parameter_tuple_of_norse_is_taken_over_by_name():
    p = peers.LIFParameters(v_th=torch.tensor(0.5), tau_mem_inv=torch.tensor(250.0), method="triangle", alpha=0.3)
    check(presets.LIF(**p._asdict()), peers.LIFCell(p), driving(1, 200.0, False), {})


def test_a_membrane_at_the_threshold_does_not_fire():
    x = torch.full((1, 1, 1), 1.0)
    cell = peers.LIFBoxCell(peers.LIFBoxParameters(tau_mem_inv=torch.tensor(1000.0)))
    spikes, state = cell(x[0])
    assert float(state.v) == 1.0
    assert float(spikes) == 0.0
    assert float(presets.LIFBox(tau_mem_inv=1000.0)(x)) == 0.0
