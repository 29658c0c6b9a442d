"""One training step of the seed network: this project's reference backend beside snnTorch and SpikingJelly, in one
process.

784-1000-10 leaky integrate-and-fire, T = 25, batch 128, cross entropy of spike counts, Adam. The libraries take
turns, so
that a busy machine slows all of them alike; what is reported is each one's median and the median of the ratios turn
by turn.
Run it with `python3.11 start.py bench seed_step.py`, which installs the peers.
"""

import argparse
import importlib.metadata
import json
import statistics
from typing import Callable

import torch
from _timing import interleaved
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import snn_core as snn

STEPS, BATCH, BETA = 25, 128, 0.9


def batch() -> "tuple[Tensor, Tensor]":
    """One batch in the shape of MNIST."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(BATCH, 1, 28, 28, generator=generator)
    return x, torch.randint(0, 10, (BATCH,), generator=generator)


def ours(backend: str) -> Callable[[], object]:
    """The network of the README."""
    net = snn.Sequential(
        snn.Constant(steps=STEPS),
        nn.Flatten(),
        nn.Linear(784, 1000),
        snn.LIF(beta=BETA),
        nn.Linear(1000, 10),
        snn.LIF(beta=BETA),
    )
    return snn.bench.step_function(
        net, loss=snn.CountCrossEntropy(), optimizer=snn.Adam(), backend=backend, batch=batch()
    )


def snntorch() -> Callable[[], object]:
    """The loop over time of snnTorch's tutorials."""
    import snntorch
    from snntorch import functional

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1, self.lif1 = nn.Linear(784, 1000), snntorch.Leaky(beta=BETA)
            self.fc2, self.lif2 = nn.Linear(1000, 10), snntorch.Leaky(beta=BETA)

        def forward(self, x: Tensor) -> Tensor:
            mem1, mem2, out = self.lif1.init_leaky(), self.lif2.init_leaky(), []
            for _ in range(STEPS):
                spk1, mem1 = self.lif1(self.fc1(x), mem1)
                spk2, mem2 = self.lif2(self.fc2(spk1), mem2)
                out.append(spk2)
            return torch.stack(out)

    return _loop(Net(), functional.ce_count_loss())


def spikingjelly() -> Callable[[], object]:
    """SpikingJelly in its multi-step mode, the torch backend."""
    from spikingjelly.activation_based import functional, layer, neuron

    def lif() -> nn.Module:
        return neuron.LIFNode(tau=1 / (1 - BETA), decay_input=False, v_reset=None, detach_reset=True)

    net = nn.Sequential(layer.Linear(784, 1000), lif(), layer.Linear(1000, 10), lif())
    functional.set_step_mode(net, "m")

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor) -> Tensor:
            functional.reset_net(self.net)
            return self.net(x.expand(STEPS, *x.shape))

    return _loop(Net(), lambda out, target: nn.functional.cross_entropy(out.sum(0), target))


def _loop(model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], object]:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, target = batch()
    x = x.flatten(1)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        value = loss(model(x), target)
        value.backward()
        optimizer.step()
        return value

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--backend", default="eager")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    options = parser.parse_args()
    # one batch is learnt by heart within some dozens of turns, and gradients that small are denormal: without this the
    # libraries would be compared by how their surrogates' tails meet the processor's slow path
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    name = f"snn-core {options.backend}"
    steps = {name: ours(options.backend), "snntorch": snntorch(), "spikingjelly": spikingjelly()}
    times = interleaved(steps, options.turns)
    rows = [
        {
            "library": library,
            "version": importlib.metadata.version(library.split()[0]),
            "median_ms": round(statistics.median(ms), 2),
            "ratio": round(statistics.median(other / own for other, own in zip(ms, times[name])), 2),
        }
        for library, ms in times.items()
    ]
    about = f"torch {torch.__version__}, CPU, {torch.get_num_threads()} threads, {options.turns} turns"
    if options.json:
        print(json.dumps({"case": "seed_step", "about": about, "rows": rows}, indent=2))
        return
    table = Table(title=f"seed network, one training step ({about})")
    for heading in ("library", "version", "median ms", f"time / {name}"):
        table.add_column(heading, justify="left" if heading in ("library", "version") else "right")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)


if __name__ == "__main__":
    main()
