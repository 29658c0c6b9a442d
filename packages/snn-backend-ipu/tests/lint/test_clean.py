"""What core and the installed plugins ship comes out clean: every neuron, surrogate, loss, encoder and term."""

from typing import Any, Dict

import pytest
import torch
from torch import Tensor, nn

import snn_core as snn
from snn_backend_ipu.lint import check
from snn_core import plugins, surrogate
from snn_core.testing.checks.losses import _LOSSES
from snn_core.testing.neurons import Example, every_neuron
from snn_core.testing.pieces import Activity, Drive, Resonator, Shares, StateProbe, TwoPaths

CLASSES = 3
HALF = snn.TrainSpec(precision="fp16")  # which is checked in single precision first
NEURONS = every_neuron()
SURROGATES = [
    getattr(surrogate, name)
    for name in surrogate.__all__
    if name not in ("Surrogate", "Custom", "spike")
]  # fmt: skip
TERMS = {
    f"{name}, {number}": term
    for name, kind in plugins.terms(plugins.plugin_manager()).items()
    for number, term in enumerate(getattr(kind, "examples", tuple)())
}


class Between(nn.Module):
    """A layer over time behind weights of its own, so that it has a gradient to pass on."""

    def __init__(self, example: Example) -> None:
        super().__init__()
        channels = example.shape[2]
        flat = len(example.shape) == 3
        self.enter: nn.Module = nn.Linear(channels, channels) if flat else nn.Conv2d(channels, channels, 1)
        self.layer = example.make()

    def forward(self, x: Tensor) -> Tensor:
        folded = self.enter(x.flatten(0, 1))
        return self.layer(folded.unflatten(0, x.shape[:2])).flatten(2)


def spec_of(*shape: int) -> snn.BatchSpec:
    return snn.BatchSpec(4, snn.TensorSpec(shape, "float32", 1), snn.TensorSpec((), "int64"))


def dense(neuron: Any = None) -> nn.Module:
    middle = snn.LIF(0.9) if neuron is None else neuron
    return snn.Sequential(nn.Linear(4, 5), middle, nn.Linear(5, CLASSES), snn.LIF(0.8))


def said(model: nn.Module, loss: Any = None, terms: Any = (), spec: Any = None) -> Any:
    step = snn.Step(model, snn.CountCrossEntropy() if loss is None else loss, terms)
    return [str(f) for f in check(step, spec_of(6, 4) if spec is None else spec, HALF)]


@pytest.mark.parametrize("name", NEURONS)
def test_every_neuron_of_core_is_clean(name: str) -> None:
    example = NEURONS[name]
    assert said(Between(example), spec=spec_of(example.shape[0], *example.shape[2:])) == []


@pytest.mark.parametrize("kind", SURROGATES)
def test_every_surrogate_of_core_is_clean(kind: Any) -> None:
    assert said(dense(snn.LIF(0.9, surrogate=kind()))) == []


@pytest.mark.parametrize("name", _LOSSES)
def test_every_loss_of_core_is_clean(name: str) -> None:
    trial = _LOSSES[name]
    model = trial.build()
    assert [str(f) for f in check(trial.step(model), trial.but(dtype="float32").batch(), HALF)] == []


@pytest.mark.parametrize("name", TERMS)
def test_every_term_of_installed_plugins_is_clean(name: str) -> None:
    assert said(dense(), terms=(TERMS[name],)) == []


@pytest.mark.parametrize("term", [Activity(), Drive(), StateProbe(("mem",)), Shares()], ids=lambda term: term.name)
def test_a_users_term_is_clean(term: Any) -> None:
    assert said(dense(), terms=(term,)) == []


@pytest.mark.parametrize(
    "encoder",
    [snn.Constant(steps=4), snn.Rate(steps=4), snn.Latency(steps=4), snn.Poisson(steps=4)],
    ids=lambda encoder: type(encoder).__name__,
)
def test_encoders_are_clean(encoder: nn.Module) -> None:
    spec = snn.BatchSpec(4, snn.TensorSpec((4,), "float32"), snn.TensorSpec((), "int64"))
    assert said(snn.Sequential(encoder, *dense()), spec=spec) == []


MODELS: Dict[str, Any] = {
    "a user's neuron": lambda: snn.Sequential(nn.Linear(4, 4), Resonator(), nn.Linear(4, CLASSES), snn.LIF(0.9)),
    "a container of one's own": lambda: TwoPaths(4, 5, CLASSES),
    "batch norm and dropout": lambda: snn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), snn.LIF(0.9), nn.Dropout(0.2), nn.Linear(6, CLASSES), snn.LIF(0.9)
    ),
    "layer norm and attention": lambda: nn.Sequential(
        nn.LayerNorm(4), nn.TransformerEncoderLayer(4, 2, 8), nn.Linear(4, CLASSES), snn.LIF(0.9)
    ),
    "a user's surrogate": lambda: dense(snn.LIF(0.9, surrogate=surrogate.Custom(torch.sigmoid))),
}


@pytest.mark.parametrize("name", MODELS)
def test_networks_that_users_write_are_clean(name: str) -> None:
    assert said(MODELS[name]()) == []
