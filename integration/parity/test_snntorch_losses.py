"""Losses, accuracies and encoders against snnTorch 1.0.0, value and gradient, on random spikes and membranes.

What is left out is where snnTorch is wrong or means something else; docs/losses.md and docs/encoders.md list it.
"""

import snntorch.functional as sf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from snntorch import spikegen

from snn_core.accuracy import accuracy_rate, accuracy_temporal
from snn_core.encoders import Delta, Latency
from snn_core.losses import (
    CountCrossEntropy,
    CountMSE,
    MaxMembraneCrossEntropy,
    MembraneMSE,
    RateCrossEntropy,
    SpikeRateL1,
    TemporalCrossEntropy,
    TemporalMSE,
)

examples = settings(deadline=None, max_examples=60)
sizes = {
    "steps": st.integers(1, 8),
    "batch": st.integers(1, 5),
    "classes": st.integers(2, 6),
    "seed": st.integers(0, 2**31),
    "density": st.sampled_from([0.0, 0.2, 0.7, 1.0]),
}


def draw(steps, batch, classes, seed, density, population=1):
    torch.manual_seed(seed)
    spikes = (torch.rand(steps, batch, classes * population) < density).float()
    return spikes, torch.randn(steps, batch, classes * population), torch.randint(0, classes, (batch,))


