"""One training step in one process and in two that share the batch: one thread each, each process on a core of its own.

The seed network (784-1000-10 leaky integrate-and-fire, T = 25, batch 128) or a spiking VGG (32x32x3, T = 4, batch 16),
Adam; the batch is that of all processes. One and two processes take turns of some dozen steps, so that a busy machine
slows both alike; what is reported is the median of each one's medians, and the median of the ratios turn by turn, of
the time by the clock and of the time on the processor.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from typing import Dict, List

import torch
from torch import nn

import snn_core as snn
from snn_core.specs import BatchSpec, TensorSpec, TrainSpec
from snn_core.step import Step


def seed() -> "tuple[nn.Module, tuple[int, ...], int]":
    """Network, shape of a sample, batch size."""
    net = snn.Sequential(
        snn.Constant(25), nn.Flatten(), nn.Linear(784, 1000), snn.LIF(0.9), nn.Linear(1000, 10), snn.LIF(0.9)
    )
    return net, (1, 28, 28), 128


def vgg() -> "tuple[nn.Module, tuple[int, ...], int]":
    """The same of a spiking VGG with eight convolutions."""
    layers: List[nn.Module] = [snn.Constant(4)]
    width = 3
    for stage in (32, 64, 128, 128):
        for _ in range(2):
            layers += [nn.Conv2d(width, stage, 3, padding=1, bias=False), nn.BatchNorm2d(stage), snn.LIF(0.5)]
            width = stage
        layers.append(nn.AvgPool2d(2))
    return snn.Sequential(*layers, nn.Flatten(), nn.Linear(width * 4, 10), snn.LIF(0.9)), (3, 32, 32), 16


NETWORKS = {"seed": seed, "vgg": vgg}


def work(network: str, backend: str, steps: int, warm_up: int = 5) -> List[float]:
    """Milliseconds of each step, seen by one of the processes, and last those of a step on its processor."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net, shape, size = NETWORKS[network]()
    count = size * (steps + warm_up)
    data = torch.utils.data.TensorDataset(torch.rand(count, *shape), torch.randint(0, 10, (count,)))
    batch = BatchSpec(size, TensorSpec(shape, "float32"), TensorSpec((), "int64"))
    step = Step(net, snn.CountCrossEntropy())
    times = []
    with snn.registry.load(backend).compile(step, snn.Adam(), batch, TrainSpec()) as program:
        for number, part in enumerate(list(program.loader(data, range(count), training=True))):
            if number == warm_up:
                worked = time.process_time()
            begun = time.perf_counter()
            program.train_step(part)
            times.append(1e3 * (time.perf_counter() - begun))
        worked = time.process_time() - worked
    return [*times[warm_up:], 1e3 * worked / steps]


def turn(processes: int, options: argparse.Namespace) -> "tuple[float, float]":
    """The median step of one group of processes, each pinned to a core, and the processor's time of a step in one."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    cores = sorted(os.sched_getaffinity(0))
    started = []
    for rank in range(processes):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        environment = {
            **os.environ,
            **{name: str(value) for name, value in place.items()},
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1",
            "SNN_CORE_OF_ITS_OWN": str(cores[rank]),
        }
        chosen = ["--network", options.network, "--backend", options.backend, "--steps", str(options.steps)]
        command = [sys.executable, __file__, "--work", *chosen]
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    outputs = [process.communicate(timeout=600)[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit("a process failed; what it printed says why")
    *steps, worked = json.loads(outputs[0].splitlines()[-1])
    return statistics.median(steps), worked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--network", choices=list(NETWORKS), default="seed")
    parser.add_argument("--backend", default="cpu")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of lines")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        os.sched_setaffinity(0, {int(os.environ["SNN_CORE_OF_ITS_OWN"])})
        print(json.dumps(work(options.network, options.backend, options.steps)))
        return
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("two processes need two cores of their own, and this process may use one")
    found: Dict[int, List[tuple[float, float]]] = {1: [], 2: []}
    for _ in range(options.turns):
        for processes, turns in found.items():
            turns.append(turn(processes, options))
    result: Dict[str, object] = {"case": "data_parallel", "network": options.network, "backend": options.backend}
    # on a busy machine processes wait for a core: their own time on it says what cores of their own would take at least
    for index, what in enumerate(("step", "processor")):
        for processes, turns in found.items():
            result[f"{what}, {processes} process(es), ms"] = round(statistics.median(t[index] for t in turns), 2)
        ratios = [one[index] / two[index] for one, two in zip(found[1], found[2])]
        result[f"{what}, ratio"] = round(statistics.median(ratios), 2)
    print(json.dumps(result, indent=2) if options.json else "\n".join(f"{k}: {v}" for k, v in result.items()))


if __name__ == "__main__":
    main()
