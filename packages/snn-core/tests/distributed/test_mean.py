"""What several processes agree on, held against one process with the joint batch.

`python test_mean.py WORK RANK FOLDER` is one of the processes.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Callable, List

import pytest
import torch
from torch import Tensor

from snn_core.distributed import GlobalMean

SHARES = ((0, 3), (3, 8))  # uneven: 3 and 5 samples
TURNS = 60


def objective(measure: Tensor) -> Tensor:
    """A penalty that is no mean of its parts' penalties."""
    return measure.log().square().sum()


def samples() -> Tensor:
    return torch.rand(8, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.5


def measure(weight: Tensor, x: Tensor) -> Tensor:
    return (x * weight).square().mean(0)


def meet(rank: int, store: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)


def mean_and_gradient(rank: int, folder: str) -> None:
    meet(rank, f"{folder}/store")
    weight = torch.full((4,), 1.5, dtype=torch.float64, requires_grad=True)
    x = samples()[slice(*SHARES[rank])]
    whole = GlobalMean()(measure(weight, x), torch.tensor(float(len(x))))
    objective(whole).backward()
    torch.save((whole.detach(), weight.grad), f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def means_and_partings(rank: int, folder: str) -> None:
    for turn in range(TURNS):
        meet(rank, f"{folder}/{turn}")
        GlobalMean()(torch.ones(3), torch.tensor(1.0))
        torch.distributed.destroy_process_group()


def run_two(work: Callable[[int, str], None], folder: Path) -> None:
    processes = [subprocess.Popen([sys.executable, __file__, work.__name__, str(rank), str(folder)]) for rank in (0, 1)]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.slow
def test_processes_part_right_after_a_mean(tmp_path: Path) -> None:
    """In torch 2.0 they waited for ever, within ten turns, when the message did not outlive gloo's threads."""
    run_two(means_and_partings, tmp_path)


@pytest.mark.slow
def test_the_mean_and_its_gradient_are_those_of_the_joint_batch(tmp_path: Path) -> None:
    run_two(mean_and_gradient, tmp_path)
    weight = torch.full((4,), 1.5, dtype=torch.float64, requires_grad=True)
    expected = measure(weight, samples())
    objective(expected).backward()
    found: List[List[Tensor]] = [torch.load(f"{tmp_path}/{rank}.pt") for rank in (0, 1)]
    for value, _ in found:
        torch.testing.assert_close(value, expected.detach(), rtol=1e-14, atol=0)
    # as DistributedDataParallel combines them
    torch.testing.assert_close((found[0][1] + found[1][1]) / 2, weight.grad, rtol=1e-13, atol=0)


if __name__ == "__main__":
    globals()[sys.argv[1]](int(sys.argv[2]), sys.argv[3])
