"""Denormal numbers: flushed inside the kernels, in every thread, and left alone outside."""

import time

import pytest
import torch

from snn_backend_cpu.fused import Fused
from snn_backend_cpu.intrinsics import exp32, exp64
from snn_core.neurons import LI

TINY = 1e-40


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def decaying() -> LI:
    neuron = LI(0.5)
    neuron.runner = Fused(neuron, torch.float32)
    return neuron


@pytest.mark.usefixtures("two_threads")
def test_denormal_membranes_become_zero_in_every_thread_and_the_mode_comes_back() -> None:
    x = torch.zeros(200, 8, 500)
    x[0] = 1.0
    out = decaying()(x)
    assert float(out[-1].abs().max()) == 0.0
    assert float(out[out != 0].abs().min()) >= torch.finfo(torch.float32).tiny
    assert float(torch.tensor(TINY) * torch.tensor(1.0)) > 0.0


def test_denormal_numbers_cost_no_time() -> None:
    neuron = decaying()
    fast, slow = torch.ones(400, 4, 2048), torch.full((400, 4, 2048), TINY)

    def seconds(x: torch.Tensor) -> float:
        start = time.perf_counter()
        neuron(x)
        return time.perf_counter() - start

    neuron(fast)
    # the processor's slow path takes a hundred times as long; the least of several, since the machine is shared
    assert min(seconds(slow) for _ in range(7)) < 5 * min(seconds(fast) for _ in range(7))


def test_exp_stays_within_one_unit_in_the_last_place() -> None:
    for function, dtype, low, high in ((exp32, torch.float32, -87, 88), (exp64, torch.float64, -700, 700)):
        x = torch.linspace(low, high, 20001, dtype=dtype)
        got = torch.tensor([function(value) for value in x.numpy()], dtype=torch.float64)
        want = torch.exp(x.double())
        spacing = torch.finfo(dtype).eps
        # double's own exp is the oracle of float32, and half a unit off for float64
        assert float(((got - want) / want).abs().max()) <= spacing


@pytest.mark.parametrize(("function", "kind"), [(exp32, torch.float32), (exp64, torch.float64)])
def test_exp_has_its_limits(function, kind) -> None:
    zero, infinity, nan = torch.tensor([0.0, torch.inf, torch.nan], dtype=kind).numpy()
    assert function(zero) == 1.0
    assert function(infinity) == float("inf")
    assert function(-infinity) == 0.0
    assert function(nan) != function(nan)
