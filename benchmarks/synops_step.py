"""What counting synaptic operations adds to a training step: this project's hooks and term beside sinabs' hooks.

The convolutional network of sinabs' tutorial "Training an ANN with fewer SynOps" on one batch of 512 images, cross
entropy and Adam. The ways take turns; what is reported is each one's median and the median over turns of its time
against the same step without counting. Run it with `python3.11 start.py bench synops_step.py`, which installs sinabs.
"""

import argparse
import importlib.metadata
import json
import statistics
from typing import Any, Callable, Dict, Optional

import torch
from _timing import interleaved
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import snn_core as snn
import snn_metrics

BATCH = 512


def batch() -> "tuple[Tensor, Tensor]":
    """One batch in the shape of MNIST, pixels from 0 to 255, most of them 0."""
    generator = torch.Generator().manual_seed(0)
    x = (255 * torch.rand(BATCH, 1, 28, 28, generator=generator)) * (
        torch.rand(BATCH, 1, 28, 28, generator=generator) < 0.2
    )
    return x.floor(), torch.randint(0, 10, (BATCH,), generator=generator)


def layers(relu: Callable[[], nn.Module], pool: Callable[[int], nn.Module]) -> "list[nn.Module]":
    torch.manual_seed(0)
    return [
        nn.Conv2d(1, 16, 5, bias=False), relu(), pool(2), nn.Conv2d(16, 32, 5, bias=False), relu(), pool(2),
        nn.Conv2d(32, 120, 4, bias=False), relu(), nn.Flatten(), nn.Linear(120, 10, bias=False),
    ]  # fmt: skip


def torch_step(model: nn.Module, counted: bool) -> Callable[[], object]:
    """A training step in plain torch, with the count in the loss where the model has hooks."""
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    x, target = batch()

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        value = nn.functional.cross_entropy(model(x), target)
        if counted:
            data: Any = model.hook_data
            value = value + torch.relu(torch.log(data["total_synops_per_timestep"] / 2e7))
        value.backward()
        optimizer.step()
        return value

    return step


def trainer_step(term: Optional[snn.Term]) -> Callable[[], object]:
    """A training step of the reference backend, with the budget as a term."""
    net = snn.Sequential(snn.Constant(1), *layers(snn.NeuromorphicReLU, snn.SumPool2d))
    return snn.bench.step_function(
        net, loss=snn.CountCrossEntropy(), batch=batch(), terms=[] if term is None else [term]
    )


def ways() -> "Dict[str, tuple[Callable[[], object], str]]":
    """Each way with the name of the step that it is held against."""
    import sinabs.hooks
    import sinabs.layers as sl

    ours, theirs = (nn.Sequential(*layers(*kinds)) for kinds in ((snn.NeuromorphicReLU, snn.SumPool2d),
                                                                 (sl.NeuromorphicReLU, sl.SumPool2d)))  # fmt: skip
    plain = {"torch": nn.Sequential(*layers(snn.NeuromorphicReLU, snn.SumPool2d)),
             "torch, sinabs' layers": nn.Sequential(*layers(sl.NeuromorphicReLU, sl.SumPool2d))}  # fmt: skip
    snn_metrics.register_synops_hooks(ours)
    sinabs.hooks.register_synops_hooks(theirs)
    return {
        **{name: (torch_step(model, False), name) for name, model in plain.items()},
        "snn-metrics hooks": (torch_step(ours, True), "torch"),
        "sinabs hooks": (torch_step(theirs, True), "torch, sinabs' layers"),
        "eager": (trainer_step(None), "eager"),
        "eager, SynOpsBudget": (trainer_step(snn_metrics.SynOpsBudget(target=2e7)), "eager"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    options = parser.parse_args()
    torch.set_flush_denormal(True)  # as in seed_step.py
    found = ways()
    times = interleaved({name: step for name, (step, _) in found.items()}, options.turns)
    rows = [
        {
            "way": name,
            "median_ms": round(statistics.median(times[name]), 2),
            "against": base,
            "added": round(statistics.median(a / b for a, b in zip(times[name], times[base])) - 1, 3),
        }
        for name, (_, base) in found.items()
    ]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("torch", "snn-metrics", "sinabs"))
    about = f"{versions}; CPU, {torch.get_num_threads()} threads, {options.turns} turns"
    if options.json:
        print(json.dumps({"case": "synops_step", "about": about, "rows": rows}, indent=2))
        return
    table = Table(title=f"sinabs' tutorial network, one training step ({about})")
    for heading in ("way", "median ms", "against", "added"):
        table.add_column(heading, justify="left" if heading in ("way", "against") else "right")
    for row in rows:
        table.add_row(row["way"], str(row["median_ms"]), row["against"], f"{100 * float(row['added']):+.1f} %")
    Console().print(table)


if __name__ == "__main__":
    main()
