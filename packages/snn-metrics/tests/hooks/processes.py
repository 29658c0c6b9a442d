"""One process of several that share a batch: `python processes.py RANK STORE RESULT`. The batch's own functions serve
the test too.
"""

import sys
import time
from typing import Any, Dict, List, Optional

import torch
import torch.distributed as dist
from torch import Tensor, nn

from snn_metrics.hooks import register_synops_hooks

SHARES = ([0, 1, 2], [3])


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(18, 5), nn.ReLU(), nn.Linear(5, 2)
    ).double()


def batch() -> Tensor:
    torch.manual_seed(1)
    # samples that differ much, so that a mean of the ranks' means would be another number
    return torch.rand(4, 1, 8, 8, dtype=torch.float64) * torch.tensor([1.0, 2.0, 3.0, 20.0]).view(-1, 1, 1, 1)


def measured(x: Tensor, group: Optional[Any]) -> Dict[str, Any]:
    """Values of one forward, and the gradient of a penalty that is no mean over samples."""
    net = model()
    register_synops_hooks(net, dt_s=0.1, group=group)
    net(x)
    data = net.hook_data
    torch.log(data["total_synops_per_timestep"]).backward()
    gradients: List[Tensor] = [torch.zeros_like(p) if p.grad is None else p.grad for p in net.parameters()]
    values = {name: value.detach() for name, value in data["synops_per_timestep"].items()}
    values["total"] = data["total_synops_per_timestep"].detach()
    values["per second"] = data["total_synops_per_second"].detach()
    values["of a layer"] = net[4].hook_data["synops_per_timestep"].detach()
    return {"values": values, "gradients": gradients}


def main(rank: int, store: str, result: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=len(SHARES))
    x = batch()[SHARES[rank]]
    everyone = measured(x, True)
    named = measured(x, dist.new_group())
    assert named["values"] == everyone["values"]
    alone = measured(x, None)
    for gradient in everyone["gradients"]:
        dist.all_reduce(gradient)
        gradient /= len(SHARES)  # as DistributedDataParallel does
    torch.save({"everyone": everyone, "alone": alone}, result)
    dist.barrier()
    time.sleep(0.5)  # torch 2.0 holds the interpreter while it waits for gloo's threads, which need it to end
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3])
