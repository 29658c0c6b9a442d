"""What a step reads of its neuron's attributes is what they are at the call, as in the reference."""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import snn_core as snn
from snn_backend_cpu.attributes import changed, fingerprint
from snn_backend_cpu.fused import Fused
from snn_backend_cpu.looped import Looped
from snn_core.lower import LoweringError
from snn_core.neurons import Neuron, Recurrent
from snn_core.surrogate import ATan, Custom, FastSigmoid, Surrogate, spike
from snn_core.testing.neurons import every_neuron


def slope(u: Tensor, factor: float = 1.0) -> Tensor:
    return factor / (1 + u.square())


def closed(factor: float) -> Callable[[Tensor], Tensor]:
    return lambda u: factor / (1 + u.square())


class Named(Surrogate):
    """No dataclass of its own, so that all of them are equal."""

    def __init__(self, factor: float) -> None:
        object.__setattr__(self, "factor", factor)

    def derivative(self, u: Tensor) -> Tensor:
        return self.factor / (1 + u.square())


@dataclass(frozen=True)
class Setting:
    leaks: Any = (0.9,)


class Own(Neuron):
    """A user's neuron with attributes of every kind."""

    states = ("mem",)

    def __init__(self) -> None:
        super().__init__()
        self.leak = 0.9
        self.settings = {"scale": [1.0]}
        self.nested = Setting()
        self.shift = SimpleNamespace(by=0.0)
        self.twice = False
        self.surrogate: Surrogate = ATan()

    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = self.leak * self.nested.leaks[0] * state[0] + x * self.settings["scale"][0] - self.shift.by
        mem = 2 * mem if self.twice else mem
        return spike(mem - 1, self.surrogate), (mem,)


CHANGES: dict[str, Callable[[Any], None]] = {
    "a float": lambda n: setattr(n, "leak", 0.3),
    "a condition": lambda n: setattr(n, "twice", True),
    "a list in a dictionary": lambda n: n.settings["scale"].__setitem__(0, 3.0),
    "a frozen dataclass": lambda n: setattr(n, "nested", Setting((0.2,))),
    "an object's attribute": lambda n: setattr(n.shift, "by", 0.4),
    "a surrogate of another class": lambda n: setattr(n, "surrogate", FastSigmoid()),
    "a surrogate's field": lambda n: setattr(n, "surrogate", ATan(9.0)),
    "a surrogate that is equal": lambda n: setattr(n, "surrogate", Named(3.0)),
    "a function": lambda n: setattr(n, "surrogate", Custom(slope)),
    "a partial function": lambda n: setattr(n, "surrogate", Custom(partial(slope, factor=3.0))),
    "a function's surroundings": lambda n: setattr(n, "surrogate", Custom(closed(3.0))),
}
BEFORE: dict[str, Surrogate] = {
    "a surrogate that is equal": Named(1.0),
    "a partial function": Custom(partial(slope, factor=1.0)),
    "a function's surroundings": Custom(closed(1.0)),
}


def results(neuron: Neuron) -> list[Tensor]:
    x = torch.randn((6, 3, 4), generator=torch.Generator().manual_seed(5)).requires_grad_()
    out, last = neuron.unroll(x)
    return [out.detach(), last[0].detach(), *torch.autograd.grad(out.sum() + last[-1].sum(), x)]


