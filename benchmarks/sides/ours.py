"""This project. mode: the backend, "cpu" or "eager"; "hooks" counts operations by snn-metrics' hooks alone."""

from typing import Any, Callable, Dict, List, Mapping

import torch
from torch import nn

import snn_core as snn
from sides import synops, work
from snn_backend_cpu.installing import plan
from snn_backend_cpu.memory import keep_freed_memory

DISTRIBUTION = "snn-core"
FURTHER = ("snn-backend-cpu", "numba")
NEURONS: Dict[str, Callable[[], nn.Module]] = {
    "IF": lambda: snn.IF(),
    "LIF": lambda: snn.LIF(0.9),
    "LIF, learnt": lambda: snn.LIF(0.9, learn_beta=True, learn_threshold=True),
    "LIF, zero": lambda: snn.LIF(0.9, reset_mechanism="zero"),
    "LI": lambda: snn.LI(0.9),
    "ParametricLIF": lambda: snn.ParametricLIF(2.0),
    "Lapicque": lambda: snn.Lapicque(2.0, 2.0),
    "Synaptic": lambda: snn.Synaptic(0.7, 0.9),
    "Alpha": lambda: snn.Alpha(0.9, 0.6),
    "ALIF": lambda: snn.ALIF(0.9, 0.95),
    "SigmaDelta": lambda: snn.SigmaDelta(0.5),
    "ExpLIF": lambda: snn.ExpLIF(2.0, threshold=0.6),
    "QIF": lambda: snn.QIF(2.0, threshold=0.6),
    "AdEx": lambda: snn.AdEx(2.0, 10.0, 0.1, 0.2, threshold=0.6),
    "Izhikevich": lambda: snn.Izhikevich(),
    "SlidingPSN": lambda: snn.SlidingPSN(4),
    "Recurrent, one to one": lambda: snn.Recurrent(snn.LIF(0.9), snn.OneToOne()),
}


def build(benchmark: str, settings: Mapping[str, Any], mode: str) -> work.Work:
    torch.manual_seed(0)
    return BENCHMARKS[benchmark](settings, mode)


def seed(settings: Mapping[str, Any], mode: str) -> work.Work:
    layers = work.currents((784, settings["hidden"], 10), lambda: snn.LIF(beta=settings["beta"]))
    net = snn.Sequential(snn.Constant(steps=settings["steps"]), *layers)
    return training("seed", net, snn.Adam(lr=settings["lr"]), settings, mode)


def vgg(settings: Mapping[str, Any], mode: str) -> work.Work:
    layers = work.vgg_layers(settings, lambda: snn.LIF(beta=settings["beta"]))
    net = snn.Sequential(snn.Constant(steps=settings["steps"]), *layers)
    return training("vgg", net, snn.SGD(lr=settings["lr"], momentum=0.9), settings, mode)


def training(benchmark: str, net: nn.Module, optimizer: Any, settings: Mapping[str, Any], backend: str) -> work.Work:
    """One whole training step of a backend, as the trainer runs it."""
    x, target = work.images(benchmark, settings)
    run = snn.bench.step_function(
        net, loss=snn.CountCrossEntropy(), optimizer=optimizer, backend=backend, batch=(x, target)
    )
    last: List[Any] = []

    def step() -> None:
        last[:] = [run()]

    def facts() -> Dict[str, Any]:
        with torch.no_grad():
            steps, _, *rest = net(x[:1]).shape
        return {"parameters": work.learnt(net), "output": [steps, len(x), *rest]}

    return work.Work({"step": step}, lambda: float(last[0].loss), facts)


def on(backend: str, net: nn.Module) -> nn.Module:
    """A module whose neurons run as the backend runs them in training, for work that is not a training step."""
    if backend == "cpu":
        keep_freed_memory()
        kernels = plan(net, torch.float32)
        if kernels.in_torch:
            raise RuntimeError(f"no kernel runs {kernels.in_torch[0]}")
        kernels.install()
    return net


def layer(settings: Mapping[str, Any], mode: str) -> work.Work:
    size = settings["shape"][-1]
    net = on(mode, snn.Sequential(nn.Linear(size, size, bias=False), snn.LIF(beta=settings["beta"])))
    return work.forward_backward(net, work.layer_input(settings), net)


def neuron(settings: Mapping[str, Any], mode: str) -> work.Work:
    net = on(mode, snn.Sequential(NEURONS[settings["kind"]]()))
    return work.alone(net, work.layer_input(settings), net)


def counting(settings: Mapping[str, Any], mode: str) -> work.Work:
    """A training step without a count and one with a budget of operations."""
    import snn_metrics

    kinds = (snn.NeuromorphicReLU, snn.SumPool2d)
    if mode == "hooks":
        return synops.hooked(kinds, snn_metrics.register_synops_hooks, settings)
    batch = synops.batch(settings)
    nets = [snn.Sequential(snn.Constant(1), *synops.layers(kinds)) for _ in range(2)]
    loss = snn.CountCrossEntropy()
    plain = snn.bench.step_function(nets[0], loss=loss, backend=mode, batch=batch)
    terms = [snn_metrics.SynOpsBudget(target=synops.TARGET)]
    counted = snn.bench.step_function(nets[1], loss=loss, backend=mode, batch=batch, terms=terms)
    last: List[Any] = []

    def step() -> None:
        last[:] = [counted()]

    def facts() -> Dict[str, Any]:
        return {"parameters": work.learnt(nets[0]), "output": [len(batch[0]), 10]}

    return work.Work({"plain": plain, "counted": step}, lambda: float(last[0].loss), facts)


BENCHMARKS: Dict[str, Callable[[Mapping[str, Any], str], work.Work]] = {
    "seed": seed,
    "layer": layer,
    "neuron": neuron,
    "vgg": vgg,
    "synops": counting,
}
