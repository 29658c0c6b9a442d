"""Surrogate gradients: the spike going forward, the declared derivative going back."""

import copy
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Callable, Dict, List

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from snn_core.errors import ConfigError
from snn_core.surrogate import (
    ATan,
    Custom,
    Erf,
    FastSigmoid,
    Gaussian,
    MultiGaussian,
    PiecewiseExponential,
    PiecewiseQuadratic,
    Rectangular,
    Sigmoid,
    SingleExponential,
    SoftSign,
    SpikeRateEscape,
    StraightThrough,
    SuperSpike,
    Surrogate,
    Triangular,
    attach,
    spike,
    spikes_by,
)

# torch before 2.1 has few operations on float16 on a CPU: not relu, and none of a layer's products
HALVES = [torch.bfloat16, *([torch.float16] if torch.__version__ >= "2.1" else [])]
GRID = torch.linspace(-3, 3, 241, dtype=torch.float64)


def cosine(u: Tensor) -> Tensor:
    return torch.cos(u).clamp(min=0)


@dataclass(frozen=True)
class Own(Surrogate):
    """A user's own by subclass."""

    height: float = 0.5

    def derivative(self, u: Tensor) -> Tensor:
        return self.height * torch.exp(-u.square())


def normal(u: float, mean: float, width: float) -> float:
    return math.exp(-0.5 * ((u - mean) / width) ** 2) / (width * math.sqrt(2 * math.pi))


# each formula as its paper writes it, in plain Python, with settings that are not the defaults
FORMULAS: Dict[Surrogate, Callable[[float], float]] = {
    ATan(3.0): lambda u: 1.5 / (1 + (math.pi / 2 * 3.0 * u) ** 2),
    StraightThrough(): lambda u: 1.0,
    FastSigmoid(10.0): lambda u: 1 / (1 + 10.0 * abs(u)) ** 2,
    Sigmoid(5.0): lambda u: 5.0 * math.exp(-5.0 * u) / (1 + math.exp(-5.0 * u)) ** 2,
    Triangular(0.3, 0.7): lambda u: 0.3 * max(0.0, 1 - abs(u) / 0.7),
    PiecewiseQuadratic(2.0): lambda u: max(0.0, 2.0 - 4.0 * abs(u)),
    PiecewiseExponential(1.5): lambda u: 0.75 * math.exp(-1.5 * abs(u)),
    Erf(1.7): lambda u: 1.7 / math.sqrt(math.pi) * math.exp(-((1.7 * u) ** 2)),
    Rectangular(1.3): lambda u: 1.3 if abs(u) < 0.5 / 1.3 else 0.0,
    SuperSpike(0.8): lambda u: 0.8 / (1 + abs(u)) ** 2,
    SoftSign(2.5): lambda u: 1 / (2 * 2.5 * (1 / 2.5 + abs(u)) ** 2),
    SingleExponential(0.4, 1.2): lambda u: 1.2 / 0.4 * math.exp(-abs(u) / 0.4),
    Gaussian(0.6, 0.9): lambda u: 0.9 * normal(u, 0.0, 0.6),
    MultiGaussian(0.5, 0.2, 4.0, 0.7): lambda u: (
        0.7 * (1.2 * normal(u, 0, 0.5) - 0.2 * normal(u, 0.5, 2.0) - 0.2 * normal(u, -0.5, 2.0))
    ),
    SpikeRateEscape(1.1, 20.0, 0.9): lambda u: 20.0 * math.exp(-1.1 * abs(u - 0.9)),
    Custom(cosine): lambda u: max(0.0, math.cos(u)),
    Own(0.4): lambda u: 0.4 * math.exp(-(u**2)),
}
ALL = list(FORMULAS)
UNIT_AREA = [
    ATan(3.0),
    Sigmoid(5.0),
    PiecewiseQuadratic(2.0),
    PiecewiseExponential(1.5),
    Erf(1.7),
    Rectangular(1.3),
    SoftSign(2.5),
    Gaussian(0.6),
]


def name(surrogate: Surrogate) -> str:
    return type(surrogate).__name__


def test_every_surrogate_of_the_module_is_tested() -> None:
    import snn_core.surrogate as module

    public = {getattr(module, n) for n in module.__all__}
    kinds = {k for k in public if isinstance(k, type) and issubclass(k, Surrogate)} - {Surrogate}
    assert kinds <= {type(surrogate) for surrogate in ALL}