def assert_equal(ours, theirs, x):
    """Value and gradient of two functions of x, to float32's rounding over some hundred operations."""
    results = []
    for loss in (ours, theirs):
        leaf = x.clone().requires_grad_()
        value = loss(leaf)
        value.sum().backward()
        results.append((value.reshape(()), leaf.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)


@examples
@given(**sizes)
def test_rate_cross_entropy(**size):
    spikes, _, y = draw(**size)
    assert_equal(lambda s: RateCrossEntropy()(s, y), lambda s: sf.ce_rate_loss()(s, y), spikes)


@examples
@given(**sizes, population=st.integers(1, 4))
def test_count_cross_entropy_with_populations(population, **size):
    spikes, _, y = draw(**size, population=population)
    theirs = sf.ce_count_loss(population_code=True, num_classes=size["classes"])
    assert_equal(lambda s: CountCrossEntropy(population=population)(s, y), lambda s: theirs(s, y), spikes)


@examples
@given(**sizes)
def test_class_weights_up_to_the_denominator(**size):
    # theirs is mean(w l), ours sum(w l) / sum(w) as in torch
    spikes, _, y = draw(**size)
    weights = torch.rand(size["classes"]) + 0.1
    ours = CountCrossEntropy(class_weights=weights)

    def mean_of_weighted(s):
        loss, denominator = ours.reduce(s, y)
        return loss * denominator / len(y)

    assert_equal(mean_of_weighted, lambda s: sf.ce_count_loss(weight=weights)(s, y), spikes)


@examples
@given(**sizes)
def test_max_membrane_cross_entropy(**size):
    _, mem, y = draw(**size)
    ours = MaxMembraneCrossEntropy()
    assert_equal(lambda m: ours(m, y, {"mem": m}), lambda m: sf.ce_max_membrane_loss()(m, y), mem)


@examples
@given(**sizes, population=st.integers(1, 4), eighths=st.tuples(st.integers(0, 7), st.integers(1, 8)))
def test_count_mse_where_the_goals_are_whole_spikes(population, eighths, **size):
    # theirs rounds T r down; with eight steps and rates in eighths there is nothing to round
    size["steps"] = 8
    off, on = eighths[0] / 8, min(eighths[0] + eighths[1], 8) / 8
    spikes, _, y = draw(**size, population=population)
    ours = CountMSE(correct_rate=on, incorrect_rate=off, population=population)
    theirs = sf.mse_count_loss(correct_rate=on, incorrect_rate=off, population_code=True, num_classes=size["classes"])
    assert_equal(lambda s: ours(s, y), lambda s: theirs(s, y), spikes)


@examples
@given(**sizes, on=st.floats(0.5, 2), off=st.floats(0, 0.4))
def test_membrane_mse_of_labels(on, off, **size):
    # a clamp makes their goals max(on, off) and max(0, off), so off must not be negative
    _, mem, y = draw(**size)
    ours, theirs = MembraneMSE(on_target=on, off_target=off), sf.mse_membrane_loss(on_target=on, off_target=off)
    assert_equal(lambda m: ours(m, y, {"mem": m}), lambda m: theirs(m, y), mem)


@examples
@given(**sizes, off=st.integers(2, 9), tolerance=st.integers(0, 3))
def test_temporal_mse_of_labels(off, tolerance, **size):
    # their default goals, 0 and -1, come out of that clamp as 0 for every neuron
    spikes, _, y = draw(**size)
    ours = TemporalMSE(on_target=1, off_target=off, tolerance=tolerance)
    theirs = sf.mse_temporal_loss(on_target=1, off_target=off, tolerance=tolerance)
    assert_equal(lambda s: ours(s, y), lambda s: theirs(s, y), spikes)


@examples
@given(**sizes, tolerance=st.integers(0, 3))
def test_temporal_mse_of_times(tolerance, **size):
    spikes, _, _ = draw(**size)
    goals = torch.randint(-size["steps"], size["steps"], spikes.shape[1:]).float()
    theirs = sf.mse_temporal_loss(target_is_time=True, tolerance=tolerance)
    # theirs writes into the target
    assert_equal(lambda s: TemporalMSE(tolerance=tolerance)(s, goals), lambda s: theirs(s, goals.clone()), spikes)


@examples
@given(**sizes, inverse=st.sampled_from(["negate", "reciprocal"]))
def test_temporal_cross_entropy(inverse, **size):
    spikes, _, y = draw(**size)
    ours = TemporalCrossEntropy(inverse=inverse)
    assert_equal(lambda s: ours(s, y), lambda s: sf.ce_temporal_loss(inverse=inverse)(s, y), spikes)


@examples
@given(**sizes)
def test_sparsity_up_to_the_batch_size(**size):
    # theirs sums over the batch, ours is its mean
    spikes, _, y = draw(**size)
    ours = 1e-3 * SpikeRateL1()
    assert_equal(lambda s: ours(s, y) * len(y), lambda s: sf.reg.l1_rate_sparsity(1e-3)(s), spikes)


@examples
@given(**sizes, population=st.integers(1, 4))
def test_accuracies(population, **size):
    spikes, _, y = draw(**size, population=population)
    theirs = sf.accuracy_rate(spikes, y, population_code=True, num_classes=size["classes"])
    assert accuracy_rate(spikes, y, population).item() == torch.tensor(theirs, dtype=torch.float32).item()
    theirs = sf.accuracy_temporal(spikes, y)
    assert accuracy_temporal(spikes, y).item() == torch.tensor(theirs, dtype=torch.float32).item()


@examples
@given(
    seed=st.integers(0, 2**31),
    steps=st.integers(2, 20),
    threshold=st.floats(0.005, 0.5),
    tau=st.floats(0.2, 10),
    linear=st.booleans(),
    normalize=st.booleans(),
    clip=st.booleans(),
)
def test_latency(seed, steps, **options):
    torch.manual_seed(seed)
    x = torch.rand(4, 30)
    x[:, 0] = 0  # the latest possible spike is in the batch, by which theirs normalises
    theirs = spikegen.latency(x, num_steps=steps, bypass=True, **options)
    ours = Latency(steps, **options)
    # where the time ends in .5 the rounding of float32 decides
    near_half = ((ours.time(x.double()) % 1 - 0.5).abs() < 1e-3).expand_as(theirs)
    assert torch.equal(ours(x)[~near_half], theirs[~near_half])


@examples
@given(seed=st.integers(0, 2**31), steps=st.integers(1, 8), padding=st.booleans(), off=st.booleans())
def test_delta(seed, steps, padding, off):
    torch.manual_seed(seed)
    x = torch.randint(-6, 7, (steps, 3, 5)) / 8  # eighths: differences of exactly the threshold happen
    theirs = spikegen.delta(x, threshold=0.375, padding=padding, off_spike=off)
    assert torch.equal(Delta(0.375, padding=padding, off_spikes=off)(x), theirs)
