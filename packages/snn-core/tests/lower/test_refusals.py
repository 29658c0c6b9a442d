"""A step that no kernel can be made of: the error names the operation, the line and what to do instead."""

import re
from pathlib import Path
from typing import Any, Type

import pytest
import torch
from torch import Tensor

from snn_core.errors import Unsupported
from snn_core.lower import LoweringError, lower
from snn_core.neurons import Neuron


class Leaky(Neuron):
    states = ("mem",)


class Mean(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = state[0] + x - x.mean()  # refused
        return mem, (mem,)


class MeanOverNeurons(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = state[0] + x - x.mean(1, keepdim=True)  # refused
        return mem, (mem,)


class MaskedAssignment(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = state[0] + x
        mem[mem > 1] = 0.0  # refused
        return mem, (mem,)


class Noise(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = state[0] + x + torch.randn_like(x)  # refused
        return mem, (mem,)


class BranchOnValue(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = state[0] + x
        if x[0, 0] > 0:  # refused
            mem = mem * 2
        return mem, (mem,)


class BranchOnSum(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = state[0] + x
        if (mem > 0).all():  # refused
            mem = mem * 2
        return mem, (mem,)


class BranchOnShape(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = state[0] + x
        if x.shape[1] == 5:
            mem = mem * 2  # refused
        return mem, (mem,)


class DividesByShape(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = state[0] + x / x.shape[1]  # refused
        return mem, (mem,)


class OwnTensor(Leaky):
    def __init__(self) -> None:
        super().__init__()
        self.leak = torch.nn.Parameter(torch.tensor(0.5))

    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = state[0] * self.leak + x  # refused
        return mem, (mem,)


class ListOfNumbers(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = state[0] + x + torch.tensor([0.1, 0.2, 0.3]).sum()  # refused
        return mem, (mem,)


class Weight(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = state[0] @ x.t()  # refused
        return mem, (mem,)


class WritesItsState(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        state[0].detach().mul_(0.5)  # refused
        return state[0] + x, (state[0] + x,)


class WholeNumbers(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = state[0] + x.long()  # refused
        return mem, (mem,)


class OtherPrecision(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = (state[0] + x).half().to(x.dtype)  # refused
        return mem, (mem,)


class OddFunction(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = state[0] + torch.special.bessel_j0(x)  # refused
        return mem, (mem,)


CASES = {
    Mean: ("aten.mean", "a layer before"),
    MeanOverNeurons: ("aten.mean", "a layer before"),
    MaskedAssignment: ("aten.index_put_", "torch.where"),
    Noise: ("aten.randn_like", "hand them in with x"),
    BranchOnValue: ("aten.select", "each neuron alone"),
    BranchOnSum: ("aten.all", "a layer before"),
    BranchOnShape: ("aten.mul", "depends on the shape"),
    DividesByShape: ("aten.div", "depends on the shape"),
    OwnTensor: ("aten.mul", r"coefficients\(\)"),
    ListOfNumbers: ("aten.lift_fresh", r"coefficients\(\)"),
    Weight: ("aten.t", "each neuron alone"),
    WritesItsState: ("aten.mul_", r"a = a \+ b"),
    WholeNumbers: ("aten._to_copy", "floating point"),
    OtherPrecision: ("aten._to_copy", "floating point"),
    OddFunction: ("bessel_j0", "arithmetic"),
}


def refused_line(kind: Type[Neuron]) -> int:
    """The line marked "# refused" of a class above."""
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    start = lines.index(f"class {kind.__name__}(Leaky):")
    return next(number for number in range(start, len(lines)) if lines[number].endswith("# refused")) + 1


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)
def test_the_error_names_operation_line_and_remedy(kind: Type[Neuron]) -> None:
    operation, remedy = CASES[kind]
    with pytest.raises(LoweringError) as caught:
        lower(kind())
    message = str(caught.value)
    assert message.startswith(f"{kind.__name__}.dynamics cannot be lowered")
    assert operation in message
    assert f"{__file__}:{refused_line(kind)}: `" in message
    assert re.search(remedy, message)


def test_a_refusal_is_an_unsupported_feature() -> None:
    assert issubclass(LoweringError, Unsupported)


class BranchOnScalar(Leaky):
    def coefficients(self) -> Any:
        return {"leak": torch.tensor(0.5)}

    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = state[0] * float(c["leak"].flatten()[0]) + x
        return mem, (mem,)


def test_reading_a_coefficient_into_python_is_refused() -> None:
    with pytest.raises(LoweringError, match="BranchOnScalar"):
        lower(BranchOnScalar())


class OtherShape(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        return torch.zeros(()), (state[0] + x,)


class TooManyStates(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        return x, (state[0] + x, x)


class Raises(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        raise ValueError("x has no third dimension")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (OtherShape, r"its output shape \(\)"),
        (TooManyStates, "returned 2 states; it names 1"),
        (Raises, "ValueError: x has no third dimension"),
    ],
)
def test_a_step_that_breaks_its_contract_is_refused(kind: Type[Neuron], message: str) -> None:
    with pytest.raises(LoweringError, match=message):
        lower(kind())