@pytest.mark.parametrize("surrogate", ALL, ids=name)
def test_the_derivative_is_the_published_formula(surrogate: Surrogate) -> None:
    wanted = torch.tensor([FORMULAS[surrogate](u) for u in GRID.tolist()], dtype=torch.float64)
    torch.testing.assert_close(surrogate.derivative(GRID), wanted, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("surrogate", UNIT_AREA, ids=name)
def test_a_derivative_of_a_sigmoid_has_area_1(surrogate: Surrogate) -> None:
    u = torch.linspace(-200, 200, 400_001, dtype=torch.float64)
    area = torch.trapezoid(surrogate.derivative(u), u).item()
    # the tails of the two rational ones reach beyond the grid: 2/(pi^2 k 200) and 1/(k 200) at most
    assert area == pytest.approx(1.0, abs=3e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, *HALVES])
@pytest.mark.parametrize("surrogate", ALL, ids=name)
def test_the_gradient_that_comes_out_is_the_declared_derivative(surrogate: Surrogate, dtype: torch.dtype) -> None:
    u = GRID.clone().to(dtype).requires_grad_()
    spike(u, surrogate).sum().backward()
    assert u.grad is not None
    wanted = surrogate.derivative(u.detach())
    # it is the same number: one multiplication by 1
    assert torch.equal(u.grad, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, *HALVES])
@pytest.mark.parametrize("fire_op", [">=", ">"])
@pytest.mark.parametrize("surrogate", ALL, ids=name)
def test_a_spike_is_exactly_0_or_1(surrogate: Surrogate, fire_op: str, dtype: torch.dtype) -> None:
    u = torch.cat((GRID, GRID * 1e4, torch.tensor([-0.0, 0.0], dtype=torch.float64))).to(dtype).requires_grad_()
    fired = spike(u, surrogate, fire_op)
    wanted = [float(v >= 0 if fire_op == ">=" else v > 0) for v in u.tolist()]
    assert fired.tolist() == wanted
    assert fired.dtype == dtype


def test_a_tie_fires_with_ge_and_not_with_gt() -> None:
    zero = torch.zeros(1)
    assert spike(zero, ATan(), ">=").item() == 1.0
    assert spike(zero, ATan(), ">").item() == 0.0


@settings(deadline=None, max_examples=50)
@given(values=st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=20), level=st.floats(-100, 100, width=32))
def test_attach_changes_no_bit_of_the_value(values: List[float], level: float) -> None:
    u = torch.tensor(values).requires_grad_()
    value = torch.full_like(u, level)
    assert torch.equal(attach(value, u, ATan()), value)


@pytest.mark.parametrize("surrogate", ALL, ids=name)
def test_it_pickles_copies_and_compares_by_value(surrogate: Surrogate) -> None:
    for twin in (pickle.loads(pickle.dumps(surrogate)), copy.deepcopy(surrogate)):
        assert twin == surrogate
        assert hash(twin) == hash(surrogate)
        assert torch.equal(twin.derivative(GRID), surrogate.derivative(GRID))


@pytest.mark.parametrize("bad", [0.0, -1.0, math.inf, math.nan])
def test_a_slope_out_of_range_is_refused(bad: float) -> None:
    with pytest.raises(ConfigError, match=r"ATan.slope is .*; it must be a finite number above 0"):
        ATan(bad)


def test_custom_without_a_function_is_refused() -> None:
    with pytest.raises(ConfigError, match="give a function"):
        Custom()
    with pytest.raises(ConfigError, match=r"Custom\.function is 3"):
        Custom(3)  # type: ignore[arg-type]


def test_the_second_use_of_a_surrogate_gives_the_same_gradient() -> None:
    surrogate, grads = FastSigmoid(), []
    for _ in range(2):
        u = GRID.clone().requires_grad_()
        spike(u, surrogate).sum().backward()
        grads.append(u.grad)
    assert torch.equal(grads[0], grads[1])


def test_another_thread_keeps_the_references_spikes() -> None:
    def nothing(u: Tensor, surrogate: Surrogate, fire_op: str) -> Tensor:
        return torch.full_like(u, -1.0)

    u = torch.tensor([-1.0, 1.0])
    with spikes_by(nothing), ThreadPoolExecutor(1) as other:
        assert torch.equal(spike(u, ATan()), torch.tensor([-1.0, -1.0]))
        assert torch.equal(other.submit(spike, u, ATan()).result(), torch.tensor([0.0, 1.0]))
