"""Layers beside neurons that keep nothing from step to step."""

from typing import Optional

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from snn_core.containers import is_deterministic
from snn_core.errors import ConfigError, ShapeError
from snn_core.neurons import IF, NeuromorphicReLU, SumPool2d


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_neuromorphic_relu_rounds_down_and_has_the_gradient_of_relu(dtype: torch.dtype) -> None:
    x = torch.tensor([-2.5, -0.1, 0.0, 0.4, 0.999, 1.0, 1.5, 7.99, 100.0]).to(dtype).requires_grad_()
    out = NeuromorphicReLU()(x)
    assert out.tolist() == [float(np.floor(max(v, 0.0))) for v in x.tolist()]
    out.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [float(v > 0) for v in x.tolist()]


def test_without_rounding_it_is_relu() -> None:
    x = torch.linspace(-2, 2, 9)
    assert torch.equal(NeuromorphicReLU(quantize=False)(x), F.relu(x))


def test_it_counts_the_spikes_of_an_integrate_and_fire_neuron() -> None:
    # eighths, so that no sum is rounded
    rate = torch.arange(-8, 20).float().reshape(1, -1) / 8
    spikes = IF()(rate.repeat(8, 1, 1) / 8)
    # what comes in one step at a time leaves as spikes when it has come in whole, one spike a step at most
    assert torch.equal(spikes.sum(0), NeuromorphicReLU()(rate).clamp(max=8))


@settings(deadline=None, max_examples=60)
@given(
    kernel=st.integers(1, 7),
    stride=st.one_of(st.none(), st.integers(1, 4)),
    ceil=st.booleans(),
    height=st.integers(7, 12),
    seed=st.integers(0, 1000),
)
def test_sum_pool_is_exact_for_whole_numbers(
    kernel: int, stride: Optional[int], ceil: bool, height: int, seed: int
) -> None:
    x = torch.randint(-9, 10, (2, 3, height, 9), generator=torch.Generator().manual_seed(seed)).float()
    out = SumPool2d(kernel, stride, ceil_mode=ceil)(x)
    step = stride or kernel
    wanted_shape = F.max_pool2d(x, kernel, step, ceil_mode=ceil).shape
    assert out.shape == wanted_shape
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            window = x[:, :, i * step : i * step + kernel, j * step : j * step + kernel]
            assert torch.equal(out[:, :, i, j], window.sum(dim=(2, 3)))


def test_sum_pool_takes_pairs() -> None:
    x = torch.randn(1, 1, 6, 6)
    out = SumPool2d((2, 3), (2, 3))(x)
    torch.testing.assert_close(out[0, 0, 1, 1], x[0, 0, 2:4, 3:6].sum())


def test_sum_pool_is_lp_pool_of_order_1_where_that_is_defined() -> None:
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)) + 0.1
    torch.testing.assert_close(SumPool2d(2)(x), nn.LPPool2d(1, 2)(x))


def test_a_silent_window_has_a_gradient() -> None:
    x = torch.zeros(1, 1, 4, 4, requires_grad=True)
    SumPool2d(2)(x).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


def test_sum_pool_of_half_precision_adds_in_float32() -> None:
    # 7 x 7 windows of 5: 245 is a bfloat16, 5 * 49 on the way to a mean is not always
    x = torch.full((1, 1, 7, 7), 5.0, dtype=torch.bfloat16)
    out = SumPool2d(7)(x)
    assert out.dtype == torch.bfloat16
    assert out.item() == 245.0


@pytest.mark.parametrize("layer", [NeuromorphicReLU(), SumPool2d(2)])
def test_they_are_deterministic_and_hold_nothing(layer: nn.Module) -> None:
    assert is_deterministic(layer)
    assert layer.state_dict() == {}


def test_other_inputs_and_settings_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"SumPool2d got x of shape \(3, 4, 4\); it takes \[B, C, H, W\]"):
        SumPool2d(2)(torch.zeros(3, 4, 4))
    with pytest.raises(ConfigError, match=r"SumPool2d\.kernel_size is 0; it must be 1 or more"):
        SumPool2d(0)
    with pytest.raises(ConfigError, match=r"SumPool2d.stride is \(1, 0\)"):
        SumPool2d(2, (1, 0))
