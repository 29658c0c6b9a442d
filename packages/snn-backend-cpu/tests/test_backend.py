"""The backend as core sees it: preferred to eager, and never slow without being asked."""

from typing import Any

import pytest
from torch import Tensor, nn

import snn_core as snn
from snn_backend_cpu import CpuBackend, CpuOptions, CpuProgram
from snn_backend_cpu.fused import Fused
from snn_backend_cpu.looped import Looped
from snn_backend_cpu.sliding import Sliding
from snn_core.errors import ConfigError, Unsupported
from snn_core.neurons import Neuron
from snn_core.neurons.base import unroll_reference
from snn_core.specs import BatchSpec, TensorSpec, TrainSpec
from snn_core.step import Step
from snn_core.surrogate import Custom


class Normalised(Neuron):
    """A user's neuron that looks at all neurons of a sample."""

    states = ("mem",)

    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = state[0] * 0.9 + x - x.mean(1, keepdim=True)
        return mem, (mem,)


def compiled(neuron: nn.Module, options: CpuOptions | None = None) -> CpuProgram:
    model = snn.Sequential(snn.Constant(steps=3), nn.Linear(4, 4), neuron)
    batch = BatchSpec(size=2, x=TensorSpec((4,), "float32"), target=TensorSpec((), "int64"))
    return CpuBackend(options).compile(Step(model, snn.CountCrossEntropy()), snn.SGD(), batch, TrainSpec())


def runners(program: CpuProgram) -> list[Any]:
    return [
        module.runner
        for tree in (program._training, program._evaluation)
        for module in tree.modules()
        if isinstance(module, Neuron)
    ]


def test_auto_prefers_cpu_to_eager() -> None:
    assert CpuBackend.priority > snn.EagerBackend.priority
    assert CpuBackend().probe().ready


def test_neurons_of_both_trees_are_fused_and_the_users_model_is_not() -> None:
    neuron = snn.LIF(0.9)
    found = runners(compiled(neuron))
    assert len(found) == 2
    assert all(isinstance(runner, Fused) for runner in found)
    assert neuron.runner is unroll_reference


def test_a_neuron_that_cannot_be_lowered_is_refused_by_layer_and_line() -> None:
    with pytest.raises(
        Unsupported, match=r"layer '2': Normalised.dynamics .*test_backend.py:\d+: `mem = .*not_lowered"
    ):
        compiled(Normalised())


def test_a_neuron_inside_a_one_to_one_recurrence_is_refused_as_well() -> None:
    with pytest.raises(Unsupported, match=r"Normalised|Recurrent"):
        compiled(snn.Recurrent(Normalised(), snn.OneToOne()))


def test_it_runs_on_eager_where_the_user_asked_for_that() -> None:
    found = runners(compiled(Normalised(), CpuOptions(not_lowered="eager")))
    assert all(runner is unroll_reference for runner in found)


def test_a_weight_layer_in_the_loop_is_run_by_products_and_kernels() -> None:
    found = runners(compiled(snn.Recurrent(snn.LIF(0.9), nn.Linear(4, 4))))
    assert [isinstance(runner, Looped) for runner in found] == [True, False] * 2


def test_any_other_connection_in_the_loop_runs_step_by_step() -> None:
    recurrent = snn.Recurrent(snn.LIF(0.9), nn.Sequential(nn.Linear(4, 4), nn.Tanh()))
    assert runners(compiled(recurrent))[0] is unroll_reference


def test_an_inner_neuron_that_cannot_be_lowered_is_refused_by_layer_and_line() -> None:
    with pytest.raises(Unsupported, match=r"layer '2': Normalised.dynamics .*test_backend.py:\d+: `mem = "):
        compiled(snn.Recurrent(Normalised(), nn.Linear(4, 4)))


def test_a_one_to_one_recurrence_is_one_kernel() -> None:
    found = runners(compiled(snn.Recurrent(snn.LIF(0.9), snn.OneToOne(4))))
    assert [isinstance(runner, Fused) for runner in found] == [True, False] * 2


@pytest.mark.parametrize("options", [{"num_workers": -1}, {"not_lowered": "maybe"}])
def test_options_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        CpuOptions(**options)


def unlowerable(u: Tensor) -> Tensor:
    return (u - u.mean()).abs()


@pytest.mark.parametrize(
    "layer", [snn.PSN(3, surrogate=Custom(unlowerable)), snn.SlidingPSN(2, surrogate=Custom(unlowerable))]
)
def test_a_surrogate_of_which_no_kernel_can_be_made_is_refused_in_layers_of_whole_sequences(layer: nn.Module) -> None:
    with pytest.raises(Unsupported, match=r"layer '2': .*mean"):
        compiled(layer)
    compiled(layer, CpuOptions(not_lowered="eager")).close()


def test_a_sliding_neuron_runs_by_a_kernel_in_both_trees() -> None:
    program = compiled(snn.SlidingPSN(2))
    for tree in (program._training, program._evaluation):
        assert isinstance(vars(tree.model[2])["run"], Sliding)


def linted(neuron: nn.Module, options: CpuOptions | None = None) -> list[snn.Finding]:
    model = snn.Sequential(snn.Constant(steps=3), nn.Linear(4, 4), neuron)
    batch = BatchSpec(size=2, x=TensorSpec((4,), "float32"), target=TensorSpec((), "int64"))
    return CpuBackend(options).lint(Step(model, snn.CountCrossEntropy()), snn.SGD(), batch, TrainSpec())


def test_lint_names_the_layer_and_the_line_that_cannot_be_lowered() -> None:
    (found,) = linted(Normalised())
    assert (found.rule, found.severity) == ("not-lowered", "error")
    assert "layer '2': Normalised.dynamics" in found.message
    assert found.file == __file__
    assert found.line == Normalised.dynamics.__code__.co_firstlineno + 1


def test_lint_warns_of_a_neuron_that_will_run_slowly() -> None:
    (found,) = linted(Normalised(), CpuOptions(not_lowered="eager"))
    assert found.severity == "warning"


def test_lint_finds_nothing_where_every_neuron_is_fused() -> None:
    assert linted(snn.LIF(0.9)) == []