def require_agreement(kernels: Neuron, reference: Neuron) -> None:
    for got, want in zip(results(kernels), results(reference), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_an_attribute_is_obeyed_by_the_next_call_and_so_is_its_return(name: str) -> None:
    reference = Own()
    reference.surrogate = BEFORE.get(name, reference.surrogate)
    kernels = copy.deepcopy(reference)
    kernels.runner = Fused(kernels, torch.float32)
    before = copy.deepcopy({key: vars(kernels)[key] for key in vars(reference) if not key.startswith("_")})
    start = results(kernels)
    for neuron in (reference, kernels):
        CHANGES[name](neuron)
    assert any(not torch.equal(a, b) for a, b in zip(results(reference), start, strict=True))
    require_agreement(kernels, reference)
    for key, value in before.items():
        if key != "runner":
            setattr(kernels, key, value)
    assert all(torch.equal(a, b) for a, b in zip(results(kernels), start, strict=True))


@pytest.mark.parametrize("looped", [False, True])
def test_an_annealed_surrogate_changes_the_gradient(looped: bool) -> None:
    torch.manual_seed(0)
    reference: Any = Recurrent(snn.LIF(0.9), nn.Linear(4, 4)) if looped else snn.LIF(0.9)
    kernels = copy.deepcopy(reference)
    kernels.runner = (Looped if looped else Fused)(kernels, torch.float32)
    for width in (2.0, 5.0, 2.0):
        for neuron in (reference, kernels):
            inner = neuron.neuron if looped else neuron
            inner.firing = replace(inner.firing, surrogate=ATan(width))
        require_agreement(kernels, reference)


def test_a_change_to_what_no_kernel_can_do_is_refused_at_the_call() -> None:
    kernels = snn.LIF(0.9)
    kernels.runner = Fused(kernels, torch.float32)
    kernels.firing = replace(kernels.firing, surrogate=Custom(lambda u: u.mean() + 0 * u))
    with pytest.raises(LoweringError, match="mean"):
        results(kernels)


def test_the_lowered_steps_of_old_attributes_do_not_pile_up() -> None:
    kernels = Own()
    kernels.runner = runner = Fused(kernels, torch.float32)
    x = torch.zeros(0, 3, 4).new_zeros(1, 1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in range(40):
            kernels.twice, kernels.counted = False, step
            kernels(x)
    assert len(runner._kernels._made) <= 16


def test_another_value_at_every_call_is_said_once_by_name() -> None:
    kernels = Own()
    kernels.runner = Fused(kernels, torch.float32)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for step in range(25):
            kernels.counted = step
            kernels(torch.zeros(1, 1, 1))
    assert [str(warning.message).split(" at each")[0] for warning in said] == ["Own has had another value of counted"]


def test_a_change_now_and_then_is_not_worth_a_warning() -> None:
    kernels = Own()
    kernels.runner = Fused(kernels, torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for step in range(30):
            kernels.counted = step // 2
            kernels(torch.zeros(1, 1, 1))


def test_a_step_is_lowered_anew_inside_a_checkpoint_and_without_gradients() -> None:
    reference, kernels = Own(), Own()
    kernels.runner = Fused(kernels, torch.float32)
    for neuron in (reference, kernels):
        neuron.leak = 0.4
    x = torch.randn(6, 3, 4)
    found = []
    for neuron in (reference, kernels):
        leaf = x.clone().requires_grad_()
        out = torch.utils.checkpoint.checkpoint(neuron, leaf, use_reentrant=False)
        found.append(torch.autograd.grad(out.sum(), leaf)[0])
    torch.testing.assert_close(*found)
    reference.leak = kernels.leak = 0.7
    with torch.inference_mode():
        assert torch.equal(kernels(x), reference(x))


def test_a_fingerprint_of_what_refers_to_itself_ends() -> None:
    neuron = Own()
    neuron.settings["self"] = neuron.settings
    neuron.shift.owner = neuron
    assert fingerprint(neuron) == fingerprint(neuron)


def test_only_what_changed_is_named() -> None:
    neuron = Recurrent(Own(), snn.OneToOne(4))
    before = fingerprint(neuron)
    neuron.neuron.leak = 0.1
    assert changed(before, fingerprint(neuron)) == ["neuron"]
    assert changed(fingerprint(neuron), fingerprint(copy.deepcopy(neuron))) == []


@pytest.mark.parametrize("name", every_neuron())
def test_a_fingerprint_stays_the_same_where_nothing_changes(name: str) -> None:
    layer = every_neuron()[name].make()
    assert fingerprint(layer) == fingerprint(layer)
    assert fingerprint(layer) == fingerprint(copy.deepcopy(layer))


def test_looking_at_attributes_takes_no_time() -> None:
    neuron = snn.LIF(0.9)
    found = []
    for _ in range(20):
        start = perf_counter()
        for _ in range(50):
            hash(fingerprint(neuron))
        found.append((perf_counter() - start) / 50)
    assert min(found) < 100e-6, min(found)  # about 8 on the machine of the benchmarks


class Annealed(nn.Module):
    """A user's network whose surrogate is steeper at every call."""

    def __init__(self) -> None:
        super().__init__()
        self.weights, self.lif, self.calls = nn.Linear(6, 3), snn.LIF(0.9), 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        self.lif.firing = replace(self.lif.firing, surrogate=ATan(1.0 + self.calls))
        return self.lif(self.weights(x))  # type: ignore[no-any-return]


def test_a_network_that_anneals_its_surrogate_learns_as_on_eager() -> None:
    weights = []
    for backend in ("eager", "cpu"):
        torch.manual_seed(0)
        net = Annealed()
        data = TensorDataset(3 * torch.rand(8, 5, 6), torch.arange(8) % 3)
        chosen: dict[str, Any] = {"folder": None, "progress": False, "plots": False, "time_axis": 1, "batch_size": 4}
        snn.Trainer(net, loss=snn.CountCrossEntropy(), optimizer=snn.SGD(lr=1.0), backend=backend, **chosen).fit(
            data, epochs=2
        )
        weights.append(net.weights.weight.detach())
    torch.testing.assert_close(*weights, rtol=1e-5, atol=1e-6)
