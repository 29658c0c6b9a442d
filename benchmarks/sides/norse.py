"""Norse: neurons of one step. LIFBox divides its input by the time constant, so the weights before it are larger."""

import functools
from typing import Any, Mapping, Tuple

import torch
from norse.torch.functional.reset import reset_subtract
from norse.torch.module.lif_box import LIFBoxCell, LIFBoxParameters
from torch import nn

from sides import work

DISTRIBUTION = "norse"
DT_S = 1e-3


def lif(beta: float) -> nn.Module:
    rate = torch.as_tensor((1 - beta) / DT_S)
    return LIFBoxCell(LIFBoxParameters(tau_mem_inv=rate, reset_method=reset_subtract), dt=DT_S)


def rest(neuron: nn.Module) -> None:
    """A cell makes its own state at rest of None."""


def seed(settings: Mapping[str, Any]) -> nn.Module:
    beta = settings["beta"]
    layers = work.currents((784, settings["hidden"], 10), lambda: lif(beta), 1 / (1 - beta))
    kind = work.ByLayer if settings["by_layer"] else work.StepByStep
    return kind(layers, (LIFBoxCell,), rest, settings["steps"])


def layer(settings: Mapping[str, Any]) -> nn.Module:
    size, beta = settings["shape"][-1], settings["beta"]
    layers = [work.scaled(nn.Linear(size, size, bias=False), 1 / (1 - beta)), lif(beta)]
    return work.ByLayer(layers, (LIFBoxCell,), rest)


def vgg(settings: Mapping[str, Any]) -> nn.Module:
    beta = settings["beta"]
    layers = work.vgg_layers(settings, lambda: lif(beta), 1 / (1 - beta))
    return work.ByLayer(layers, (LIFBoxCell,), rest, settings["steps"])


def neuron() -> Tuple[nn.Module, float]:
    return work.ByLayer([lif(work.NEURON_BETA)], (LIFBoxCell,), rest), 1 / (1 - work.NEURON_BETA)


build = functools.partial(work.build, work.Peer(seed, layer, vgg, neuron))
