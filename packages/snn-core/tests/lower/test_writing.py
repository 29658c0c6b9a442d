"""Writing over results of one's own: as torch does it, or refused with the line."""

from typing import Any, Callable, Dict

import pytest
import torch
from torch import Tensor

from snn_core.lower import LoweringError, interpret, lower
from snn_core.neurons import Neuron

Write = Callable[[Tensor, Tensor, Tensor], Any]
# torch 2.0 hides an assignment by index from what sees its functions, and then it is told how to write
HIDDEN = torch.__version__.startswith("2.0")
TOLD = {"ellipsis": "write a.copy_(b) for a[...] = b", "whole": "use whole tensors"}


class Writes(Neuron):
    """A step that writes over its membrane, or hands out what `write(x, mem, b)` returns."""

    states = ("mem",)

    def __init__(self, write: Write) -> None:
        super().__init__()
        self.write = write

    def coefficients(self) -> Dict[str, Tensor]:
        return {"b": torch.tensor(0.5)}

    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = state[0] * c["b"] + x
        told = self.write(x, mem, c["b"])
        return (mem if told is None else told) * x, (mem * 0.9,)


def ellipsis(x: Tensor, mem: Tensor, b: Tensor) -> None:
    mem[...] = x * b


def whole(x: Tensor, mem: Tensor, b: Tensor) -> None:
    mem[:] = 0.3


def condition(x: Tensor, mem: Tensor, b: Tensor) -> Tensor:
    fired = mem > 0
    fired.copy_(x.floor())
    return fired.to(x.dtype) * mem


def filled_condition(x: Tensor, mem: Tensor, b: Tensor) -> Tensor:
    fired = mem > 0
    fired.fill_(0.3)
    return mem * fired


def kept(x: Tensor, mem: Tensor, b: Tensor) -> Tensor:
    still = mem.detach()
    mem.copy_(x.square())
    return still + mem


def number(x: Tensor, mem: Tensor, b: Tensor) -> Tensor:
    half = torch.tensor(0.5, dtype=x.dtype)
    half.mul_(3)
    return mem * half


WRITTEN = {
    "a number": number,
    "copied": lambda x, mem, b: mem.copy_(x * 2),
    "a coefficient copied": lambda x, mem, b: mem.copy_(b),
    "a number copied": lambda x, mem, b: mem.copy_(torch.tensor(0.5, dtype=torch.float64)),
    "a condition copied": lambda x, mem, b: mem.copy_(x > 0),
    "copied over a condition": condition,
    "filled": lambda x, mem, b: mem.fill_(0.3),
    "filled with a tensor": lambda x, mem, b: mem.fill_(torch.tensor(3)),
    "a condition filled": filled_condition,
    "zeroed": lambda x, mem, b: mem.zero_(),
    "seen by another name": kept,
}
ASSIGNED = {"ellipsis": ellipsis, "whole": whole}


def agrees(write: Write) -> None:
    """The lowered step and its gradient are the step's own, at a shape that was not traced."""
    generator = torch.Generator().manual_seed(1)
    neuron = Writes(write)
    lowered = lower(neuron, torch.float64)
    names = ("x", "state.mem", "c.b", "grad.out", "grad.state.mem")
    given = {name: torch.randn(4, 9, generator=generator, dtype=torch.float64) for name in names}
    x, mem, b = leaves = [given[name].clone().requires_grad_() for name in names[:3]]
    out, (after,) = neuron.dynamics(x, (mem,), {"b": b})
    total = (out * given["grad.out"]).sum() + (after * given["grad.state.mem"]).sum()
    wanted = torch.autograd.grad(total, leaves, allow_unused=True)
    got = interpret(lowered.joint, given, torch.float64)
    assert torch.equal(got["out"].expand_as(out), out)
    assert torch.equal(got["state.mem"].expand_as(after), after)
    for name, want in zip(names, wanted):
        want = torch.zeros_like(x) if want is None else want
        # sums in another order, nothing else
        torch.testing.assert_close(got[f"grad.{name}"].expand_as(want), want, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("write", WRITTEN)
def test_what_is_written_over_a_result_is_what_torch_writes(write: str) -> None:
    agrees(WRITTEN[write])


@pytest.mark.parametrize("write", ASSIGNED)
def test_an_assignment_to_a_whole_result_is_a_write_or_told_how_to_write(write: str) -> None:
    if HIDDEN:
        assert TOLD[write] in refusal(ASSIGNED[write])
    else:
        agrees(ASSIGNED[write])


def refusal(write: Write) -> str:
    """The text of the error, whose line is one of this file."""
    with pytest.raises(LoweringError) as caught:
        lower(Writes(write))
    assert caught.value.place is not None
    assert caught.value.place.file == __file__
    return str(caught.value)


GIVEN = {
    "copied": lambda x, mem, b: x.copy_(mem),
    "filled": lambda x, mem, b: x.fill_(0.5),
    "zeroed": lambda x, mem, b: b.zero_(),
    "zeroed by another name": lambda x, mem, b: x.detach().zero_(),
    "through a view": lambda x, mem, b: x.view(x.shape).add_(mem),
}


@pytest.mark.parametrize("write", GIVEN)
def test_what_the_step_was_given_is_not_written(write: str) -> None:
    assert "writes into its input; write `a = a + b` for `a += b`" in refusal(GIVEN[write])


def clamped(x: Tensor, mem: Tensor, b: Tensor) -> None:
    view = mem.view(mem.shape)
    view.clamp_(max=1.2)  # through a view


def stale(x: Tensor, mem: Tensor, b: Tensor) -> Tensor:
    view = mem.view(mem.shape)
    mem.add_(x)
    return view * 2  # of a view


def test_writing_through_a_view_is_refused_at_its_line() -> None:
    text = refusal(clamped)
    assert "view.clamp_(max=1.2)" in text
    assert "do not write through a view" in text


def test_reading_a_view_of_what_was_written_since_is_refused_at_its_line() -> None:
    text = refusal(stale)
    assert "return view * 2" in text
    assert "make the view after the last write" in text


def test_a_view_of_a_condition_may_be_written() -> None:
    agrees(lambda x, mem, b: mem * (mem > 0).view(x.shape).logical_not_())
