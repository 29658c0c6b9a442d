"""Every scalar operation, printed, compiled and compared with its meaning in torch."""

from typing import Any

import pytest
import torch
from torch import Tensor

from snn_backend_cpu.fused import Fused
from snn_core.lower import OPERATIONS, TRANSCENDENTAL
from snn_core.neurons import Neuron

STEPS: dict[str, Any] = {
    "add, sub, mul, div, neg": lambda a, b: (a + b) * a - (-b) / a,
    "fma": lambda a, b: torch.addcmul(a, a, b, value=0.7) + torch.add(a, b, alpha=0.3),
    "abs, sqrt": lambda a, b: a.abs().sqrt() + b,
    "floor, ceil, trunc, round, sign": lambda a, b: a.floor() + a.ceil() * b + a.trunc() + (3 * a).round() + a.sign(),
    "minimum, maximum": lambda a, b: torch.minimum(a, b) + torch.maximum(a, -b) + a.clamp(-0.3, 0.4),
    "where, eq, ne, lt, le, gt, ge": lambda a, b: torch.where((a < b) | (a >= 2), a, b) + ((a > 0) & (a <= 1)) * b,
    "and, or, not": lambda a, b: (~(a == b) & (a != 0.5)) * a + torch.logical_xor(a > 0, b > a) * b,
    "exp, expm1, log, log1p": lambda a, b: a.exp() + torch.expm1(a) + b.log() + torch.log1p(b),
    "sin, cos, atan": lambda a, b: a.sin() + a.cos() + a.atan(),
    "tanh, erf": lambda a, b: a.tanh() + torch.erf(a),
    "pow, rsqrt": lambda a, b: b**1.7 + b.rsqrt() + 2.0**a,
}


class Own(Neuron):
    states = ("before",)

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def coefficients(self) -> Any:
        return {"b": torch.tensor([0.2, 0.5, 0.7, 1.1])}

    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        out = self.function(x, c["b"])
        return out + 0.5 * state[0], (x,)


@pytest.mark.parametrize("name", STEPS)
def test_a_printed_operation_means_what_torch_means(name: str) -> None:
    reference, fused = Own(STEPS[name]), Own(STEPS[name])
    fused.runner = Fused(fused, torch.float32)
    x = torch.randn(9, 5, 4, generator=torch.Generator().manual_seed(2)).requires_grad_()
    want, got = reference(x), fused(x)
    inexact = set(name.split(", ")) & TRANSCENDENTAL
    assert torch.equal(got, want) or (inexact and torch.allclose(got, want, rtol=1e-6, atol=1e-6))
    slopes = [torch.autograd.grad(out.sum(), x)[0] for out in (got, want)]
    # rounding of a few operations; the gradient's order of operations is not promised
    torch.testing.assert_close(*slopes, rtol=1e-5, atol=1e-5)


def test_no_operation_goes_without_a_kernel() -> None:
    assert {word for name in STEPS for word in name.split(", ")} == set(OPERATIONS)


def test_a_nan_stays_a_nan() -> None:
    fused = Own(STEPS["minimum, maximum"])
    fused.runner = Fused(fused, torch.float32)
    x = torch.full((2, 3, 4), torch.nan)
    assert bool(fused(x)[0].isnan().all())
