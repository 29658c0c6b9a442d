"""The fused kernels against the reference's loop over time, neuron by neuron, bit by bit."""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import snn_core as snn
from snn_backend_cpu.fused import Fused
from snn_backend_cpu.step_kernels import SPAN
from snn_backend_cpu.threads import PIECE
from snn_core.errors import Unsupported
from snn_core.lower import LoweringError, lower
from snn_core.neurons import LIF, Neuron
from snn_core.surrogate import Sigmoid, spike
from snn_core.testing.neurons import every_neuron

STEPS = 2 * SPAN + 5


def fusible() -> dict[str, Any]:
    """The examples whose step can be lowered: name, and how to make it and its input's shape."""
    found = {}
    for name, example in every_neuron().items():
        neuron = example.make()
        if isinstance(neuron, Neuron):
            try:
                lower(neuron)
            except LoweringError:
                assert neuron.recurrence, f"{name} has no weight in its loop and must be fused"
                continue
            found[name] = example
    return found


NEURONS = fusible()


def pair(neuron: Neuron, dtype: torch.dtype = torch.float32) -> tuple[Neuron, Neuron]:
    """The neuron as the reference runs it, and fused."""
    reference = neuron.to(dtype)
    fused = copy.deepcopy(reference)
    fused.runner = Fused(fused, dtype)
    return reference, fused


def currents(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def everything(neuron: Neuron, x: Tensor, state: Any = None, steps: int | None = None) -> dict[str, Tensor]:
    """Output, last state and recorded states, and the gradient of a fixed sum of them all by all there is."""
    x = x.clone().requires_grad_()
    start = None if state is None else tuple(s.clone().requires_grad_() for s in state)
    out, last, traces = neuron.run(x, start, steps, neuron.states)
    found = {"out": out, **{f"last {n}": s for n, s in zip(neuron.states, last, strict=True)}, **traces}
    weighted = [
        (value * currents(tuple(value.shape), value.dtype, seed=i)).sum() for i, value in enumerate(found.values())
    ]
    leaves = {"x": x, **dict(neuron.named_parameters())}
    leaves |= {f"first {n}": s for n, s in zip(neuron.states, start or ())}
    grads = torch.autograd.grad(sum(weighted), list(leaves.values()))
    found = {name: value.detach() for name, value in found.items()}
    return {**found, **{f"grad {name}": grad for name, grad in zip(leaves, grads, strict=True)}}


def require_equal(got: dict[str, Tensor], want: dict[str, Tensor], exact: bool) -> None:
    """The same bits forward (1e-5 of the largest where functions are transcendental), gradients within 1e-5."""
    assert list(got) == list(want)
    for name, value in want.items():
        if exact and not name.startswith("grad"):
            assert torch.equal(got[name], value), name
        elif name != "out" or exact:
            bound = (1e-5 if value.dtype == torch.float32 else 1e-12) * float(value.abs().max())
            assert float((got[name] - value).abs().max()) <= bound, name
        else:
            assert float((got[name] != value).float().mean()) <= 1e-3, name


@contextlib.contextmanager
def kept_bytes() -> Iterator[dict[int, int]]:
    """The bytes of each block of memory that autograd keeps for backward, by its address."""
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", NEURONS)
def test_each_neuron_gives_the_references_bits_and_gradients(name: str, dtype: torch.dtype) -> None:
    example = NEURONS[name]
    reference, fused = pair(example.make(), dtype)
    x = currents((STEPS, 17, *example.shape[2:]), dtype)
    require_equal(everything(fused, x), everything(reference, x), lower(reference).exact)


@pytest.mark.parametrize("name", ["LIF", "LIF, learnt", "Synaptic, delayed zero", "ALIF", "Recurrent, one to one"])
def test_a_state_from_outside_is_started_from_with_its_gradient(name: str) -> None:
    reference, fused = pair(NEURONS[name].make())
    x = currents((STEPS, 3, 4))
    state = tuple(currents((3, 4), seed=7 + i) for i in range(len(reference.states)))
    require_equal(everything(fused, x, state), everything(reference, x, state), exact=True)


@pytest.mark.parametrize("name", ["LIF", "LIF, learnt", "Alpha", "SigmaDelta"])
def test_an_input_without_time_is_read_once_and_its_gradient_summed(name: str) -> None:
    reference, fused = pair(NEURONS[name].make())
    x = currents((5, 4)) * 0.3 + 0.4
    require_equal(everything(fused, x, steps=STEPS), everything(reference, x, steps=STEPS), exact=True)


@pytest.mark.parametrize("steps", [1, 2, SPAN - 1, SPAN, SPAN + 1, 3 * SPAN])
def test_any_number_of_steps_will_do(steps: int) -> None:
    reference, fused = pair(LIF([0.5, 0.8, 0.9, 1.0], learn_beta=True, learn_threshold=True))
    x = currents((steps, 3, 4))
    require_equal(everything(fused, x), everything(reference, x), exact=True)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_the_number_of_threads_changes_no_bit(threads: int) -> None:
    _, fused = pair(LIF(0.9, learn_beta=True, learn_threshold=True))
    x = currents((40, 2, PIECE + 777))
    want = everything(fused, x)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        got = everything(fused, x)
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(got[name], want[name]) for name in want)


