"""Firing rate, sparsity and latency: any chunking, any masking, against NumPy over the whole data."""

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics import MetricCollection

from snn_core.errors import ConfigError, ShapeError
from snn_metrics.metrics import FiringRate, Latency, Sparsity


@st.composite
def chunked_batches(draw):
    """Batches of graded spikes [T, B, *shape] with a mask [B], each with the steps where it is cut into chunks."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.sampled_from([(), (3,), (2, 2)]))
    batches = []
    for _ in range(draw(st.integers(1, 4))):
        steps, batch = draw(st.integers(1, 7)), draw(st.integers(1, 4))
        spikes = rng.integers(-1, 3, (steps, batch, *shape)) * (rng.random((steps, batch, *shape)) < 0.3)
        cuts = sorted(draw(st.lists(st.integers(0, steps), max_size=3)))
        batches.append((spikes.astype(np.float64), rng.random(batch) < 0.7, [0, *cuts, steps]))
    return batches


def chunks(spikes, cuts):
    x = torch.from_numpy(spikes)
    return [x[begin:end] for begin, end in zip(cuts, cuts[1:])]


def values_of(batches):
    return np.concatenate([spikes[:, valid].reshape(-1) for spikes, valid, _ in batches])


@given(chunked_batches())
def test_rate_and_sparsity_of_chunks_are_those_of_the_whole_data(batches):
    rate, sparsity = FiringRate(), Sparsity()
    for spikes, valid, cuts in batches:
        for chunk in chunks(spikes, cuts):
            rate.update(chunk, torch.from_numpy(valid))
            sparsity.update(chunk, torch.from_numpy(valid))
    values = values_of(batches)
    if not values.size:
        assert rate.compute().isnan()
        assert sparsity.compute().isnan()
        return
    # whole numbers are summed in float64 without rounding; the division rounds once
    np.testing.assert_allclose(rate.compute().numpy(), np.abs(values).mean(), rtol=1e-15)
    np.testing.assert_allclose(sparsity.compute().numpy(), (values == 0).mean(), rtol=1e-15)


def brute_latency(batches):
    """Every pair of sample and neuron by itself: the first step at which it fired, or None."""
    first = []
    for spikes, valid, _ in batches:
        pairs = spikes[:, valid].reshape(spikes.shape[0], -1)
        for pair in pairs.T:
            first.append(next((step for step, value in enumerate(pair) if value), None))
    fired = [step for step in first if step is not None]
    return (
        sum(fired) / len(fired) if fired else float("nan"),
        (len(first) - len(fired)) / len(first) if first else float("nan"),
    )


@given(chunked_batches())
def test_latency_of_chunks_is_that_of_the_whole_sequences(batches):
    latency = Latency()
    for spikes, valid, cuts in batches:
        for index, chunk in enumerate(chunks(spikes, cuts)):
            latency.update(chunk, torch.from_numpy(valid), first=index == 0)
    value, (steps, silent) = latency.compute(), brute_latency(batches)
    np.testing.assert_allclose(value["latency_steps"].numpy(), steps, rtol=1e-15)
    np.testing.assert_allclose(value["silent_share"].numpy(), silent, rtol=1e-15)


def test_latency_can_be_read_while_a_sequence_is_open_and_goes_on():
    latency = Latency()
    spikes = torch.zeros(5, 1, 3)
    spikes[1, 0, 0] = spikes[4, 0, 1] = 1
    latency.update(spikes[:3])
    for _ in range(2):
        assert {k: float(v) for k, v in latency.compute().items()} == {"latency_steps": 1, "silent_share": 2 / 3}
    latency.update(spikes[3:], first=False)
    assert {k: float(v) for k, v in latency.compute().items()} == {"latency_steps": 2.5, "silent_share": 1 / 3}


def test_silent_neurons_have_no_latency():
    latency = Latency()
    latency.update(torch.zeros(6, 2, 3))
    assert latency.compute()["latency_steps"].isnan()
    assert latency.compute()["silent_share"] == 1


def test_a_neurons_second_spike_changes_nothing():
    once, twice = Latency(), Latency()
    spikes = torch.zeros(4, 1, 1)
    spikes[1] = 1
    once.update(spikes)
    spikes[3] = 7
    twice.update(spikes[:2])
    twice.update(spikes[2:], first=False)
    assert once.compute() == twice.compute()


def test_nan_in_samples_that_do_not_count_stays_out():
    x = torch.tensor([[[1.0], [float("nan")]]])
    valid = torch.tensor([1.0, 0.0])
    rate, sparsity, latency = FiringRate(), Sparsity(), Latency()
    for metric in (rate, sparsity, latency):
        metric.update(x, valid)
    assert rate.compute() == 1
    assert sparsity.compute() == 0
    assert float(latency.compute()["latency_steps"]) == 0


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float16, torch.bfloat16, torch.float32])
def test_sums_do_not_stall_in_narrow_types(dtype):
    # 300 000 spikes: beyond 65 504 of float16, 256 of bfloat16's whole numbers and 255 of uint8
    spikes = torch.ones(3, 1, 100_000).to(dtype)
    rate = FiringRate()
    rate.update(spikes)
    assert rate.compute() == 1
    assert rate.spikes == 300_000


@pytest.mark.parametrize("metric", [FiringRate(), Sparsity(), Latency()])
def test_a_batchs_own_value_and_the_whole_are_those_of_torchmetrics_forward(metric):
    one, two = torch.zeros(4, 2, 3), torch.ones(4, 1, 3)
    one[2, 0] = 1
    alone = copy.deepcopy(metric)
    alone.update(two)
    metric(one)
    value = metric(two)
    both = type(metric)()
    both.update(one)
    both.update(two)
    assert value == alone.compute()
    assert metric.compute() == both.compute()


def test_reset_forgets_all_and_latency_its_open_sequence():
    for metric in (FiringRate(), Sparsity(), Latency()):
        metric.update(torch.ones(2, 2, 2))
        metric.reset()
        fresh = type(metric)()
        assert all(torch.equal(state, fresh.metric_state[name]) for name, state in metric.metric_state.items())
    with pytest.raises(ConfigError, match="no sequence to go on with"):
        metric.update(torch.ones(2, 2, 2), first=False)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: m.clone()])
def test_a_copy_goes_on_where_the_original_is(copied):
    spikes = torch.zeros(4, 1, 2)
    spikes[3] = 1
    latency = Latency()
    latency.update(spikes[:2])
    other = copied(latency)
    other.update(spikes[2:], first=False)
    assert float(other.compute()["latency_steps"]) == 3
    assert latency.compute()["silent_share"] == 1


def test_a_collection_gives_each_metric_what_it_takes():
    metrics = MetricCollection({"rate": FiringRate(), "zeros": Sparsity(), "latency": Latency()})
    spikes = torch.tensor([[[0.0, 1.0]], [[1.0, 1.0]]])
    metrics.update(spikes, valid=torch.ones(1), first=True)
    metrics.update(spikes, valid=torch.ones(1), first=False)
    value = {name: float(v) for name, v in metrics.compute().items()}
    assert value == {"rate": 0.75, "zeros": 0.25, "latency_steps": 0.5, "silent_share": 0.0}


def test_states_stay_exact_when_the_module_around_them_changes_its_type():
    metric = FiringRate()
    metric.half().to("cpu")
    assert metric.spikes.dtype == torch.float64
    assert metric.places.dtype == torch.int64


@pytest.mark.parametrize("metric", [FiringRate(), Sparsity(), Latency()])
def test_wrong_shapes_are_refused_with_the_remedy(metric):
    with pytest.raises(ShapeError, match=r"takes \[T, B"):
        metric.update(torch.ones(3))
    with pytest.raises(ShapeError, match=r"must be \[2\]"):
        metric.update(torch.ones(4, 2, 3), torch.ones(4))


def test_a_further_chunk_must_be_of_the_same_samples():
    latency = Latency()
    latency.update(torch.zeros(2, 2, 3), torch.tensor([1, 0]))
    with pytest.raises(ShapeError, match="begin others: first=True"):
        latency.update(torch.zeros(2, 1, 3), first=False)
    with pytest.raises(ShapeError, match="all of its chunks or in none"):
        latency.update(torch.zeros(2, 2, 3), torch.tensor([1, 1]), first=False)
    latency.update(torch.ones(2, 2, 3), torch.tensor([1, 0]), first=False)
    assert float(latency.compute()["latency_steps"]) == 2
    with pytest.raises(ConfigError, match="no latency of its own"):
        latency(torch.zeros(2, 2, 3), first=False)
