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
        if x.shape[1] == 20:  # refused
            mem = mem * 2
        return mem, (mem,)


class BranchOnRank(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = state[0] + x
        if len(x.shape) == 4:
            mem = mem * 2  # refused
        return mem, (mem,)


class ScalesByShape(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = torch.add(state[0], x, alpha=x.shape[1])  # refused
        return mem, (mem,)


class CountsInATensor(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = state[0] + x * torch.tensor(x.shape[1])  # refused
        return mem, (mem,)


class AsksForGradients(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = state[0] + x
        if torch.is_grad_enabled():
            mem = mem * 2  # refused
        return mem, (mem,)


class AsksWhatNeedsGradients(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = state[0] + (x * 2 if x.requires_grad else x)  # refused
        return mem, (mem,)


class RoundedQuotient(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = torch.div(state[0] + x, 0.1, rounding_mode="floor")  # refused
        return mem, (mem,)


class WholeQuotient(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = (state[0] + x) // 0.1  # refused
        return mem, (mem,)


class Remainder(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = (state[0] + x) % 1.0  # refused
        return mem, (mem,)


class CFmod(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = torch.fmod(state[0] + x, 1.0)  # refused
        return mem, (mem,)


class WholeNumber(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = state[0] + x * torch.tensor(1.7).int()  # refused
        return mem, (mem,)


class WiderNumber(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = state[0] + x * torch.tensor(0.1, dtype=torch.float64)  # refused
        return mem, (mem,)


class WiderArithmetic(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = state[0] + x * (torch.tensor(0.5, dtype=torch.float64) / 3)  # refused
        return mem, (mem,)


class CountedConditions(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = state[0] + x * ((x > 0).long() + (x > 1).long())  # refused
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
    BranchOnShape: ("a size", "depends on the shape"),
    BranchOnRank: ("aten.mul", "depends on the shape"),
    ScalesByShape: ("aten.add", "depends on the shape"),
    CountsInATensor: ("aten.lift_fresh", "depends on the shape"),
    AsksForGradients: ("aten.mul", "is_grad_enabled"),
    AsksWhatNeedsGradients: ("aten.", "requires_grad"),
    RoundedQuotient: ("aten.div", r"torch.floor\(a / b\)"),
    WholeQuotient: ("aten.floor_divide", r"torch.floor\(a / b\)"),
    Remainder: ("aten.remainder", r"torch.floor\(a / b\)"),
    CFmod: ("aten.fmod", r"torch.floor\(a / b\)"),
    WholeNumber: ("aten._to_copy", "floating point"),
    WiderNumber: ("aten.lift_fresh", "dtype=x.dtype"),
    WiderArithmetic: ("aten.div", "floating point"),
    CountedConditions: ("aten.add", "floating point"),
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


LOOKS = {
    "shape": lambda x, mem, c: x.shape[1] > 16,
    "batch": lambda x, mem, c: x.shape[0] == 5,
    "whole shape": lambda x, mem, c: tuple(x.shape) == (5, 20),
    "a part of the shape": lambda x, mem, c: x.shape[1:] == (20,),
    "size": lambda x, mem, c: mem.size(1) == 20,
    "sizes": lambda x, mem, c: mem.size()[-1] < 20,
    "ndim": lambda x, mem, c: x.ndim == 2,
    "dim": lambda x, mem, c: x.dim() > 7,
    "numel": lambda x, mem, c: x.numel() == 100,
    "numel of the shape": lambda x, mem, c: x.shape.numel() == 100,
    "torch.numel": lambda x, mem, c: torch.numel(mem) >= 100,
    "len": lambda x, mem, c: len(x) == 5,
    "truth": lambda x, mem, c: bool(x.shape[1]),
    "int": lambda x, mem, c: int(x.shape[1]) == 20,
    "arithmetic": lambda x, mem, c: 2 * x.shape[1] == 40,
    "a table": lambda x, mem, c: {20: True}.get(x.shape[1], False),
}


class Looks(Leaky):
    def __init__(self, look: Any) -> None:
        super().__init__()
        self.look = look

    def coefficients(self) -> Any:
        return {"leak": torch.tensor(0.5)}

    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = state[0] * c["leak"] + x
        return (mem * 2 if self.look(x, mem, c) else mem), (mem,)


@pytest.mark.parametrize("look", LOOKS)
def test_no_decision_by_a_size_or_rank_is_frozen(look: str) -> None:
    with pytest.raises(LoweringError, match="depends on the shape of x") as caught:
        lower(Looks(LOOKS[look]))
    assert caught.value.place is not None
    assert caught.value.place.file == __file__


SHAPED = {
    "zeros": lambda x, mem, c: mem + torch.zeros(x.shape),
    "new_full": lambda x, mem, c: mem + x.new_full(x.size(), 0.5),
    "sizes one by one": lambda x, mem, c: mem + torch.ones((x.shape[0], *x.shape[1:])),
    "expand": lambda x, mem, c: mem + c["leak"].expand(x.shape),
    "view": lambda x, mem, c: mem.view(x.shape),
    "equal shapes": lambda x, mem, c: mem if x.shape == mem.shape and x.ndim == mem.dim() else x,
}


@pytest.mark.parametrize("use", SHAPED)
def test_a_size_may_be_handed_to_torch_and_compared_with_itself(use: str) -> None:
    class Shaped(Looks):
        def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
            return self.look(x, state[0] + x, c), (state[0] + x,)

    assert lower(Shaped(SHAPED[use])).exact


class Assertion(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        assert x is None
        return x, state


class NotWritten(Leaky):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(("kind", "error"), [(Assertion, "AssertionError"), (NotWritten, "NotImplementedError")])
def test_an_error_without_text_is_named_by_its_kind(kind: Type[Neuron], error: str) -> None:
    with pytest.raises(LoweringError, match=f"cannot be traced.*: {error}"):
        lower(kind())


@pytest.mark.parametrize("value", [torch.tensor([True, False]), torch.tensor(3)], ids=["condition", "whole number"])
def test_a_coefficient_that_is_no_floating_point_is_refused_by_name(value: Tensor) -> None:
    class Chosen(Leaky):
        def coefficients(self) -> Any:
            return {"k": value}

        def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
            mem = state[0] + torch.where(c["k"] > 0, x, -x)
            return mem, (mem,)

    with pytest.raises(LoweringError, match=r"coefficients\(\) gives 'k' as torch.*\.float\(\).*c\['k'\] > 0"):
        lower(Chosen())


def wider(x: Tensor) -> Tensor:
    return x * 2 if x.size(1) == 20 else x + 1


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_a_function_in_torchscript_is_refused_since_its_branches_are_not_seen() -> None:
    class Scripted(Leaky):
        def __init__(self) -> None:
            super().__init__()
            self.wider = torch.jit.script(wider)

        def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
            mem = state[0] + self.wider(x)
            return mem, (mem,)

    with pytest.raises(LoweringError, match=r"aten\.add.*TorchScript.*plain torch"):
        lower(Scripted())
