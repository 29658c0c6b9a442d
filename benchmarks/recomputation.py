"""The peak of a process's memory over some training steps on long sequences, with `recompute_every` and without.

Three layers of leaky integrate-and-fire neurons, 256, 256 and 5, on 20 inputs; batches of 64 samples, one thread. Each
case has a process of its own, whose peak is read from the operating system (Linux).
"""

import argparse
import json
import subprocess
import sys
import time
from typing import Dict, Optional

import torch
from torch import nn

import snn_core as snn
from snn_core.specs import BatchSpec, TensorSpec, TrainSpec
from snn_core.step import Step

SIZE, INPUTS, HIDDEN, CLASSES = 64, 20, 256, 5


def memory(name: str) -> float:
    """MiB of this process: "VmRSS" is what it has now, "VmHWM" the most that it has had."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name)) / 1024


def work(backend: str, length: int, every: Optional[int], steps: int) -> Dict[str, float]:
    """Train for some steps; return MiB before the first one, the peak in MiB, and the last step's seconds."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    hidden = [nn.Linear(INPUTS, HIDDEN), snn.LIF(0.9), nn.Linear(HIDDEN, HIDDEN), snn.LIF(0.9)]
    step = Step(snn.Sequential(*hidden, nn.Linear(HIDDEN, CLASSES), snn.LIF(0.9)), snn.CountCrossEntropy())
    batch = BatchSpec(SIZE, TensorSpec((length, INPUTS), "float32", time_axis=1), TensorSpec((), "int64"))
    data = torch.utils.data.TensorDataset(torch.rand(SIZE, length, INPUTS), torch.arange(SIZE) % CLASSES)
    train = TrainSpec(recompute_every=every)
    with snn.registry.load(backend).compile(step, snn.Adam(), batch, train) as program:
        before = memory("VmRSS")
        for _ in range(steps):
            for part in program.loader(data, range(SIZE), training=True):
                begun = time.perf_counter()
                program.train_step(part)
        return {"before": before, "peak": memory("VmHWM"), "step_s": time.perf_counter() - begun}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", default="cpu,eager")
    parser.add_argument("--lengths", default="1000,3000", help="numbers of time steps")
    parser.add_argument("--every", type=int, default=32, help="recompute_every")
    parser.add_argument("--steps", type=int, default=3, help="optimiser steps of each case")
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        backend, length, every = options.work
        print(json.dumps(work(backend, int(length), int(every) or None, options.steps)))
        return
    print("backend  time steps  recompute_every  before, MiB  peak, MiB  step, s")
    for backend in options.backends.split(","):
        for length in options.lengths.split(","):
            for every in (options.every, 0):
                case = ["--work", backend, length, str(every)]
                command = [sys.executable, __file__, "--steps", str(options.steps), *case]
                told = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
                found = json.loads(told.stdout.splitlines()[-1])
                print(
                    f"{backend:7}  {length:>10}  {every or 'none':>15}  {found['before']:11.0f}  {found['peak']:9.0f}  "
                    f"{found['step_s']:7.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
