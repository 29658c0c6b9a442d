"""What runs by kernels and what in torch: each tree in its own mode, and nothing in torch without being said."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import snn_core as snn
from snn_backend_cpu import CpuBackend, CpuOptions, CpuProgram
from snn_backend_cpu.fused import Fused
from snn_backend_cpu.installing import plan
from snn_backend_cpu.looped import Looped
from snn_core.errors import Unsupported
from snn_core.neurons import Neuron, Recurrent
from snn_core.neurons.base import Temporal, unroll_reference
from snn_core.registry import load
from snn_core.specs import BatchSpec, TensorSpec, TrainSpec
from snn_core.step import Step
from snn_core.surrogate import Custom, Surrogate, spike


def asked(layer: nn.Module) -> tuple[Any, ...]:
    """What a backend is asked to compile or to look at."""
    model = snn.Sequential(snn.Constant(steps=3), nn.Linear(4, 4), layer)
    batch = BatchSpec(size=2, x=TensorSpec((4,), "float32"), target=TensorSpec((), "int64"))
    return Step(model, snn.CountCrossEntropy()), snn.SGD(), batch, TrainSpec()


def compiled(layer: nn.Module, options: CpuOptions | None = None) -> CpuProgram:
    return CpuBackend(options).compile(*asked(layer))


def linted(layer: nn.Module) -> list[snn.Finding]:
    return CpuBackend().lint(*asked(layer))


class Moody(Neuron):
    """A user's neuron with another threshold in training."""

    states = ("mem",)

    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = state[0] * 0.9 + x
        return spike(mem - (0.2 if self.training else 1.0), snn.surrogate.ATan()), (mem,)


class SoftInEvaluation(Neuron):
    """A user's neuron that no kernel can run in evaluation."""

    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        return (x if self.training else x.softmax(1)), ()


class Twice(Recurrent):
    """A user's recurrent neuron under a name of its own."""


class Louder(Recurrent):
    """A user's recurrent neuron that hears itself otherwise."""

    def _hear(self, out: Tensor, c: Any) -> Tensor:
        return 2 * super()._hear(out, c)


class Loop(Neuron):
    """A user's neuron with an own way of running over time."""

    def run(self, x: Tensor, state: Any = None, steps: Any = None, wanted: Any = ()) -> Any:
        return (x if steps is None else x.expand(steps, *x.shape)), (), {}


class Echo(Neuron):
    """A user's neuron with a weight in its loop, one for each neuron."""

    states = ("spk",)
    recurrence = True

    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        out = spike(x + 0.5 * state[0] - 1.0, snn.surrogate.ATan())
        return out, (out,)


class Mixing(Echo):
    """A user's neuron with a weight matrix in its loop."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(4))

    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        out = spike(x + state[0] @ self.weight - 1.0, snn.surrogate.ATan())
        return out, (out,)


class Whole(Temporal):
    """A user's layer that owns the time axis and is neither a neuron nor a SequenceLayer."""

    def run(self, x: Tensor, state: Any = None, steps: Any = None, wanted: Any = ()) -> Any:
        return (x if steps is None else x.expand(steps, *x.shape)), (), {}


@dataclass(frozen=True)
class Listed(Surrogate):
    slopes: list[float]

    def derivative(self, u: Tensor) -> Tensor:
        return self.slopes[0] / (1 + u * u)


def mean_of(u: Tensor) -> Tensor:
    return u.mean() + 0 * u


def results(backend: str, training: bool) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    model = snn.Sequential(nn.Linear(4, 4), Moody()).train(training)
    spec = BatchSpec(size=6, x=TensorSpec((5, 4), "float32", 1), target=TensorSpec((), "int64"))
    x, target = 3 * torch.randn(6, 5, 4), torch.arange(6) % 4
    step = Step(model, snn.CountCrossEntropy())
    with load(backend).compile(step, snn.SGD(lr=0.1), spec, TrainSpec()) as program:
        output = program.eval_step((x, target)).output
        assert output is not None
        return output, program.train_step((x, target)).loss


@pytest.mark.parametrize("training", [True, False], ids=["a model in training", "a model in evaluation"])
def test_a_step_that_asks_for_the_mode_gets_that_of_its_tree(training: bool) -> None:
    got, want = results("cpu", training), results("eager", training)
    assert torch.equal(got[0], want[0])
    assert torch.allclose(got[1], want[1])


