"""Layers that take the whole sequence at once, against loops and matrices written out."""

from typing import List

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from snn_core.errors import ConfigError, ShapeError
from snn_core.neurons import LIF, PSN, MaskedPSN, ParallelLIF, SlidingPSN


def double(beta: object, **options: object) -> ParallelLIF:
    return ParallelLIF(torch.tensor(beta, dtype=torch.float64), **options).double()  # type: ignore[arg-type]


@settings(deadline=None, max_examples=40)
@given(
    steps=st.integers(1, 130),
    beta=st.one_of(st.sampled_from([0.0, 1.0, 0.999]), st.floats(0, 1)),
    seed=st.integers(0, 1000),
)
def test_the_membrane_is_the_decayed_sum_of_all_inputs(steps: int, beta: float, seed: int) -> None:
    x = torch.randn(steps, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    _, _, traces = double(beta).run(x, wanted=("mem",))
    lags = np.arange(steps)[:, None] - np.arange(steps)[None, :]
    powers = np.where(lags >= 0, float(beta) ** np.maximum(lags, 0), 0.0)
    wanted = np.einsum("ts,sbn->tbn", powers, x.numpy())
    # a sum of n terms carries n half ulps of the largest at most
    np.testing.assert_allclose(traces["mem"], wanted, rtol=1e-12, atol=1e-11)


@pytest.mark.parametrize("beta", [1.0, 0.9999, 0.9, 0.3, 0.0])
def test_a_thousand_steps_equal_lif_without_reset(beta: float) -> None:
    x = torch.randn(1000, 2, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    loop = LIF(torch.tensor(beta, dtype=torch.float64), reset_mechanism="none").double()
    out, _, traces = double(beta).run(x, wanted=("mem",))
    wanted, _, wanted_traces = loop.run(x, wanted=("mem",))
    torch.testing.assert_close(traces["mem"], wanted_traces["mem"], rtol=1e-11, atol=1e-11)
    assert torch.equal(out, wanted)
    assert 0.05 < out.mean() < 0.95


@pytest.mark.parametrize("beta", [0.9, [0.0, 0.5, 1.0]])
def test_gradients_equal_those_of_lif_without_reset(beta: object) -> None:
    options = {"learn_beta": True, "learn_threshold": True, "threshold": 0.7}
    loop = LIF(torch.tensor(beta, dtype=torch.float64), reset_mechanism="none", **options).double()  # type: ignore[arg-type]
    layer = double(beta, **options)
    x = torch.randn(50, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pull = torch.randn(50, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    grads: List[Tensor] = []
    for neuron, owner in ((loop, loop), (layer, layer.neuron)):
        y = x.clone().requires_grad_()
        (neuron(y) * pull).sum().backward()
        assert y.grad is not None
        assert owner.beta.grad is not None
        assert owner.threshold.grad is not None
        grads += [y.grad, owner.beta.grad, owner.threshold.grad]
    for wanted, got in zip(grads[:3], grads[3:]):
        torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9)


def test_one_decay_for_each_channel_of_an_image() -> None:
    x = torch.randn(40, 2, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    layer = ParallelLIF([0.5, 0.9])
    for channel, beta in enumerate((0.5, 0.9)):
        assert torch.equal(layer(x)[:, :, channel], ParallelLIF(beta)(x[:, :, channel]))


def test_graded_spikes_of_a_parallel_neuron() -> None:
    x = torch.randn(20, 2, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ParallelLIF(0.9, gain=2.5)(x), 2.5 * ParallelLIF(0.9)(x))


def test_a_reset_is_refused() -> None:
    with pytest.raises(ConfigError, match="ParallelLIF got reset_mechanism 'subtract'; a reset needs one step after"):
        ParallelLIF(0.9, reset_mechanism="subtract")


def test_psn_is_a_matrix_over_time() -> None:
    torch.manual_seed(0)
    layer = PSN(6, threshold=0.3).double()
    with torch.no_grad():
        layer.threshold.copy_(torch.linspace(-0.2, 0.4, 6))
    x = torch.randn(6, 3, 4, 2, dtype=torch.float64)
    w, b = layer.weight.detach().numpy(), layer.threshold.detach().numpy()
    h = np.einsum("ts,sbcn->tbcn", w, x.numpy())
    np.testing.assert_array_equal(layer(x).detach(), h >= b[:, None, None, None])


def test_psn_gradients_are_the_matrix_and_the_surrogate() -> None:
    torch.manual_seed(0)
    layer = PSN(5, threshold=0.2).double()
    x = torch.randn(5, 2, 3, dtype=torch.float64).requires_grad_()
    pull = np.random.default_rng(0).normal(size=(5, 2, 3))
    (layer(x) * torch.tensor(pull)).sum().backward()
    w, b, v = layer.weight.detach().numpy(), layer.threshold.detach().numpy(), x.detach().numpy()
    u = np.einsum("ts,sbn->tbn", w, v) - b[:, None, None]
    through = pull / (1 + (np.pi * u) ** 2)
    assert x.grad is not None
    assert layer.weight.grad is not None
    assert layer.threshold.grad is not None
    np.testing.assert_allclose(x.grad, np.einsum("ts,tbn->sbn", w, through), rtol=1e-10)
    np.testing.assert_allclose(layer.weight.grad, np.einsum("tbn,sbn->ts", through, v), rtol=1e-10)
    np.testing.assert_allclose(layer.threshold.grad, -through.sum(axis=(1, 2)), rtol=1e-10)


@pytest.mark.parametrize(("order", "masking"), [(1, 1.0), (3, 1.0), (6, 1.0), (9, 1.0), (2, 0.0), (2, 0.6)])
def test_masked_psn_sees_the_last_order_inputs(order: int, masking: float) -> None:
    torch.manual_seed(0)
    layer = MaskedPSN(6, order, masking=masking).double()
    mixing = layer.mixing().detach()
    for t in range(6):
        for s in range(6):
            share = 1.0 if 0 <= t - s < order else 1 - masking
            assert mixing[t, s].item() == pytest.approx(layer.weight[t, s].item() * share, rel=1e-6)


def test_full_masking_hides_later_and_older_inputs() -> None:
    torch.manual_seed(0)
    layer = MaskedPSN(8, 3, threshold=0.1)
    x = torch.randn(8, 2, 4)
    other = x.clone()
    other[[0, 1, 6, 7]] += 5.0
    # step 4 sees 2, 3 and 4
    assert torch.equal(layer(x)[4], layer(other)[4])
    assert not torch.equal(layer(x)[3], layer(other)[3])


@settings(deadline=None, max_examples=30)
@given(order=st.integers(1, 9), steps=st.integers(1, 12), seed=st.integers(0, 1000))
def test_sliding_psn_is_a_filter(order: int, steps: int, seed: int) -> None:
    torch.manual_seed(seed)
    layer = SlidingPSN(order, exponential=False, threshold=0.2).double()
    x = torch.randn(steps, 2, 3, dtype=torch.float64)
    w = layer.weight.detach().numpy()
    h = np.zeros((steps, 2, 3))
    for t in range(steps):
        for i in range(order):
            if t - order + 1 + i >= 0:
                h[t] += w[i] * x[t - order + 1 + i].numpy()
    np.testing.assert_array_equal(layer(x).detach(), h >= layer.threshold.item())


def test_sliding_psn_starts_with_halves() -> None:
    assert SlidingPSN(4).weight.tolist() == [0.125, 0.25, 0.5, 1.0]


@pytest.mark.parametrize("layer", [PSN(5), MaskedPSN(5, 2)])
def test_another_number_of_steps_is_refused(layer: PSN) -> None:
    name = type(layer).__name__
    with pytest.raises(ShapeError, match=f"{name} was made for 5 time steps and got 7; make it with steps=7"):
        layer(torch.zeros(7, 2, 3))
    with pytest.raises(ShapeError, match=f"{name} got a state; it has none and takes its 5 steps at once"):
        layer.unroll(torch.zeros(5, 2, 3), (torch.zeros(2, 3),))
    assert not layer.chunkable


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"PSN\.steps is 0; it must be 1 or more"):
        PSN(0)
    with pytest.raises(ConfigError, match=r"SlidingPSN\.order is 0; it must be 1 or more"):
        SlidingPSN(0)
    with pytest.raises(ConfigError, match=r"MaskedPSN.masking is 1.5; it must lie in \[0, 1\]"):
        MaskedPSN(4, 2, masking=1.5)
    with pytest.raises(ConfigError, match="surrogate is 'atan'"):
        PSN(4, surrogate="atan")  # type: ignore[arg-type]
