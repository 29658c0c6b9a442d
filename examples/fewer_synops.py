"""Train sinabs' tutorial network "Training an ANN with fewer SynOps" to budgets of synaptic operations.

`python examples/fewer_synops.py --root FOLDER` trains 33 networks on MNIST (FOLDER holds MNIST/raw; needs torchvision),
`python examples/fewer_synops.py --data digits` takes the bundled digits, for a quick look. Measured on the 10,000 test
images, mean of seeds 0, 1, 2; about half a minute a training on one of two shared cores of a Xeon CPU, torch 2.11.0:

    first weights            budget (synops a sample)   accuracy   synops_per_sample
    torch's                  none                        97.69 %   5.534e7
    last layer's / 32        none                        98.99 %   4.556e7
    last layer's / 32        3.00e7                      98.85 %   2.192e7
    last layer's / 32        2.00e7                      98.82 %   1.758e7
    last layer's / 32        1.36e7                      98.71 %   1.343e7
    last layer's / 32        1.15e7                      98.29 %   1.156e7
    first layer's / 32       none, 3.00e7, 2.00e7        99.07 %   1.298e7
    first layer's / 32       1.36e7                      99.05 %   1.269e7
    first layer's / 32       1.15e7                      99.04 %   1.147e7
    sinabs 3.1.3, as in the tutorial                     94.5 %    3.99e7

Small first activations do most of it: budgets of 2e7 and more are then kept unasked, with a penalty of 0 throughout.
From a costly start the penalty alone takes 4.6e7 down to 1.2e7. Of all that 1.05e7 is the pixels' own cost in layer 1.
"""

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.data import TensorDataset

import snn_core as snn
import snn_metrics
from snn_core.figures import FIRST, SECOND, house_style, new_figure

# synops a sample. They hold for the training images; the test set's have more ink, and 1.5 % more cost in layer 1
BUDGETS = (None, 3e7, 2e7, 1.36e7, 1.15e7)
STARTS = {
    "first": "first layer begins with 1/32 of torch's weights",
    "last": "last layer begins with 1/32 of torch's weights",
    "torch": "torch's own first weights",
}
# sinabs 3.1.3, trained as the tutorial does; the tutorial itself prints 94.9 % and 3.90e7
TUTORIAL = (94.5, 3.99e7)


@dataclass(frozen=True)
class Trained:
    """What one training came to, on every sample of the test set. accuracy: in percent. layers: name -> synops."""

    start: str
    budget: Optional[float]
    seed: int
    accuracy: float
    synops_per_sample: float
    layers: Dict[str, float]
    backend: str
    train_s: float


def load(name: str, split: str, root: Optional[str] = None) -> TensorDataset:
    """The images with pixels from 0 to 255, as the tutorial has them: a pixel is a number of input spikes."""
    data = snn.data.load(name, split, root)
    return TensorDataset(data.images.float(), data.labels)


def network(start: str) -> snn.Sequential:
    """The tutorial's network, run for one step. start: which layer begins with smaller weights."""
    net = snn.Sequential(
        snn.Constant(steps=1),
        nn.Conv2d(1, 16, 5, bias=False),
        snn.NeuromorphicReLU(),
        snn.SumPool2d(2),
        nn.Conv2d(16, 32, 5, bias=False),
        snn.NeuromorphicReLU(),
        snn.SumPool2d(2),
        nn.Conv2d(32, 120, 4, bias=False),
        snn.NeuromorphicReLU(),
        nn.Flatten(),
        nn.Linear(120, 10, bias=False),
    )
    # torch initialises for inputs of about 1. With pixels of up to 255 the first logits are in the hundreds, and much
    # of two epochs goes into undoing that. A smaller first layer makes every activation small from the beginning, and
    # cheap; a smaller last layer tames the logits alone, so that whatever becomes cheaper does so by the penalty.
    scaled = {"first": net[1:2], "last": net[-1:], "torch": net[:0]}[start]
    with torch.no_grad():
        for weight in scaled.parameters():
            weight.div_(32)
    return net


