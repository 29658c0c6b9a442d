"""What holds for every temporal layer that core has, over the examples of `snn_core.testing.neurons`."""

import copy
import io
import pickle
from typing import List, Tuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import snn_core.neurons as neurons
from snn_core.errors import DataError, ShapeError
from snn_core.neurons import Neuron, Recurrent, SequenceLayer, SpikingNeuron, Temporal
from snn_core.testing.neurons import Example, every_neuron

EVERY = every_neuron()
CHUNKABLE = [name for name, example in EVERY.items() if example.make().chunkable]
STEPPED = [name for name, example in EVERY.items() if isinstance(example.make(), Neuron)]


def made(name: str, seed: int = 0) -> Tuple[Temporal, Tensor]:
    """The example's layer and an input for it; equal seeds give equal ones."""
    example = EVERY[name]
    torch.manual_seed(seed)
    return example.make(), torch.randn(example.shape) + 0.2


def parts_of(x: Tensor, cuts: List[int]) -> List[Tensor]:
    edges = [0, *sorted(cuts), x.shape[0]]
    return [x[a:b] for a, b in zip(edges, edges[1:]) if b > a]


def test_every_public_layer_has_an_example() -> None:
    public = [getattr(neurons, name) for name in neurons.__all__]
    layers = {k for k in public if isinstance(k, type) and issubclass(k, Temporal)}
    abstract = {Neuron, SequenceLayer, SpikingNeuron, Temporal}
    assert {type(example.make()) for example in EVERY.values()} == layers - abstract


@pytest.mark.parametrize("name", EVERY)
def test_an_example_is_alive(name: str) -> None:
    layer, x = made(name)
    rate = layer(x).ne(0).float().mean().item()
    assert rate > 0.0
    assert rate < 0.9 or name in ("LI", "SigmaDelta, encoder")


@pytest.mark.parametrize("name", CHUNKABLE)
@settings(deadline=None, max_examples=12)
@given(cuts=st.lists(st.integers(0, 40), max_size=4), seed=st.integers(0, 1000), copied=st.booleans())
def test_chunks_equal_the_whole_bit_for_bit(name: str, cuts: List[int], seed: int, copied: bool) -> None:
    torch.manual_seed(seed)
    layer = EVERY[name].make()
    x = torch.randn(40, *EVERY[name].shape[1:])
    whole, last, traces = layer.run(x, wanted=layer.states)
    outs, states, kept = [], None, []
    for part in parts_of(x, cuts):
        # a copy lies elsewhere in memory, so that no result may hang on an address
        out, states, trace = layer.run(part.clone() if copied else part, states, wanted=layer.states)
        outs.append(out)
        kept.append(trace)
    assert torch.equal(torch.cat(outs), whole)
    assert states is not None
    assert all(torch.equal(a, b) for a, b in zip(states, last))
    for state in layer.states:
        assert torch.equal(torch.cat([trace[state] for trace in kept]), traces[state])


@pytest.mark.parametrize("name", STEPPED)
def test_a_loop_over_step_equals_unroll_bit_for_bit(name: str) -> None:
    layer, x = made(name)
    assert isinstance(layer, Neuron)
    whole, last = layer.unroll(x)
    state, outs = None, []
    for x_t in x:
        out, state = layer.step(x_t, state)
        outs.append(out)
    assert torch.equal(torch.stack(outs), whole)
    assert state is not None
    assert all(torch.equal(a, b) for a, b in zip(state, last))


@pytest.mark.parametrize("name", EVERY)
def test_an_input_held_constant_equals_its_copies(name: str) -> None:
    layer, x = made(name)
    copies = x[:1].expand_as(x)
    out, state, traces = layer.run(x[0], steps=x.shape[0], wanted=layer.states)
    wanted, wanted_state, wanted_traces = layer.run(copies, wanted=layer.states)
    assert torch.equal(out, wanted)
    assert all(torch.equal(a, b) for a, b in zip(state, wanted_state))
    assert all(torch.equal(traces[key], wanted_traces[key]) for key in layer.states)


@pytest.mark.parametrize("name", EVERY)
def test_nothing_of_one_batch_reaches_the_next(name: str) -> None:
    layer, first = made(name)
    second = torch.randn_like(first)
    a, b = layer(first), layer(second)
    assert torch.equal(layer(second), b)
    assert torch.equal(layer(first), a)
    assert not torch.equal(a, b)


@pytest.mark.parametrize("name", EVERY)
def test_samples_of_a_batch_do_not_meet(name: str) -> None:
    layer, x = made(name)
    other = x.clone()
    other[:, 1] += 1.0
    out, changed = layer(x), layer(other)
    assert torch.equal(out[:, 0], changed[:, 0])
    assert torch.equal(out[:, 2], changed[:, 2])
    assert not torch.equal(out[:, 1], changed[:, 1])


@pytest.mark.parametrize("name", [name for name in EVERY if "PSN" not in name or "Sliding" in name])
def test_no_step_sees_a_later_one(name: str) -> None:
    layer, x = made(name)
    other = x.clone()
    other[7:] = 0.0
    assert torch.equal(layer(x)[:7], layer(other)[:7])


@pytest.mark.parametrize("name", EVERY)
def test_a_used_layer_copies_pickles_and_saves(name: str) -> None:
    layer, x = made(name)
    x.requires_grad_()
    out = layer(x)
    out.sum().backward()
    saved = io.BytesIO()
    torch.save(layer, saved)
    saved.seek(0)
    loaded = torch.load(saved, weights_only=False)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), loaded):
        assert torch.equal(twin(x), out)
        assert twin.states == layer.states


