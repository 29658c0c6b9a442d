"""The batch's loss: class weights, padding, and what counts as the denominator."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_core.losses import (
    TET,
    CountCrossEntropy,
    CountMSE,
    MaxMembraneCrossEntropy,
    MembraneCrossEntropy,
    MembraneMSE,
    OutputMSE,
    RateCrossEntropy,
    RateMSE,
    SpikeRateL1,
    TemporalCrossEntropy,
    TemporalMSE,
)

WEIGHTS = (1.0, 0.25, 4.0)
LABELLED = [
    CountCrossEntropy(class_weights=WEIGHTS),
    RateCrossEntropy(),
    CountMSE(class_weights=WEIGHTS),
    RateMSE(),
    TET(),
    MaxMembraneCrossEntropy(class_weights=WEIGHTS),
    MembraneCrossEntropy(),
    MembraneMSE(class_weights=WEIGHTS),
    TemporalMSE(class_weights=WEIGHTS),
    TemporalCrossEntropy(),
    CountCrossEntropy(class_weights=WEIGHTS) + 0.1 * SpikeRateL1(),
]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 2**31), batch=st.integers(1, 6))
def test_class_weights_mean_what_they_mean_to_torch(make_batch, seed, batch):
    data = make_batch(4, batch, 3, seed=seed)
    loss, denominator = CountCrossEntropy(class_weights=WEIGHTS).reduce(data.spikes, data.labels)
    weight = torch.tensor(WEIGHTS, dtype=torch.float64)
    expected = F.cross_entropy(data.spikes.sum(0), data.labels, weight=weight)
    torch.testing.assert_close(loss, expected)
    assert denominator == weight[data.labels].sum()


@pytest.mark.parametrize("loss", LABELLED, ids=str)
def test_padding_changes_neither_loss_nor_gradient(make_batch, loss):
    data = make_batch(4, 5, 3, seed=2)
    keep = torch.tensor([True, False, True, True, False])
    garbage = data.spikes.clone()
    garbage[:, ~keep] = float("nan")
    mem_garbage = data.mem.clone()
    mem_garbage[:, ~keep] = float("inf")
    labels = data.labels.masked_fill(~keep, 999)
    for valid in (keep, keep.float(), keep.int()):
        x, m = garbage.clone().requires_grad_(), mem_garbage.clone().requires_grad_()
        value, denominator = loss.reduce(x, labels, {"mem": m}, valid)
        (value + 0 * x[:, keep].sum() + 0 * m[:, keep].sum()).backward()
        x2, m2 = data.spikes[:, keep].requires_grad_(), data.mem[:, keep].requires_grad_()
        value2, denominator2 = loss.reduce(x2, data.labels[keep], {"mem": m2})
        (value2 + 0 * x2.sum() + 0 * m2.sum()).backward()
        torch.testing.assert_close(value, value2, rtol=1e-12, atol=0)
        assert denominator == denominator2
        for full, kept in ((x.grad, x2.grad), (m.grad, m2.grad)):
            torch.testing.assert_close(full[:, keep], kept)
            assert full[:, ~keep].abs().sum() == 0


@pytest.mark.parametrize("varying", [False, True])
def test_padding_of_values_is_left_out_along_their_batch_dimension(varying):
    output, keep = torch.randn(4, 3, 2), torch.tensor([True, False, True])
    values = torch.randn(4, 3, 2) if varying else torch.randn(3, 2)
    kept_values = values[:, keep] if varying else values[keep]
    padded = values.clone()
    padded[(slice(None), ~keep) if varying else ~keep] = float("nan")
    for loss in (OutputMSE("steps" if varying else "last"), MembraneMSE()):
        value, denominator = loss.reduce(output, padded, {"mem": output}, keep)
        expected, _ = loss.reduce(output[:, keep], kept_values, {"mem": output[:, keep]})
        torch.testing.assert_close(value, expected)
        assert denominator == 2


@pytest.mark.parametrize("loss", LABELLED, ids=str)
def test_a_mask_of_ones_is_no_mask_bit_for_bit(make_batch, loss):
    data = make_batch(4, 5, 3, seed=4)
    plain = loss.reduce(data.spikes, data.labels, data.traces)
    assert loss.reduce(data.spikes, data.labels, data.traces, torch.ones(5)) == plain


def test_nothing_valid_is_zero_loss_and_zero_denominator():
    x = torch.full((2, 3, 4), float("nan"), requires_grad=True)
    loss, denominator = CountCrossEntropy().reduce(x, torch.full((3,), -1), valid=torch.zeros(3))
    loss.backward()
    assert (loss.item(), denominator.item()) == (0.0, 0.0)
    assert x.grad.abs().sum() == 0


def test_a_class_of_weight_zero_is_left_out_and_a_batch_of_it_is_no_nan():
    loss = CountCrossEntropy(class_weights=[0, 1])
    x = torch.randn(3, 2, 2)
    value, denominator = loss.reduce(x, torch.tensor([0, 1]))
    assert (value, denominator) == CountCrossEntropy().reduce(x[:, 1:], torch.tensor([1]))
    value, denominator = loss.reduce(x, torch.tensor([0, 0]))
    assert (value.item(), denominator.item()) == (0.0, 0.0)


@pytest.mark.parametrize("loss", LABELLED, ids=str)
def test_parts_of_a_batch_combine_by_their_denominators(make_batch, loss):
    data = make_batch(4, 7, 3, seed=6)
    whole, mass = loss.reduce(data.spikes, data.labels, data.traces)
    parts = [
        loss.reduce(data.spikes[:, part], data.labels[part], {"mem": data.mem[:, part]})
        for part in (slice(0, 4), slice(4, 7))
    ]
    torch.testing.assert_close(sum(value * weight for value, weight in parts) / mass, whole)


@pytest.mark.parametrize("loss", LABELLED, ids=str)
def test_float32_is_as_near_as_float32_goes(make_batch, loss):
    data = make_batch(25, 4, 3, seed=7)
    narrow, _ = loss.reduce(data.spikes.float(), data.labels, {"mem": data.mem.float()})
    assert narrow.dtype == torch.float32
    # a few hundred float32 operations of relative error 6e-8 each, on values up to 25
    torch.testing.assert_close(narrow.double(), loss(data.spikes, data.labels, data.traces), rtol=2e-6, atol=2e-6)
