"""snnTorch: neurons of one step, with the reset one step late, which is its default and its fastest."""

import functools
from typing import Any, Mapping, Tuple

import snntorch
from torch import nn

from sides import work

DISTRIBUTION = "snntorch"


def rest(neuron: nn.Module) -> Any:
    """A neuron's state before the first step, by its own method."""
    return neuron.reset_mem()


def forgetting(net: nn.Module) -> nn.Module:
    """A network whose neurons, before each step, are what they were when they were made.

    They keep their last state as an attribute, on which compiled code depends: it would be made anew twice.
    """
    states = [(module, module.mem) for module in net.modules() if isinstance(module, snntorch.Leaky)]

    def come_to_rest() -> None:
        for module, state in states:
            module.mem = state

    net.come_to_rest = come_to_rest
    return net


def seed(settings: Mapping[str, Any]) -> nn.Module:
    layers = work.currents((784, settings["hidden"], 10), lambda: snntorch.Leaky(beta=settings["beta"]))
    kind = work.ByLayer if settings["by_layer"] else work.StepByStep
    return forgetting(kind(layers, (snntorch.Leaky,), rest, settings["steps"]))


def layer(settings: Mapping[str, Any]) -> nn.Module:
    size = settings["shape"][-1]
    layers = [nn.Linear(size, size, bias=False), snntorch.Leaky(beta=settings["beta"])]
    return forgetting(work.ByLayer(layers, (snntorch.Leaky,), rest))


def vgg(settings: Mapping[str, Any]) -> nn.Module:
    layers = work.vgg_layers(settings, lambda: snntorch.Leaky(beta=settings["beta"]))
    return forgetting(work.ByLayer(layers, (snntorch.Leaky,), rest, settings["steps"]))


def neuron() -> Tuple[nn.Module, float]:
    return forgetting(work.ByLayer([snntorch.Leaky(work.NEURON_BETA)], (snntorch.Leaky,), rest)), 1.0


build = functools.partial(work.build, work.Peer(seed, layer, vgg, neuron))
