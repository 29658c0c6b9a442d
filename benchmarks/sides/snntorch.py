"""snnTorch: neurons of one step, with the reset one step late, which is its default and its fastest."""

import functools
from typing import Any, Callable, Dict, Mapping, Tuple

import snntorch
from torch import nn

from sides import work

DISTRIBUTION = "snntorch"
NEURONS: Dict[str, Callable[[], nn.Module]] = {
    "LIF": lambda: snntorch.Leaky(0.9),
    "Lapicque": lambda: snntorch.Lapicque(R=2.0, C=2.0),
    "Synaptic": lambda: snntorch.Synaptic(0.7, 0.9),
    "Alpha": lambda: snntorch.Alpha(0.9, 0.6),
}


class OneState(nn.Module):
    """A neuron of several states as one that takes and returns them together."""

    def __init__(self, neuron: nn.Module) -> None:
        super().__init__()
        self.neuron = neuron

    def forward(self, x: Any, states: Tuple[Any, ...]) -> Tuple[Any, Tuple[Any, ...]]:
        spikes, *after = self.neuron(x, *states)
        return spikes, tuple(after)


def rest(neuron: nn.Module) -> Any:
    """A neuron's states before the first step, by its own method."""
    if isinstance(neuron, OneState):
        found = neuron.neuron.reset_mem()
        return found if isinstance(found, tuple) else (found,)
    return neuron.reset_mem()


def over_time(settings: Mapping[str, Any], layers: Any, by_layer: bool) -> nn.Module:
    kind = work.ByLayer if by_layer else work.StepByStep
    return kind(layers, (snntorch.Leaky,), rest, settings["steps"])


def seed(settings: Mapping[str, Any]) -> nn.Module:
    layers = work.currents((784, settings["hidden"], 10), lambda: snntorch.Leaky(beta=settings["beta"]))
    return over_time(settings, layers, settings["by_layer"])


def layer(settings: Mapping[str, Any]) -> nn.Module:
    size = settings["shape"][-1]
    layers = [nn.Linear(size, size, bias=False), snntorch.Leaky(beta=settings["beta"])]
    return work.ByLayer(layers, (snntorch.Leaky,), rest)


def vgg(settings: Mapping[str, Any]) -> nn.Module:
    layers = work.vgg_layers(settings, lambda: snntorch.Leaky(beta=settings["beta"]))
    return over_time(settings, layers, by_layer=True)


def neuron(kind: str) -> Tuple[nn.Module, float]:
    return work.ByLayer([OneState(NEURONS[kind]())], (OneState,), rest), 1.0


build = functools.partial(work.build, work.Peer(seed, layer, vgg, neuron))