def test_pieces_of_a_sequence_equal_the_whole() -> None:
    _, fused = pair(NEURONS["ALIF"].make())
    x = currents((STEPS, 3, 4))
    whole, last = fused.unroll(x)
    state, outs = None, []
    for piece in x.split(7):
        out, state = fused.unroll(piece, state)
        outs.append(out)
    assert torch.equal(torch.cat(outs), whole)
    assert state is not None
    assert all(torch.equal(a, b) for a, b in zip(state, last, strict=True))


def test_inputs_in_any_memory_order_are_read_right() -> None:
    reference, fused = pair(LIF(0.9))
    x = currents((4, 3, STEPS)).permute(2, 1, 0)
    assert not x.is_contiguous()
    require_equal(everything(fused, x), everything(reference, x), exact=True)


@pytest.mark.parametrize("name", ["LIF, learnt", "Recurrent, one to one"])
def test_inputs_and_states_with_gaps_in_memory_are_read_right(name: str) -> None:
    reference, fused = pair(NEURONS[name].make())
    x = currents((STEPS, 3, 4, 2))[..., 0]
    state = tuple(currents((3, 4, 2), seed=7 + i)[..., 0] for i in range(len(reference.states)))
    require_equal(everything(fused, x, state), everything(reference, x, state), exact=True)
    with torch.no_grad():
        assert torch.equal(fused.run(x, state)[0], reference.run(x, state)[0])


@pytest.mark.parametrize("steps", [None, STEPS])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_is_stored_and_float32_computed(dtype: torch.dtype, steps: int | None) -> None:
    reference, fused = pair(LIF(0.99, gain=[0.3, 1.0, 2.0, -1.0], learn_gain=True, learn_beta=True))
    x = (currents((3, 4)) if steps else currents((STEPS, 3, 4))).to(dtype)
    got, want = everything(fused, x, steps=steps), everything(reference, x, steps=steps)
    assert got["out"].dtype == got["grad x"].dtype == dtype
    assert got["mem"].dtype == torch.float32
    for name in ("out", "last mem", "mem"):
        assert torch.equal(got[name], want[name]), name
    # the gradient of x is rounded to half precision once on both sides, from sums whose order differs
    spacing = torch.finfo(dtype).eps
    assert torch.allclose(got["grad x"].float(), want["grad x"].float(), rtol=spacing, atol=1e-6)
    for name in ("grad beta", "grad gain"):
        assert torch.allclose(got[name], want[name], rtol=1e-5, atol=1e-5), name


def test_half_precision_is_kept_in_half_the_memory() -> None:
    _, fused = pair(LIF(0.9))
    x = currents((10 * SPAN, 8, 4)).bfloat16().requires_grad_()
    with kept_bytes() as kept:
        fused(x)
    step = 8 * 4 * 4
    assert sum(kept.values()) <= x.numel() * 2 + 11 * step + 64


def test_without_gradients_nothing_is_kept() -> None:
    _, fused = pair(LIF(0.9, learn_beta=True))
    with torch.no_grad():
        assert fused(currents((STEPS, 3, 4))).grad_fn is None


@pytest.mark.parametrize(("name", "states"), [("LIF, learnt", 1), ("Synaptic", 2), ("ALIF", 2)])
def test_training_keeps_the_input_and_a_state_for_every_span(name: str, states: int) -> None:
    _, fused = pair(NEURONS[name].make())
    x = currents((10 * SPAN, 8, 4)).requires_grad_()
    with kept_bytes() as kept:
        fused(x)
    step = 8 * 4 * 4
    # the input, the states at the start and every SPAN steps, and a row for each per-channel coefficient
    assert sum(kept.values()) <= x.numel() * 4 + states * 10 * step + 6 * step + 64


