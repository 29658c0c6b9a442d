"""One layer, or one tensor, at two places of a model: what poptorch cannot have in a state_dict is kept from it."""

import copy
from typing import Any, Callable, Dict, List

import pytest
import torch
from torch import Tensor, nn

import snn_core as snn
from snn_backend_ipu import IpuBackend, IpuOptions, IpuProgram
from snn_backend_ipu.sharing import part_names
from snn_core.errors import Unsupported
from snn_core.testing.fit import agree, evaluate, fit, train
from snn_core.testing.nets import dense
from snn_core.testing.trial import compiled


def backend(**options: Any) -> IpuBackend:
    return IpuBackend(IpuOptions(ipu_model=True, **options))


def one_neuron() -> nn.Module:
    neuron = snn.LIF(0.9)
    return snn.Sequential(nn.Linear(6, 7), neuron, nn.Linear(7, 3), neuron)


def one_frozen_layer() -> nn.Module:
    layer = nn.Linear(6, 6)
    layer.bias.requires_grad_(False)
    return snn.Sequential(layer, snn.LIF(0.9), layer, snn.LIF(0.8), nn.Linear(6, 3), snn.LIF(0.8))


def tied_weights(frozen: bool = False) -> nn.Module:
    one, other = nn.Linear(6, 6), nn.Linear(6, 6)
    other.weight = one.weight.requires_grad_(not frozen)
    return snn.Sequential(one, snn.LIF(0.9), other, snn.LIF(0.8), nn.Linear(6, 3), snn.LIF(0.8))


def one_norm() -> nn.Module:
    norm = nn.BatchNorm1d(6)
    return snn.Sequential(
        nn.Linear(6, 6), norm, snn.LIF(0.9), nn.Linear(6, 6), norm, snn.LIF(0.8), nn.Linear(6, 3), snn.LIF(0.8)
    )


def one_block() -> nn.Module:
    """A container at two depths, with a norm, a neuron and weights in it."""
    block = snn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), snn.LIF(0.9))
    return snn.Sequential(block, snn.Sequential(nn.Linear(6, 6), block), nn.Linear(6, 3), snn.LIF(0.8))


class Children(nn.Module):
    """Runs each child once, as `children()` gives them: one of two names is not there twice."""

    def __init__(self) -> None:
        super().__init__()
        self.fc, self.neuron = nn.Linear(6, 3), snn.LIF(0.9)
        self.other = self.neuron

    def forward(self, x: Tensor) -> Tensor:
        for child in self.children():
            x = child(x)
        return x


def one_threshold() -> nn.Module:
    """Two neurons whose threshold is one tensor."""
    one, other = snn.LIF(0.9, threshold=0.7), snn.LIF(0.8)
    other.threshold = one.threshold
    return snn.Sequential(nn.Linear(6, 7), one, nn.Linear(7, 3), other)


MODELS: Dict[str, Callable[[], nn.Module]] = {
    "a neuron": one_neuron,
    "a layer with a frozen bias": one_frozen_layer,
    "a trained weight": tied_weights,
    "a frozen weight": lambda: tied_weights(frozen=True),
    "a batch norm": one_norm,
    "a container": one_block,
    "a child of two names": Children,
    "a threshold": one_threshold,
}


@pytest.mark.parametrize("name", MODELS)
def test_what_stands_at_two_places_trains_as_the_references(name: str) -> None:
    agree(backend(), dense(16, model=MODELS[name]).training(accumulation=2))


@pytest.mark.parametrize("name", MODELS)
def test_what_stands_at_two_places_comes_back_under_all_its_names(name: str) -> None:
    trial = dense(8, model=MODELS[name], dtype="float32")
    model = trial.build()
    names = list(model.state_dict())
    with compiled(backend(), trial, model) as program:
        train(program, trial.samples())
        state = program.state_dict()
        program.sync()
        got = evaluate(program, trial.samples())
        assert list(state["model"]) == names
        # one tensor of several names has one value
        first: Dict[int, Tensor] = {}
        for key, tensor in model.state_dict(keep_vars=True).items():
            if not key.endswith("num_batches_tracked"):
                assert torch.equal(state["model"][key], first.setdefault(id(tensor), tensor))
        program.load_state_dict(state)
        again = evaluate(program, trial.samples())
    assert torch.equal(got.output, again.output)


