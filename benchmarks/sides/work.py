"""What every side shares: the data, the timed parts and the networks' plans. It imports torch alone."""

import copy
import math
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

__all__ = [
    "NEURON_BETA",
    "ByLayer",
    "Peer",
    "StepByStep",
    "Work",
    "alone",
    "build",
    "currents",
    "forward_backward",
    "images",
    "layer_input",
    "vgg_layers",
]


NEURON_BETA = 0.9


class Work(NamedTuple):
    """One benchmark, ready to run.

    parts: what is timed, in this order at each step.   loss: that of the last step.
    facts: what must agree between sides, found on demand: "parameters" (those that learn) and "output" (its shape).
    """

    parts: Mapping[str, Callable[[], object]]
    loss: Callable[[], float]
    facts: Callable[[], Dict[str, Any]]


class Peer(NamedTuple):
    """A library's networks, each made of the benchmark's settings.

    seed, vgg: a batch without time -> `[T, B, 10]`.   layer: `[T, B, N]` -> `[T, B, N]`.
    neuron: a LIF over `[T, ...]` with the decay `NEURON_BETA`, and what its input is multiplied by.
    """

    seed: Callable[[Mapping[str, Any]], nn.Module]
    layer: Callable[[Mapping[str, Any]], nn.Module]
    vgg: Callable[[Mapping[str, Any]], nn.Module]
    neuron: Callable[[], Tuple[nn.Module, float]]


def build(peer: Peer, benchmark: str, settings: Mapping[str, Any], mode: str) -> Work:
    """Make a benchmark of a peer's networks. mode: "eager", or "compile" for `torch.compile`."""
    compiled = mode == "compile"
    torch.manual_seed(0)
    if benchmark == "neuron":
        net, gain = peer.neuron()
        return alone(_compiled(net, settings, compiled), layer_input(settings) * gain, net)
    if benchmark == "layer":
        net = peer.layer(settings)
        return forward_backward(_compiled(net, settings, compiled), layer_input(settings), net)
    net = (peer.seed if benchmark == "seed" else peer.vgg)(settings)
    make = torch.optim.Adam if benchmark == "seed" else torch.optim.SGD
    further = {} if benchmark == "seed" else {"momentum": 0.9}
    optimizer = make(net.parameters(), lr=settings["lr"], **further)
    objective: nn.Module = Objective(net)
    return _training(_compiled(objective, settings, compiled), net, images(benchmark, settings), optimizer)


def _compiled(net: nn.Module, settings: Mapping[str, Any], wanted: bool) -> nn.Module:
    if not wanted:
        return net
    if "chunk" not in settings:
        return torch.compile(net)
    if not isinstance(net, ByLayer):
        raise NotImplementedError("this library runs time inside its layers: no part of it can be compiled alone")
    net.chunk = settings["chunk"]
    net.advance = torch.compile(net.advance)
    return net


def images(benchmark: str, settings: Mapping[str, Any]) -> Tuple[Tensor, Tensor]:
    """One batch in the shape of MNIST's or CIFAR-10's, the same on every side."""
    shape = (784,) if benchmark == "seed" else (3, 32, 32)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(settings["batch"], *shape, generator=generator)
    return x, torch.randint(0, 10, (settings["batch"],), generator=generator)


def layer_input(settings: Mapping[str, Any]) -> Tensor:
    """Currents `[T, ...]` between 0 and 1 for a linear layer, from a normal distribution for a neuron alone."""
    generator = torch.Generator().manual_seed(0)
    draw = torch.randn if "kind" in settings else torch.rand
    return draw(settings["steps"], *settings["shape"], generator=generator)


class Objective(nn.Module):
    """The network with its loss, so that a compiler sees both: cross entropy of the outputs' sum over time."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.net(x).sum(0), target)


def _training(run: nn.Module, net: nn.Module, batch: Tuple[Tensor, Tensor], optimizer: torch.optim.Optimizer) -> Work:
    x, target = batch
    come_to_rest = getattr(net, "come_to_rest", lambda: None)
    last: List[Tensor] = []

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        come_to_rest()
        loss = run(x, target)
        loss.backward()
        optimizer.step()
        last[:] = [loss.detach()]

    def facts() -> Dict[str, Any]:
        gradients = [p.grad.norm() for p in net.parameters() if p.grad is not None]
        come_to_rest()
        # a copy, as some keep a state in the shape of the batch; one sample, as the peak of memory is to be training's
        with torch.no_grad():
            steps, _, *rest = copy.deepcopy(net)(x[:1]).shape
        gradient = float(torch.stack(gradients).norm()) if gradients else math.nan
        return {"parameters": learnt(net), "output": [steps, len(x), *rest], "gradient": gradient}

    return Work({"step": step}, lambda: float(last[0]), facts)


def forward_backward(run: Callable[[Tensor], Tensor], x: Tensor, net: nn.Module) -> Work:
    """The sum of the spikes and its gradient in the weights and in x."""
    come_to_rest = getattr(net, "come_to_rest", lambda: None)
    x.requires_grad_()
    last: List[Tensor] = []

    def step() -> None:
        x.grad = None
        net.zero_grad(set_to_none=True)
        come_to_rest()
        out = run(x)
        loss = out.sum()
        loss.backward()
        last[:] = [loss.detach(), out.detach()]

    return Work({"step": step}, lambda: float(last[0]), lambda: _facts(net, last[1], x.grad))


def alone(run: Callable[[Tensor], Tensor], x: Tensor, net: nn.Module) -> Work:
    """A neuron's forward, and forward with backward; a copy of its input, the measure of both, runs beside them."""
    come_to_rest = getattr(net, "come_to_rest", lambda: None)
    copied, plain, cotangent = torch.empty_like(x), x.clone(), torch.randn_like(x)
    leaves = [x.requires_grad_(), *(p for p in net.parameters() if p.requires_grad)]
    last: List[Tensor] = []

    def forward() -> None:
        come_to_rest()
        with torch.no_grad():
            run(x)

    def both() -> None:
        come_to_rest()
        out = run(x)
        last[:] = [out.detach(), torch.autograd.grad(out, leaves, cotangent)[0]]

    parts = {"copy": lambda: copied.copy_(plain), "forward": forward, "both": both}
    return Work(parts, lambda: float(last[0].sum()), lambda: _facts(net, *last))


