"""The presets without their libraries: the IPU fork's equations, what is refused, and what every neuron must keep.

That they equal snnTorch, SpikingJelly, sinabs and Norse is shown against those libraries, in integration/parity.
"""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from snn_core.errors import ConfigError
from snn_core.presets import norse, sinabs, snntorch, snntorch_ipu, spikingjelly
from snn_core.surrogate import Gaussian

RESETS = ["subtract", "zero", "none"]
randomised = settings(max_examples=20, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31 - 1)


class FastSigmoidSpike(torch.autograd.Function):
    """The fork's operator, from its formula: 1 from 0 upwards, derivative 1 / (1 + |u|)^2."""

    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return 1.0 - (u < 0).to(u.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (u,) = ctx.saved_tensors
        return gradient / (1 + u.abs()) ** 2


fire = FastSigmoidSpike.apply


def fork_leaky(x, reset, hidden, beta=0.5, threshold=1.0, weight=0.0):
    mem, spk, outs = torch.zeros_like(x[0]), torch.zeros_like(x[0]), []
    for x_t in x:
        late = fire(mem - threshold).detach()
        if reset == "subtract" and not hidden:
            mem = mem - late * threshold
        mem = beta * mem + x_t + weight * spk
        if reset == "subtract" and hidden:
            mem = mem - late * threshold
        if reset == "zero":
            mem = (1 - late) * mem
        spk = fire(mem - threshold)
        outs.append(spk)
    return torch.stack(outs)


def fork_synaptic(x, reset, clears_syn=False, alpha=0.5, beta=0.75, threshold=1.0, weight=0.0):
    mem, syn, spk, outs = *(torch.zeros_like(x[0]) for _ in range(3)), []
    for x_t in x:
        late = fire(mem - threshold).detach()
        syn = alpha * syn + x_t + weight * spk
        mem = beta * mem + syn
        if reset == "subtract":
            mem = mem - late * threshold
        elif reset == "zero":
            mem = (1 - late) * mem
            syn = (1 - late) * syn if clears_syn else syn
        spk = fire(mem - threshold)
        outs.append(spk)
    return torch.stack(outs)


def fork_alpha(x, reset, hidden, alpha=0.75, beta=0.5, threshold=0.5):
    mem, exc, inh, outs = *(torch.zeros_like(x[0]) for _ in range(3)), []
    logs = torch.log(torch.tensor([alpha, beta], dtype=x.dtype))
    tau = logs[0] / (logs[1] - logs[0]) + 1
    for x_t in x:
        late, inh_before = fire(mem - threshold).detach(), inh
        exc, inh = alpha * exc + x_t, beta * inh - x_t
        mem = tau * (exc + inh)
        if reset == "zero":
            mem, exc, inh = (1 - late) * mem, (1 - late) * exc, (1 - late) * inh
        elif reset == "subtract":
            mem = mem + late * inh_before if hidden else mem
            exc, inh = exc - late * threshold, (1 - late) * inh
        outs.append(fire(mem - threshold))
    return torch.stack(outs)


def fork_lapicque(x, reset, resistance=2.0, capacity=2.0, threshold=1.0):
    mem, outs = torch.zeros_like(x[0]), []
    for x_t in x:
        late = fire(mem - threshold).detach()
        mem = x_t / capacity + (1 - 1 / (resistance * capacity)) * mem
        mem = mem - late * (threshold if reset == "subtract" else mem if reset == "zero" else 0)
        outs.append(fire(mem - threshold))
    return torch.stack(outs)


def quantised(seed, *shape, scale=0.5, offset=0.25):
    """Multiples of 1/8 `[T, ...]`: membranes meet thresholds, and short sums are exact in any order."""
    x = torch.randn(24, *shape, generator=torch.Generator().manual_seed(seed)) * scale + offset
    return (x * 8).round() / 8


def same_spikes_and_gradient(mine, oracle, x):
    leaves = [x.clone().requires_grad_() for _ in range(2)]
    outs = [mine(leaves[0]), oracle(leaves[1])]
    assert torch.equal(*outs)
    assert 0 < float(outs[0].detach().sum()) < outs[0].numel()
    weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    gradients = [torch.autograd.grad((out * weight).sum(), leaf)[0] for out, leaf in zip(outs, leaves)]
    assert torch.allclose(*gradients, rtol=1e-5, atol=1e-5 * float(gradients[1].abs().max()))


@randomised
@given(seed=seeds, reset=st.sampled_from(RESETS), hidden=st.booleans())
def test_ipu_leaky_follows_the_forks_equation(seed, reset, hidden):
    mine = snntorch_ipu.Leaky(0.5, reset_mechanism=reset, init_hidden=hidden)
    same_spikes_and_gradient(mine, lambda x: fork_leaky(x, reset, hidden), quantised(seed, 2, 3))


@randomised
@given(seed=seeds, reset=st.sampled_from(RESETS), hidden=st.booleans())
def test_ipu_rleaky_follows_the_forks_equation(seed, reset, hidden):
    hidden = hidden or reset == "zero"
    mine = snntorch_ipu.RLeaky(0.5, 0.25, reset_mechanism=reset, init_hidden=hidden)
    same_spikes_and_gradient(mine, lambda x: fork_leaky(x, reset, hidden, weight=0.25), quantised(seed, 2, 3))


@randomised
@given(seed=seeds, reset=st.sampled_from(RESETS))
def test_ipu_synaptic_follows_the_forks_equation(seed, reset):
    mine = snntorch_ipu.Synaptic(0.5, 0.75, reset_mechanism=reset)
    same_spikes_and_gradient(mine, lambda x: fork_synaptic(x, reset), quantised(seed, 2, 3, offset=0.0))


@randomised
@given(seed=seeds, reset=st.sampled_from(RESETS), hidden=st.booleans())
def test_ipu_rsynaptic_follows_the_forks_equation(seed, reset, hidden):
    mine = snntorch_ipu.RSynaptic(0.5, 0.75, 0.25, reset_mechanism=reset, init_hidden=hidden)
    x = quantised(seed, 2, 3, offset=0.125)
    same_spikes_and_gradient(mine, lambda x: fork_synaptic(x, reset, hidden, weight=0.25), x)


@randomised
@given(seed=seeds, reset=st.sampled_from(RESETS), hidden=st.booleans())
def test_ipu_alpha_follows_the_forks_equation(seed, reset, hidden):
    mine = snntorch_ipu.Alpha(0.75, 0.5, 0.5, reset_mechanism=reset, init_hidden=hidden)
    same_spikes_and_gradient(mine, lambda x: fork_alpha(x, reset, hidden), quantised(seed, 2, 3))


@randomised
@given(seed=seeds, reset=st.sampled_from(RESETS))
def test_ipu_lapicque_follows_the_forks_equation(seed, reset):
    mine = snntorch_ipu.Lapicque(R=2.0, C=2.0, reset_mechanism=reset)
    same_spikes_and_gradient(mine, lambda x: fork_lapicque(x, reset), quantised(seed, 2, 3, scale=1.5, offset=0.5))


@pytest.mark.parametrize(
    ("neuron", "spikes"),
    [
        (snntorch.Leaky(0.5), 0.0),
        (snntorch_ipu.Leaky(0.5), 1.0),
        (spikingjelly.IFNode(), 1.0),
        (sinabs.IAF(), 1.0),
        (norse.IAF(), 0.0),
    ],
)
def test_a_membrane_at_the_threshold_fires_where_the_library_says_so(neuron, spikes):
    assert neuron(torch.ones(1, 1, 1)).item() == spikes


def test_the_ipu_forks_lstm_does_not_fire_at_the_threshold():
    at_threshold = torch.ones(1, 1, 1)
    lstm = snntorch_ipu.SLSTM(1, 1, threshold=0.0)
    for parameter in lstm.parameters():
        nn.init.zeros_(parameter)
    spikes, (mem, _) = lstm.unroll(at_threshold)
    assert mem.item() == 0.0
    assert spikes.item() == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_the_libraries_agree_where_they_can(seed):
    # decay 0.5 a step, subtraction in the step of the spike, and inputs that leave no membrane above two thresholds
    x = quantised(seed, 2, 6, scale=0.4, offset=0.2).clamp(max=1.0) + 1 / 64
    spikes = [
        snntorch.Leaky(0.5, reset_delay=False)(x),
        spikingjelly.LIFNode(2.0, decay_input=False, v_reset=None)(x),
        sinabs.LIF(-1 / torch.log(torch.tensor(0.5)), norm_input=False, spike_fn=sinabs.SingleSpike)(x),
        norse.LIFBox(tau_mem_inv=500.0, reset_method=norse.reset_subtract)(2 * x),
    ]
    assert 0 < float(spikes[0].sum()) < spikes[0].numel()
    for other in spikes[1:]:
        assert torch.equal(spikes[0], other)


NEURONS = {
    "snntorch.Leaky": lambda: snntorch.Leaky(0.9),
    "snntorch.Leaky same step": lambda: snntorch.Leaky(0.9, reset_delay=False),
    "snntorch.Leaky without gradient": lambda: snntorch.Leaky(0.9, surrogate_disable=True),
    "snntorch.Synaptic": lambda: snntorch.Synaptic(0.9, 0.8),
    "snntorch.Synaptic same step": lambda: snntorch.Synaptic(0.9, 0.8, reset_delay=False),
    "snntorch.Alpha": lambda: snntorch.Alpha(0.9, 0.8),
    "snntorch.Lapicque": lambda: snntorch.Lapicque(0.9),
    "snntorch.RLeaky": lambda: snntorch.RLeaky(0.9, linear_features=4),
    "snntorch.RSynaptic": lambda: snntorch.RSynaptic(0.9, 0.8, all_to_all=False),
    "snntorch.SLSTM": lambda: snntorch.SLSTM(4, 3, threshold=0.1),
    "snntorch.LeakyParallel": lambda: snntorch.LeakyParallel(4, 3, 0.9),
    "snntorch.StateLeaky": lambda: snntorch.StateLeaky(0.9),
    "snntorch_ipu.Leaky": lambda: snntorch_ipu.Leaky(0.9),
    "snntorch_ipu.RLeaky": lambda: snntorch_ipu.RLeaky(0.9, 0.5),
    "snntorch_ipu.RSynaptic": lambda: snntorch_ipu.RSynaptic(0.9, 0.8, 0.5, init_hidden=True),
    "snntorch_ipu.Alpha": lambda: snntorch_ipu.Alpha(0.9, 0.8),
    "spikingjelly.IFNode": lambda: spikingjelly.IFNode(v_reset=-0.5),
    "spikingjelly.LIFNode": lambda: spikingjelly.LIFNode(),
    "spikingjelly.ParametricLIFNode": lambda: spikingjelly.ParametricLIFNode(),
    "spikingjelly.ILIFNode": lambda: spikingjelly.ILIFNode(),
    "spikingjelly.QIFNode": lambda: spikingjelly.QIFNode(),
    "spikingjelly.EIFNode": lambda: spikingjelly.EIFNode(),
    "spikingjelly.IzhikevichNode": lambda: spikingjelly.IzhikevichNode(),
    "spikingjelly.CUBALIFNode": lambda: spikingjelly.CUBALIFNode(),
    "spikingjelly.NonSpikingLIFNode": lambda: spikingjelly.NonSpikingLIFNode(),
    "spikingjelly.SlidingPSN": lambda: spikingjelly.SlidingPSN(3),
    "sinabs.LIF": lambda: sinabs.LIF(10.0, 5.0, min_v_mem=-1.0),
    "sinabs.IAF": lambda: sinabs.IAF(surrogate_grad_fn=Gaussian()),
    "sinabs.ExpLeak": lambda: sinabs.ExpLeak(10.0),
    "sinabs.ALIF": lambda: sinabs.ALIF(10.0, 20.0),
    "sinabs.LIFRecurrent": lambda: sinabs.LIFRecurrent(10.0, nn.Linear(4, 4)),
    "sinabs.ALIFRecurrent": lambda: sinabs.ALIFRecurrent(10.0, 20.0, nn.Linear(4, 4, bias=False)),
    "norse.IAF": lambda: norse.IAF(method="circ"),
    "norse.LI": lambda: norse.LI(),
    "norse.LIBox": lambda: norse.LIBox(),
    "norse.LIF": lambda: norse.LIF(v_leak=0.1, learn=["tau_mem_inv"]),
    "norse.LIFBox": lambda: norse.LIFBox(),
    "norse.LIFEx": lambda: norse.LIFEx(method="tanh"),
    "norse.LIFAdEx": lambda: norse.LIFAdEx(),
    "norse.LSNN": lambda: norse.LSNN(),
    "norse.Izhikevich": lambda: norse.Izhikevich(0.02, 0.2, -65.0, 6.0),
    "norse.LIFRecurrent": lambda: norse.LIFRecurrent(4, 3),
    "norse.LSNNRecurrent": lambda: norse.LSNNRecurrent(4, 3),
    "norse.IzhikevichRecurrent": lambda: norse.IzhikevichRecurrent(4, 3, 0.02, 0.2, -65.0, 6.0),
}


@pytest.fixture(params=sorted(NEURONS))
def neuron(request):
    torch.manual_seed(0)
    return NEURONS[request.param]()


def test_a_used_preset_copies_and_pickles(neuron):
    x = torch.randn(6, 2, 4) + 0.5
    out = neuron(x)
    if out.requires_grad:
        out.sum().backward()
    for twin in (copy.deepcopy(neuron), pickle.loads(pickle.dumps(neuron))):
        assert torch.equal(twin(x), out)


def test_a_preset_run_in_chunks_equals_the_whole_bit_for_bit(neuron):
    x = torch.randn(9, 2, 4) + 0.5
    whole, last = neuron.unroll(x)
    state, parts = None, []
    for chunk in x.split(4):
        part, state = neuron.unroll(chunk, state)
        parts.append(part)
    assert torch.equal(torch.cat(parts), whole)
    assert all(torch.equal(a, b) for a, b in zip(state, last))


def test_a_preset_in_a_half_precision_model_keeps_its_state_in_float32(neuron):
    x = (torch.randn(6, 2, 4) + 0.5).bfloat16()
    out, state = neuron.bfloat16().unroll(x)
    assert out.dtype == torch.bfloat16
    assert all(tensor.dtype == torch.float32 for tensor in state)


def test_a_preset_keeps_nothing_of_a_batch(neuron):
    before = {name: value.clone() for name, value in neuron.state_dict().items()}
    x = torch.randn(6, 2, 4) + 0.5
    first = neuron(x)
    assert torch.equal(neuron(x), first)
    assert neuron(torch.randn(6, 3, 4)).shape[1] == 3
    after = neuron.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


REFUSED = {
    "inhibition": (lambda: snntorch.Leaky(0.9, inhibition=True), "compares the neurons"),
    "state_quant": (lambda: snntorch.Synaptic(0.9, 0.8, state_quant=torch.round), "quantised state"),
    "init_hidden": (lambda: snntorch.Leaky(0.9, init_hidden=True), "drop the argument"),
    "misspelt": (lambda: snntorch.Leaky(0.9, inhibitor=True), "did you mean 'inhibition'"),
    "alpha learns": (lambda: snntorch.Alpha(0.9, 0.8, learn_alpha=True), "cannot construct it"),
    "alpha below beta": (lambda: snntorch.Alpha(0.8, 0.9), "1 > alpha > beta"),
    "lapicque learns": (lambda: snntorch.Lapicque(0.9, learn_beta=True), "derives C from beta once"),
    "lapicque without": (lambda: snntorch.Lapicque(), "give R and C"),
    "rsynaptic at once": (
        lambda: snntorch.RSynaptic(0.9, 0.8, all_to_all=False, reset_delay=False),
        "fails on its first step",
    ),
    "no connection": (lambda: snntorch.RLeaky(0.9), "give linear_features"),
    "two connections": (lambda: snntorch.RLeaky(0.9, all_to_all=False, linear_features=4), "V is all"),
    "state leaky learns": (lambda: snntorch.StateLeaky(0.9, learn_beta=True), "learns tau"),
    "ipu rleaky to zero": (lambda: snntorch_ipu.RLeaky(0.9, 0.5, reset_mechanism="zero"), "set init_hidden=True"),
    "ipu synaptic hidden": (lambda: snntorch_ipu.Synaptic(0.9, 0.8, init_hidden=True), "init_hidden"),
    "tau of 1": (lambda: spikingjelly.LIFNode(1.0), "above 1"),
    "step mode": (lambda: spikingjelly.LIFNode(step_mode="m"), "drop the argument"),
    "no spikes": (lambda: spikingjelly.ILIFNode(max_spike_count=0), "1 or more"),
    "negative tau": (lambda: sinabs.LIF(-1.0), "above 0"),
    "leaky iaf": (lambda: sinabs.IAF(train_alphas=True), "does not leak"),
    "recorded": (lambda: sinabs.LIF(10.0, record_states=True), "drop the argument"),
    "stochastic": (lambda: sinabs.NeuromorphicReLU(stochastic_rounding=True), "draws at random"),
    "ceil mode": (lambda: sinabs.SumPool2d(2, ceil_mode=True), "scales the windows"),
    "adjoint": (lambda: norse.LIF(method="adjoint"), "must be one of"),
    "unknown number": (lambda: norse.LIF(tau_men_inv=1.0), "did you mean 'tau_mem_inv'"),
    "two slopes": (lambda: norse.LIF(alpha=torch.ones(2)), "must be one number"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_cannot_be_reproduced_is_refused_with_its_reason(case):
    make, reason = REFUSED[case]
    with pytest.raises(ConfigError, match=reason):
        make()
