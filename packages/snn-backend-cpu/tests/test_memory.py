"""What the process takes, with the blocks that the C library keeps for the next step."""

import subprocess
import sys
from pathlib import Path

import pytest

GROWTH = """
import torch
from torch import nn
import snn_core as snn
from snn_backend_cpu import CpuBackend
from snn_core.specs import BatchSpec, TensorSpec, TrainSpec
from snn_core.step import Step

def peak_after(steps):
    hidden = [nn.Linear(4, 256), snn.LIF(0.9), nn.Linear(256, 256), snn.LIF(0.9)]
    model = snn.Sequential(*hidden, nn.Linear(256, 2), snn.LI(0.9))
    spec = BatchSpec(32, TensorSpec((steps, 4), "float32", time_axis=1), TensorSpec((), "int64"))
    step = Step(model, snn.MembraneCrossEntropy())
    program = CpuBackend().compile(step, snn.SGD(lr=0.1), spec, TrainSpec(recompute_every=16))
    program.train_step((torch.randn(32, steps, 4), torch.zeros(32, dtype=torch.int64)))
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024

torch.set_num_threads(1)
before = peak_after(512)
print(peak_after(2048) - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process's memory is read in /proc")
def test_a_longer_sequence_in_segments_grows_the_process_by_less_than_one_layers_sequence() -> None:
    told = subprocess.run([sys.executable, "-c", GROWTH], stdout=subprocess.PIPE, check=True, text=True)
    # a layer's spikes of the 1536 steps more; the whole network remembers several such tensors
    assert int(told.stdout) < 1536 * 32 * 256 * 4
