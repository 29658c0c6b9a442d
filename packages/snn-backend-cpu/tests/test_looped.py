"""Neurons that hear each other through a weight layer, against the reference's loop over time."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import snn_core as snn
from snn_backend_cpu.looped import Looped, can_be_looped
from snn_backend_cpu.step_kernels import SPAN
from snn_core.neurons import Recurrent
from snn_core.recording import Clock, LayerTap

STEPS = 2 * SPAN + 5

CASES: dict[str, tuple[Callable[[], Recurrent], tuple[int, ...]]] = {
    "LIF, linear": (lambda: Recurrent(snn.LIF(0.9), nn.Linear(6, 6)), (3, 6)),
    "LIF, learnt": (
        lambda: Recurrent(snn.LIF(0.9, learn_beta=True, learn_threshold=True), nn.Linear(6, 6)),
        (3, 6),
    ),
    "Synaptic, no bias": (lambda: Recurrent(snn.Synaptic(0.7, 0.9), nn.Linear(6, 6, bias=False)), (3, 6)),
    "LIF, graded": (lambda: Recurrent(snn.LIF(0.9, gain=0.5, learn_gain=True), nn.Linear(6, 6)), (3, 6)),
    "LIF, linear on the last dimension": (lambda: Recurrent(snn.LIF(0.9), nn.Linear(4, 4)), (3, 5, 4)),
    "LIF, convolution in one dimension": (
        lambda: Recurrent(snn.LIF(0.9), nn.Conv1d(4, 4, 3, padding="same", dilation=2)),
        (2, 4, 9),
    ),
    "LIF, convolution of two, padded on one side": (
        lambda: Recurrent(snn.LIF(0.9), nn.Conv1d(4, 4, 2, padding="same")),
        (2, 4, 9),
    ),
    "LIF, convolution padded unevenly in one dimension of two": (
        lambda: Recurrent(snn.LIF(0.9), nn.Conv2d(4, 4, (3, 4), padding="same", dilation=(2, 3), groups=2)),
        (2, 4, 5, 6),
    ),
    "LIF, convolution padded unevenly in both dimensions": (
        lambda: Recurrent(snn.LIF(0.9), nn.Conv2d(4, 4, (2, 4), padding="same", bias=False)),
        (2, 4, 5, 6),
    ),
    "ALIF, grouped convolution": (
        lambda: Recurrent(snn.ALIF(0.9, [0.8, 0.9, 0.95, 0.99], learn_rho=True), nn.Conv2d(4, 4, 3, 1, 1, groups=2)),
        (2, 4, 5, 6),
    ),
    "a readout, convolution in three": (
        lambda: Recurrent(snn.LI(0.9), nn.Conv3d(2, 2, (1, 3, 1), padding=(0, 1, 0), bias=False)),
        (2, 2, 3, 3, 3),
    ),
}


def pair(make: Callable[[], Recurrent], dtype: torch.dtype = torch.float32) -> tuple[Recurrent, Recurrent]:
    torch.manual_seed(0)
    reference = make().to(dtype)
    looped = copy.deepcopy(reference)
    looped.runner = Looped(looped, dtype)
    return reference, looped


def everything(neuron: Recurrent, x: Tensor, state: Any = None, steps: int | None = None) -> dict[str, Tensor]:
    """Output, last and recorded states, and gradients of a fixed weighted sum of them by all there is."""
    x = x.clone().requires_grad_()
    start = None if state is None else tuple(s.clone().requires_grad_() for s in state)
    out, last, traces = neuron.run(x, start, steps, neuron.states)
    found = {"out": out, **{f"last {n}": s for n, s in zip(neuron.states, last, strict=True)}, **traces}
    total = torch.zeros((), dtype=torch.float64)
    for i, value in enumerate(found.values()):
        weights = torch.randn(value.shape, generator=torch.Generator().manual_seed(i), dtype=torch.float64)
        total = total + (value.double() * weights).sum()
    leaves = {"x": x, **dict(neuron.named_parameters())}
    leaves |= {f"first {n}": s for n, s in zip(neuron.states, start or ())}
    grads = torch.autograd.grad(total, list(leaves.values()))
    return {**found, **{f"grad {name}": grad for name, grad in zip(leaves, grads, strict=True)}}


def require_equal(got: dict[str, Tensor], want: dict[str, Tensor], bound: float = 1e-5) -> None:
    """The same bits forward, gradients within `bound` of their largest."""
    assert list(got) == list(want)
    for name, value in want.items():
        assert got[name].dtype == value.dtype, name
        if name.startswith("grad"):
            assert float((got[name] - value).abs().max()) <= bound * float(value.abs().max()), name
        else:
            assert torch.equal(got[name], value), name


def currents(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=dtype)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")  # torch's own, of its one copy
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_it_gives_the_references_bits_and_gradients(name: str, dtype: torch.dtype) -> None:
    make, shape = CASES[name]
    reference, looped = pair(make, dtype)
    x = currents((STEPS, *shape), dtype)
    bound = 1e-5 if dtype == torch.float32 else 1e-12
    require_equal(everything(looped, x), everything(reference, x), bound)


@pytest.mark.parametrize("steps", [1, 2, SPAN, SPAN + 1, 300])
def test_any_number_of_steps_will_do(steps: int) -> None:
    reference, looped = pair(CASES["LIF, learnt"][0])
    x = currents((steps, 3, 6))
    require_equal(everything(looped, x), everything(reference, x))


@pytest.mark.parametrize("name", ["LIF, linear", "ALIF, grouped convolution"])
def test_a_state_from_outside_is_started_from_with_its_gradient(name: str) -> None:
    make, shape = CASES[name]
    reference, looped = pair(make)
    state = tuple(currents(shape) * (i + 1) for i in range(len(reference.states)))
    x = currents((STEPS, *shape))
    require_equal(everything(looped, x, state), everything(reference, x, state))


def test_an_input_without_time_is_added_at_every_step() -> None:
    reference, looped = pair(CASES["Synaptic, no bias"][0])
    x = currents((3, 6))
    require_equal(everything(looped, x, steps=STEPS), everything(reference, x, steps=STEPS))


def test_weights_in_half_precision_are_multiplied_in_half_precision() -> None:
    reference, looped = pair(CASES["LIF, linear"][0], torch.bfloat16)
    x = currents((STEPS, 3, 6)).bfloat16()
    # sums of bfloat16 gradients over the steps round at every addition in the reference, once here
    require_equal(everything(looped, x), everything(reference, x), bound=0.02)


def test_autocast_multiplies_in_half_precision_as_the_reference_does() -> None:
    reference, looped = pair(CASES["LIF, linear"][0])
    x = currents((STEPS, 3, 6))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, want = everything(looped, x), everything(reference, x)
    require_equal(got, want, bound=0.02)


def test_without_gradients_nothing_is_kept() -> None:
    reference, looped = pair(CASES["LIF, linear"][0])
    x = currents((STEPS, 3, 6))
    with torch.no_grad():
        out = looped(x)
    assert out.grad_fn is None
    assert torch.equal(out, reference(x))


def test_frozen_weights_get_no_gradient_and_the_input_still_does() -> None:
    reference, looped = pair(CASES["LIF, learnt"][0])
    x = currents((STEPS, 3, 6))
    grads = []
    for neuron in (reference, looped):
        neuron.connection.requires_grad_(False)
        leaf = x.clone().requires_grad_()
        neuron(leaf).square().sum().backward()
        grads.append(leaf.grad)
        assert neuron.connection.weight.grad is None
    assert torch.allclose(grads[0], grads[1], rtol=1e-5, atol=1e-6)


def test_the_number_of_threads_changes_no_bit_of_the_kernels() -> None:
    _, looped = pair(lambda: Recurrent(snn.LIF(0.9), nn.Conv2d(4, 4, 1, groups=4)))
    x = currents((5, 4, 4, 64, 80))
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            found.append(looped(x))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


def test_a_steps_taps_see_every_input_of_the_connection_with_its_gradient() -> None:
    grads, seen = [], []
    for neuron in pair(CASES["LIF, linear"][0]):
        tap = LayerTap(Clock())
        neuron.connection.register_forward_hook(tap, with_kwargs=True)
        x = currents((STEPS, 3, 6)).requires_grad_()
        neuron(x)
        seen.append(torch.stack([call.x for call in tap.calls]))
        assert all(call.out_shape == (3, 6) for call in tap.calls)
        grads.append(torch.autograd.grad(seen[-1].square().sum(), x)[0])
    assert len(seen[1]) == STEPS
    assert torch.equal(*seen)
    assert torch.allclose(*grads, rtol=1e-5, atol=1e-6)


HOOKS: dict[str, Callable[[nn.Module], Any]] = {
    "forward": lambda connection: connection.register_forward_hook(lambda module, args, out: 2 * out),
    "before forward": lambda connection: connection.register_forward_pre_hook(lambda module, args: (2 * args[0],)),
    "backward": lambda connection: connection.register_full_backward_hook(
        lambda module, by_input, by_output: (2 * by_input[0],)
    ),
    "of all modules": lambda connection: nn.modules.module.register_module_forward_hook(
        lambda module, args, out: 2 * out if isinstance(module, nn.Linear) else None
    ),
}


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_on_the_connection_that_came_after_compiling_is_obeyed_and_said(name: str) -> None:
    reference, looped = pair(CASES["LIF, linear"][0])
    handles = [HOOKS[name](neuron.connection) for neuron in (reference, looped)]
    x, state = currents((STEPS, 3, 6)), (currents((3, 6)), currents((3, 6)))
    try:
        with pytest.warns(UserWarning, match="step by step in torch"):
            found = everything(looped, x, state)
        require_equal(found, everything(reference, x, state))
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("wanted", [(), ("spk",)], ids=["nothing recorded", "spikes recorded"])
def test_writing_over_its_output_is_as_good_as_in_the_reference(wanted: tuple[str, ...]) -> None:
    x = currents((STEPS, 3, 6))
    found = []
    for neuron in pair(CASES["LIF, learnt"][0]):
        tap = LayerTap(Clock())
        neuron.connection.register_forward_hook(tap, with_kwargs=True)
        leaf = x.clone().requires_grad_()
        out, state, traces = neuron.run(leaf, None, None, wanted)
        heard = torch.stack([call.x for call in tap.calls])
        total = state[0].sum() + heard.square().sum() + sum(trace.square().sum() for trace in traces.values())
        out.mul_(2)
        (total + out.square().sum()).backward()
        parts = {"out": out, "last": state[0], "heard": heard, **traces}
        grads = {f"grad {name}": p.grad for name, p in neuron.named_parameters()}
        found.append({**{name: t.detach() for name, t in parts.items()}, "grad x": leaf.grad, **grads})
    require_equal(found[1], found[0])


def kept_by(neuron: Any, x: Tensor) -> int:
    """The bytes that autograd keeps of a run, each memory counted once."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        neuron(x)
    return sum(kept.values())


