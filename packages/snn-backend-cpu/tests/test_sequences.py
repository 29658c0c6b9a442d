"""Layers with an own computation over time: their spikes by kernels, and the sliding one whole."""

import contextlib
import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

import snn_core as snn
from snn_backend_cpu.kernels import compiled
from snn_backend_cpu.sliding import Sliding
from snn_backend_cpu.spikes import _lowered, fused_spike
from snn_core.surrogate import Custom, FastSigmoid, Surrogate, spike, spike_reference, spikes_by

LARGE = 1 << 15


def branching(u: Tensor) -> Tensor:
    return torch.ones_like(u) if bool((u > 0).any()) else torch.zeros_like(u)


def pair(**options: Any) -> tuple[Any, Any]:
    reference = snn.SlidingPSN(**options)
    sliding = copy.deepcopy(reference)
    sliding.run = Sliding(sliding, torch.float32)
    return reference, sliding


def everything(layer: Any, x: Tensor, state: Any = None, steps: int | None = None) -> dict[str, Tensor]:
    x = x.clone().requires_grad_()
    start = None if state is None else (state.clone().requires_grad_(),)
    out, last, traces = layer.run(x, start, steps, ("x",))
    found = {"out": out, "last": last[0], "x": traces["x"]}
    total = torch.zeros(())
    for i, value in enumerate(found.values()):
        total = total + (value * torch.randn(value.shape, generator=torch.Generator().manual_seed(i))).sum()
    leaves = [x, *layer.parameters(), *(start or ())]
    grads = torch.autograd.grad(total, leaves)
    return {**{name: t.detach() for name, t in found.items()}, **{f"grad {i}": g for i, g in enumerate(grads)}}


def require_equal(got: dict[str, Tensor], want: dict[str, Tensor]) -> None:
    assert list(got) == list(want)
    for name, value in want.items():
        if name.startswith("grad"):
            assert float((got[name] - value).abs().max()) <= 1e-5 * float(value.abs().max()), name
        else:
            assert torch.equal(got[name], value), name


