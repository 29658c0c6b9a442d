"""The run that validates: no more steps of Python for a longer sequence, and what it shows of layers past kernels."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import snn_core as snn
from snn_backend_cpu import CpuBackend, CpuProgram
from snn_core.errors import SnnError
from snn_core.neurons import LIF, Neuron
from snn_core.registry import load
from snn_core.specs import BatchSpec, TensorSpec, TrainSpec
from snn_core.step import Step
from snn_core.surrogate import spike
from snn_core.terms import BoundTerm, Recorded, Term


def asked(model: nn.Module, steps: int = 5, loss: Any = None, train: TrainSpec | None = None) -> tuple[Any, ...]:
    batch = BatchSpec(size=2, x=TensorSpec((steps, 4), "float32", 1), target=TensorSpec((), "int64"))
    return Step(model, loss or snn.CountCrossEntropy()), snn.SGD(), batch, train or TrainSpec()


def compiled(model: nn.Module) -> CpuProgram:
    return CpuBackend().compile(*asked(model))


def linted(model: nn.Module) -> list[snn.Finding]:
    return CpuBackend().lint(*asked(model))


NEURONS: dict[str, Callable[[], nn.Module]] = {
    "LIF": lambda: snn.LIF(0.9),
    "recurrent": lambda: snn.Recurrent(snn.LIF(0.9), nn.Linear(4, 4)),
    "one to one": lambda: snn.Recurrent(snn.LIF(0.9), snn.OneToOne(4)),
}
IN_TORCH = {"in torch": lambda: snn.Recurrent(snn.LIF(0.9), nn.Sequential(nn.Linear(4, 4), nn.Tanh()))}


def steps_at_compile(monkeypatch: pytest.MonkeyPatch, make: Callable[[], nn.Module], steps: int, **train: Any) -> int:
    count, step = [0], LIF.dynamics

    def counted(self: LIF, *args: Any) -> Any:
        count[0] += 1
        return step(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(LIF, "dynamics", counted)
        CpuBackend().compile(*asked(nn.Sequential(nn.Linear(4, 4), make()), steps, train=TrainSpec(**train))).close()
    return count[0]


@pytest.mark.parametrize("name", [*NEURONS, *IN_TORCH])
def test_compile_runs_as_many_steps_of_the_reference_whatever_the_length(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = {**NEURONS, **IN_TORCH}[name]
    few, many = (steps_at_compile(monkeypatch, make, steps) for steps in (10, 200))
    assert 0 < few == many


@pytest.mark.parametrize("setting", ["chunk", "recompute_every"])
def test_the_trial_of_pieces_runs_as_many_steps_of_the_reference_whatever_their_length(
    setting: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, many = (steps_at_compile(monkeypatch, NEURONS["LIF"], n, **{setting: n // 2}) for n in (10, 200))
    assert few == many


class Heard(Term, BoundTerm):
    """How often the connection of layer "1" was called."""

    name, layers, found = "heard", True, None

    def bind(self, model: nn.Module) -> "Heard":
        return self

    def measure(self, recorded: Recorded, valid: Tensor | None) -> Tensor:
        type(self).found = len(recorded.layers["1.connection"])
        return recorded.output.mean()

    def penalty(self, measure: Tensor, controls: Any) -> Tensor:
        return 0 * measure


def test_a_term_hears_of_every_step_of_a_weight_layer_in_the_loop() -> None:
    _, optimizer, batch, train = asked(nn.Linear(4, 4), 7)
    step = Step(nn.Sequential(nn.Linear(4, 4), NEURONS["recurrent"]()), snn.CountCrossEntropy(), [Heard()])
    CpuBackend().compile(step, optimizer, batch, train).close()
    assert Heard.found == 7


class Wide(nn.Module):
    """A model that returns no tensor."""

    def forward(self, x: Tensor) -> Any:
        return (x,)


class Averaged(nn.Module):
    """A model that loses the time axis."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.lif = nn.Linear(4, 4), snn.LIF(0.9)

    def forward(self, x: Tensor) -> Tensor:
        return self.lif(self.weight(x)).mean((0, 1))


