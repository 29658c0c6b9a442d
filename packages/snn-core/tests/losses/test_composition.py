"""Sums of losses, users' own losses, and which sample counts as right."""

import pickle
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from snn_core.accuracy import accuracy_membrane, accuracy_rate, accuracy_temporal
from snn_core.errors import ConfigError, DataError, ShapeError
from snn_core.losses import (
    CallableLoss,
    CountCrossEntropy,
    CountMSE,
    Loss,
    MaxMembraneCrossEntropy,
    MembraneCrossEntropy,
    MembraneMSE,
    OutputMSE,
    RateCrossEntropy,
    SpikeRateL1,
    TemporalCrossEntropy,
    TemporalMSE,
    WeightedSum,
    as_loss,
)


def test_a_sum_is_the_sum_of_its_parts_each_with_its_factor(make_batch):
    data = make_batch(5, 4, 3)
    total = CountCrossEntropy() + 0.5 * (MembraneMSE() + SpikeRateL1() * 0.1)
    parts = [CountCrossEntropy(), MembraneMSE(), SpikeRateL1()]
    values = [part(data.spikes, data.labels, data.traces) for part in parts]
    torch.testing.assert_close(
        total(data.spikes, data.labels, data.traces), values[0] + 0.5 * values[1] + 0.05 * values[2]
    )
    assert [factor for factor, _ in total.parts] == [1.0, 0.5, 0.05]


def test_a_sum_needs_what_its_parts_need_once():
    assert (CountCrossEntropy() + SpikeRateL1()).needs == ()
    assert (MembraneMSE() + CountCrossEntropy() + MaxMembraneCrossEntropy()).needs == ("mem",)


def test_a_sum_is_weighted_and_counted_right_by_its_classifier(make_batch):
    data = make_batch(5, 4, 3)
    classifier = CountCrossEntropy(class_weights=[1, 2, 3])
    total = 0.1 * SpikeRateL1() + classifier
    assert torch.equal(total.weights(data.labels), classifier.weights(data.labels))
    assert torch.equal(total.correct(data.spikes, data.labels, {}), classifier.correct(data.spikes, data.labels, {}))
    assert SpikeRateL1().correct(data.spikes, data.labels, {}) is None
    assert (2 * OutputMSE()).correct(data.spikes, data.labels, {}) is None


def test_a_sum_checks_every_parts_target():
    with pytest.raises(DataError, match="label 3"):
        (SpikeRateL1() + CountCrossEntropy()).check_target(torch.tensor([3]), (5, 1, 3))


def test_a_sum_takes_a_target_over_time(make_batch):
    output, goal = torch.randn(4, 3, 2), torch.randn(4, 3, 2)
    total = OutputMSE("steps") + SpikeRateL1()
    total.check_target(goal, output.shape)
    kept = torch.tensor([1, 0, 1])
    torch.testing.assert_close(total(output, goal, valid=kept), total(output[:, kept == 1], goal[:, kept == 1]))


def test_different_class_weights_cannot_be_added():
    same = CountCrossEntropy(class_weights=[1, 2]) + MembraneMSE(class_weights=[1, 2])
    assert len(same.parts) == 2
    with pytest.raises(ConfigError, match="give class_weights to one"):
        CountCrossEntropy(class_weights=[1, 2]) + MembraneMSE(class_weights=[2, 1])


def test_a_factor_must_be_a_finite_number():
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="finite"):
            bad * CountCrossEntropy()
    for bad in (True, "2", None):
        with pytest.raises(TypeError):
            bad * CountCrossEntropy()
    with pytest.raises(TypeError):
        CountCrossEntropy() + 1.0


def squared(output, target):
    return (output.mean(0) - target).square().mean(-1)


def test_a_function_becomes_a_loss(make_batch):
    data = make_batch(5, 4, 3)
    goal = data.mem[0]
    loss = as_loss(squared)
    torch.testing.assert_close(loss(data.spikes, goal), OutputMSE()(data.spikes, goal))
    assert loss.needs == ()
    assert loss.correct(data.spikes, goal, {}) is None
    assert pickle.loads(pickle.dumps(loss)) == loss == as_loss(loss)


def test_a_function_does_not_see_padding(make_batch):
    output, goal, valid = torch.randn(5, 3, 2), torch.randn(5, 3, 2), torch.tensor([True, True, False])
    loss = as_loss(lambda o, y: (o - y).square().mean((0, 2)), target_axis=1)
    expected = loss(output[:, :2], goal[:, :2])
    output[:, 2] = goal[:, 2] = float("nan")
    torch.testing.assert_close(loss(output, goal, valid=valid), expected)


def test_a_function_without_a_value_for_padding_does_no_harm():
    # padding is zeros to the function, and log 0 is infinite
    loss = as_loss(lambda o, y: o.sum((0, 2)).log())
    output = torch.ones(2, 3, 1).requires_grad_()
    value = loss(output, torch.zeros(3), valid=torch.tensor([1, 1, 0]))
    value.backward()
    torch.testing.assert_close(value, torch.tensor(2.0).log())
    assert output.grad.squeeze(2).tolist() == [[0.25, 0.25, 0.0]] * 2