FEW_STEPS: dict[str, tuple[Any, int]] = {
    "LIF": (lambda: LIF([0.9] * 32, threshold=[1.0] * 32, learn_beta=True), 4),
    "Synaptic": (lambda: snn.Synaptic([0.5] * 32, [0.9] * 32, threshold=[1.0] * 32), 3),
    "AdEx": (lambda: snn.AdEx(tau=[5.0] * 32, a=[0.1] * 32, threshold=[1.0] * 32, v_rest=[0.1] * 32), 10),
    "QIF, at rest elsewhere than at 0": (lambda: snn.QIF(v_rest=-0.5), 10),
}


@pytest.mark.parametrize("name", FEW_STEPS)
def test_a_state_at_rest_and_coefficients_by_channel_are_not_kept_for_each_sample(name: str) -> None:
    make, rows = FEW_STEPS[name]
    _, fused = pair(make())
    x = currents((4, 16, 32)).requires_grad_()
    with kept_bytes() as kept:
        fused(x)
    # the input, and coefficients and states as rows of all channels
    assert sum(kept.values()) <= x.numel() * 4 + rows * 32 * 4 + 12 * 8


@pytest.mark.parametrize("axis", [None, 0, 1, 2])
def test_a_state_that_does_not_change_along_an_axis_is_started_from_again(axis: int | None) -> None:
    reference, fused = pair(LIF(0.9, learn_beta=True))
    start = currents((3, 4, 5)) if axis is not None else torch.full((3, 4, 5), 0.7)
    if axis is not None:
        start = start.narrow(axis, 0, 1).expand(3, 4, 5).contiguous()
    x = currents((4, 3, 4, 5))
    require_equal(everything(fused, x, (start,)), everything(reference, x, (start,)), exact=True)


def test_writing_over_the_input_afterwards_is_an_error_that_names_the_neuron_and_the_remedy() -> None:
    _, fused = pair(LIF(0.9))
    h = 2 * currents((STEPS, 3, 4)).requires_grad_()
    z = fused(h)
    h += z
    with pytest.raises(Unsupported, match=r"LIF .*write h = h \+ z instead of h \+= z"):
        h.sum().backward()


class Doubled(Neuron):
    """A user's neuron that starts from float64, whatever it gets."""

    states = ("mem",)

    def initial(self, x: Tensor, c: Any) -> Any:
        return (torch.full(x.shape, 0.1, dtype=torch.float64),)

    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = 0.3 * state[0] + x
        return spike(mem - 0.1, snn.surrogate.ATan()), (mem,)


def test_an_initial_state_comes_in_the_type_of_the_input() -> None:
    reference, fused = pair(Doubled())
    got, want = everything(fused, currents((STEPS, 3, 4))), everything(reference, currents((STEPS, 3, 4)))
    assert {value.dtype for value in (*got.values(), *want.values())} == {torch.float32}
    require_equal(got, want, exact=True)


def test_what_is_kept_of_a_state_grows_with_the_root_of_the_steps() -> None:
    _, fused = pair(LIF(0.9))
    rows = []
    for steps in (400, 6400):
        x = currents((steps, 8, 4)).requires_grad_()
        with kept_bytes() as kept:
            fused(x)
        rows.append((sum(kept.values()) - x.numel() * 4) / (8 * 4 * 4))
    assert rows[1] <= 4 * (rows[0] + 1)  # rows are whole
    assert rows[1] <= 82


def test_long_sequences_with_wide_spans_give_the_references_gradients() -> None:
    reference, fused = pair(LIF([0.5, 0.8, 0.9, 1.0], learn_beta=True, learn_threshold=True))
    x = currents((1000, 3, 4))
    require_equal(everything(fused, x), everything(reference, x), exact=True)


def test_the_sigmoid_stays_within_its_bound() -> None:
    reference, fused = pair(LIF(0.9, surrogate=Sigmoid(), detach_reset=False))
    x = currents((STEPS, 16, 64))
    require_equal(everything(fused, x), everything(reference, x), exact=True)


def test_a_model_on_the_programs_side_keeps_the_users_neuron_as_it_is() -> None:
    neuron = LIF(0.9)
    pair(neuron)
    assert "runner" not in vars(neuron)
    assert isinstance(neuron(currents((2, 3, 4))), Tensor)
    assert snn.LIF is LIF