def trainer(net: nn.Module, budget: Optional[float], seed: int) -> snn.Trainer:
    """The recipe. Without a budget the same term only measures."""
    return snn.Trainer(
        net,
        loss=snn.CountCrossEntropy(),  # over a single step the counts are the logits
        optimizer=snn.Adam(lr=5e-3),
        schedule=snn.OneCycle(rise=0.25, start_divisor=10),
        terms=[
            snn_metrics.SynOpsBudget(target=budget, penalty="log", weight=1.0),
            snn_metrics.OperationCounts(kinds=("synops",)),  # only measures: the same number, layer by layer
        ],
        seed=seed,
        batch_size=512,
        drop_last=False,
        folder=None,
        progress=False,
    )


def train_once(
    train: TensorDataset, test: TensorDataset, start: str, budget: Optional[float], seed: int, epochs: int
) -> Trained:
    """Train a new network and measure it."""
    torch.manual_seed(seed)  # the first weights
    run = trainer(network(start), budget, seed)
    began = time.perf_counter()
    result = run.fit(train, epochs=epochs)
    train_s = time.perf_counter() - began
    found = run.evaluate(test)  # once, after the last step: nothing is chosen on the test set
    layers = {name.split(".")[1]: value for name, value in found.items() if name.startswith("operation_counts.")}
    return Trained(
        start=start,
        budget=budget,
        seed=seed,
        accuracy=100 * found["accuracy"],
        synops_per_sample=found["synops_budget"],
        layers=layers,
        backend=result.backend,
        train_s=round(train_s, 1),
    )


Groups = Dict[Tuple[str, Optional[float]], List[Trained]]


def grouped(results: Sequence[Trained]) -> Groups:
    """The seeds of each start and budget, in the order of training."""
    groups: Groups = {}
    for result in results:
        groups.setdefault((result.start, result.budget), []).append(result)
    return groups


def mean(seeds: Sequence[Trained], what: str) -> float:
    return statistics.fmean(getattr(seed, what) for seed in seeds)


def short(value: float, digits: int = 3) -> str:
    """12345678 -> 1.235e7."""
    return f"{value:.{digits}e}".replace("e+0", "e")


def named(budget: Optional[float]) -> str:
    return "none" if budget is None else short(budget, 2)


def print_results(console: Console, results: Sequence[Trained], samples: int) -> None:
    """Print what each budget came to, the mean of the seeds and every seed, and then where the operations are."""
    groups = grouped(results)
    table = Table(box=None, pad_edge=False)
    for heading in ("start", "budget", "accuracy", "", "synops_per_\nsample", ""):
        table.add_column(heading, justify="left" if heading == "start" else "right")
    for (start, budget), seeds in groups.items():
        table.add_row(
            start,
            named(budget),
            f"{mean(seeds, 'accuracy'):.2f}",
            " ".join(f"{seed.accuracy:.2f}" for seed in seeds),
            short(mean(seeds, "synops_per_sample")),
            " ".join(short(seed.synops_per_sample, 2) for seed in seeds),
        )
    table.add_row("sinabs", "", f"{TUTORIAL[0]:.1f}", "", short(TUTORIAL[1], 2), "")
    console.print(f"\nAccuracy (%) and the budget term's measure, the {samples:,} test images: mean, seeds")
    console.print(table)

    table = Table(box=None, pad_edge=False)
    layers = list(results[0].layers)
    for heading in ("start", "budget", *(f"layer {name}" for name in layers)):
        table.add_column(heading, justify="left" if heading == "start" else "right")
    for (start, budget), seeds in groups.items():
        costs = [statistics.fmean(seed.layers[layer] for seed in seeds) for layer in layers]
        table.add_row(start, named(budget), *map(short, costs))
    console.print("\nsynops_per_sample of each layer: mean")
    console.print(table)


def plot(results: Sequence[Trained], title: str) -> Figure:
    """Accuracy against operations: a curve of means for each start, each seed as a small dot."""
    groups = grouped(results)
    with house_style():
        figure = new_figure(8.0, 4.8)
        axes = figure.subplots()
        for start, color in zip(STARTS, (FIRST, SECOND, "#2a8c5a")):
            draw_start(axes, {budget: seeds for (of, budget), seeds in groups.items() if of == start}, start, color)
        axes.plot([], [], "o", color="#5b5b5b", markerfacecolor="white", label="without a budget")
        axes.plot(*reversed(TUTORIAL), "*", markersize=13, color="black", label="sinabs' tutorial, on MNIST")
        # the pixels meet the first layer's weights whatever these are: no training goes below this line
        first_layer = next(iter(results[0].layers.values()))
        axes.axvline(first_layer, color="#5b5b5b", linestyle="--", linewidth=1.2, label="what the input alone costs")
        spread_axes(axes)
        axes.set_xlabel("synops_per_sample, test set")
        axes.set_ylabel("accuracy (%), test set")
        axes.set_title(title)
        axes.legend(fontsize=9, loc="lower center")
    return figure


