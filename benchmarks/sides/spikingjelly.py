"""SpikingJelly in its multi-step mode, in which each layer runs over all time steps, on its torch backend."""

import functools
from typing import Any, List, Mapping, Tuple

from spikingjelly.activation_based import functional, surrogate
from spikingjelly.activation_based import neuron as neurons
from torch import Tensor, nn

from sides import work

DISTRIBUTION = "spikingjelly"


def lif(beta: float) -> nn.Module:
    """Its LIF with our decay and surrogate, and with the reset that subtracts."""
    return neurons.LIFNode(
        tau=1 / (1 - beta),
        decay_input=False,
        v_reset=None,
        surrogate_function=surrogate.ATan(2.0),
        detach_reset=True,
        step_mode="m",
    )


class Net(nn.Module):
    """Layers over `[T, B, ...]`; with `steps` an input without time, which the first `once` layers see once."""

    def __init__(self, layers: List[nn.Module], steps: int = 0, once: int = 0) -> None:
        super().__init__()
        self.first, self.rest, self.steps = nn.Sequential(*layers[:once]), nn.Sequential(*layers[once:]), steps
        self.stateful = (neurons.BaseNode,)

    def forward(self, x: Tensor) -> Tensor:
        if self.steps:
            x = self.first(x)
            x = x.expand(self.steps, *x.shape)
        for layer in self.rest:
            timed = isinstance(layer, self.stateful)
            x = layer(x) if timed else layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return x

    def come_to_rest(self) -> None:
        functional.reset_net(self)


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


build = functools.partial(work.build, work.Peer(seed, layer, vgg, neuron))
