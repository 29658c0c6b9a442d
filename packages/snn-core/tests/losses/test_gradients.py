"""Gradients: finite differences in float64 where a loss is smooth, a closed form where it declares one."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_core.losses import (
    TET,
    CountCrossEntropy,
    CountMSE,
    MaxMembraneCrossEntropy,
    MembraneCrossEntropy,
    MembraneMSE,
    OutputMAE,
    OutputMSE,
    RateCrossEntropy,
    RateMSE,
    SpikeRateL1,
    TemporalCrossEntropy,
    TemporalMSE,
)
from snn_core.losses.readout import first_spike_time

WEIGHTS = (1.0, 2.0, 0.5)
SMOOTH = [
    CountCrossEntropy(class_weights=WEIGHTS),
    CountCrossEntropy(population=2, class_weights=WEIGHTS),
    RateCrossEntropy(),
    RateCrossEntropy(population=2),
    CountMSE(correct_rate=0.8, incorrect_rate=0.1),
    CountMSE(population=2),
    RateMSE(class_weights=WEIGHTS),
    TET(lam=0.3, level=0.5),
    TET(population=2),
    MaxMembraneCrossEntropy(class_weights=WEIGHTS),
    MembraneCrossEntropy(),
    MembraneMSE(),
    CountCrossEntropy() + 0.1 * MembraneMSE(),
]


@pytest.mark.parametrize("loss", SMOOTH, ids=str)
def test_gradient_equals_finite_differences(make_batch, loss):
    batch = make_batch(3, 2, 3, seed=1, population=getattr(loss, "population", 1))
    # smooth losses take any output, so a generic one stands in for spikes
    output = (batch.spikes + 0.1 * batch.mem).requires_grad_()
    mem = batch.mem.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda out, m: loss.reduce(out, batch.labels, {"mem": m})[0], (output, mem))


@pytest.mark.parametrize("loss", [*map(OutputMSE, ("mean", "sum", "last", "max")), OutputMAE()], ids=str)
def test_regression_gradient_equals_finite_differences(make_batch, loss):
    output = make_batch(4, 3, 2).mem.requires_grad_()
    values = make_batch(1, 3, 2, seed=5).mem[0]
    assert torch.autograd.gradcheck(lambda out: loss(out, values), (output,))


def first_spike_gradient(spikes, upstream):
    """-upstream at the first spike, or at the last step of a silent neuron; 0 elsewhere."""
    gradient = torch.zeros_like(spikes)
    steps, batch, classes = spikes.shape
    for b in range(batch):
        for c in range(classes):
            fired = [t for t in range(steps) if spikes[t, b, c] != 0]
            gradient[fired[0] if fired else steps - 1, b, c] = -upstream[b, c]
    return gradient


@settings(deadline=None, max_examples=30)
@given(steps=st.integers(1, 6), seed=st.integers(0, 2**31), density=st.sampled_from([0.0, 0.3, 1.0]))
def test_first_spike_time_has_gradient_minus_one_at_the_first_spike(make_batch, steps, seed, density):
    batch = make_batch(steps, 2, 3, seed=seed, density=density)
    spikes = batch.spikes.clone().requires_grad_()
    upstream = batch.mem[0]
    first_spike_time(spikes).backward(upstream)
    assert torch.equal(spikes.grad, first_spike_gradient(batch.spikes, upstream))


def test_temporal_mse_pulls_the_first_spike_to_its_goal(make_batch):
    batch = make_batch(5, 2, 3, seed=3)
    spikes = batch.spikes.clone().requires_grad_()
    goals = torch.tensor([[0.0, 4.0, 2.0], [1.0, 3.0, 0.0]], dtype=torch.float64)
    TemporalMSE()(spikes, goals).backward()
    late = first_spike_time(batch.spikes) - goals
    torch.testing.assert_close(spikes.grad, first_spike_gradient(batch.spikes, 2 * late / 25 / 6))


def test_temporal_mse_within_tolerance_has_no_gradient(make_batch):
    batch = make_batch(5, 2, 3, seed=3)
    spikes = batch.spikes.clone().requires_grad_()
    goals = first_spike_time(batch.spikes) + torch.tensor([0.0, 1.0, 2.0])
    TemporalMSE(tolerance=2)(spikes, goals).backward()
    assert spikes.grad[:, :, :2].abs().sum() == 0
    assert (spikes.grad[:, :, 2].abs().sum(0) > 0).all()


@pytest.mark.parametrize(("inverse", "slope"), [("negate", -1.0), ("reciprocal", -0.25)])
def test_temporal_cross_entropy_gradient_is_softmax_minus_label(inverse, slope):
    # both neurons fire first at step 1, where d(-t)/dt = -1 and d(1/(t + 1))/dt = -1/4
    spikes = torch.zeros(4, 1, 2, dtype=torch.float64)
    spikes[1:] = 1
    spikes.requires_grad_()
    TemporalCrossEntropy(inverse=inverse)(spikes, torch.tensor([0])).backward()
    expected = torch.zeros_like(spikes)
    expected[1, 0] = -slope * torch.tensor([0.5 - 1, 0.5])
    torch.testing.assert_close(spikes.grad, expected)


def test_a_silent_net_gets_a_gradient_from_every_spike_loss():
    for loss in (CountCrossEntropy(), RateCrossEntropy(), CountMSE(), RateMSE(), TemporalMSE(), TemporalCrossEntropy()):
        spikes = torch.zeros(5, 2, 3, requires_grad=True)
        value = loss(spikes, torch.tensor([0, 2]))
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(spikes.grad).all()
        assert (spikes.grad.abs().sum((0, 2)) > 0).all(), loss


def test_sparsity_pushes_on_silent_and_negative_neurons_too():
    spikes = torch.tensor([[[0.0, 1.0, -1.0]]], requires_grad=True)
    SpikeRateL1()(spikes, torch.zeros(1)).backward()
    assert spikes.grad.tolist() == [[[1.0, 1.0, -1.0]]]


def test_steps_that_tie_for_the_highest_membrane_share_the_gradient():
    mem = torch.zeros(4, 1, 2, requires_grad=True)
    MaxMembraneCrossEntropy()(torch.zeros(4, 1, 2), torch.tensor([1]), {"mem": mem}).backward()
    assert mem.grad[:, 0].tolist() == [[0.125, -0.125]] * 4


def test_large_membranes_do_not_overflow():
    mem = torch.tensor([[[1e4, -1e4, 0.0]]], requires_grad=True)
    for loss in (MaxMembraneCrossEntropy(), MembraneCrossEntropy()):
        value = loss(mem.detach(), torch.tensor([1]), {"mem": mem})
        value.backward()
        assert value.item() == 2e4
        assert torch.isfinite(mem.grad).all()
