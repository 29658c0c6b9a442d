"""Encoders against their equations, written out as loops; random ones by their statistics and their seed."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.fx.experimental.proxy_tensor import make_fx

from snn_core.encoders import Constant, Delta, Encoder, Latency, Poisson, Population, Rate
from snn_core.errors import ConfigError, DataError, ShapeError

EVERY = [
    Constant(4),
    Rate(4),
    Rate(4, gain=0.5, offset=0.1),
    Poisson(4),
    Poisson(4, max_rate_hz=2000.0, counts=True),
    Latency(4),
    Latency(12, normalize=True),
    Latency(4, linear=True, normalize=True, clip=True),
    Delta(),
    Delta(padding=True, off_spikes=True),
    Population(Latency(4, linear=True, normalize=True)),
    Population(Rate(4), neurons=3),
]
FIXED = [encoder for encoder in EVERY if not encoder.random]
examples = settings(deadline=None, max_examples=50)


def steps_of(encoder, x):
    return x.shape[0] if encoder.steps is None else encoder.steps


def spike_step(spikes):
    """Per value the steps with a spike."""
    return [[t for t, v in enumerate(column) if v] for column in zip(*spikes.tolist())]


# --- the equations


def test_constant_is_the_input_at_every_step_without_a_copy():
    x = torch.randn(2, 3)
    out = Constant(5)(x)
    assert torch.equal(out, torch.stack([x] * 5))
    assert out.data_ptr() == x.data_ptr()


def test_constant_takes_whole_numbers_too():
    assert Constant(2)(torch.tensor([3, 4])).tolist() == [[3, 4], [3, 4]]


@settings(deadline=None, max_examples=200)
@given(
    values=st.lists(st.floats(-0.5, 1.5), min_size=1, max_size=8),
    steps=st.integers(1, 12),
    threshold=st.floats(0.001, 0.9),
    tau=st.floats(0.1, 20),
    linear=st.booleans(),
    normalize=st.booleans(),
    clip=st.booleans(),
)
def test_latency_is_the_charging_time_of_a_membrane(values, steps, threshold, tau, linear, normalize, clip):
    encoder = Latency(steps, threshold, tau, linear=linear, normalize=normalize, clip=clip)
    epsilon, expected = 1e-7, []
    for value in values:
        x = min(max(value, 0.0), 1.0)
        if linear:
            t = (steps - 1 if normalize else tau) * (1 - max(x, threshold))
        else:
            scale = (steps - 1) / math.log((threshold + epsilon) / epsilon) if normalize else tau
            x_above = max(x, threshold + epsilon)
            t = scale * math.log(x_above / (x_above - threshold))
        near_half = abs(t % 1 - 0.5) < 1e-6  # where the rounding of t decides, either step will do
        silent = (clip and x < threshold) or round(t) > steps - 1
        expected.append(([] if silent else [round(t)], near_half))
    got = spike_step(encoder(torch.tensor(values, dtype=torch.float64)))
    assert all(g == e or near for g, (e, near) in zip(got, expected))


def test_latency_by_hand():
    x = torch.tensor([0.02, 0.5, 1.0, 0.0])
    assert spike_step(Latency(5, linear=True, normalize=True)(x)) == [[4], [2], [0], [4]]
    assert spike_step(Latency(5, linear=True, normalize=True, clip=True, threshold=0.1)(x)) == [[], [2], [0], []]
    assert spike_step(Latency(5, normalize=True)(x)) == [[0], [0], [0], [4]]
    assert spike_step(Latency(5, tau=5.0)(x)) == [[3], [0], [0], []]


def test_one_step_of_latency_is_one_spike():
    assert Latency(1, normalize=True)(torch.rand(3)).tolist() == [[1.0, 1.0, 1.0]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_latency_has_no_pole_in_low_precision(dtype):
    x = torch.tensor([0.0, 0.01, 0.25, 1.0], dtype=dtype)
    out = Latency(8, normalize=True)(x)
    assert out.dtype == dtype
    assert spike_step(out) == spike_step(Latency(8, normalize=True)(x.float()))


@examples
@given(
    rows=st.lists(st.lists(st.integers(-8, 8), min_size=2, max_size=2), min_size=1, max_size=6),
    padding=st.booleans(),
    off_spikes=st.booleans(),
)
def test_delta_fires_where_the_input_changes_by_the_threshold(rows, padding, off_spikes):
    # eighths are exact, so that a change of exactly the threshold, 0.375, is one
    expected, before = [], rows[0] if padding else [0, 0]
    for row in rows:
        changes = [(now - then) / 8 for now, then in zip(row, before)]
        expected.append([float(c >= 0.375) - float(off_spikes and c <= -0.375) for c in changes])
        before = row
    x = torch.tensor(rows, dtype=torch.float64).unsqueeze(1) / 8
    out = Delta(0.375, padding=padding, off_spikes=off_spikes)(x)
    assert out.squeeze(1).tolist() == expected


@examples
@given(
    value=st.floats(-3, 3),
    neurons=st.integers(3, 9),
    low=st.floats(-2, 0),
    width=st.floats(0.1, 3),
    beta=st.floats(1, 2),
)
def test_population_activity_is_bohtes(value, neurons, low, width, beta):
    high = low + width
    deviation = width / (beta * (neurons - 2))
    centres = [low + (2 * i - 3) / 2 * (high - low) / (neurons - 2) for i in range(1, neurons + 1)]
    expected = [math.exp(-((value - c) ** 2) / (2 * deviation**2)) for c in centres]
    encoder = Population(Constant(2), neurons, low, high, beta)
    got = encoder.activity(torch.tensor([value], dtype=torch.float64))
    torch.testing.assert_close(got, torch.tensor([expected], dtype=torch.float64), rtol=1e-9, atol=1e-12)


def test_population_codes_the_papers_way():
    # 8 fields over [0, 1] have centres at (2 i - 3) / 12; 0.25 is that of the third, where the activity is 1
    encoder = Population(Latency(11, threshold=0.1, linear=True, normalize=True, clip=True))
    steps = spike_step(encoder(torch.tensor([[0.25]]))[:, 0])
    assert steps[2] == [0]
    assert steps[1] == steps[3] == [round(10 * (1 - math.exp(-(1.5**2) / 2)))]
    assert steps[0] == [] == steps[5]


def test_population_puts_a_channels_fields_side_by_side():
    encoder = Population(Constant(3), neurons=4)
    x = torch.rand(2, 5, 6, 7)
    out = encoder(x)
    assert out.shape == (3, 2, 20, 6, 7)
    assert torch.equal(out[0, :, 8:12], encoder.activity(x[:, 2:3]))
    assert encoder(torch.rand(2)).shape == (3, 2, 4)


# --- random encoders


def assert_frequency(spikes, probability):
    """Within 5 standard deviations of the mean over all steps: by chance once in two million values."""
    deviation = (probability * (1 - probability) / spikes.shape[0]).sqrt()
    assert ((spikes.mean(0) - probability).abs() <= 5 * deviation + 1e-9).all()


def test_rate_fires_with_the_clipped_probability():
    torch.manual_seed(0)
    x = torch.tensor([[-1.0, 0.0, 0.1, 0.5, 1.0, 2.0]])
    spikes = Rate(20_000)(x)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    assert_frequency(spikes, x.clamp(0, 1))
    assert_frequency(Rate(20_000, gain=0.5, offset=0.2)(x), (0.5 * x + 0.2).clamp(0, 1))


def test_rate_of_an_input_with_time_has_a_probability_for_each_step():
    x = torch.tensor([0.0, 1.0, 0.0, 1.0]).reshape(4, 1, 1).expand(4, 3, 2)
    assert torch.equal(Rate(None)(x), x)


def test_poisson_fires_where_any_event_falls_into_the_step():
    torch.manual_seed(0)
    x = torch.tensor([[-1.0, 0.0, 0.25, 1.0, 3.0]])
    spikes = Poisson(20_000, max_rate_hz=800.0, dt_s=1e-3)(x)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    assert_frequency(spikes, 1 - torch.exp(-0.8 * x.clamp(0, 1)))


def test_poisson_counts_have_mean_and_variance_lam():
    torch.manual_seed(0)
    x = torch.tensor([[0.0, 0.25, 1.0]])
    counts = Poisson(40_000, max_rate_hz=2000.0, dt_s=1e-3, counts=True)(x)
    lam = 2.0 * x[0]
    # 5 standard errors: sqrt(lam / n) of the mean, sqrt((lam + 2 lam^2) / n) of the variance
    assert ((counts.mean(0)[0] - lam).abs() <= 5 * (lam / 40_000).sqrt()).all()
    assert ((counts.var(0)[0] - lam).abs() <= 5 * ((lam + 2 * lam**2) / 40_000).sqrt()).all()
    assert counts.max() > 1


@pytest.mark.parametrize("encoder", [e for e in EVERY if e.random], ids=str)
def test_random_encoders_are_repeated_by_the_seed_and_draw_anew_without(encoder):
    x = torch.full((4, 50), 0.5)
    torch.manual_seed(3)
    first, state = encoder(x), torch.get_rng_state()
    second = encoder(x)
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[:, 0], first[:, 1])
    torch.set_rng_state(state)
    assert torch.equal(encoder(x), second)
    torch.manual_seed(3)
    assert torch.equal(copy.deepcopy(encoder).eval()(x), first)


@pytest.mark.parametrize("encoder", FIXED, ids=str)
def test_other_encoders_draw_nothing(encoder):
    state = torch.get_rng_state()
    encoder(torch.rand(4, 3, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(torch.get_rng_state(), state)


# --- what all of them are


@pytest.mark.parametrize("encoder", EVERY, ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(4, 3), (4, 1, 2, 2), (1, 1)])
def test_time_comes_first_and_the_dtype_stays(encoder, dtype, shape):
    out = encoder(torch.rand(shape).to(dtype))
    assert out.dtype == dtype
    assert out.shape[0] == steps_of(encoder, torch.rand(shape))
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("encoder", FIXED, ids=str)
def test_a_samples_code_does_not_depend_on_its_neighbours(encoder):
    x = torch.rand(5, 4, 3, generator=torch.Generator().manual_seed(0))
    axis = 1 if encoder.steps is None else 0
    whole = encoder(x)
    alone = [encoder(part) for part in x.split(1, dim=axis)]
    assert torch.equal(torch.cat(alone, dim=1), whole)


@pytest.mark.parametrize("encoder", EVERY, ids=str)
def test_an_encoder_holds_no_state_and_copies(encoder):
    encoder(torch.rand(4, 3))
    for twin in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert repr(twin) == repr(encoder)
    assert encoder.state_dict() == {}


@pytest.mark.parametrize("encoder", EVERY, ids=str)
@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
def test_tracing_keeps_the_meaning(encoder):
    x, other = torch.rand(4, 3), torch.rand(4, 3)
    torch._dynamo.reset()
    torch.manual_seed(1)
    expected = encoder(other)
    for traced in (
        torch.jit.trace(encoder, x, check_trace=False),
        make_fx(encoder)(x),
        torch.compile(encoder, fullgraph=True, backend="eager"),
    ):
        torch.manual_seed(1)
        assert torch.equal(traced(other), expected)


def test_only_constant_is_static():
    assert [type(e) for e in EVERY if e.static] == [Constant]
    assert {type(e) for e in EVERY if e.random} == {Rate, Poisson, Population}


def test_settings_stand_in_the_repr():
    assert repr(Latency(5, 0.2)) == (
        "Latency(steps=5, threshold=0.2, tau=1.0, linear=False, normalize=False, clip=False)"
    )


@pytest.mark.parametrize("encoder", [e for e in EVERY if not isinstance(e, Constant)], ids=str)
def test_whole_numbers_are_refused_with_the_way_out(encoder):
    with pytest.raises(DataError, match=r"torch\.uint8.*x\.float\(\) / 255"):
        encoder(torch.zeros(4, 3, dtype=torch.uint8))


@pytest.mark.parametrize("encoder", EVERY, ids=str)
def test_too_few_dimensions_are_refused(encoder):
    x = torch.tensor(0.5) if encoder.steps is not None else torch.rand(3)
    with pytest.raises(ShapeError, match=r"B, \.\.\.\]"):
        encoder(x)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Constant(0),
        lambda: Constant(None),
        lambda: Constant(True),
        lambda: Rate(2.5),
        lambda: Rate("25"),
        lambda: Rate(25, gain=float("inf")),
        lambda: Rate(25, offset=float("nan")),
        lambda: Poisson(25, max_rate_hz=0),
        lambda: Poisson(25, dt_s=-1e-3),
        lambda: Latency(None),
        lambda: Latency(5, threshold=0),
        lambda: Latency(5, threshold=1),
        lambda: Latency(5, threshold=None),
        lambda: Latency(5, tau=0),
        lambda: Delta(0),
        lambda: Delta(-0.1),
        lambda: Population(Rate(4), neurons=2),
        lambda: Population(Rate(4), low=1, high=1),
        lambda: Population(Rate(4), low=float("-inf")),
        lambda: Population(Rate(4), beta=0),
        lambda: Population(Rate(None)),
        lambda: Population(Delta()),
        lambda: Population(8),
    ],
)
def test_a_bad_setting_is_refused_when_made(make):
    with pytest.raises(ConfigError, match="must"):
        make()


def test_a_users_encoder_writes_forward_only():
    class Ramp(Encoder):
        def forward(self, x):
            self.check(x)
            return self.over_time(x) * torch.arange(self.steps).reshape(-1, *([1] * x.dim()))

    assert Ramp(3)(torch.ones(1, 2)).tolist() == [[[0.0, 0.0]], [[1.0, 1.0]], [[2.0, 2.0]]]