@pytest.mark.parametrize("training", [True, False])
def test_what_cannot_be_lowered_in_one_mode_is_refused_whatever_mode_the_users_model_is_in(training: bool) -> None:
    with pytest.raises(Unsupported, match="softmax"):
        compiled(SoftInEvaluation().train(training))


@pytest.mark.parametrize("training", [True, False])
def test_lint_looks_at_both_modes_and_leaves_the_steps_own(training: bool) -> None:
    step, *rest = asked(SoftInEvaluation())
    step.train(training)
    (found,) = CpuBackend().lint(step, *rest)
    assert "softmax" in found.message
    assert all(module.training is training for module in step.modules())


def test_a_subclass_of_recurrent_with_its_step_has_its_kernels() -> None:
    layer: Any = compiled(Twice(snn.LIF(0.9), nn.Linear(4, 4)))._training.model
    assert isinstance(layer[2].runner, Looped)


def test_a_weight_for_each_neuron_in_the_loop_is_one_kernel() -> None:
    layer: Any = compiled(Echo())._training.model
    assert isinstance(layer[2].runner, Fused)


def hooked() -> Recurrent:
    neuron = Recurrent(snn.LIF(0.9), nn.Linear(4, 4))
    neuron.connection.register_full_backward_hook(lambda module, by_input, by_output: None)
    return neuron


IN_TORCH = {
    "connection of several modules": (
        lambda: Recurrent(snn.LIF(0.9), nn.Sequential(nn.Linear(4, 4), nn.Tanh())),
        "modules inside its time loop",
    ),
    "a step of its own": (lambda: Louder(snn.LIF(0.9), nn.Linear(4, 4)), "modules inside its time loop"),
    "spiking LSTM": (lambda: snn.SLSTM(4, 4), "modules inside its time loop"),
    "hook on the connection": (hooked, "has hooks"),
    "weights of its own in the loop": (Mixing, "test_installing.py"),
    "a layer of no known kind": (Whole, "whole sequence"),
    "an own run": (Loop, "`run` of its own"),
    "a whole sequence": (lambda: snn.PSN(3), "whole sequence"),
    "parallel": (lambda: snn.ParallelLIF(0.9), "whole sequence"),
    "unhashable surrogate": (lambda: snn.PSN(3, surrogate=Listed([1.0])), "unhashable surrogate"),
}


@pytest.mark.parametrize("name", IN_TORCH)
def test_lint_says_what_torch_runs_and_why(name: str) -> None:
    make, why = IN_TORCH[name]
    (found,) = linted(make())
    assert (found.rule, found.severity) == ("in-torch", "warning")
    assert "layer '2'" in found.message
    assert why in found.message
    assert found.remedy


@pytest.mark.parametrize("name", IN_TORCH)
def test_a_programs_summary_names_the_layers_that_torch_runs(name: str) -> None:
    layer = IN_TORCH[name][0]()
    with compiled(layer) as program:
        assert f"'2' ({type(layer).__name__})" in program.summary


def test_a_program_of_kernels_alone_has_nothing_to_say() -> None:
    with compiled(snn.Recurrent(snn.LIF(0.9), nn.Linear(4, 4))) as program:
        assert program.summary == ""


def test_what_was_left_to_eager_stands_in_the_summary() -> None:
    with compiled(SoftInEvaluation(), CpuOptions(not_lowered="eager")) as program:
        assert "'2' (SoftInEvaluation) step by step" in program.summary


def test_a_long_summary_is_cut() -> None:
    with compiled(nn.Sequential(*(snn.PSN(3) for _ in range(9)))) as program:
        assert "5 more" in program.summary


def test_a_neuron_that_also_stands_alone_has_a_kernel_there() -> None:
    inner = snn.LIF(0.9)
    model = nn.Sequential(Recurrent(inner, nn.Linear(4, 4)), inner)
    plan(model, torch.float32).install()
    assert isinstance(inner.runner, Fused)


def test_a_neuron_inside_another_alone_is_left_as_it_is() -> None:
    model = Recurrent(snn.LIF(0.9), nn.Linear(4, 4))
    plan(model, torch.float32).install()
    assert model.neuron.runner is unroll_reference


def test_a_surrogate_inside_a_parallel_neuron_is_looked_at() -> None:
    with pytest.raises(Unsupported, match="mean"):
        compiled(snn.ParallelLIF(0.9, surrogate=Custom(mean_of)))