def test_training_keeps_one_tensor_for_each_element_and_step() -> None:
    _, looped = pair(CASES["Synaptic, no bias"][0])
    x = currents((256, 3, 6)).requires_grad_()
    # the neurons' input, two states at every span, and what does not grow with time
    assert kept_by(looped, x) <= x.numel() * 4 * (1 + 2 / SPAN) + 4 * (36 + 3 * 18 + 8)


def test_a_state_at_rest_and_coefficients_by_channel_are_not_kept_for_each_sample() -> None:
    neurons = 64
    _, looped = pair(lambda: Recurrent(snn.LIF([0.9] * neurons, learn_beta=True), nn.Linear(neurons, neurons)))
    x = currents((4, 32, neurons)).requires_grad_()
    weights = neurons * (neurons + 1)
    # what the neurons got, the weights themselves, and coefficients as rows of all channels
    assert kept_by(looped, x) <= 4 * (x.numel() + weights + 3 * neurons) + 8 * 8


def test_an_initial_state_comes_in_the_type_of_the_input() -> None:
    class Doubled(snn.LIF):
        def initial(self, x: Tensor, c: Any) -> Any:
            return (torch.full(x.shape, 0.1, dtype=torch.float64),)

    reference, looped = pair(lambda: Recurrent(Doubled(0.3), nn.Linear(6, 6)))
    x = currents((STEPS, 3, 6))
    require_equal(everything(looped, x), everything(reference, x))
    assert reference.run(x)[1][1].dtype == torch.float32


@pytest.mark.parametrize(
    "connection",
    [nn.Sequential(nn.Linear(4, 4)), nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular"), snn.OneToOne(4)],
    ids=lambda m: type(m).__name__,
)
def test_other_connections_are_left_to_others(connection: nn.Module) -> None:
    assert not can_be_looped(Recurrent(snn.LIF(0.9), connection))