class Backwards(nn.Module):
    """A model whose output in pieces is another one, with a neuron in it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.readout = nn.Linear(4, 4), snn.LI(0.9)

    def forward(self, x: Tensor) -> Tensor:
        return self.readout(self.weight(x.flip(0)))


def first_step(output: Tensor, target: Tensor) -> Tensor:
    """A loss of one value for each output."""
    return output[0]


WRONG: dict[str, Callable[[], tuple[Any, ...]]] = {
    "first layer": lambda: asked(nn.Sequential(nn.Linear(5, 4), snn.LIF(0.9))),
    "layer after a neuron": lambda: asked(nn.Sequential(nn.Linear(4, 4), snn.LIF(0.9), nn.Linear(5, 4))),
    "channels of a coefficient": lambda: asked(nn.Sequential(nn.Linear(4, 4), snn.LIF([0.9] * 3))),
    "connection that changes the shape": lambda: asked(snn.Recurrent(snn.LIF(0.9), nn.Linear(4, 3))),
    "connection that would broadcast": lambda: asked(snn.Recurrent(snn.LIF(0.9), nn.Linear(4, 1))),
    "no time": lambda: asked(nn.Sequential(Averaged())),
    "no tensor": lambda: asked(nn.Sequential(nn.Linear(4, 4), snn.LIF(0.9), Wide())),
    "rank": lambda: asked(nn.Sequential(nn.Flatten(0), snn.LIF(0.9))),
    "loss": lambda: asked(nn.Sequential(nn.Linear(4, 4), snn.LIF(0.9)), loss=first_step),
    "loss without its state": lambda: asked(nn.Linear(4, 4), loss=snn.MaxMembraneCrossEntropy()),
    "pieces": lambda: asked(Backwards(), train=TrainSpec(chunk=2)),
    "segments": lambda: asked(Backwards(), train=TrainSpec(recompute_every=2)),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_is_refused_with_the_references_words(name: str) -> None:
    errors = []
    for backend in ("eager", "cpu"):
        with pytest.raises(SnnError) as caught:
            load(backend).compile(*WRONG[name]())
        errors.append(caught)
    assert [(e.type, str(e.value)) for e in errors[1:]] == [(e.type, str(e.value)) for e in errors[:1]]


def test_an_error_of_the_reference_is_told_without_that_of_the_kernels() -> None:
    with pytest.raises(SnnError) as caught:
        CpuBackend().compile(*WRONG["pieces"]())
    assert caught.value.__context__ is None


class OwnForward(Neuron):
    """A user's neuron that loops over its step itself."""

    states = ("mem",)

    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = 0.9 * state[0] + x
        return spike(mem - 1.0, snn.surrogate.ATan()), (mem,)

    def forward(self, x: Tensor, steps: int | None = None) -> Tensor:
        state, outs = (torch.zeros_like(x[0]),), []
        for x_t in x:
            out, state = self.dynamics(x_t, state, {})
            outs.append(out)
        return torch.stack(outs)


class Elsewhere(OwnForward):
    """A user's neuron that does not come to its step at all."""

    def forward(self, x: Tensor, steps: int | None = None) -> Tensor:
        return x.relu()


class Scaled(OwnForward):
    """A user's neuron with a forward around the usual one."""

    def forward(self, x: Tensor, steps: int | None = None) -> Tensor:
        return super(OwnForward, self).forward(2 * x, steps)