def test_a_function_that_returns_no_loss_for_each_sample_is_refused():
    x, y = torch.zeros(2, 3, 4), torch.zeros(3, 4)
    for function in (lambda o, t: o.mean(), lambda o, t: o.mean(0), lambda o, t: o.mean((1, 2)), lambda o, t: 1.0):
        with pytest.raises(ShapeError, match=r"\[B\] = \(3,\)"):
            CallableLoss(function)(x, y)


def test_what_is_no_loss_is_refused_with_the_way_out():
    with pytest.raises(ConfigError, match=r"CountCrossEntropy\(\)"):
        as_loss(CountCrossEntropy)
    with pytest.raises(ConfigError, match="optimiser"):
        as_loss(nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="'ce'"):
        as_loss("ce")
    with pytest.raises(ConfigError, match="target_axis"):
        as_loss(squared, target_axis=2)


def test_a_users_loss_is_a_few_lines():
    @dataclass(frozen=True)
    class Margin(Loss):
        margin: float = 1.0
        needs = ("mem",)

        def per_sample(self, output, target, traces):
            return (self.margin - traces["mem"].amax((0, 2))).clamp(min=0)

    loss = 2 * Margin(margin=0.5) + CountCrossEntropy()
    assert loss.needs == ("mem",)
    spikes = torch.zeros(2, 1, 2)
    value = loss(spikes, torch.tensor([0]), {"mem": torch.full((2, 1, 2), 0.25)})
    torch.testing.assert_close(value, torch.tensor(0.5) + torch.tensor(2.0).log())


# neurons' spikes over three steps; counts 2, 1, 0 and first spikes 1, 0, 2
SPIKES = torch.tensor([[[0.0, 1.0, 0.0]], [[1.0, 0.0, 0.0]], [[1.0, 0.0, 0.0]]])


def test_rate_and_count_losses_are_right_where_the_label_fires_most():
    for loss in (CountCrossEntropy(), RateCrossEntropy(), CountMSE()):
        assert [loss.correct(SPIKES, torch.tensor([y]), {}).item() for y in range(3)] == [1.0, 0.0, 0.0]


def test_temporal_losses_are_right_where_the_label_fires_first():
    for loss in (TemporalCrossEntropy(), TemporalCrossEntropy(inverse="reciprocal"), TemporalMSE()):
        assert [loss.correct(SPIKES, torch.tensor([y]), {}).item() for y in range(3)] == [0.0, 1.0, 0.0]


def test_membrane_losses_are_right_where_the_membrane_that_they_use_is_highest():
    mem = torch.tensor([[[0.0, 0.9]], [[2.0, 0.9]], [[0.0, 0.9]]])  # the highest maximum is 0's, the highest mean 1's
    labels, traces = torch.tensor([0]), {"mem": mem}
    assert MaxMembraneCrossEntropy().correct(mem, labels, traces).tolist() == [1.0]
    assert MembraneCrossEntropy().correct(mem, labels, traces).tolist() == [0.0]
    assert MembraneMSE().correct(mem, labels, traces).tolist() == [0.0]


def test_values_have_no_accuracy():
    for loss in (MembraneMSE(), TemporalMSE()):
        assert loss.correct(SPIKES, torch.zeros(1, 3), {"mem": SPIKES}) is None


def test_accuracies_are_the_mean_of_hits_and_group_populations(make_batch):
    output = torch.zeros(4, 3, 6)
    output[0, 0, 5] = 1  # class 2 of three pairs, class 1 of two triples
    output[:2, 1, 0] = 1
    output[3, 1, 2:4] = 1  # pairs count 2, 2, 0: the lowest class wins; triples 3, 1
    labels = torch.tensor([1, 0, 0])  # the third sample is silent: class 0
    assert accuracy_rate(output, labels, population=3) == 1.0
    assert accuracy_rate(output, torch.tensor([2, 0, 1]), population=2).item() == pytest.approx(2 / 3)
    assert accuracy_temporal(output, torch.tensor([5, 0, 0])) == 1.0
    assert accuracy_membrane(output, torch.tensor([5, 0, 0])) == 1.0
    assert accuracy_rate(output, labels, population=3).dtype == torch.float32


def test_an_accuracy_equals_that_of_its_loss(make_batch):
    data = make_batch(6, 50, 4, seed=3)
    assert accuracy_rate(data.spikes, data.labels) == CountCrossEntropy().correct(data.spikes, data.labels, {}).mean()
    assert accuracy_temporal(data.spikes, data.labels) == TemporalMSE().correct(data.spikes, data.labels, {}).mean()
    expected = MaxMembraneCrossEntropy().correct(data.spikes, data.labels, data.traces).mean()
    assert accuracy_membrane(data.mem, data.labels) == expected


def test_a_sum_made_by_hand_equals_one_made_by_operators():
    assert WeightedSum(((1.0, CountCrossEntropy()), (0.5, SpikeRateL1()))) == CountCrossEntropy() + 0.5 * SpikeRateL1()
