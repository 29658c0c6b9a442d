"""What a loss does not depend on has no gradient, rather than one of 0, exactly as in the reference."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import snn_core as snn
from snn_backend_cpu.fused import Fused
from snn_backend_cpu.looped import Looped
from snn_backend_cpu.sliding import Sliding
from snn_core.neurons import Neuron, Recurrent
from snn_core.surrogate import ATan, spike


class Delayed(Neuron):
    """What it gets is sent two steps later; a third state stays as it was, and a coefficient is never used."""

    states = ("first", "second", "still")

    def __init__(self) -> None:
        super().__init__()
        self.scale, self.shift, self.idle = (nn.Parameter(torch.full((4,), value)) for value in (0.5, 0.1, 0.2))

    def coefficients(self) -> Any:
        return {"scale": self.scale, "shift": self.shift, "idle": self.idle}

    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        first, second, still = state
        return spike(second - c["shift"], ATan()), (x * c["scale"], first, still)


class Deaf(Neuron):
    """Its output is nothing of its input, which its membrane hears."""

    states = ("mem",)

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.5))

    def coefficients(self) -> Any:
        return {"rate": self.rate}

    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        return torch.zeros_like(x) + c["rate"], (state[0] + x * 0,)


NEURONS: dict[str, Callable[[], Neuron]] = {
    "LIF, learnt gain": lambda: snn.LIF(0.9, gain=1.0, learn_gain=True, learn_beta=True, learn_threshold=True),
    "LIF, no reset": lambda: snn.LIF(0.9, reset_mechanism="none", learn_threshold=True, learn_beta=True),
    "ALIF": lambda: snn.ALIF(0.9, 0.8, learn_rho=True, learn_beta=True),
    "AdEx": lambda: snn.AdEx(learn=("a", "tau_w", "rheobase")),
    "delayed": Delayed,
    "deaf": Deaf,
    "one to one": lambda: Recurrent(snn.LIF(0.9, gain=1.0, learn_gain=True), snn.OneToOne(4)),
    "linear": lambda: Recurrent(snn.LIF(0.9, gain=1.0, learn_gain=True, learn_threshold=True), nn.Linear(4, 4)),
    "linear, delayed": lambda: Recurrent(Delayed(), nn.Linear(4, 4)),
    "linear, deaf": lambda: Recurrent(Deaf(), nn.Linear(4, 4, bias=False)),
}

LOSSES: dict[str, Callable[[Any, Any, Any], list[Tensor]]] = {
    "spikes": lambda out, last, traces: [out],
    "a trace": lambda out, last, traces: [traces[-1]],
    "spikes and a trace": lambda out, last, traces: [out, traces[0]],
    "the last states": lambda out, last, traces: [*last],
    "the first of the last states": lambda out, last, traces: [last[0]],
    "the last of the last states": lambda out, last, traces: [last[-1]],
}


def gradients(neuron: Neuron, loss: Callable[[Any, Any, Any], list[Tensor]], steps: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn((steps, 3, 4), generator=generator).requires_grad_()
    state = tuple(torch.randn((3, 4), generator=generator).requires_grad_() for _ in neuron.states)
    out, last, traces = neuron.run(x, state, None, neuron.states)
    terms = [term.square().sum() for term in loss(out, last, [*traces.values()]) if term.requires_grad]
    leaves = {"x": x, **dict(neuron.named_parameters()), **dict(zip(neuron.states, state, strict=True))}
    if not terms:
        return dict.fromkeys(leaves)
    grads = torch.autograd.grad(torch.stack(terms).sum(), list(leaves.values()), allow_unused=True)
    return dict(zip(leaves, grads, strict=True))


@pytest.mark.parametrize("steps", [1, 2, 3, 20])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", NEURONS)
def test_there_is_a_gradient_where_the_reference_has_one(name: str, loss: str, steps: int) -> None:
    torch.manual_seed(0)
    reference = NEURONS[name]()
    kernels = copy.deepcopy(reference)
    looped = isinstance(reference, Recurrent) and isinstance(reference.connection, nn.Linear)
    kernels.runner = Looped(kernels, torch.float32) if looped else Fused(kernels, torch.float32)
    want, got = (gradients(neuron, LOSSES[loss], steps) for neuron in (reference, kernels))
    assert [name for name, grad in got.items() if grad is None] == [name for name, grad in want.items() if grad is None]
    for key, grad in want.items():
        if grad is not None:
            torch.testing.assert_close(got[key], grad, rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize("option", [{"gain": 1.0, "learn_gain": True}, {"threshold": 5.0, "learn_threshold": True}])
def test_weight_decay_leaves_a_coefficient_alone_that_the_loss_does_not_reach(option: dict[str, Any]) -> None:
    found = {}
    for backend in ("eager", "cpu"):
        torch.manual_seed(0)
        net = snn.Sequential(nn.Linear(20, 5), snn.LIF(beta=0.9, reset_mechanism="none", **option))
        data = TensorDataset(torch.rand(32, 12, 20), torch.arange(32) % 5)
        optimizer = snn.AdamW(lr=1e-2, weight_decay=0.1)
        chosen: dict[str, Any] = {"folder": None, "progress": False, "plots": False, "time_axis": 1}
        trainer = snn.Trainer(
            net, loss=snn.MembraneCrossEntropy(), optimizer=optimizer, batch_size=16, backend=backend, **chosen
        )
        trainer.fit(data, epochs=2)
        found[backend] = next(float(p.detach()) for p in net[1].parameters())
    assert found["cpu"] == found["eager"]
    assert found["cpu"] in option.values()  # as it started


def test_a_filter_has_no_gradient_of_an_output_that_is_nothing_of_it() -> None:
    layer = snn.SlidingPSN(order=3)
    layer.run = Sliding(layer, torch.float32)  # type: ignore[method-assign]
    after = Deaf()
    after.runner = Fused(after, torch.float32)
    after(layer(torch.randn(5, 3, 4))).sum().backward()
    assert after.rate.grad is not None
    assert layer.weight.grad is None
