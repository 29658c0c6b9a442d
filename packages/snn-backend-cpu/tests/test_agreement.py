"""Numba's kernels against torch itself, bit by bit: every operation at its edges, and random steps of all of them."""

import itertools
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from snn_backend_cpu.fused import Fused
from snn_core.lower import OPERATIONS, LoweringError, lower
from snn_core.neurons import Neuron
from snn_core.neurons.base import unroll_reference
from snn_core.surrogate import ATan, spike

Function = Callable[..., Tensor]

EDGES = [0.0, -0.0, 0.1, 0.3, 0.5, -0.5, 0.7, 1.0, -1.0, 1.5, -1.5, 2.5, -3.0, 7.0, 0.30000001192092896, 1.7999999523]
EDGES += [8388609.5, 16777216.0, -16777218.0, 3.4e38, -3.4e38, 1.2e-38, 1e-40, -1e-44, torch.inf, -torch.inf, torch.nan]

# a and b are whole tensors, k is one number and v one number for each channel
EXACT: dict[str, Function] = {
    "add": lambda a, b, k, v: a + b,
    "add, one number": lambda a, b, k, v: a + k,
    "add, per channel": lambda a, b, k, v: v + a,
    "sub": lambda a, b, k, v: a - b,
    "sub, reversed": lambda a, b, k, v: 1 - a,
    "mul": lambda a, b, k, v: a * b,
    "mul, one number": lambda a, b, k, v: k * a,
    "div": lambda a, b, k, v: a / b,
    "div, by one number": lambda a, b, k, v: a / k,
    "div, a number": lambda a, b, k, v: 3 / a,
    "div, per channel": lambda a, b, k, v: v / a,
    "div, truncated": lambda a, b, k, v: torch.div(a, k, rounding_mode="trunc"),
    "reciprocal": lambda a, b, k, v: a.reciprocal(),
    "fma": lambda a, b, k, v: torch.addcmul(a, a, b, value=0.7),
    "fma, coefficients": lambda a, b, k, v: torch.addcmul(k, v, b, value=0.7),
    "fma, scaled": lambda a, b, k, v: torch.add(a, b, alpha=0.3),
    "fma, scaled, to a coefficient": lambda a, b, k, v: torch.sub(v, b, alpha=0.3),
    "fma, scaled, reversed": lambda a, b, k, v: torch.rsub(a, k, alpha=0.3),
    "neg": lambda a, b, k, v: -a,
    "abs": lambda a, b, k, v: a.abs(),
    "floor": lambda a, b, k, v: a.floor(),
    "ceil": lambda a, b, k, v: a.ceil(),
    "trunc": lambda a, b, k, v: a.trunc(),
    "round": lambda a, b, k, v: a.round(),
    "sign": lambda a, b, k, v: a.sign(),
    "pow, whole": lambda a, b, k, v: a**2 + b**3,
    "pow, whole, reversed": lambda a, b, k, v: a**-2 + b**-1,
    "minimum": lambda a, b, k, v: torch.minimum(a, b),
    "minimum, one number": lambda a, b, k, v: torch.minimum(k, a),
    "maximum": lambda a, b, k, v: torch.maximum(a, b),
    "maximum, per channel": lambda a, b, k, v: torch.maximum(a, v),
    "clamp": lambda a, b, k, v: a.clamp(-1.5, 0.1),
    "clamp, crossed": lambda a, b, k, v: a.clamp(0.5, -0.5),
    "clamp, coefficients": lambda a, b, k, v: torch.clamp(a, min=k, max=v),
    "rectifiers": lambda a, b, k, v: torch.relu(a) + F.leaky_relu(b, 0.3),
    "eq": lambda a, b, k, v: (a == b) * a,
    "ne": lambda a, b, k, v: torch.where(a != k, a, b),
    "lt": lambda a, b, k, v: torch.where(a < b, a, k),
    "le": lambda a, b, k, v: torch.where(a <= 0.3, v, b),
    "gt": lambda a, b, k, v: torch.where(a > v, 1.0, b),
    "ge": lambda a, b, k, v: a.masked_fill(a >= b, 0.25),
    "and": lambda a, b, k, v: ((a > 0) & (b > 0)).to(a.dtype),
    "and, of numbers": lambda a, b, k, v: torch.logical_and(a, b).to(a.dtype),
    "and, multiplied": lambda a, b, k, v: ((a > 0) * (b > 0)).to(a.dtype),
    "and, smaller": lambda a, b, k, v: torch.minimum(a > 0, b > 0).to(a.dtype),
    "or": lambda a, b, k, v: ((a > 0) | (b > 0)).to(a.dtype),
    "or, added": lambda a, b, k, v: ((a > 0) + (b > k)).to(a.dtype),
    "or, added, scaled": lambda a, b, k, v: torch.add(a > 0, b > k, alpha=True).to(a.dtype),
    "or, larger": lambda a, b, k, v: torch.maximum(a > 0, b > v).to(a.dtype),
    "not": lambda a, b, k, v: (~(a > b)).to(a.dtype),
    "xor": lambda a, b, k, v: ((a > 0) ^ (b > 0)).to(a.dtype),
    "where": lambda a, b, k, v: torch.where(torch.where(a > 0, b > 0, b < 1), k, v).expand_as(a),
    "step": lambda a, b, k, v: torch.heaviside(a.detach(), b.detach()),
    "spike": lambda a, b, k, v: spike(a - k, ATan()) + 2 * spike(a, ATan(), ">"),
}