class ByHand(nn.Module):
    """A user's model that loops over a neuron's step."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.lif = nn.Linear(4, 4), snn.LIF(0.9)

    def forward(self, x: Tensor) -> Tensor:
        currents, outs = self.weight(x), []
        c = self.lif.aligned_coefficients(currents[0])
        state = self.lif.initial(currents[0], c)
        for current in currents:
            out, state = self.lif.dynamics(current, state, c)
            outs.append(out)
        return torch.stack(outs)


PAST: dict[str, tuple[Callable[[], nn.Module], str, str, str]] = {
    "own forward": (
        lambda: nn.Sequential(nn.Linear(4, 4), OwnForward()),
        "'1' (OwnForward)",
        "`forward` of its",
        "ste",
    ),
    "own way": (
        lambda: nn.Sequential(nn.Linear(4, 4), Elsewhere()),
        "'1' (Elsewhere)",
        "`forward` of its own",
        "in its",
    ),
    "by hand": (ByHand, "'lif' (LIF)", "`dynamics` is called from outside", "step by step"),
}


@pytest.mark.parametrize("name", PAST)
def test_a_layer_that_never_reaches_its_kernels_is_named_when_a_run_starts(name: str) -> None:
    make, layer, _, how = PAST[name]
    with compiled(make()) as program:
        assert program.summary.startswith(f"{layer} {how}")


@pytest.mark.parametrize("name", PAST)
def test_lint_warns_of_a_layer_that_never_reaches_its_kernels(name: str) -> None:
    make, layer, why, _ = PAST[name]
    (found,) = linted(make())
    assert (found.rule, found.severity) == ("in-torch", "warning")
    assert layer in found.message
    assert why in found.message
    assert found.remedy


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.lif, self.spare = nn.Linear(4, 4), snn.LIF(0.9), snn.LIF(0.8)

    def forward(self, x: Tensor) -> Tensor:
        return self.lif(self.weight(x))


class Stepped(Unused):
    def forward(self, x: Tensor) -> Tensor:
        state, outs = None, []
        for current in self.weight(x):
            out, state = self.lif.step(current, state)
            outs.append(out)
        return torch.stack(outs)


BY_KERNELS: dict[str, Callable[[], nn.Module]] = {
    "a forward around the usual one": lambda: nn.Sequential(nn.Linear(4, 4), Scaled()),
    "a layer that is not used": Unused,
    "unrolled step by step": Stepped,
    "sliding": lambda: nn.Sequential(nn.Linear(4, 4), snn.SlidingPSN(2)),
    **{name: (lambda make=make: nn.Sequential(nn.Linear(4, 4), make())) for name, make in NEURONS.items()},
}


@pytest.mark.parametrize("name", BY_KERNELS)
def test_a_layer_that_comes_to_its_kernels_is_not_named(name: str) -> None:
    with compiled(BY_KERNELS[name]()) as program:
        assert program.summary == ""
    assert linted(BY_KERNELS[name]()) == []


def test_a_neuron_that_another_one_in_torch_calls_is_not_named_for_that() -> None:
    inner = snn.LIF(0.9)
    model = nn.Sequential(snn.Recurrent(inner, nn.Sequential(nn.Linear(4, 4), nn.Tanh())), inner)
    with compiled(model) as program:
        assert program.summary.startswith("'0' (Recurrent) step by step in torch, the rest")


_WITHOUT_NUMBA = """
import sys
sys.modules["numba"] = None
import snn_core as snn
from torch import nn
from snn_backend_cpu import CpuBackend
from snn_core.specs import BatchSpec, TensorSpec, TrainSpec
from snn_core.step import Step
batch = BatchSpec(size=2, x=TensorSpec((6, 4), "float32", 1), target=TensorSpec((), "int64"))
step = Step(nn.Sequential(nn.Linear(4, 4), snn.LIF(0.9)), snn.CountCrossEntropy())
assert CpuBackend().lint(step, snn.SGD(), batch, TrainSpec(chunk=2)) == []
"""


def test_lint_needs_no_numba_and_tries_pieces_all_the_same() -> None:
    subprocess.run([sys.executable, "-c", _WITHOUT_NUMBA], check=True)