def test_running_statistics_of_a_norm_at_two_places_stay_one() -> None:
    trial = dense(8, model=one_norm, dtype="float32")
    states = []
    for one in (snn.EagerBackend(), backend()):
        model = trial.build()
        with compiled(one, trial, model) as program:
            train(program, trial.samples())
            program.sync()
        states.append(model.state_dict())
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(states[1][f"1.{name}"], states[0][f"1.{name}"], rtol=1e-5, atol=1e-6)
        assert torch.equal(states[1][f"4.{name}"], states[1][f"1.{name}"])
    # two batches, each through both places
    assert int(states[1]["1.num_batches_tracked"]) == 4


@pytest.mark.parametrize("options", [{"precision": "fp16"}, {"steps_per_call": 2}])
def test_a_norm_at_two_places_takes_the_programs_other_ways(options: Dict[str, Any]) -> None:
    trial = dense(16, model=one_block, dtype="float32").training(**options)
    assert all(torch.isfinite(value).all() for value in fit(backend(), trial).weights.values())


def test_the_users_model_stays_as_it_was() -> None:
    trial = dense(8, model=one_block)
    model = trial.build()
    before = [type(module) for module in model.modules()]
    with compiled(backend(), trial, model) as program:
        train(program, trial.samples())
        program.sync()
    assert [type(module) for module in model.modules()] == before
    assert model[1][1] is model[0]


def doubled(model: nn.Module) -> List[str]:
    seen: Dict[int, str] = {}
    return [
        name
        for name, value in model.state_dict(keep_vars=True).items()
        if seen.setdefault(id(value), name) != name and not isinstance(value, nn.Parameter)
    ]


@pytest.mark.parametrize("name", MODELS)
def test_no_buffer_has_two_names_in_what_poptorch_is_given(name: str) -> None:
    with compiled(backend(), dense(8, model=MODELS[name])) as program:
        assert isinstance(program, IpuProgram)
        for executor in (program._training, program._evaluation):
            assert not doubled(executor.model)
            assert len(executor.model.state_dict()) == len(MODELS[name]().state_dict())


def test_the_second_place_is_the_same_module_in_all_but_the_state_dict() -> None:
    model = one_block()
    parted = copy.deepcopy(model)
    part_names(parted)
    for walk in (nn.Module.named_modules, nn.Module.named_parameters, nn.Module.named_buffers):
        assert [name for name, _ in walk(parted)] == [name for name, _ in walk(model)]
    first, second = parted[0], parted[1][1]
    assert first is not second
    assert first == second
    assert isinstance(second, type(first))
    assert (type(second).__name__, type(second).__module__) == (type(first).__name__, type(first).__module__)
    first[1].running_mean.fill_(3.0)
    first[2].threshold = torch.tensor(5.0)
    assert float(second[1].running_mean[0]) == 3.0
    assert float(second[2].threshold) == 5.0


class Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += x.mean()
        return x + 0 * self.seen


def two_counters() -> nn.Module:
    one, other = Counting(), Counting()
    other.seen = one.seen
    return snn.Sequential(nn.Linear(6, 7), one, nn.Linear(7, 3), other, snn.LIF(0.9))


def two_norms() -> nn.Module:
    one, other = nn.BatchNorm1d(6), nn.BatchNorm1d(6)
    other.running_mean = one.running_mean
    return snn.Sequential(one, nn.Linear(6, 6), other, snn.LIF(0.9), nn.Linear(6, 3), snn.LIF(0.8))


WRITTEN = [(two_counters, "1.seen", "3.seen"), (two_norms, "0.running_mean", "2.running_mean")]


@pytest.mark.parametrize(("model", "one", "other"), WRITTEN)
def test_a_buffer_of_two_modules_that_forward_writes_is_refused(
    model: Callable[[], nn.Module], one: str, other: str
) -> None:
    trial = dense(8, model=model, dtype="float32")
    arguments = trial.step(trial.build()), trial.optimizer, trial.batch(), trial.train
    with pytest.raises(Unsupported) as caught:
        backend().compile(*arguments)
    assert f"{one!r} and {other!r} are one buffer of two modules" in str(caught.value)
    assert "make two buffers" in str(caught.value)
    assert any("are one buffer of two modules" in found.message for found in backend().lint(*arguments))


def test_a_neuron_at_two_places_of_a_pipeline_trains_as_the_references() -> None:
    agree(backend(stages={"0": 0, "2": 1}), dense(24, model=one_neuron).training(accumulation=3))
