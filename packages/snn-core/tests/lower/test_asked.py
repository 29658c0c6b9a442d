"""What a step asks of tensors in Python: nothing that it learns there may freeze in the kernel."""

import math
from typing import Any, Callable, Dict, Tuple

import numpy as np
import pytest
import torch
from torch import Tensor

from snn_core.lower import LoweringError, interpret, lower
from snn_core.neurons import Neuron

Ask = Callable[[Tensor, Tensor, Tensor], Any]


class Asks(Neuron):
    """A step that calls `ask(x, mem, b)`, b being a coefficient, and takes another branch where that is true."""

    states = ("mem",)

    def __init__(self, ask: Ask, start: Any = None) -> None:
        super().__init__()
        self.ask, self.start = ask, start

    def coefficients(self) -> Dict[str, Tensor]:
        return {"b": torch.tensor(0.5)}

    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = state[0] * c["b"] + x
        told = self.ask(x, mem, c["b"])
        mem = told if isinstance(told, Tensor) else mem * 2 if told else mem
        return mem, (mem,)


def refusal(ask: Ask) -> str:
    """The text of the error, whose line is one of this file."""
    with pytest.raises(LoweringError) as caught:
        lower(Asks(ask))
    assert caught.value.place is not None
    assert caught.value.place.file == __file__
    return str(caught.value)


def broadcast(x: Tensor, mem: Tensor, b: Tensor) -> bool:
    return torch.broadcast_tensors(b, b * 2)[0].shape == x.shape


OF_A_COEFFICIENT: Dict[str, Ask] = {
    "no shape": lambda x, mem, b: b.shape == (),
    "truth": lambda x, mem, b: not b.shape,
    "length": lambda x, mem, b: len(b.shape) == 0,
    "not that of x": lambda x, mem, b: b.shape != x.shape,
    "that of x": lambda x, mem, b: x.shape == b.shape,
    "rank": lambda x, mem, b: b.ndim == 0,
    "numel": lambda x, mem, b: b.numel() == 1,
    "numel by name": lambda x, mem, b: torch.numel(input=b) == 1,
    "same size": lambda x, mem, b: b.is_same_size(x),
    "stride": lambda x, mem, b: b.stride() == (),
    "a Size of it": lambda x, mem, b: torch.Size(b.shape) == x.shape,
    "zeros of it": lambda x, mem, b: mem + torch.zeros(b.shape),
    "of what is made of it": lambda x, mem, b: (1 - b * 2).detach().shape == x.shape,
    "of zeros like it": lambda x, mem, b: torch.zeros_like(b).shape == x.shape,
    "of two together": broadcast,
}


@pytest.mark.parametrize("ask", OF_A_COEFFICIENT)
def test_no_question_of_a_coefficients_shape_is_answered_with_that_of_the_trace(ask: str) -> None:
    assert "depends on the shape of a coefficient" in refusal(OF_A_COEFFICIENT[ask])


def test_a_coefficient_that_met_x_has_its_shape() -> None:
    lower(Asks(lambda x, mem, b: (b + x).shape == x.shape and b.expand(x.shape).shape == mem.shape))


OF_X: Dict[str, Ask] = {
    "another length": lambda x, mem, b: x.shape == (),
    "another length of a part": lambda x, mem, b: x.shape[2:] != (),
    "truth": lambda x, mem, b: bool(x.shape),
    "hash": lambda x, mem, b: {x.shape: True}.get((3, 5), False),
    "element": lambda x, mem, b: 20 in x.shape,
    "stride": lambda x, mem, b: x.stride() == (20, 1),
    "numpy's array": lambda x, mem, b: np.array(x.shape)[0] == 20,
}


@pytest.mark.parametrize("ask", OF_X)
def test_no_question_of_xs_shape_is_frozen(ask: str) -> None:
    assert "depends on the shape of x" in refusal(OF_X[ask])


HANDED_ON: Dict[str, Ask] = {
    "unpacked": lambda x, mem, b: mem + torch.zeros([*x.shape]),
    "a Size": lambda x, mem, b: mem + torch.zeros(torch.Size(x.shape)),
    "in two parts": lambda x, mem, b: mem + torch.zeros(x.shape[:1] + x.shape[1:]),
    "equal parts": lambda x, mem, b: x.shape[1:] == mem.shape[1:],
    "printed": lambda x, mem, b: f"{x.shape} {x.ndim}" == "",
}


@pytest.mark.parametrize("use", HANDED_ON)
def test_a_shape_may_be_taken_apart_and_handed_on(use: str) -> None:
    assert lower(Asks(HANDED_ON[use])).exact


READS: Dict[str, Ask] = {
    "numpy": lambda x, mem, b: x.detach().numpy().min() < 0,
    "asarray": lambda x, mem, b: np.asarray(mem.detach()).min() < 0,
    "a function of numpy": lambda x, mem, b: np.abs(mem.detach()) is None,
    "tolist": lambda x, mem, b: x.detach().tolist()[0][0] < 0,
    "dlpack": lambda x, mem, b: np.from_dlpack(x.detach())[0, 0] < 0,
    "pointer": lambda x, mem, b: mem.data_ptr() == 0,
    "storage": lambda x, mem, b: mem.untyped_storage()[0] == 0,
    "a function of Python": lambda x, mem, b: mem.detach().apply_(lambda value: 2 * value),
}