def _facts(net: nn.Module, out: Tensor, gradient: Optional[Tensor]) -> Dict[str, Any]:
    norm = math.nan if gradient is None else float(gradient.norm())
    return {"parameters": learnt(net), "output": list(out.shape), "gradient": norm}


def learnt(net: nn.Module) -> int:
    """How many numbers of a network learn."""
    return sum(parameter.numel() for parameter in net.parameters() if parameter.requires_grad)


State = Any
Stateful = Tuple[type, ...]


class StepByStep(nn.Module):
    """The whole network at each time step, then the next step: the loop of snnTorch's and Norse's tutorials.

    stateful: classes whose modules take and return a state.   initial: a module's state at rest.
    steps: how often an input without time is shown.
    """

    def __init__(
        self, layers: Sequence[nn.Module], stateful: Stateful, initial: Callable[[nn.Module], State], steps: int
    ) -> None:
        super().__init__()
        self.layers, self.stateful, self.initial, self.steps = nn.ModuleList(layers), stateful, initial, steps

    def forward(self, x: Tensor) -> Tensor:
        states = [self.initial(layer) if isinstance(layer, self.stateful) else None for layer in self.layers]
        out = []
        for _ in range(self.steps):
            spikes, states = self.advance(x, states)
            out.append(spikes)
        return torch.stack(out)

    def advance(self, x: Tensor, states: List[State]) -> Tuple[Tensor, List[State]]:
        after = []
        for layer, state in zip(self.layers, states):
            if isinstance(layer, self.stateful):
                x, state = layer(x, state)
            else:
                x = layer(x)
            after.append(state)
        return x, after


class ByLayer(nn.Module):
    """Each layer over all time steps, then the next layer: time is folded into the batch for layers without state.

    What a tuned program does with a library of single steps. With `steps` the input has no time, and the layers before
    the first neuron see it once; else it is `[T, B, ...]`. `chunk` steps at a time are one piece for a compiler.
    """

    chunk: Optional[int] = None

    def __init__(
        self,
        layers: Sequence[nn.Module],
        stateful: Stateful,
        initial: Callable[[nn.Module], State],
        steps: Optional[int] = None,
    ) -> None:
        super().__init__()
        self.layers, self.stateful, self.initial, self.steps = nn.ModuleList(layers), stateful, initial, steps

    def forward(self, x: Tensor) -> Tensor:
        timed = self.steps is None
        for layer in self.layers:
            if isinstance(layer, self.stateful):
                x, timed = self._over_time(layer, x, timed), True
            else:
                x = layer(x.flatten(0, 1)).unflatten(0, x.shape[:2]) if timed else layer(x)
        return x

    def _over_time(self, layer: nn.Module, x: Tensor, timed: bool) -> Tensor:
        state, out = self.initial(layer), []
        x = x if timed else x.expand(self.steps, *x.shape)
        for piece in x.split(self.chunk or len(x)):
            spikes, state = self.advance(layer, piece, state)
            out.append(spikes)
        return out[0] if len(out) == 1 else torch.cat(out)

    def advance(self, layer: nn.Module, x: Tensor, state: State) -> Tuple[Tensor, State]:
        """Some steps of one layer."""
        out = []
        for step in x:
            spikes, state = layer(step, state)
            out.append(spikes)
        return torch.stack(out), state


def currents(channels: Sequence[int], neuron: Callable[[], nn.Module], gain: float = 1.0) -> List[nn.Module]:
    """Linear layers between the given widths, each with neurons. gain: what the neurons' input is multiplied by."""
    layers: List[nn.Module] = []
    for before, after in zip(channels, channels[1:]):
        layers += [scaled(nn.Linear(before, after), gain), neuron()]
    return layers


def vgg_layers(settings: Mapping[str, Any], neuron: Callable[[], nn.Module], gain: float = 1.0) -> List[nn.Module]:
    """A VGG of 3x3 convolutions with batch norm, one list for every side. 0 among the channels is an average pool."""
    layers: List[nn.Module] = []
    before = 3
    for after in settings["channels"]:
        if after == 0:
            layers.append(nn.AvgPool2d(2))
            continue
        norm = scaled(nn.BatchNorm2d(after), gain)
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=False), norm, neuron()]
        before = after
    return [*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10)]


def scaled(layer: nn.Module, gain: float) -> nn.Module:
    """The layer with its first weights multiplied, for a neuron that divides its input."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(gain)
    return layer
