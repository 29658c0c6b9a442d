"""One layer of neurons alone, forward and backward, in bytes against this machine's copy bandwidth.

Counted are the bytes that must move: forward reads x and writes the output (2 arrays of T * B * N values), backward
reads x and the output's gradient and writes x's (3 more). A copy of x, which moves 2, takes turns with each
measurement, so that a busy machine slows both alike; reported is the median of the ratios, turn by turn.
"""

import argparse
import statistics
import time
from typing import Callable, Dict, List, Tuple

import torch
from rich.console import Console
from rich.table import Table

import snn_core as snn
from snn_backend_cpu.fused import Fused
from snn_backend_cpu.memory import keep_freed_memory
from snn_core.neurons import Neuron

SHAPES = {16: (128, 2000), 500: (16, 512)}
NEURONS: Dict[str, Callable[[], Neuron]] = {
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
    "Recurrent, one to one": lambda: snn.Recurrent(snn.LIF(0.9), snn.OneToOne()),
}


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def fractions(neuron: Neuron, steps: int, turns: int) -> Tuple[float, float]:
    """The share of the copy bandwidth that forward alone reaches, and forward with backward."""
    neuron.runner = Fused(neuron, torch.float32)
    x = torch.randn(steps, *SHAPES[steps], requires_grad=True)
    cotangent, copied, plain = torch.randn_like(x), torch.empty_like(x), x.detach()
    leaves = [x, *neuron.parameters()]

    def forward() -> None:
        with torch.no_grad():
            neuron(x)

    def both() -> None:
        torch.autograd.grad(neuron(x), leaves, cotangent)

    found: List[List[float]] = [[], []]
    for turn in range(turns + 2):
        copy = seconds(lambda: copied.copy_(plain))
        alone, together = seconds(forward), seconds(both)
        if turn >= 2:
            found[0].append(copy / alone)
            found[1].append(copy * 5 / 2 / together)
    return statistics.median(found[0]), statistics.median(found[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--only", default="", help="neurons whose name holds this")
    options = parser.parse_args()
    keep_freed_memory()
    about = f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.turns} turns"
    table = Table(title=f"share of the copy bandwidth ({about})")
    for heading in ("neuron", *(f"T={steps} {what}" for steps in SHAPES for what in ("forward", "both"))):
        table.add_column(heading, justify="left" if heading == "neuron" else "right")
    for name, make in NEURONS.items():
        if options.only in name:
            shares = [share for steps in SHAPES for share in fractions(make(), steps, options.turns)]
            table.add_row(name, *(f"{share:.2f}" for share in shares))
    Console().print(table)


if __name__ == "__main__":
    main()
