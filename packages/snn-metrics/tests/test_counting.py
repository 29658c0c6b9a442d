"""Counts against brute force: every weight is applied one by one in plain Python, to a padding made of lists."""

import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from snn_core.errors import ConfigError, ShapeError
from snn_core.recording import LayerCall, Layout
from snn_metrics.counting import KINDS, operations, operations_of_samples, spatial_dims

pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
PADDING_MODES = ("zeros", "circular", "reflect", "replicate")
fuzzed = settings(max_examples=120, deadline=None, derandomize=True, database=None)

# What one weight that meets one element of value x counts.
COUNTS = {
    "synops": lambda x, weight: abs(x),
    "dense": lambda x, weight: 1,
    "effective": lambda x, weight: int(x != 0),
    "sparse": lambda x, weight: int(x != 0 and weight != 0),
    "acs": lambda x, weight: int(x in (1, -1)),
    "macs": lambda x, weight: int(x not in (0, 1, -1)),
}


def padded(size, before, after, mode):
    """The places of a dimension with its padding in front and behind; None for a zero."""
    places = list(range(size))
    if mode == "zeros":
        return [None] * before + places + [None] * after
    if mode == "replicate":
        return [places[0]] * before + places + [places[-1]] * after
    if mode == "circular":
        return places[size - before :] + places + places[:after]
    return places[1 : before + 1][::-1] + places + places[size - 1 - after : size - 1][::-1]


def meetings(layer, size):
    """Each pair of an element's place and a kernel tap that a layer multiplies, for one channel in and one out."""
    each = []
    for d, n in enumerate(size):
        kernel, stride, dilation = layer.kernel_size[d], layer.stride[d], layer.dilation[d]
        reach = dilation * (kernel - 1)
        if isinstance(layer, tuple(TRANSPOSED.values())):
            length = (n - 1) * stride - 2 * layer.padding[d] + reach + layer.output_padding[d] + 1
            written = [(i, k, i * stride + k * dilation - layer.padding[d]) for i in range(n) for k in range(kernel)]
            each.append([(i, k) for i, k, place in written if 0 <= place < length])
            continue
        if isinstance(layer.padding, str):
            whole = reach if layer.padding == "same" else 0
            before, after = whole // 2, whole - whole // 2
        else:
            before = after = layer.padding[d]
        places = padded(n, before, after, layer.padding_mode)
        starts = range(0, len(places) - reach, stride)
        read = [(places[start + k * dilation], k) for start in starts for k in range(kernel)]
        each.append([(i, k) for i, k in read if i is not None])
    for chosen in itertools.product(*each):
        yield tuple(i for i, _ in chosen), tuple(k for _, k in chosen)


def applied_one_by_one(layer, sample, kind):
    """Operations of one sample, `[..., features]` or `[channels, *spatial]`, as an exact fraction."""
    count, total = COUNTS[kind], Fraction(0)
    weight = layer.weight.detach()
    if isinstance(layer, nn.Linear):
        for position in sample.reshape(-1, layer.in_features):
            for x, column in zip(position.tolist(), weight.t().tolist()):
                total += sum(Fraction(count(x, w)) for w in column)
        return total
    per_in, per_out = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    pairs = list(meetings(layer, sample.shape[1:]))
    for group, i, o in itertools.product(range(layer.groups), range(per_in), range(per_out)):
        source = sample[group * per_in + i]
        if isinstance(layer, tuple(TRANSPOSED.values())):
            taps = weight[group * per_in + i, o]
        else:
            taps = weight[group * per_out + o, i]
        total += sum(Fraction(count(float(source[at]), float(taps[tap]))) for at, tap in pairs)
    return total


def values(seed, *shape):
    """Zeros, spikes, graded and negative values, all exact in float32, so that no sum of them rounds."""
    chosen = torch.tensor([0.0, 0.0, 1.0, 1.0, -1.0, 2.0, 3.0, 0.5, -0.75], dtype=torch.float64)
    return chosen[torch.randint(0, len(chosen), shape, generator=torch.Generator().manual_seed(seed))]


def thinned(layer, seed):
    """The layer with about half of its weights 0."""
    with torch.no_grad():
        layer.weight.copy_(values(seed, *layer.weight.shape))
    return layer