# units in the last place between a kernel and torch, each of which errs by one at most (sqrt: torch alone)
BOUNDED: dict[str, tuple[float, Function]] = {
    "sqrt": (1, lambda a: a.abs().sqrt()),
    "rsqrt": (2, lambda a: (a.abs() + 0.01).rsqrt()),
    "exp": (2, lambda a: a.clamp(-80, 80).exp()),
    "expm1": (2, lambda a: torch.expm1(a.clamp(-80, 80))),
    "exp2": (2, lambda a: torch.exp2(a.clamp(-120, 120))),
    "log": (2, lambda a: (a.abs() + 0.01).log()),
    "log1p": (2, lambda a: torch.log1p(a.abs())),
    "sin": (2, lambda a: a.clamp(-30, 30).sin()),
    "cos": (2, lambda a: a.clamp(-30, 30).cos()),
    "tanh": (2, lambda a: a.tanh()),
    "atan": (2, lambda a: a.atan()),
    "erf": (2, lambda a: torch.erf(a)),
    "pow": (2, lambda a: (a.abs().clamp(max=1e20) + 0.01) ** 1.7),
}


class Step(Neuron):
    """Each function's result is a state of its own; b is the first state."""

    def __init__(self, functions: "dict[str, Function]", k: float, v: Tensor) -> None:
        super().__init__()
        self.functions, self.k, self.v = functions, k, v
        self.states = ("b", *(f"r{i}" for i in range(len(functions))))

    def coefficients(self) -> Any:
        return {"k": torch.tensor(self.k), "v": self.v}

    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        return x, (state[0], *(function(x, state[0], c["k"], c["v"]) for function in self.functions.values()))


@pytest.fixture(autouse=True)
def _denormals_are_zero() -> Iterator[None]:
    """As they are inside kernels."""
    torch.set_flush_denormal(True)
    yield
    torch.set_flush_denormal(False)


def results(neuron: Neuron, x: Tensor, state: "tuple[Tensor, ...]") -> "tuple[list[Tensor], list[Tensor]]":
    """Output and recorded states by torch and by a kernel, numbers too small for float32 as zero."""
    fused = Fused(neuron, x.dtype)
    found = []
    with torch.no_grad():
        for runner in (unroll_reference, fused):
            out, _, traces = runner(neuron, x, state, None, neuron.states)
            found.append([out, *traces.values()])
    smallest = torch.finfo(x.dtype).tiny
    want, got = ([torch.where(t.abs() < smallest, torch.zeros_like(t), t) for t in each] for each in found)
    return want, got


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("k", [0.1, -0.5])
def test_each_exact_operation_gives_torchs_bits_at_its_edges(k: float, dtype: torch.dtype) -> None:
    pairs = torch.tensor(list(itertools.product(EDGES, EDGES)), dtype=dtype)
    a, b = (side.reshape(1, len(EDGES), len(EDGES)) for side in pairs.unbind(1))
    v = torch.tensor([(-1) ** i * (i + 1) / 10 for i in range(len(EDGES))], dtype=dtype)
    neuron = Step(EXACT, k, v)
    blank = torch.zeros_like(b[0])
    want, got = results(neuron, a, (b[0], *(blank for _ in EXACT)))
    assert lower(neuron, dtype).exact
    for name, one, other in zip(EXACT, want[2:], got[2:], strict=True):
        differ = (one != other) & ~(one.isnan() & other.isnan())
        if name == "spike":  # its u - u is 0 in a kernel
            differ &= a.isfinite()
        assert not differ.any(), (name, a[differ][:3], b[differ[0:1]][:3], one[differ][:3], other[differ][:3])


