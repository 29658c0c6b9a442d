"""One step of every neuron traces to a small graph of pointwise operations, which is what fused kernels are made of."""

from typing import Callable, Dict, List, Tuple

import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from snn_core.neurons import Neuron
from snn_core.testing.neurons import every_neuron

FORWARD = """
    _to_copy abs add addcmul ceil clamp detach div exp floor ge gt minimum mul neg ones_like pow reciprocal relu round
    rsub sign square sub
"""
BACKWARD = """
    eq is_same_size le logical_and lt masked_fill masked_fill_ scalar_tensor sgn threshold_backward where zeros_like
"""
POINTWISE = set(FORWARD.split())

IN_LOOP = ("Recurrent, linear", "Recurrent, convolution")
NEURONS = {
    name: example
    for name, example in every_neuron().items()
    if isinstance(example.make(), Neuron) and "LSTM" not in name and name not in IN_LOOP
}


def operations(graph: torch.fx.GraphModule) -> List[str]:
    calls = [node for node in graph.graph.nodes if node.op == "call_function"]
    return [str(node.target).split(".")[1] for node in calls]


def traced(name: str, shape: Tuple[int, ...]) -> Tuple[Callable[..., object], List[Tensor], List[str]]:
    torch.manual_seed(0)
    neuron = NEURONS[name].make()
    assert isinstance(neuron, Neuron)
    x = torch.randn(shape)
    # every coefficient as large as the input, as a kernel reads it
    c = {key: value.detach().expand(shape).contiguous() for key, value in neuron.aligned_coefficients(x).items()}
    state = neuron.initial(x, c)
    names, count = list(c), len(state)

    def step(x: Tensor, *rest: Tensor) -> Tuple[Tensor, ...]:
        out, new = neuron.dynamics(x, tuple(rest[:count]), dict(zip(names, rest[count:])))
        return (out, *new)

    return step, [x, *state, *c.values()], names


@pytest.mark.parametrize("name", NEURONS)
def test_one_step_is_pointwise_and_holds_no_number_of_the_module(name: str) -> None:
    shape = NEURONS[name].shape[1:]
    step, inputs, _ = traced(name, shape)
    graph = make_fx(step)(*inputs)
    assert set(operations(graph)) <= POINTWISE
    # a tensor that the graph takes from the module would get no gradient in a kernel
    assert [node.target for node in graph.graph.nodes if node.op == "get_attr"] == []
    # traced on one input it is right for another: nothing branched on a value
    other = [torch.rand_like(t) for t in inputs]
    assert all(torch.equal(a, b) for a, b in zip(graph(*other), step(*other)))


@pytest.mark.parametrize("name", NEURONS)
def test_another_shape_traces_to_the_same_graph(name: str) -> None:
    shape = NEURONS[name].shape[1:]
    channels, rest = shape[1], shape[2:]
    graphs = [
        operations(make_fx(step)(*inputs))
        for step, inputs, _ in (traced(name, (b, channels, *rest)) for b in (shape[0], 7))
    ]
    assert graphs[0] == graphs[1]


@pytest.mark.parametrize("name", NEURONS)
def test_the_backward_pass_of_one_step_is_pointwise_too(name: str) -> None:
    shape = NEURONS[name].shape[1:]
    step, inputs, _ = traced(name, shape)

    def vjp(*args: Tensor) -> Tuple[Tensor, ...]:
        leaves = [t.detach().requires_grad_() for t in args[: len(inputs)]]
        outs = step(*leaves)
        live = [(o, g) for o, g in zip(outs, args[len(inputs) :]) if o.requires_grad]
        grads = torch.autograd.grad([o for o, _ in live], leaves, [g for _, g in live], allow_unused=True)
        return tuple(torch.zeros_like(leaf) if grad is None else grad for leaf, grad in zip(leaves, grads))

    pulls = [torch.randn(shape) for _ in step(*inputs)]
    graph = make_fx(vjp)(*inputs, *pulls)
    used = set(operations(graph))
    assert used <= POINTWISE | set(BACKWARD.split())
    wanted = vjp(*inputs, *pulls)
    assert all(torch.equal(a, b) for a, b in zip(graph(*inputs, *pulls), wanted))


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.*:DeprecationWarning")
@pytest.mark.parametrize("name", every_neuron())
def test_a_whole_run_traces_without_a_warning_of_frozen_values(name: str) -> None:
    example = every_neuron()[name]
    torch.manual_seed(0)
    layer = example.make()
    run = torch.jit.trace(layer, (torch.randn(example.shape),), check_trace=False)  # type: ignore[no-untyped-call]
    x = torch.randn(example.shape)
    assert torch.equal(run(x), layer(x))


def test_the_coefficients_of_a_one_to_one_connection_are_among_the_neurons() -> None:
    neuron = every_neuron()["Recurrent, one to one"].make()
    assert isinstance(neuron, Neuron)
    c: Dict[str, Tensor] = neuron.coefficients()
    assert c["connection_weight"] is neuron.connection.weight  # type: ignore[union-attr]