def draw_start(axes: Axes, budgets: Dict[Optional[float], List[Trained]], start: str, color: str) -> None:
    """Draw the means of one start's seeds as a curve; the point without a budget is hollow."""
    means = {budget: (mean(seeds, "synops_per_sample"), mean(seeds, "accuracy")) for budget, seeds in budgets.items()}
    if not means:
        return
    every = [(seed.synops_per_sample, seed.accuracy) for seeds in budgets.values() for seed in seeds]
    axes.plot(*zip(*every), ".", color=color, alpha=0.35)
    axes.plot(*zip(*sorted(means.values())), "o-", color=color, label=STARTS[start])
    if None in means:
        axes.plot(*means[None], "o", color=color, markerfacecolor="white", zorder=3)


def spread_axes(axes: Axes) -> None:
    """Make operations logarithmic, and accuracy by its distance from 100 %: 98 to 99 is as wide as 96 to 98."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 6)))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.2g}".replace("e+0", "e"))
    axes.xaxis.set_minor_locator(NullLocator())
    to_position, to_accuracy = lambda y: -np.log(np.maximum(100 - y, 0.01)), lambda position: 100 - np.exp(-position)
    axes.set_yscale("function", functions=(to_position, to_accuracy))
    axes.yaxis.set_major_locator(FixedLocator([50, 70, 80, 90, 92, 94, 95, 96, 97, 98, 98.5, 99, 99.5]))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.margins(0.06)


def save(results: Sequence[Trained], folder: Path, settings: Dict[str, Any]) -> None:
    """Write results.json with the versions that decide the numbers, and the plot."""
    folder.mkdir(parents=True, exist_ok=True)
    versions = {"torch": str(torch.__version__), **{name: version(name) for name in ("snn-core", "snn-metrics")}}
    document = {"versions": versions, "threads": torch.get_num_threads(), "settings": settings}
    text = json.dumps({**document, "results": [asdict(result) for result in results]}, indent=2)
    (folder / "results.json").write_text(text, encoding="utf-8")
    plot(results, f"sinabs' tutorial network, data: {settings['data']}").savefig(folder / "fewer_synops.png", dpi=150)


def budget_of(text: str) -> Optional[float]:
    return None if text == "none" else float(text)


def options_from(arguments: Optional[Sequence[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=("mnist", "digits"), default="mnist", help="digits are bundled")
    parser.add_argument("--root", help="the folder above MNIST/raw, as torchvision has it")
    parser.add_argument("--start", choices=tuple(STARTS), nargs="+", default=list(STARTS))
    parser.add_argument("--budgets", type=budget_of, nargs="+", default=list(BUDGETS), help="synops a sample, or none")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs") / "fewer_synops", help="folder of results and plot")
    return parser.parse_args(arguments)


def trainings(options: argparse.Namespace) -> Iterator[Tuple[str, Optional[float], int]]:
    """What is trained: each start, budget and seed; torch's own start stands for comparison, without a budget."""
    for start in options.start:
        for budget in options.budgets if start != "torch" else [None]:
            for seed in options.seeds:
                yield start, budget, seed


def main(arguments: Optional[Sequence[str]] = None) -> None:
    options = options_from(arguments)
    console = Console()
    train, test = (load(options.data, split, options.root) for split in ("train", "test"))
    results: List[Trained] = []
    for start, budget, seed in trainings(options):
        result = train_once(train, test, start, budget, seed, options.epochs)
        results.append(result)
        found = f"{result.accuracy:.2f} % at {short(result.synops_per_sample)}"
        console.print(f"{start}, budget {named(budget)}, seed {seed}: {found} in {result.train_s:.0f} s")
        # after each training, so that an interrupt loses none
        save(results, options.out, {"data": options.data, "epochs": options.epochs})
    print_results(console, results, len(test))


if __name__ == "__main__":
    main()