@st.composite
def layers(draw):
    """A weight layer of any kind and setting, and the shape of one sample for it."""
    seed = draw(st.integers(0, 2**31 - 1))
    if draw(st.integers(0, 6)) == 0:
        positions = draw(st.lists(st.integers(1, 3), max_size=2))
        return thinned(nn.Linear(3, 4, dtype=torch.float64), seed), (*positions, 3)
    dims = draw(st.sampled_from([1, 1, 2, 2, 3]))
    largest = 3 if dims < 3 else 2
    each = st.tuples(*[st.integers(1, largest)] * dims)
    kernel, stride, dilation = draw(each), draw(each), draw(each)
    groups = draw(st.sampled_from([1, 2]))
    size = draw(st.tuples(*[st.integers(3, 5) if dims < 3 else st.integers(2, 3)] * dims))
    if draw(st.booleans()):
        padding = tuple(draw(st.integers(0, d * (k - 1))) for d, k in zip(dilation, kernel))
        more = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation))
        size = tuple(s + 2 * p for s, p in zip(size, padding))
        made = TRANSPOSED[dims](2, 4, kernel, stride, padding, more, groups, True, dilation, dtype=torch.float64)
        return thinned(made, seed), (2, *size)
    mode = draw(st.sampled_from(PADDING_MODES))
    padding = draw(st.sampled_from(["same", "valid", "number"]))
    if padding == "same":
        stride = (1,) * dims
        # reflecting repeats at most all elements but one
        size = tuple(max(s, d * (k - 1) + 1) for s, d, k in zip(size, dilation, kernel))
    if padding == "number":
        padding = tuple(draw(st.integers(0, s - 1)) for s in size)
    pads = (0,) * dims if isinstance(padding, str) else padding
    if padding != "same":
        size = tuple(max(s, d * (k - 1) + 1 - 2 * p) for s, p, d, k in zip(size, pads, dilation, kernel))
    made = CONVOLUTIONS[dims](2, 4, kernel, stride, padding, dilation, groups, padding_mode=mode, dtype=torch.float64)
    return thinned(made, seed), (2, *size)


@pytest.mark.slow
@fuzzed
@given(layers(), st.sampled_from(KINDS), st.integers(0, 2**31 - 1))
def test_every_kind_on_every_layer_counts_each_weight_that_is_applied(case, kind, seed):
    layer, shape = case
    x = values(seed, 2, *shape)
    counted = operations(layer, x, tuple(layer(x).shape), kind)
    assert counted.dtype == torch.float64
    assert counted.tolist() == [float(applied_one_by_one(layer, sample, kind)) for sample in x]


