"""The functions of which Numba has none that vectorises, against double precision, and half precision against torch."""

import pytest
import torch
from numba import njit

from snn_backend_cpu.intrinsics import exp32, exp64, from_bfloat16, from_float16, tanh32, to_bfloat16, to_float16


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


def test_tanh_stays_within_two_units_in_the_last_place() -> None:
    x = torch.cat((torch.linspace(-12, 12, 40001), torch.logspace(-30, 0, 2001)))
    got = torch.tensor([tanh32(value) for value in x.numpy()], dtype=torch.float64)
    want = torch.tanh(x.double())
    units = torch.finfo(torch.float32).eps * 2.0 ** torch.frexp(want).exponent.double() / 2
    assert float(((got - want).abs() / units).max()) <= 2.0


def test_tanh_has_its_limits() -> None:
    zero, infinity, nan = torch.tensor([0.0, torch.inf, torch.nan]).numpy()
    assert tanh32(zero) == 0.0
    assert tanh32(infinity) == 1.0
    assert tanh32(-infinity) == -1.0
    assert tanh32(nan) != tanh32(nan)


def every_half(dtype: torch.dtype) -> torch.Tensor:
    return torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(dtype)


def compiled(function):
    @njit
    def over(source, target):
        for i in range(source.size):
            target[i] = function(source[i])

    return over


@pytest.mark.parametrize(
    ("dtype", "function"), [(torch.bfloat16, from_bfloat16), (torch.float16, from_float16)], ids=["bfloat16", "float16"]
)
def test_every_number_in_half_precision_is_read_as_torch_reads_it(dtype, function) -> None:
    halves = every_half(dtype)
    got = torch.empty(halves.numel())
    compiled(function)(halves.view(torch.int16).numpy(), got.numpy())
    assert torch.equal(got.isnan(), halves.isnan())
    assert torch.equal(got.nan_to_num(0.5), halves.float().nan_to_num(0.5))


@pytest.mark.parametrize(
    ("dtype", "function"), [(torch.bfloat16, to_bfloat16), (torch.float16, to_float16)], ids=["bfloat16", "float16"]
)
def test_numbers_are_rounded_to_half_precision_as_torch_rounds_them(dtype, function) -> None:
    bits = torch.randint(-(1 << 31), 1 << 31, (1 << 16,), generator=torch.Generator().manual_seed(0))
    edges = torch.tensor(
        [0.0, -0.0, 1.00390625, 1.01171875, 65519.0, 65520.0, 3.4e38, torch.inf, -torch.inf, torch.nan]
    )
    # halves between two neighbours are ties, which go to the even one
    ties = (every_half(dtype)[:-1].float() + every_half(dtype)[1:].float()) / 2
    wide = torch.cat((edges, ties, bits.to(torch.int32).view(torch.float32)))
    got = torch.empty(wide.numel(), dtype=torch.int16)
    compiled(function)(wide.numpy(), got.numpy())
    want = wide.to(dtype)
    assert torch.equal(got.view(dtype).isnan(), want.isnan())
    assert torch.equal(got.view(dtype)[~want.isnan()], want[~want.isnan()])
