"""Run one of our neurons and another library's on the same input, and compare spikes, states and gradients."""

from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterator, Optional, Sequence, Tuple

import torch
from hypothesis import HealthCheck, reject, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from snn_core.neurons.base import Temporal

Traces = Dict[str, Tensor]
Pairs = Sequence[Tuple[Any, ...]]
TIME = 50
GRADIENT_TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-6}
"""Relative to the largest element of a gradient: what the project promises."""

dtypes = st.sampled_from([torch.float32, torch.float64])
seeds = st.integers(0, 2**31 - 1)


def randomised(examples: int = 60) -> settings:
    """Settings of a property test; derandomised, so that one commit gives one verdict."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
        database=None,
    )


@contextmanager
def precision(dtype: torch.dtype) -> Iterator[None]:
    """Build and run in one precision: both libraries keep the numbers they are given in torch's default dtype."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def current(seed: int, *shape: int, scale: float = 1.0, offset: float = 0.3, grid: bool = False) -> Tensor:
    """An input `[T, B, ...]` of the default dtype; on a grid it holds multiples of 1/8, so that membranes meet
    thresholds.
    """
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(TIME, *shape, generator=generator, dtype=torch.float64) * scale + offset
    return ((x * 8).round() / 8 if grid else x).to(torch.get_default_dtype())


def ours(layer: Temporal, *wanted: str) -> Callable[[Tensor], Tuple[Tensor, Traces]]:
    """A layer of ours as a function of the input: its output and the wanted states, each `[T, B, ...]`."""

    def run(x: Tensor) -> Tuple[Tensor, Traces]:
        out, _, traces = layer.run(x, wanted=wanted)
        return out, traces

    return run


def compare(
    mine: Callable[[Tensor], Tuple[Tensor, Traces]],
    theirs: Callable[[Tensor], Tuple[Tensor, Traces]],
    x: Tensor,
    learned: Pairs = (),
    *,
    spiking: bool = True,
    rounding: Optional[float] = None,
) -> None:
    """Check that spikes are the same, states the same bit for bit, and gradients the same to the promised tolerance.

    learned: pairs of parameters, ours and theirs, and -1.0 where ours is the negative of theirs. rounding: how far
    states (and the output of a layer that does not spike) may lie apart, relative to the largest, where a matrix
    product may sum in another order; None is not at all.
    """
    outs, grads = [], []
    for run, leaves in ((mine, [pair[0] for pair in learned]), (theirs, [pair[1] for pair in learned])):
        leaf = x.clone().requires_grad_()
        out, traces = run(leaf)
        traces = {name: traces[name] for name in (outs[0][1] if outs else traces)}
        outs.append((out, traces))
        grads.append(torch.autograd.grad(_objective(out, traces), [leaf, *leaves], allow_unused=True))
    (out, traces), (out_theirs, traces_theirs) = outs
    assert out.shape == out_theirs.shape
    if spiking:
        assert int((out != out_theirs).sum()) == 0, "spikes differ"
        # neurons that are all silent or all fire show nothing; hypothesis complains where that is the rule
        usable(0 < int((out != 0).sum()) < out.numel())
    else:
        _close("the output", out, out_theirs, rounding)
    for name, trace in traces.items():
        _close(f"state {name}", trace, traces_theirs[name], rounding)
    signs = [1.0, *(pair[2] if len(pair) > 2 else 1.0 for pair in learned)]
    expected = [sign * _or_zero(g) for sign, g in zip(signs, grads[1])]
    _compare_gradients([_or_zero(g) for g in grads[0]], expected, x.dtype)


def usable(example: bool) -> None:
    """Leave out an example from which nothing follows; outside a property test, fail."""
    if not example:
        reject()


def _compare_gradients(mine: Sequence[Tensor], theirs: Sequence[Tensor], dtype: torch.dtype) -> None:
    largest = max(float(g.abs().max()) for g in theirs)
    for index, (got, expected) in enumerate(zip(mine, theirs)):
        label = "the input" if index == 0 else f"parameter {index - 1}"
        # a scalar's gradient is a sum over all neurons and steps: in float32 what cancels in it leaves its rounding
        # behind, so there the gradient is measured as one vector; float64 measures each by itself
        scale = largest if dtype == torch.float32 else float(expected.abs().max())
        _close(f"the gradient of {label}", got, expected, GRADIENT_TOLERANCE[dtype], scale)


def widened(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Another library's spike function in the membrane's own precision.

    snnTorch's and sinabs' spikes are float32 whatever the membrane is: a Linear in float64 refuses them, and every
    gradient through them is rounded to float32. This keeps their spikes and their derivative, and drops that rounding.
    """

    class Widened(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, u: Tensor) -> Tensor:
            ctx.save_for_backward(u)
            return function(u).to(u.dtype)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            with torch.enable_grad():
                leaf = ctx.saved_tensors[0].detach().requires_grad_()
                (derivative,) = torch.autograd.grad(function(leaf).sum(), leaf)
            return gradient * derivative

    return Widened.apply


def copy_weights(target: nn.Module, source: nn.Module) -> None:
    """Give `target` the parameters of `source`, which has as many of the same shapes in the same order."""
    with torch.no_grad():
        for mine, theirs in zip(target.parameters(), source.parameters()):
            assert mine.shape == theirs.shape
            mine.copy_(theirs)


def _objective(out: Tensor, traces: Traces) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    total = out.new_zeros(())
    for value in (out, *(traces[name] for name in sorted(traces))):
        weight = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value.dtype)
        total = total + (value * weight).sum()
    return total


def _close(what: str, got: Tensor, expected: Tensor, relative: Optional[float], scale: Optional[float] = None) -> None:
    # a steep surrogate over many steps overflows, in the other library as in ours
    usable(bool(torch.isfinite(expected).all()))
    got, expected = got.double().reshape(-1), expected.double().reshape(-1)
    if relative is None:
        assert torch.equal(got, expected), f"{what} differs by {float((got - expected).abs().max())}"
        return
    scale = float(expected.abs().max()) if scale is None else scale
    error = float((got - expected).abs().max())
    assert error <= relative * scale, f"{what} differs by {error} where the largest is {scale}"


def _or_zero(gradient: Optional[Tensor]) -> Tensor:
    return torch.zeros(1) if gradient is None else gradient