@pytest.mark.parametrize("name", EVERY)
def test_the_state_dict_holds_no_state_and_loads_strictly(name: str) -> None:
    layer, x = made(name)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    out, state = layer.unroll(x)
    after = layer.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)
    assert not set(layer.states) & set(after)
    torch.manual_seed(99)
    twin = EVERY[name].make()
    twin.load_state_dict(after)
    assert torch.equal(twin(x), out)
    assert len(state) == len(layer.states)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", EVERY)
def test_half_precision_lowers_no_number_of_a_neuron(name: str, dtype: torch.dtype) -> None:
    layer, _ = made(name)
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    layer.to(dtype)
    for key, value in layer.state_dict().items():
        weight = any(part in key for part in ("connection.", "conv.", "input_weights.", "recurrent_weights."))
        assert value.dtype == (dtype if weight else torch.float32), key
        if not weight:
            assert torch.equal(value, before[key])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", EVERY)
def test_a_half_precision_layer_keeps_its_states_wide(name: str, dtype: torch.dtype) -> None:
    layer, x = made(name)
    if layer.recurrence:  # torch 2.0 multiplies no float16 on a CPU
        dtype = torch.bfloat16
    out, state, traces = layer.to(dtype).run(x.to(dtype), wanted=layer.states)
    assert out.dtype == dtype
    assert all(tensor.dtype == torch.float32 for tensor in (*state, *traces.values()))


@pytest.mark.parametrize("name", EVERY)
def test_a_half_precision_layer_has_finite_gradients(name: str) -> None:
    layer, x = made(name)
    layer.bfloat16()
    x = x.bfloat16().requires_grad_()
    layer(x).float().square().sum().backward()
    assert x.grad is not None
    grads = [x.grad, *(p.grad for p in layer.parameters() if p.grad is not None)]
    assert all(bool(torch.isfinite(grad).all()) for grad in grads)


@pytest.mark.parametrize("name", EVERY)
def test_autocast_keeps_states_wide(name: str) -> None:
    layer, x = made(name)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out, state = layer.unroll(x)
    assert out.dtype == torch.float32
    assert all(tensor.dtype == torch.float32 for tensor in state)


@pytest.mark.parametrize("name", EVERY)
def test_it_runs_in_float64(name: str) -> None:
    layer, x = made(name)
    out, state = layer.double().unroll(x.double())
    assert out.dtype == torch.float64
    assert all(tensor.dtype == torch.float64 for tensor in state)


@pytest.mark.parametrize("name", EVERY)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    layer, x = made(name)
    out = layer(x.requires_grad_())
    (out * torch.randn_like(out)).sum().backward()
    assert x.grad is not None
    assert bool(x.grad.ne(0).any())
    assert [key for key, p in layer.named_parameters() if p.grad is None or not bool(p.grad.ne(0).any())] == []


@pytest.mark.parametrize("name", EVERY)
def test_traces_are_the_states_over_time(name: str) -> None:
    layer, x = made(name)
    _, last, traces = layer.run(x, wanted=layer.states)
    for state, final in zip(layer.states, last):
        assert traces[state].shape[:2] == x.shape[:2]
        # a sequence layer's state holds the last few of what it records
        newest = final if isinstance(layer, Neuron) else final[:, -1]
        assert torch.equal(traces[state][-1], newest)


@pytest.mark.parametrize("name", EVERY)
def test_a_missing_time_axis_is_refused_with_what_to_do(name: str) -> None:
    layer, _ = made(name)
    with pytest.raises(ShapeError, match=rf"{type(layer).__name__} got x of shape \(4, 5\)"):
        layer(torch.zeros(4, 5))


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool])
@pytest.mark.parametrize("name", EVERY)
def test_whole_numbers_are_refused_with_what_to_do(name: str, dtype: torch.dtype) -> None:
    layer, x = made(name)
    with pytest.raises(DataError, match=r"takes floating point: convert it with .float\(\)"):
        layer(x.to(dtype))


@pytest.mark.parametrize("name", [name for name in EVERY if EVERY[name].make().states])
def test_a_state_of_another_batch_is_refused(name: str) -> None:
    layer, x = made(name)
    _, state = layer.unroll(x)
    with pytest.raises(ShapeError, match="the batch sizes must agree: pass state=None to start at rest"):
        layer.unroll(x[:, :2], state)
    with pytest.raises(ShapeError, match=f"{type(layer).__name__} got a state of 7 tensors; it takes"):
        layer.unroll(x, (x[0],) * 7)


def test_a_bf16_integrator_does_not_stall() -> None:
    x = torch.full((300, 1, 1), 0.01, dtype=torch.bfloat16)
    _, (mem,) = neurons.IF(threshold=1e9).bfloat16().unroll(x)
    # float32 sums of 300 equal terms are good to 300 half ulps
    assert mem.item() == pytest.approx(300 * float(x[0]), rel=300 * 2**-24)


def test_a_bf16_integrator_does_not_stall_under_autocast() -> None:
    net = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(net.weight, 0.01)
    layer = Recurrent(neurons.IF(threshold=1e9), torch.nn.Linear(1, 1, bias=False))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, (_, mem) = layer.unroll(net(torch.ones(300, 1, 1)))
    assert mem.item() == pytest.approx(300 * float(torch.tensor(0.01).bfloat16()), rel=300 * 2**-24)


def test_an_example_is_made_anew() -> None:
    for example in every_neuron().values():
        assert isinstance(example, Example)
        assert example.make() is not example.make()
