"""The fan-out of every layer against torch itself: the gradient of the sum of its outputs, when all weights are 1."""

import itertools
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from snn_core.errors import ConfigError
from snn_metrics import fanout
from snn_metrics.fanout import fan_out

# torch tells that an even kernel with padding="same" costs it a copy
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
PADDING_MODES = ("zeros", "circular", "reflect", "replicate")
fuzzed = settings(max_examples=150, deadline=None, derandomize=True, database=None)


@st.composite
def convolutions(draw):
    """A convolution and the spatial size of an input that it takes."""
    dims = draw(st.integers(1, 3))
    each = st.tuples(*[st.integers(1, 3)] * dims)
    kernel, stride, dilation = draw(each), draw(each), draw(each)
    mode = draw(st.sampled_from(PADDING_MODES))
    # torch pads with no more than there is, reflecting with less
    size = draw(st.tuples(*[st.integers(4, 6)] * dims))
    padding = draw(st.one_of(st.sampled_from(["same", "valid"]), st.tuples(*[st.integers(0, 3)] * dims)))
    if padding == "same":
        stride = (1,) * dims
        # reflecting needs less padding than there are elements
        kernel, dilation = tuple(min(k, 3) for k in kernel), tuple(min(d, 2) for d in dilation)
    pads = (0,) * dims if isinstance(padding, str) else padding
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel)]
    size = tuple(max(s, r - 2 * p) for s, r, p in zip(size, reach, pads))
    groups = draw(st.sampled_from([1, 2]))
    layer = CONVOLUTIONS[dims](
        2, 4, kernel, stride, padding, dilation, groups, bias=False, padding_mode=mode, dtype=torch.float64
    )
    return layer, size


@st.composite
def transposed(draw):
    """A transposed convolution and the spatial size of an input that it takes."""
    dims = draw(st.integers(1, 3))
    each = st.tuples(*[st.integers(1, 3)] * dims)
    kernel, stride, dilation = draw(each), draw(each), draw(each)
    padding = tuple(draw(st.integers(0, d * (k - 1))) for d, k in zip(dilation, kernel))
    more = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation))
    # small inputs and much padding would leave no output
    size = draw(st.tuples(*[st.integers(4, 6)] * dims))
    size = tuple(s + 2 * p for s, p in zip(size, padding))
    layer = TRANSPOSED[dims](
        2, 4, kernel, stride, padding, more, draw(st.sampled_from([1, 2])), False, dilation, dtype=torch.float64
    )
    return layer, size


def by_torch(layer, x):
    """How many products of a weight each element takes part in, and the shape of the output."""
    nn.init.ones_(layer.weight)
    leaf = x.clone().requires_grad_()
    out = layer(leaf)
    return torch.autograd.grad(out.sum(), leaf)[0], out.shape


def check_map(layer, size):
    x = torch.rand(1, 2, *size, dtype=torch.float64)
    expected, out_shape = by_torch(layer, x)
    found = fan_out(layer, size, out_shape[2:])
    assert torch.equal(found.map(x).expand(2, *size), expected[0])
    assert found.total == int(expected[0, 0].sum())


@fuzzed
@given(convolutions())
def test_every_element_of_a_convolution_has_the_fan_out_that_torch_applies(case):
    check_map(*case)


@fuzzed
@given(transposed())
def test_every_element_of_a_transposed_convolution_has_the_fan_out_that_torch_applies(case):
    check_map(*case)


@fuzzed
@given(st.one_of(convolutions(), transposed()), st.integers(0, 2**31 - 1))
def test_a_map_of_some_weights_counts_those_alone(case, seed):
    layer, size = case
    generator = torch.Generator().manual_seed(seed)
    kernel = layer.kernel_size
    kept = torch.randint(0, 3, (2, *kernel), generator=generator).double()
    found = fan_out(layer, size, layer(torch.rand(1, 2, *size, dtype=torch.float64)).shape[2:]).map_of(kept)
    # one output channel for each input channel, with `kept` as its weights
    alone = type(layer)(
        2, 2, kernel, layer.stride, layer.padding, dilation=layer.dilation, groups=2, bias=False, dtype=torch.float64
    )
    alone.padding_mode = layer.padding_mode
    if isinstance(layer, tuple(CONVOLUTIONS.values())):
        alone._reversed_padding_repeated_twice = layer._reversed_padding_repeated_twice
    else:
        alone.output_padding = layer.output_padding
    with torch.no_grad():
        alone.weight.copy_(kept.unsqueeze(1))
    leaf = torch.rand(1, 2, *size, dtype=torch.float64).requires_grad_()
    expected = torch.autograd.grad(alone(leaf).sum(), leaf)[0]
    assert torch.equal(found, expected[0])


def test_a_linear_layer_reaches_all_its_features():
    found = fan_out(nn.Linear(3, 7), (), ())
    assert (found.channels, found.taps, found.total) == (7, (), 7)


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("kernel", [2, 4])
def test_an_even_kernel_with_same_padding_pads_more_behind(mode, kernel):
    check_map(nn.Conv1d(2, 2, kernel, padding="same", padding_mode=mode, dtype=torch.float64, bias=False), (5,))


def test_a_count_is_exact_beyond_what_a_float_can_hold():
    layer = nn.Conv2d(1, 3, 3, padding=1, bias=False)
    size = (10**4, 10**4 + 1)
    # hand count: a dimension of n elements has n + 2 (n - 1) pairs of tap and position
    expected = 3 * (size[0] + 2 * (size[0] - 1)) * (size[1] + 2 * (size[1] - 1))
    assert fan_out(layer, size, size).total == expected
    assert Fraction(expected) != Fraction(float(torch.tensor(float(expected), dtype=torch.float32)))


def test_the_fan_out_of_a_shape_is_worked_out_once():
    layer = nn.Conv2d(1, 1, 5, padding=1, dilation=3)
    size = (37, 41)
    out = tuple(layer(torch.zeros(1, 1, *size)).shape[2:])
    fan_out(layer, size, out)
    before = fanout._convolution.cache_info().misses
    for _ in itertools.repeat(None, 10):
        fan_out(layer, size, out)
    assert fanout._convolution.cache_info().misses == before


def test_a_layer_without_a_fan_out_is_refused():
    with pytest.raises(ConfigError, match=r"Bilinear has no fan-out; it must be nn\.Linear"):
        fan_out(nn.Bilinear(2, 2, 2), (), ())
