"""sinabs: layers over time, batch first. Its surrogate is its own default; the gradient passes through its reset."""

import math
from typing import Any, List, Mapping, Tuple

import sinabs.hooks
import sinabs.layers
from sinabs.activation import SingleSpike
from torch import Tensor, nn

from sides import synops, work

DISTRIBUTION = "sinabs"


def lif(beta: float) -> nn.Module:
    """Its LIF with our decay and one spike a step; its time constant does not learn, as the others' do not."""
    layer = sinabs.layers.LIF(tau_mem=-1 / math.log(beta), norm_input=False, spike_fn=SingleSpike)
    layer.tau_mem.requires_grad_(False)
    return layer


class Net(nn.Module):
    """Layers over time; with `steps` an input without time, which the first `once` layers see once.

    Takes and gives `[T, B, ...]`, in between it is `[B, T, ...]`.
    """

    def __init__(self, layers: List[nn.Module], steps: int = 0, once: int = 0) -> None:
        super().__init__()
        self.first, self.rest, self.steps = nn.Sequential(*layers[:once]), nn.Sequential(*layers[once:]), steps

    def forward(self, x: Tensor) -> Tensor:
        if self.steps:
            x = self.first(x)
            x = x.unsqueeze(1).expand(-1, self.steps, *x.shape[1:])
        else:
            x = x.transpose(0, 1)
        for layer in self.rest:
            timed = isinstance(layer, (sinabs.layers.StatefulLayer, nn.Linear))
            x = layer(x) if timed else layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return x.transpose(0, 1)

    def come_to_rest(self) -> None:
        for layer in self.rest:
            if isinstance(layer, sinabs.layers.StatefulLayer):
                layer.reset_states()


def seed(settings: Mapping[str, Any]) -> nn.Module:
    layers = work.currents((784, settings["hidden"], 10), lambda: lif(settings["beta"]))
    return Net(layers, settings["steps"], once=int(settings["by_layer"]))


def layer(settings: Mapping[str, Any]) -> nn.Module:
    size = settings["shape"][-1]
    return Net([nn.Linear(size, size, bias=False), lif(settings["beta"])])


def vgg(settings: Mapping[str, Any]) -> nn.Module:
    return Net(work.vgg_layers(settings, lambda: lif(settings["beta"])), settings["steps"], once=2)


def neuron() -> Tuple[nn.Module, float]:
    return Net([lif(work.NEURON_BETA)]), 1.0


def build(benchmark: str, settings: Mapping[str, Any], mode: str) -> work.Work:
    if benchmark != "synops":
        return work.build(work.Peer(seed, layer, vgg, neuron), benchmark, settings, mode)
    kinds = (sinabs.layers.NeuromorphicReLU, sinabs.layers.SumPool2d)
    return synops.hooked(kinds, sinabs.hooks.register_synops_hooks, settings)