@fuzzed
@given(layers(), st.integers(0, 2**31 - 1))
def test_accumulates_and_multiplications_are_all_that_is_effective_and_no_more_than_dense(case, seed):
    layer, shape = case
    x = values(seed, 2, *shape)
    out_shape = tuple(layer(x).shape)
    counts = {kind: operations(layer, x, out_shape, kind) for kind in KINDS}
    assert torch.equal(counts["acs"] + counts["macs"], counts["effective"])
    assert bool((counts["effective"] <= counts["dense"]).all())
    assert bool((counts["sparse"] <= counts["effective"]).all())


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(layers(), st.integers(0, 2**31 - 1))
def test_the_gradient_of_the_operations_is_that_of_finite_differences(case, seed):
    layer, shape = case
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, *shape, generator=generator, dtype=torch.float64)
    x = x + x.sign() * 0.5  # away from 0, where the absolute value has no derivative
    out_shape = tuple(layer(x).shape)
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(operations(layer, leaf, out_shape).sum(), leaf)
    step = 2.0**-10
    for index in range(0, x.numel(), max(1, x.numel() // 7)):
        moved = torch.zeros_like(x).reshape(-1)
        moved[index] = step
        moved = moved.reshape(x.shape)
        above, below = (float(operations(layer, x + sign * moved, out_shape).sum()) for sign in (1, -1))
        # piecewise linear: only the rounding of a sum divided by 2**-9 is left
        assert float(gradient.reshape(-1)[index]) == pytest.approx((above - below) / (2 * step), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(3, 4), (3,)),
        (nn.Linear(3, 4), (5, 3)),
        (nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2), (2, 5, 6)),
        (nn.ConvTranspose1d(2, 3, 3, stride=2), (2, 4)),
    ],
    ids=["linear", "linear over positions", "convolution", "transposed convolution"],
)
def test_every_layout_counts_what_the_unrolled_network_would(layer, shape, kind):
    steps, batch = 3, 2
    thinned(layer, 0)
    x = values(1, steps, batch, *shape).float()
    outs = [tuple(layer(x_t).shape) for x_t in x]
    unrolled = sum(
        operations_of_samples(layer, LayerCall(x_t, None, out), Layout("step", 1), kind) for x_t, out in zip(x, outs)
    )
    assert unrolled.shape == (batch,)
    folded = LayerCall(x.flatten(0, 1), None, (steps * batch, *outs[0][1:]))
    assert torch.equal(operations_of_samples(layer, folded, Layout("folded", steps), kind), unrolled)
    if isinstance(layer, nn.Linear):
        first = LayerCall(x, None, (steps, *outs[0]))
        assert torch.equal(operations_of_samples(layer, first, Layout("first", steps), kind), unrolled)
    still = LayerCall(x[0], None, outs[0])
    repeated = operations_of_samples(layer, still, Layout("step", 1), kind) * steps
    assert torch.equal(operations_of_samples(layer, still, Layout("static", steps), kind), repeated)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_a_count_beyond_half_precision_is_exact_and_has_a_gradient(dtype, kind):
    # 65536 elements of 2 with a fan-out of 9, but for the edges: far above 65504, where float16 ends
    layer = nn.Conv2d(1, 1, 3, padding=1).to(dtype)
    x = torch.full((1, 1, 256, 256), 2.0, dtype=dtype, requires_grad=True)
    pairs = (256 + 2 * 255) ** 2
    expected = {"synops": 2 * pairs, "acs": 0}.get(kind, pairs)
    counted = operations(layer, x, (1, 1, 256, 256), kind)
    assert counted.dtype == torch.float32
    assert counted.item() == expected
    if kind == "synops":
        (gradient,) = torch.autograd.grad(counted.sum(), x)
        assert gradient.dtype == dtype
        assert gradient[0, 0, 0, 0].item() == 4
        assert gradient[0, 0, 1, 1].item() == 9


def test_a_linear_layer_in_half_precision_sums_beyond_its_range():
    layer = nn.Linear(70000, 3).half()
    x = torch.ones(2, 70000, dtype=torch.float16)
    assert operations(layer, x, (2, 3)).tolist() == [210000.0, 210000.0]


def test_many_small_activations_are_not_lost_in_a_large_sum():
    # added one by one in float32, the sum of 2**25 ones would stand still at 2**24
    x = torch.ones(1, 2**25)
    assert operations(nn.Linear(1, 1), x.unsqueeze(-1), (1, 2**25, 1)).item() == 2**25


def test_each_sample_and_step_can_be_kept_apart():
    layer = nn.Linear(3, 4)
    x = values(3, 2, 5, 3).float()
    kept = operations(layer, x, (2, 5, 4), keep=2)
    assert torch.equal(kept, x.abs().sum(-1) * 4)
    assert torch.equal(operations(layer, x, (2, 5, 4), keep=1), kept.sum(1))


@pytest.mark.parametrize(
    ("layer", "dims"), [(nn.Linear(1, 1), 0), (nn.Conv1d(1, 1, 1), 1), (nn.ConvTranspose3d(1, 1, 1), 3)]
)
def test_a_layer_has_as_many_spatial_dimensions_as_its_name_says(layer, dims):
    assert spatial_dims(layer) == dims


def test_an_unknown_kind_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="kind is 'spikes'; it must be one of synops, dense"):
        operations(nn.Linear(2, 2), torch.zeros(1, 2), (1, 2), "spikes")


@pytest.mark.parametrize("shape", [(2, 4, 4), (1, 1, 2, 4, 4)])
def test_an_input_without_the_dimensions_to_keep_is_refused(shape):
    with pytest.raises(ShapeError, match="Conv2d got x of shape"):
        operations(nn.Conv2d(2, 2, 1), torch.zeros(shape), (1, 2, 4, 4))


def test_a_dense_count_is_exact_where_every_element_is_counted():
    layer = nn.Conv3d(2, 6, 3, padding=1, groups=2)
    x = torch.zeros(4, 2, 5, 6, 7)
    # hand count: in each dimension n + 2 (n - 1) pairs of tap and position
    expected = math.prod(n + 2 * (n - 1) for n in (5, 6, 7)) * 2 * 3
    assert operations(layer, x, (4, 6, 5, 6, 7), "dense").tolist() == [expected] * 4