def currents(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("order", [1, 2, 4, 7, 33])
def test_a_sliding_neuron_gives_the_references_bits_and_gradients(order: int) -> None:
    torch.manual_seed(0)
    reference, sliding = pair(order=order, exponential=False, threshold=0.1)
    x = currents(20, 3, 5)
    require_equal(everything(sliding, x), everything(reference, x))


def test_a_longer_filter_needs_no_kernel_of_its_own() -> None:
    made = []
    for order in (3, 64):
        everything(pair(order=order)[1], currents(20, 3, 5))
        made.append(compiled.cache_info().currsize)
    assert made[0] == made[1]


def test_a_frozen_filter_gets_no_gradient_and_the_input_still_does() -> None:
    found = []
    for layer in pair(order=4):
        layer.weight.requires_grad_(False)
        x = currents(20, 3, 5).requires_grad_()
        layer(x).square().sum().backward()
        assert layer.weight.grad is None
        found.append(x.grad)
    assert torch.allclose(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_the_number_of_threads_changes_no_bit_of_a_filter() -> None:
    _, sliding = pair(order=5)
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(everything(sliding, currents(8, 64, 300)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(found[0].values(), found[1].values(), strict=True))


def test_a_sliding_neuron_goes_on_from_a_state() -> None:
    reference, sliding = pair(order=4)
    x, state = currents(2, 3, 5), currents(3, 3, 5)
    require_equal(everything(sliding, x, state), everything(reference, x, state))


def test_a_sliding_neuron_takes_an_input_without_time() -> None:
    reference, sliding = pair(order=3)
    x = currents(3, 5)
    require_equal(everything(sliding, x, steps=9), everything(reference, x, steps=9))


@pytest.mark.parametrize("fire_op", [">=", ">"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_large_spike_is_the_references_with_its_gradient(dtype: torch.dtype, fire_op: str) -> None:
    u = currents(LARGE).to(dtype).round(decimals=1).view(8, -1).requires_grad_()
    found = []
    for runner in (spike_reference, fused_spike):
        with spikes_by(runner):
            out = spike(u, FastSigmoid(3.0), fire_op)
        found.append((out.detach(), *torch.autograd.grad(out.square().sum() + out.sum(), u)))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-6)


@pytest.mark.parametrize("name", ["PSN", "MaskedPSN", "ParallelLIF"])
def test_a_layer_of_the_whole_sequence_gives_the_references_bits_and_gradients(name: str) -> None:
    torch.manual_seed(0)
    layer = {
        "PSN": lambda: snn.PSN(16),
        "MaskedPSN": lambda: snn.MaskedPSN(16, 4),
        "ParallelLIF": lambda: snn.ParallelLIF(0.9),
    }[name]()
    x = currents(16, 4, 512)
    found = []
    for runner in (spike_reference, fused_spike):
        leaf = x.clone().requires_grad_()
        with spikes_by(runner):
            out = layer(leaf)
        found.append((out.detach(), *torch.autograd.grad(out.square().sum(), [leaf, *layer.parameters()])))
    assert torch.equal(found[0][0], found[1][0])
    for got, want in zip(found[1][1:], found[0][1:], strict=True):
        assert float((got - want).abs().max()) <= 1e-5 * float(want.abs().max())


def test_a_surrogate_that_no_kernel_can_compute_stays_torchs() -> None:
    u = currents(LARGE).requires_grad_()
    with spikes_by(fused_spike):
        out = spike(u, Custom(branching))
    assert torch.equal(torch.autograd.grad(out.sum(), u)[0], torch.ones(LARGE))


def test_spikes_are_the_references_again_after_the_block() -> None:
    seen = []

    def noting(u: Tensor, surrogate: Any, fire_op: str) -> Tensor:
        seen.append(u)
        return u

    u = currents(4)
    with spikes_by(noting):
        assert spike(u, FastSigmoid()) is u
    assert spike(u, FastSigmoid()) is not u
    assert len(seen) == 1


@pytest.mark.parametrize("inside", [False, True], ids=["outside the block", "inside the block"])
def test_torch_compile_traces_a_spike_whole_with_the_references_result(inside: bool) -> None:
    u = currents(8, LARGE // 8)
    # traced alone: no code is generated
    traced = torch.compile(lambda u: spike(u, FastSigmoid()), backend="eager", fullgraph=True)
    with spikes_by(fused_spike) if inside else contextlib.nullcontext():
        assert torch.equal(traced(u), spike_reference(u, FastSigmoid()))


@dataclass(frozen=True)
class Listed(Surrogate):
    slopes: list[float]

    def derivative(self, u: Tensor) -> Tensor:
        return self.slopes[0] / (1 + u * u)


class Sloped(Surrogate):
    """No dataclass of its own, so that all of them are equal."""

    def __init__(self, slope: float) -> None:
        object.__setattr__(self, "slope", slope)

    def derivative(self, u: Tensor) -> Tensor:
        return self.slope * torch.ones_like(u)


def test_a_surrogate_that_cannot_be_hashed_is_torchs() -> None:
    u = currents(LARGE).requires_grad_()
    found = []
    for runner in (spike_reference, fused_spike):
        with spikes_by(runner):
            found.append(torch.autograd.grad(spike(u, Listed([2.0])).sum(), u)[0])
    assert torch.equal(*found)


def test_surrogates_of_one_class_have_kernels_of_their_own() -> None:
    u = currents(LARGE).requires_grad_()
    with spikes_by(fused_spike):
        slopes = [torch.autograd.grad(spike(u, Sloped(slope)).sum(), u)[0] for slope in (1.0, 3.0)]
    assert float(slopes[0].mean()) == 1.0
    assert float(slopes[1].mean()) == 3.0


def test_the_kernels_of_forgotten_surrogates_do_not_pile_up() -> None:
    u = currents(LARGE)
    with spikes_by(fused_spike):
        for slope in range(1, 80):
            spike(u, FastSigmoid(float(slope)))
    assert _lowered.cache_info().currsize == _lowered.cache_info().maxsize
