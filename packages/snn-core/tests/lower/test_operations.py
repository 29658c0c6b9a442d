"""Each operation that a step may use, alone: torch's own bits forward (where arithmetic), autograd's gradient."""

from typing import Any, Callable, Dict

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from snn_core.lower import interpret, lower
from snn_core.neurons import Neuron

Function = Callable[[Tensor, Tensor], Tensor]

ARITHMETIC: Dict[str, Function] = {
    "alpha": lambda a, b: torch.sub(b, a, alpha=0.3) + torch.add(a, b, alpha=-1),
    "rsub": lambda a, b: 1 - a + torch.rsub(a, b, alpha=2.0),
    "division": lambda a, b: a / 3 + 2 / b + a / b,
    "truncated": lambda a, b: torch.div(a, b.detach(), rounding_mode="trunc") + a,
    "addcmul": lambda a, b: torch.addcmul(a, a, b, value=0.7),
    "powers": lambda a, b: a**2 + a**3 + b**-1 + b**-2 + b.reciprocal() + a**1 + a**0,
    "rounding": lambda a, b: a + a.floor() + a.ceil() + a.trunc() + a.round(),
    "signs": lambda a, b: a.sign() * b + a.abs() - (-a) + a.sgn(),
    "clamps": lambda a, b: a.clamp(-0.5, 0.5) + a.clamp(min=0.1) + a.clamp(max=0.2) + torch.clamp(a, min=-b, max=b),
    "extremes": lambda a, b: torch.minimum(a, b) + torch.maximum(a, b) * 2,
    "rectifiers": lambda a, b: torch.relu(a) + F.leaky_relu(a, 0.2) + F.hardtanh(a) + F.relu6(a),
    "comparisons": lambda a, b: (
        ((a > b) | (a <= 0)) * a + ((a >= 0.5) & ~(a == b)).to(a.dtype) * b + (a != b).float() * a
    ),
    "logic": lambda a, b: torch.where(torch.logical_xor(a > 0, b > 0.5), a, b) + torch.logical_not(a > 0) * b,
    "filling": lambda a, b: (
        a.masked_fill(a > 0.5, 0.25) + torch.full_like(a, 0.1) + torch.ones_like(b) + a.new_zeros(())
    ),
    "numbers": lambda a, b: torch.where(a > 0, 1.0, b) + torch.scalar_tensor(2.0, dtype=a.dtype) * a,
    "step": lambda a, b: torch.heaviside(a.detach(), torch.full_like(a, 0.5)) + a,
    "conditions added": lambda a, b: a * ((a > 0.5) + (b > 0.5)) + a * torch.add(a > 0, b > 0.5, alpha=True),
    "conditions added in place": lambda a, b: a * (a > 0.5).clone().add_(b > 0.5),
    "conditions multiplied": lambda a, b: a * ((a > 0) * (b > 0.5) + (a > 1)),
    "conditions compared": lambda a, b: a * torch.maximum(a > 0, b > 0.5) + b * torch.minimum(a > 0, b > 0.5),
    "conditions chosen": lambda a, b: a * (torch.where(a > 0, b > 0.5, a > -1) + (a > 1)),
    "conditions filled": lambda a, b: a * ((a > 0).masked_fill(b > 0.5, True) + (a > 1)),
    "conditions of numbers": lambda a, b: a * ((a > 0).to(a.dtype) * 2 + (b > 0.5) * a - (a > 1).long()),
    "conditions made": lambda a, b: a * (torch.full_like(a > 0, True) + torch.zeros_like(a, dtype=torch.bool)),
    "conditions written as numbers": lambda a, b: a * a.detach().clone().gt_(0.5) + b,
}

TRANSCENDENTAL: Dict[str, Function] = {
    "exponentials": lambda a, b: a.exp() + torch.expm1(a) + torch.exp2(a),
    "logarithms": lambda a, b: b.log() + torch.log1p(b),
    "waves": lambda a, b: a.sin() + a.cos() + a.atan(),
    "saturating": lambda a, b: torch.sigmoid(a) + torch.tanh(a) + torch.erf(a),
    "smooth rectifiers": lambda a, b: F.silu(a) + F.elu(a, 0.7) + F.selu(a) + F.celu(a, 1.3),
    "softplus": lambda a, b: F.softplus(a, beta=2.0, threshold=1.0),
    "roots": lambda a, b: b.sqrt() + b**0.5 + b.rsqrt() + b**-0.5,
    "power": lambda a, b: b**1.7 + b ** (0.5 * b) + 2.0**a,
}


class Own(Neuron):
    """A step that is one function of its input and a positive coefficient."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def coefficients(self) -> Any:
        return {"b": torch.tensor(0.5)}

    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        return self.function(x, c["b"]), ()


def inputs(dtype: torch.dtype) -> "tuple[Tensor, Tensor]":
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(40, 25, generator=generator, dtype=dtype)
    return x, torch.rand(40, 25, generator=generator, dtype=dtype) + 0.1


@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic_gives_torchs_bits(name: str) -> None:
    x, b = inputs(torch.float32)
    lowered = lower(Own(ARITHMETIC[name]))
    got = interpret(lowered.forward, {"x": x, "c.b": b}, torch.float32)["out"]
    assert lowered.exact
    assert torch.equal(got, ARITHMETIC[name](x, b))


def test_a_scaled_coefficient_makes_an_addition_inexact() -> None:
    assert lower(Own(lambda a, b: torch.add(b, a, alpha=0.3))).exact
    assert lower(Own(lambda a, b: torch.addcmul(a, a, b, value=0.3))).exact
    assert not lower(Own(lambda a, b: torch.add(a, b, alpha=0.3))).exact
    assert not lower(Own(lambda a, b: torch.sub(a, b * 2, alpha=0.3))).exact


@pytest.mark.parametrize("function", [lambda a, b: b.sqrt() + a, lambda a, b: b**0.5 + a])
def test_a_root_is_not_exact_since_torch_takes_it_from_a_library(function: Function) -> None:
    assert not lower(Own(function)).exact


@pytest.mark.parametrize("name", [*ARITHMETIC, *TRANSCENDENTAL])
def test_each_operation_has_autograds_gradient(name: str) -> None:
    function = {**ARITHMETIC, **TRANSCENDENTAL}[name]
    x, b = (t.requires_grad_() for t in inputs(torch.float64))
    out = function(x, b)
    wanted = torch.autograd.grad(out.sum(), (x, b), allow_unused=True)
    lowered = lower(Own(function), torch.float64)
    got = interpret(lowered.joint, {"x": x.detach(), "c.b": b.detach(), "grad.out": torch.ones_like(x)}, torch.float64)
    torch.testing.assert_close(got["out"].expand_as(x), out.detach(), rtol=1e-13, atol=1e-13)
    for key, want in zip(("grad.x", "grad.c.b"), wanted):
        want = torch.zeros_like(x) if want is None else want
        torch.testing.assert_close(got[key].expand_as(x), want, rtol=1e-12, atol=1e-12)