@pytest.mark.parametrize("read", READS)
@pytest.mark.filterwarnings("ignore")
def test_no_value_is_read_into_python(read: str) -> None:
    assert "reads a tensor's value into Python" in refusal(READS[read])


def test_a_value_that_is_read_behind_an_except_is_refused_too() -> None:
    def ask(x: Tensor, mem: Tensor, b: Tensor) -> bool:
        try:
            return bool(x.detach().numpy().min() < 0)
        except Exception:
            return False

    assert "reads a tensor's value" in refusal(ask)


def test_data_is_refused_since_writes_to_it_are_not_seen() -> None:
    def ask(x: Tensor, mem: Tensor, b: Tensor) -> None:
        mem.data = x * 2

    assert ".detach()" in refusal(ask)
    assert ".detach()" in refusal(lambda x, mem, b: mem + mem.data)


PARTS: Dict[str, Tuple[Ask, str]] = {
    "read": (lambda x, mem, b: mem[:, :100], "moves values between neurons"),
    "written": (lambda x, mem, b: mem.__setitem__((..., slice(100)), 0.0), "into a part of a tensor"),
}


@pytest.mark.parametrize("use", PARTS)
def test_a_slice_that_reaches_beyond_the_traced_sizes_is_no_whole(use: str) -> None:
    ask, why = PARTS[use]
    assert why in refusal(ask)


class Asked(torch.autograd.Function):
    """A user's function whose backward branches on a size."""

    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        return (u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return grad * 2 if grad.shape[1] == 20 else grad


def test_a_size_in_the_backward_of_a_users_function_is_refused() -> None:
    text = refusal(lambda x, mem, b: Asked.apply(mem))
    assert "grad.shape[1] == 20" in text


class Summed(torch.autograd.Function):
    """A user's product whose backward sums to the shape of each factor."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(u, v)
        return u * v

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        u, v = ctx.saved_tensors
        return (grad * v).sum_to_size(u.shape), (grad * u).sum_to_size(v.shape)


def test_a_users_backward_may_sum_to_a_coefficients_shape() -> None:
    lowered = lower(Asks(lambda x, mem, b: Summed.apply(x, b)), torch.float64)
    drawn = {name: torch.rand(2, 3, dtype=torch.float64) for name in ("x", "state.mem", "c.b", "grad.out")}
    given = {**drawn, "grad.state.mem": torch.zeros(2, 3, dtype=torch.float64)}
    got = interpret(lowered.joint, given, torch.float64)
    assert torch.equal(got["grad.c.b"], drawn["grad.out"] * drawn["x"])


class Passed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        return u

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        return grad * 0.5


def test_a_function_that_returns_its_argument_is_no_torchscript() -> None:
    lowered = lower(Asks(lambda x, mem, b: Passed.apply(mem)), torch.float64)
    one = torch.ones(2, 3, dtype=torch.float64)
    names = ("x", "state.mem", "c.b", "grad.out")
    given = {**{name: one for name in names}, "grad.state.mem": torch.zeros_like(one)}
    assert torch.equal(interpret(lowered.joint, given, torch.float64)["grad.x"], 0.5 * one)


LIBRARIES: Dict[str, Ask] = {
    "numpy": lambda x, mem, b: np.prod(x.shape[1:]) == 20,
    "math": lambda x, mem, b: math.prod(x.shape[1:]) == 20,
    "sqrt": lambda x, mem, b: mem / math.sqrt(x.shape[1]),
}


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_line_is_the_users_and_not_a_librarys(library: str) -> None:
    assert "depends on the shape of x" in refusal(LIBRARIES[library])


def test_out_is_refused_with_what_to_write() -> None:
    text = refusal(lambda x, mem, b: torch.mul(mem, 0.5, out=torch.zeros_like(mem)))
    assert "write `o = m * 0.5`" in text


class Refractory(Neuron):
    """Keeps a condition in its state, which plain torch allows."""

    states = ("fired",)

    def initial(self, x: Tensor, c: Any) -> Any:
        return (torch.zeros_like(x, dtype=torch.bool),)

    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        out = torch.where(state[0], torch.zeros_like(x), x)
        return out, (out > 1,)


class Inverted(Refractory):
    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        return x * ~state[0], (x > 1,)


@pytest.mark.parametrize("kind", [Refractory, Inverted])
def test_a_condition_as_a_state_is_told_what_states_are(kind: Any) -> None:
    with pytest.raises(LoweringError, match=r"States come in the input's type.*state\[0\] > 0") as caught:
        lower(kind())
    assert caught.value.place is not None
    assert "state[0]" in str(caught.value.place)
