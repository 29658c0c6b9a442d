"""What the contract fake takes for granted, asked of the real poptorch: where one of these fails the fake is wrong."""

import enum
import importlib
import importlib.util
import inspect
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, List, Tuple

import pytest
import torch
from torch import Tensor, nn

OnModel = Callable[..., bool]
X = torch.arange(12.0).reshape(4, 3) / 10 - 0.5


def documented() -> ModuleType:
    path = Path(__file__).resolve().parents[1] / "poptorch_contract" / "signatures.py"
    spec = importlib.util.spec_from_file_location("poptorch_signatures", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DATA = documented()
# popdist comes in a package of its own
NAMES = [
    pytest.param(name, marks=pytest.mark.needs_popdist) if name.startswith("popdist.") else name
    for name in sorted(DATA.SIGNATURES)
]


def found(poptorch: Any, name: str) -> Any:
    if name.startswith("popdist."):
        module, _, function = name.rpartition(".")
        return getattr(importlib.import_module(module), function)
    owner, path = (poptorch.Options(), name[len("Options.") :]) if name.startswith("Options.") else (poptorch, name)
    for part in path.split("."):
        owner = getattr(owner, part)
    return owner


def described(parameter: inspect.Parameter) -> Tuple[str, Any]:
    marks = {parameter.VAR_POSITIONAL: DATA.VARIADIC, parameter.VAR_KEYWORD: DATA.KEYWORDS}
    if parameter.kind in marks:
        return parameter.name, marks[parameter.kind]
    default = DATA.REQUIRED if parameter.default is parameter.empty else parameter.default
    return parameter.name, f"{type(default).__name__}.{default.name}" if isinstance(default, enum.Enum) else default


@pytest.mark.parametrize("name", NAMES)
def test_the_signature_is_the_one_written_down(poptorch: Any, name: str) -> None:
    function = found(poptorch, name)
    signature = inspect.signature(function.__init__ if inspect.isclass(function) else function)
    parameters = [described(parameter) for parameter in signature.parameters.values()]
    assert [entry for entry in parameters if entry[0] != "self"] == list(DATA.SIGNATURES[name])


ENUMERATIONS = sorted(name for name in DATA.VALUES if "." not in name and not name.endswith(("Error", "Executor")))


@pytest.mark.parametrize("name", ENUMERATIONS)
def test_the_members_are_those_written_down(poptorch: Any, name: str) -> None:
    assert [member.name for member in getattr(poptorch, name)] == list(DATA.VALUES[name])


def test_executors_and_optimizers_have_the_attributes_written_down(poptorch: Any) -> None:
    assert all(isinstance(getattr(poptorch.PoplarExecutor, name), property) for name in DATA.VALUES["PoplarExecutor"])
    optimizer = poptorch.optim.SGD([torch.zeros(1)], lr=1.0)
    assert all(hasattr(optimizer, name) for name in DATA.VALUES["optim.Optimizer"])


class Function(nn.Module):
    """A model made of one function and one weight of ones."""

    def __init__(self, function: Callable[["Function", Tensor], Any]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.function = function
        self.runs: List[int] = []

    def forward(self, x: Tensor) -> Any:
        self.runs.append(1)
        return self.function(self, x)


def options(poptorch: Any, on_model: OnModel) -> Any:
    return poptorch.Options().useIpuModel(on_model())


def infer(poptorch: Any, on_model: OnModel, function: Callable[[Function, Tensor], Any]) -> Any:
    return poptorch.inferenceModel(Function(function), options(poptorch, on_model))(X)


def trained(poptorch: Any, on_model: OnModel, function: Callable[[Function, Tensor], Tensor]) -> Tensor:
    """The weight after one step of SGD with rate 1 on the sum of what `function` returns."""
    model = Function(lambda self, x: poptorch.identity_loss(function(self, x).sum(), "none"))
    optimizer = poptorch.optim.SGD(model.parameters(), lr=1.0)
    executor = poptorch.trainingModel(model, options(poptorch, on_model), optimizer)
    executor(X)
    executor.copyWeightsToHost()
    return torch.tensor(model.weight.detach().numpy())


class StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        return (u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


def test_forward_runs_once(poptorch: Any, on_model: OnModel) -> None:
    model = Function(lambda self, x: x * self.weight)
    executor = poptorch.inferenceModel(model, options(poptorch, on_model))
    executor(X)
    assert torch.equal(executor(X + 1), X + 1)
    assert len(model.runs) == 1


def test_the_backward_of_a_custom_function_is_ignored(poptorch: Any, on_model: OnModel) -> None:
    weight = trained(poptorch, on_model, lambda self, x: StraightThrough.apply(x * self.weight))
    assert torch.equal(weight, torch.ones(3))


def test_the_detach_form_trains(poptorch: Any, on_model: OnModel) -> None:
    def spike(self: Function, x: Tensor) -> Tensor:
        u = x * self.weight
        return (u > 0).to(u.dtype).detach() + (u - u.detach())

    assert torch.allclose(trained(poptorch, on_model, spike), 1 - X.sum(0), atol=1e-6)


def test_a_value_in_forward_is_refused(poptorch: Any, on_model: OnModel) -> None:
    with pytest.raises((poptorch.Error, RuntimeError)):
        infer(poptorch, on_model, lambda self, x: x * x.sum().item())


def test_a_move_to_the_host_is_refused(poptorch: Any, on_model: OnModel) -> None:
    with pytest.raises(poptorch.Error, match="Illegal move to CPU"):
        infer(poptorch, on_model, lambda self, x: x.cpu() + 1)


def test_a_buffer_of_two_names_cannot_be_compiled(poptorch: Any, on_model: OnModel) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("factor", torch.full((3,), 2.0))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.factor

    shared = Scaled()
    with pytest.raises(KeyError, match="factor"):
        poptorch.inferenceModel(nn.Sequential(shared, nn.Linear(3, 3), shared), options(poptorch, on_model))(X)


def test_training_needs_one_loss(poptorch: Any, on_model: OnModel) -> None:
    model = Function(lambda self, x: (x * self.weight).sum())
    with pytest.raises(poptorch.Error, match="Couldn't find a loss"):
        poptorch.trainingModel(model, options(poptorch, on_model))(X)


def test_an_error_has_the_attributes_written_down(poptorch: Any, on_model: OnModel) -> None:
    """Of a recoverable one nobody can order an example: of it only the class is asked."""
    with pytest.raises(poptorch.Error) as caught:
        infer(poptorch, on_model, lambda self, x: x.cpu() + 1)
    assert all(isinstance(getattr(caught.value, name), str) for name in DATA.VALUES["Error"])
    assert issubclass(poptorch.RecoverableError, poptorch.Error)


def test_used_options_are_frozen(poptorch: Any, on_model: OnModel) -> None:
    used = options(poptorch, on_model)
    poptorch.inferenceModel(nn.Identity(), used)
    with pytest.raises(AttributeError, match="frozen"):
        used.deviceIterations(2)


def test_a_short_batch_is_refused(poptorch: Any, on_model: OnModel) -> None:
    executor = poptorch.inferenceModel(Function(lambda self, x: x * self.weight), options(poptorch, on_model))
    executor(X)
    with pytest.raises(poptorch.Error, match="mismatch"):
        executor(X[:3])


def test_results_of_iterations_and_accumulation_keep_the_order_of_the_input(poptorch: Any, on_model: OnModel) -> None:
    model = Function(lambda self, x: (x + 0, poptorch.identity_loss((x * self.weight).sum(), "none")))
    used = options(poptorch, on_model).deviceIterations(2).outputMode(poptorch.OutputMode.All)
    used.Training.gradientAccumulation(2)
    optimizer = poptorch.optim.SGD(model.parameters(), lr=0.0)
    out, losses = poptorch.trainingModel(model, used, optimizer)(X)
    assert torch.equal(out, X)
    assert torch.allclose(losses, X.sum(1))


def test_an_unmarked_attribute_cannot_change(poptorch: Any, on_model: OnModel) -> None:
    model = Function(lambda self, x: poptorch.identity_loss((x * self.weight).sum(), "none"))
    optimizer = poptorch.optim.SGD(model.parameters(), lr=0.1)
    executor = poptorch.trainingModel(model, options(poptorch, on_model), optimizer)
    executor(X)
    optimizer.param_groups[0]["weight_decay"] = 0.5
    with pytest.raises(poptorch.Error, match="not a valid replacement"):
        executor.setOptimizer(optimizer)


def test_a_wrapped_models_weights_become_poptorchs_own(poptorch: Any, on_model: OnModel) -> None:
    model = Function(lambda self, x: poptorch.identity_loss((x * self.weight).sum(), "none"))
    executor = poptorch.trainingModel(model, options(poptorch, on_model))
    executor(X)
    executor.destroy()
    assert type(model.weight) is not nn.Parameter
