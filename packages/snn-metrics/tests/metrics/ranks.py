"""One process of several: metrics of its share of the data. `python ranks.py RANK RANKS STORE RESULT`."""

import sys
import time
from typing import Any, Dict, List, Tuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

import snn_core as snn
from snn_metrics.metrics import FiringRate, Latency, Sparsity, SynOps


def model() -> nn.Module:
    torch.manual_seed(0)
    return snn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1), snn.LIF(threshold=0.5), nn.Flatten(), nn.Linear(32, 9), snn.LIF(threshold=0.3)
    )


def data() -> List[Tuple[Tensor, Tensor]]:
    """Batches of 3, 1 and 4 samples, [6, B, 1, 4, 4], and which samples count."""
    torch.manual_seed(1)
    valid = ([1, 0, 1], [1], [0, 1, 1, 1])
    return [(torch.rand(6, len(v), 1, 4, 4).mul(3).round(), torch.tensor(v)) for v in valid]


def measured(batches: List[Tuple[Tensor, Tensor]]) -> Dict[str, Any]:
    """All metrics, with sequences in two chunks, values of batches on the way, and the last sequence left open."""
    net = run = model()
    if dist.is_initialized():
        # shares differ in size, and there is no batch norm whose buffers would have to agree
        run = nn.parallel.DistributedDataParallel(net, broadcast_buffers=False)
    anew = {"compute_with_cache": False}
    rate, sparsity, latency = FiringRate(**anew), Sparsity(**anew), Latency(**anew)
    synops = SynOps(net, kinds=("synops", "acs", "macs"), **anew)
    for x, valid in batches:
        with torch.no_grad(), synops.watch(net):
            out = run(x)
        synops(valid)
        rate(out, valid)
        sparsity.update(out, valid)
        latency(out[:4], valid)
        latency.update(out[4:], valid, first=False)
    metrics = (rate, sparsity, latency, synops)
    value = {type(metric).__name__: metric.compute() for metric in metrics}
    # a value that was read changes nothing, on any process
    assert repr(value) == repr({type(metric).__name__: metric.compute() for metric in metrics})
    return value


def main(rank: int, ranks: int, store: str, result: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    # shares of 2 batches and 1, of 7 samples and 1
    share = [batch for index, batch in enumerate(data()) if (index == 1) == bool(rank)]
    torch.save(measured(share), result)
    time.sleep(0.5)  # torch 2.0 holds the interpreter while it waits for gloo's threads, which need it to end
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
