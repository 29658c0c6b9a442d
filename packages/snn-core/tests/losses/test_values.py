"""Each loss against its equation, written out as loops in conftest.py."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_core.errors import ConfigError, ShapeError
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

# T, B and C of 1 included: one step, a batch of one, one class; densities of 0 and 1: silent nets and ties everywhere
sizes = st.fixed_dictionaries(
    {
        "steps": st.integers(1, 6),
        "batch": st.integers(1, 4),
        "classes": st.integers(1, 5),
        "seed": st.integers(0, 2**31),
        "density": st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    }
)
populations = st.integers(1, 3)
examples = settings(deadline=None, max_examples=40)
# float64 on both sides: what is left is the rounding of a few hundred operations
EXACT = {"rtol": 1e-12, "atol": 1e-12}


def samples(x):
    return x.transpose(0, 1).tolist()


def assert_per_sample(loss, batch, expected):
    losses = loss.per_sample(batch.spikes, batch.labels, batch.traces)
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64), **EXACT)


@examples
@given(size=sizes, population=populations)
def test_rate_cross_entropy_is_the_mean_over_steps(oracle, make_batch, size, population):
    batch = make_batch(population=population, **size)
    expected = [
        oracle.rate_cross_entropy(x, y, population) for x, y in zip(samples(batch.spikes), batch.labels.tolist())
    ]
    assert_per_sample(RateCrossEntropy(population=population), batch, expected)


@examples
@given(size=sizes, population=populations)
def test_count_cross_entropy_is_that_of_the_summed_spikes(oracle, make_batch, size, population):
    batch = make_batch(population=population, **size)
    expected = [
        oracle.count_cross_entropy(x, y, population) for x, y in zip(samples(batch.spikes), batch.labels.tolist())
    ]
    assert_per_sample(CountCrossEntropy(population=population), batch, expected)


@examples
@given(size=sizes, population=populations)
def test_count_mse_measures_counts_against_steps_times_rate(oracle, make_batch, size, population):
    batch = make_batch(population=population, **size)
    expected = [
        oracle.count_mse(x, y, 0.8, 0.1, population) for x, y in zip(samples(batch.spikes), batch.labels.tolist())
    ]
    assert_per_sample(CountMSE(population=population, correct_rate=0.8, incorrect_rate=0.1), batch, expected)


@examples
@given(size=sizes, population=populations)
def test_rate_mse_measures_mean_rates(oracle, make_batch, size, population):
    batch = make_batch(population=population, **size)
    expected = [
        oracle.rate_mse(x, y, 0.8, 0.1, population) for x, y in zip(samples(batch.spikes), batch.labels.tolist())
    ]
    assert_per_sample(RateMSE(population=population, correct_rate=0.8, incorrect_rate=0.1), batch, expected)


@examples
@given(size=sizes, lam=st.sampled_from([0.0, 0.05, 1.0]))
def test_tet_mixes_stepwise_cross_entropy_with_distance_to_the_level(oracle, make_batch, size, lam):
    batch = make_batch(**size)
    batch = batch._replace(spikes=batch.mem)
    expected = [oracle.tet(x, y, lam, 0.7) for x, y in zip(samples(batch.mem), batch.labels.tolist())]
    assert_per_sample(TET(lam=lam, level=0.7), batch, expected)


@examples
@given(size=sizes)
def test_max_membrane_cross_entropy_takes_the_highest_step(oracle, make_batch, size):
    batch = make_batch(**size)
    expected = [oracle.max_cross_entropy(x, y) for x, y in zip(samples(batch.mem), batch.labels.tolist())]
    assert_per_sample(MaxMembraneCrossEntropy(), batch, expected)


@examples
@given(size=sizes)
def test_membrane_cross_entropy_is_the_mean_over_steps(oracle, make_batch, size):
    batch = make_batch(**size)
    expected = [oracle.rate_cross_entropy(x, y) for x, y in zip(samples(batch.mem), batch.labels.tolist())]
    assert_per_sample(MembraneCrossEntropy(), batch, expected)


@examples
@given(size=sizes)
def test_membrane_mse_of_labels_wants_on_at_the_label_and_off_elsewhere(oracle, make_batch, size):
    batch = make_batch(**size)
    expected = []
    for x, y in zip(samples(batch.mem), batch.labels.tolist()):
        goal = [1.25 if c == y else -0.5 for c in range(size["classes"])]
        expected.append(oracle.step_mse(x, [goal] * size["steps"]))
    assert_per_sample(MembraneMSE(on_target=1.25, off_target=-0.5), batch, expected)


@examples
@given(size=sizes, varying=st.booleans())
def test_membrane_mse_of_values_compares_every_step(oracle, make_batch, size, varying):
    batch = make_batch(**size)
    torch.manual_seed(size["seed"])
    goals = torch.randn(batch.mem.shape if varying else batch.mem.shape[1:], dtype=torch.float64)
    traces = samples(goals if varying else goals.expand_as(batch.mem))
    expected = [oracle.step_mse(x, g) for x, g in zip(samples(batch.mem), traces)]
    assert_per_sample(MembraneMSE(), batch._replace(labels=goals), expected)


@examples
@given(size=sizes)
def test_first_spike_time_is_the_first_step_that_is_not_zero_or_the_last(oracle, make_batch, size):
    spikes = make_batch(**size).spikes
    # graded and negative spikes fire too
    graded = spikes * torch.tensor([-1.0, 0.5, 3.0]).repeat(size["classes"])[: size["classes"]]
    expected = [oracle.first_spikes(x) for x in samples(spikes)]
    assert first_spike_time(graded).tolist() == expected


@examples
@given(size=sizes, tolerance=st.integers(0, 3))
def test_temporal_mse_of_labels_measures_first_spikes_as_a_share_of_all_steps(oracle, make_batch, size, tolerance):
    batch = make_batch(**size)
    expected = []
    for x, y in zip(samples(batch.spikes), batch.labels.tolist()):
        goals = [0 if c == y else -1 for c in range(size["classes"])]
        expected.append(oracle.temporal_mse(x, goals, tolerance))
    assert_per_sample(TemporalMSE(tolerance=tolerance), batch, expected)


@examples
@given(size=sizes)
def test_temporal_mse_takes_a_time_for_each_neuron_and_counts_negative_ones_from_the_end(oracle, make_batch, size):
    batch = make_batch(**size)
    torch.manual_seed(size["seed"])
    goals = torch.randint(-size["steps"], size["steps"], tuple(batch.spikes.shape[1:]))
    expected = [oracle.temporal_mse(x, g) for x, g in zip(samples(batch.spikes), goals.tolist())]
    assert_per_sample(TemporalMSE(), batch._replace(labels=goals), expected)


@examples
@given(size=sizes)
def test_temporal_cross_entropy_negates_or_inverts_first_spikes(oracle, make_batch, size):
    batch = make_batch(**size)
    negated, inverted = [], []
    for x, y in zip(samples(batch.spikes), batch.labels.tolist()):
        times = oracle.first_spikes(x)
        negated.append(oracle.cross_entropy([-float(t) for t in times], y))
        inverted.append(oracle.cross_entropy([1 / (t + 1) for t in times], y))
    assert_per_sample(TemporalCrossEntropy(), batch, negated)
    assert_per_sample(TemporalCrossEntropy(inverse="reciprocal"), batch, inverted)


def test_output_errors_read_time_as_asked():
    # two steps, two samples, one output: worked by hand
    output = torch.tensor([[[1.0], [4.0]], [[3.0], [-2.0]]])
    y = torch.tensor([1.0, 2.0])
    wanted = {"mean": [1.0, 1.0], "sum": [9.0, 0.0], "last": [4.0, 16.0], "max": [4.0, 4.0]}
    for readout, expected in wanted.items():
        assert OutputMSE(readout).per_sample(output, y, {}).tolist() == expected, readout
        assert OutputMAE(readout).per_sample(output, y.unsqueeze(-1), {}).tolist() == [e**0.5 for e in expected], (
            readout
        )
    steps = torch.tensor([[1.0, 1.0], [1.0, 0.0]])
    assert OutputMSE("steps").per_sample(output, steps, {}).tolist() == [2.0, 6.5]
    assert OutputMAE("steps").per_sample(output, steps.unsqueeze(-1), {}).tolist() == [1.0, 2.5]


def test_output_mse_takes_outputs_of_any_rank():
    output = torch.randn(3, 2, 4, 5, dtype=torch.float64)
    y = torch.randn(2, 4, 5, dtype=torch.float64)
    expected = [((output[:, b].mean(0) - y[b]) ** 2).sum() / 20 for b in range(2)]
    torch.testing.assert_close(OutputMSE().per_sample(output, y, {}), torch.stack(expected), **EXACT)
    flat = OutputMSE().per_sample(output[:, :, 0, 0], y[:, 0, 0], {})
    torch.testing.assert_close(flat, (output[:, :, 0, 0].mean(0) - y[:, 0, 0]) ** 2, **EXACT)


def test_output_mse_does_not_spread_a_scalar_target_over_several_outputs():
    with pytest.raises(ShapeError, match=r"\(4,\).*\(4, 3\)"):
        OutputMSE().per_sample(torch.zeros(2, 4, 3), torch.zeros(4), {})


def test_sparsity_sums_the_size_of_every_spike():
    output = torch.tensor([[[1.0, 0.0], [0.5, -1.0]], [[1.0, 1.0], [0.0, 0.0]]])
    assert SpikeRateL1().per_sample(output, torch.zeros(2), {}).tolist() == [3.0, 1.5]


@pytest.mark.parametrize(("dtype", "steps"), [(torch.float16, 2049), (torch.bfloat16, 257), (torch.bool, 9)])
def test_counts_do_not_saturate_in_low_precision(dtype, steps):
    # the first whole number that the dtype cannot hold
    output = torch.zeros(steps, 1, 2)
    output[:, 0, 0] = 1
    loss = CountMSE(correct_rate=1.0)
    assert loss.per_sample(output.to(dtype), torch.tensor([0]), {}).tolist() == [0.0]
    assert loss.scores(output.to(dtype), {}).tolist() == [[float(steps), 0.0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_first_spike_times_are_exact_in_low_precision(dtype):
    output = torch.zeros(2100, 1, 1, dtype=dtype)
    output[2051] = 1
    assert first_spike_time(output).tolist() == [[2051.0]]


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int16])
def test_labels_may_have_any_integer_dtype(make_batch, dtype):
    batch = make_batch(4, 3, 5)
    for loss in (CountCrossEntropy(class_weights=[1, 2, 3, 4, 5]), RateMSE(), MembraneMSE(), TemporalMSE()):
        expected = loss.reduce(batch.spikes, batch.labels, batch.traces)
        assert loss.reduce(batch.spikes, batch.labels.to(dtype), batch.traces) == expected


def test_a_label_that_is_no_class_is_nan_and_not_a_free_sample():
    losses = CountCrossEntropy().per_sample(torch.zeros(2, 3, 4), torch.tensor([0, 4, -1]), {})
    assert losses.isnan().tolist() == [False, True, True]


def test_a_missing_trace_is_named():
    with pytest.raises(ConfigError, match=r"'mem'.*'spk'"):
        MaxMembraneCrossEntropy().per_sample(torch.zeros(2, 3, 4), torch.zeros(3).long(), {"spk": torch.zeros(2, 3, 4)})


@pytest.mark.parametrize("loss", [CountCrossEntropy(), RateMSE(), TemporalMSE(), TET()])
def test_an_output_of_pixels_is_refused(loss):
    with pytest.raises(ShapeError, match=r"\(2, 3, 4, 5, 5\).*\[T, B, C\]"):
        loss.per_sample(torch.zeros(2, 3, 4, 5, 5), torch.zeros(3).long(), {})