@pytest.mark.parametrize("width", [1, 7, 16, 33])
def test_exact_operations_give_torchs_bits_in_maps_of_any_width(width: int) -> None:
    generator = torch.Generator().manual_seed(width)
    x, b = (2 * torch.randn(2, 3, 5, width, generator=generator) for _ in range(2))
    neuron = Step(EXACT, 0.3, torch.rand(5, generator=generator) + 0.1)
    want, got = results(neuron, x, (b[0], *(torch.zeros_like(b[0]) for _ in EXACT)))
    for name, one, other in zip(EXACT, want[2:], got[2:], strict=True):
        assert torch.equal(one, other), name


def test_each_function_of_a_library_stays_within_its_bound() -> None:
    x = torch.cat((torch.linspace(-12, 12, 60_000), torch.logspace(-30, 30, 60_000))).reshape(1, 300, 400)
    functions = {name: (lambda a, b, k, v, function=function: function(a)) for name, (_, function) in BOUNDED.items()}
    neuron = Step(functions, 1.0, torch.tensor(1.0))
    want, got = results(neuron, x, tuple(torch.zeros_like(x[0]) for _ in neuron.states))
    assert not lower(neuron).exact
    for (name, (bound, _)), one, other in zip(BOUNDED.items(), want[2:], got[2:], strict=True):
        unit = 2.0 ** (torch.frexp(one.double()).exponent.double() - 24)
        error = ((one.double() - other.double()).abs() / unit).max()
        assert error <= bound, (name, float(error))


def test_no_operation_goes_without_a_comparison() -> None:
    named = {word for name in EXACT for word in name.split(", ")} | set(BOUNDED)
    assert set(OPERATIONS) <= named


NUMBERS = (0.5, -1.0, 1.0, 0.0, 2, 3, -0.25, 0.1, 1.7)
NUMERIC: "list[Callable[[Any, Any], Tensor]]" = [
    # r draws: r.f() a value, r.m() a mask, r.n() a number
    lambda r, x: r.f() + r.f(),
    lambda r, x: r.f() - r.f(),
    lambda r, x: r.f() * r.f(),
    lambda r, x: r.f() * r.n(),
    lambda r, x: r.n() - r.f(),
    lambda r, x: r.f() / (r.f().abs() + 1),
    lambda r, x: r.f() / r.choice((3, 0.7, -2.0)),
    lambda r, x: r.n() / (r.f().square() + 0.5),
    lambda r, x: torch.div(r.f(), r.f().abs() + 0.1, rounding_mode="trunc"),
    lambda r, x: -r.f(),
    lambda r, x: r.f().abs(),
    lambda r, x: r.f().floor() + r.f().ceil(),
    lambda r, x: r.f().trunc() - r.f().round(),
    lambda r, x: r.f().sign(),
    lambda r, x: r.f().clamp(-1, 1) ** r.choice((0, 1, 2, 3)),
    lambda r, x: (r.f().abs() + 0.5) ** r.choice((-1, -2)),
    lambda r, x: torch.minimum(r.f(), r.f()),
    lambda r, x: torch.maximum(r.f(), r.f()),
    lambda r, x: r.f().clamp(-1.5, r.choice((1.5, None))),
    lambda r, x: torch.clamp(r.f(), min=r.f(), max=r.f()),
    lambda r, x: torch.relu(r.f()),
    lambda r, x: F.leaky_relu(r.f(), 0.3),
    lambda r, x: F.hardtanh(r.f()),
    lambda r, x: torch.add(r.f(), r.f(), alpha=r.choice((0.3, 1, -1, 2, 0))),
    lambda r, x: torch.sub(r.f(), r.f(), alpha=r.choice((0.3, 1, -1, 2))),
    lambda r, x: torch.rsub(r.f(), r.f(), alpha=r.choice((0.3, 1))),
    lambda r, x: torch.addcmul(r.f(), r.f(), r.f(), value=r.choice((1, 0.3, -1))),
    lambda r, x: torch.where(r.m(), r.f(), r.f()),
    lambda r, x: torch.where(r.m(), 0.3, r.f()),
    lambda r, x: r.f().masked_fill(r.m(), 0.3),
    lambda r, x: r.f() * r.m(),
    lambda r, x: r.m().long() - r.f(),
    lambda r, x: r.m().to(x.dtype) * r.n(),
    lambda r, x: r.f() * r.m().long(),
    lambda r, x: r.m() * 0.7 + r.f(),
    lambda r, x: r.m() / 3 + r.f(),
    lambda r, x: spike(r.f() - r.n(), ATan(), r.choice((">=", ">"))),
    lambda r, x: torch.heaviside(r.f().detach(), r.f().detach()) + 0 * x,
    lambda r, x: torch.full_like(r.f(), 0.3) + r.f(),
    lambda r, x: torch.zeros(x.shape) - r.f(),
    lambda r, x: r.f() * torch.tensor(0.7),
    lambda r, x: r.f().expand(x.shape).clone().add_(r.f()).mul_(0.5),
    lambda r, x: r.f().expand(x.shape).clone().masked_fill_(r.m(), 0.1).clamp_(max=1.0),
    lambda r, x: r.f().expand(x.shape).detach().clone().gt_(r.n()),
]
LOGICAL: "list[Callable[[Any, Any], Tensor]]" = [
    lambda r, x: r.f() > r.f(),
    lambda r, x: r.f() <= r.n(),
    lambda r, x: r.f().round() == r.f().round(),
    lambda r, x: r.f() != r.n(),
    lambda r, x: r.m() == r.m(),
    lambda r, x: r.m() < r.f(),
    lambda r, x: r.m() & r.m(),
    lambda r, x: r.m() | r.m(),
    lambda r, x: r.m() ^ r.m(),
    lambda r, x: ~r.m(),
    lambda r, x: r.m() + r.m(),
    lambda r, x: torch.add(r.m(), r.m(), alpha=r.choice((True, False))),
    lambda r, x: r.m() * r.m(),
    lambda r, x: torch.maximum(r.m(), r.m()),
    lambda r, x: torch.minimum(r.m(), r.m()),
    lambda r, x: torch.where(r.m(), r.m(), r.m()),
    lambda r, x: r.m().masked_fill(r.m(), True),
    lambda r, x: torch.logical_xor(r.f(), r.m()),
    lambda r, x: torch.logical_or(r.f(), r.f()),
    lambda r, x: torch.full_like(r.m(), True),
    lambda r, x: r.m().expand(x.shape).clone().add_(r.m()),
    lambda r, x: r.m().expand(x.shape).clone().logical_and_(r.f()).bitwise_xor_(r.m()),
]


class Draw(random.Random):
    """Draws a step's operations and their operands, among which the newest are the likeliest."""

    def begin(self, seed: int, values: "list[Tensor]") -> None:
        self.seed(seed)
        self.values, self.masks = values, [values[0] > 0.1]

    def f(self) -> Tensor:
        return self.choice(self.values[-5:] if self.random() < 0.5 else self.values)

    def m(self) -> Tensor:
        return self.choice(self.masks)

    def n(self) -> float:
        return self.choice(NUMBERS)


class Random(Neuron):
    """A step drawn by its seed. The states keep what comes out last."""

    states = ("s0", "s1", "s2", "s3")

    def __init__(self, seed: int, channels: int) -> None:
        super().__init__()
        self.number = seed
        numbers = torch.rand(4, channels, generator=torch.Generator().manual_seed(seed)) * 0.8 + 0.1
        self.c = {"k0": numbers[0, 0], "k1": numbers[1, 0], "v0": numbers[2], "v1": numbers[3]}

    def coefficients(self) -> Any:
        return self.c

    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        draw = Draw()
        draw.begin(self.number, [x, *state, *c.values()])
        for _ in range(draw.randint(5, 25)):
            if draw.random() < 0.3:
                draw.masks.append(draw.choice(LOGICAL)(draw, x))
            else:
                draw.values.append(draw.choice(NUMERIC)(draw, x))
        last = [torch.where(x < 1e9, value, value).clamp(-50, 50) for value in draw.values[-4:]]
        return last[0] + draw.m() * x, tuple(last)


def require_agreement(seed: int) -> bool:
    """Whether the seed's step claims to be exact; then it must be."""
    shape = random.Random(seed).choice([(3, 4, 7), (2, 1, 33), (3, 2, 5, 3, 3), (2, 5, 1), (5, 3, 16)])
    neuron = Random(seed, shape[2])
    generator = torch.Generator().manual_seed(seed)
    x = (
        (4 * torch.randn(shape, generator=generator)).round() / 2
        if seed % 2
        else torch.randn(shape, generator=generator)
    )
    if not lower(neuron).exact:
        return False
    want, got = results(neuron, x, tuple(torch.full(shape[1:], 0.3) for _ in neuron.states))
    for name, one, other in zip(("out", *neuron.states), want, got, strict=True):
        assert torch.equal(one, other), (seed, name, one[one != other][:3], other[one != other][:3])
    return True


@pytest.mark.parametrize("seed", range(10))
def test_random_steps_that_say_exact_give_eagers_bits(seed: int) -> None:
    require_agreement(seed)


def test_other_coefficients_than_were_lowered_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    neuron = Random(0, 4)
    fused = Fused(neuron, torch.float32)
    more = {**neuron.c, "extra": torch.tensor(1.0)}
    monkeypatch.setattr(Random, "coefficients", lambda self: more)
    with pytest.raises(LoweringError, match=r"Random\.coefficients\(\) gives \['extra', 'k0'.*the same names"):
        fused(neuron, torch.ones(2, 3, 4), None, None, ())
