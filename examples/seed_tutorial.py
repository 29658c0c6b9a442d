"""Train the network of the tutorial "Accelerating snnTorch on IPUs", on any backend, and measure its throughput.

784-1000-10 leaky integrate-and-fire neurons, 25 time steps, batches of 128, Adam, 10 epochs of MNIST (Sun and
Eshraghian 2022). From the CPU to an IPU three lines change, and none of them is the model's:

    trainer = snn.Trainer(net, loss=loss, optimizer=adam, backend="cpu", batch_size=128)

    from snn_backend_ipu import IpuBackend, IpuOptions
    ipu = IpuBackend(IpuOptions(loader="async", cache="executables"))
    trainer = snn.Trainer(net, loss=loss, optimizer=adam, backend=ipu, batch_size=128)

Here they are two words of the command line, and options as TOML has them:

    python examples/seed_tutorial.py --backend cpu
    python examples/seed_tutorial.py --backend ipu --options loader=async cache=executables

`--throughput` measures training in samples a second instead, neuron models x precisions, as the tutorial's benchmark
does: data loading and the copies to and from the device included, compiling not. MNIST is taken from `--root`, or
where torchvision and its files are found, the bundled digits otherwise. On an IPU this has not been run.
"""

import argparse
import json
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Sequence

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

import snn_core as snn
from snn_core import choosing, registry
from snn_core.backend import Backend, Program
from snn_core.cli.output import print_error
from snn_core.specs import BatchSpec, TensorSpec, TrainSpec
from snn_core.step import Step

STEPS, BATCH, PRECISIONS = 25, 128, ("fp32", "bf16", "fp16")
NEURONS: Dict[str, Callable[[], nn.Module]] = {
    "LIF": lambda: snn.LIF(beta=0.9),
    "Synaptic": lambda: snn.Synaptic(alpha_syn=0.8, beta=0.9),
    "Alpha": lambda: snn.Alpha(alpha_syn=0.9, beta=0.8),
    "Lapicque": lambda: snn.Lapicque(5.1, 5.0),
    "ALIF": lambda: snn.ALIF(0.9, 0.95),
}


class Rate(NamedTuple):
    """One cell of the table: None where the backend does not declare the precision."""

    neuron: str
    precision: str
    samples_per_s: Optional[float]


def network(neuron: Callable[[], nn.Module] = NEURONS["LIF"]) -> snn.Sequential:
    """The tutorial's network. The image is constant over time, so its first layer is computed once."""
    return snn.Sequential(
        snn.Constant(steps=STEPS), nn.Flatten(), nn.Linear(784, 1000), neuron(), nn.Linear(1000, 10), neuron()
    )


def data(split: str, root: Optional[str]) -> snn.data.Dataset:
    """MNIST from `root`; without a root, MNIST where it is found, otherwise the bundled digits."""
    try:
        return snn.data.load("mnist", split, root)
    except snn.DataError:
        if root is not None:
            raise
        return snn.data.load("digits", split)


def train(backend: Backend, train_spec: TrainSpec, options: argparse.Namespace, console: Console) -> snn.RunResult:
    """Train as the tutorial does, and print the accuracy on the test set."""
    trainer = snn.Trainer(
        network(),
        loss=snn.CountCrossEntropy(),
        optimizer=snn.Adam(lr=1e-3),
        backend=backend,
        seed=options.seed,
        batch_size=BATCH,
        precision=train_spec.precision,
        steps_per_call=train_spec.steps_per_call,
        folder=options.out,
        progress=console.is_terminal,
    )
    began = time.perf_counter()
    training = data("train", options.root)
    result = trainer.fit(training, data("test", options.root), epochs=options.epochs)
    seconds = time.perf_counter() - began
    final = result.history[-1]
    console.print(
        f"{result.backend}: test accuracy {100 * final['val_accuracy']:.2f} % after {result.epochs} "
        f"epoch{'' if result.epochs == 1 else 's'} of {len(training):,} images, "
        f"{result.epochs * len(training) / seconds:,.0f} samples a second with validation and compiling"
    )
    return result


def throughput(backend: Backend, train_spec: TrainSpec, calls: int, samples: Any) -> Iterator[Rate]:
    """Samples a second of training, for each neuron model and precision."""
    for neuron, make in NEURONS.items():
        for precision in PRECISIONS:
            if precision not in backend.capabilities.precisions:
                yield Rate(neuron, precision, None)
                continue
            torch.manual_seed(0)
            step = Step(network(make), snn.CountCrossEntropy())
            batch = BatchSpec(BATCH, TensorSpec((1, 28, 28), "float32"), TensorSpec((), "int64"))
            spec = TrainSpec(precision=precision, steps_per_call=train_spec.steps_per_call)
            with backend.compile(step, snn.Adam(lr=1e-3), batch, spec) as program:
                yield Rate(neuron, precision, measure(program, samples, calls))


def measure(program: Program, samples: Any, calls: int) -> float:
    """Samples a second over `calls` calls, after two that compile and warm up."""
    batches = endless(program, samples)
    for batch in islice(batches, 2):
        float(program.train_step(batch).loss)
    began = time.perf_counter()
    reports = [program.train_step(batch) for batch in islice(batches, calls)]
    # reading the last report waits for the device
    count = sum(float(report.samples) for report in reports)
    return count / (time.perf_counter() - began)


def endless(program: Program, samples: Any) -> Iterator[Any]:
    while True:
        yield from program.loader(samples, range(len(samples)), training=True)


def print_rates(console: Console, name: str, rates: Sequence[Rate]) -> None:
    table = Table(box=None, pad_edge=False, title=f"training on {name}, samples a second")
    table.add_column("neuron")
    for precision in PRECISIONS:
        table.add_column(precision, justify="right")
    for neuron in NEURONS:
        cells = [rate.samples_per_s for rate in rates if rate.neuron == neuron]
        table.add_row(neuron, *("not declared" if cell is None else f"{cell:,.0f}" for cell in cells))
    console.print(table)


def option(text: str) -> "tuple[str, Any]":
    """NAME=VALUE, the value as TOML has it, or a bare word."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} must be NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def count(text: str) -> int:
    """A whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number of 1 or more")
    return int(text)


def options_from(arguments: Optional[Sequence[str]]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backend", default="auto", help="ipu, cpu, eager or any other that `snn backends` lists")
    parser.add_argument("--options", type=option, nargs="*", default=[], metavar="NAME=VALUE", help="of the backend")
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--steps-per-call", type=count, default=1, help="optimiser steps in one call of the device")
    parser.add_argument("--throughput", action="store_true", help="measure instead of training")
    parser.add_argument("--calls", type=count, default=50, help="calls that are timed for each throughput")
    parser.add_argument("--root", help="the folder above MNIST/raw, as torchvision has it")
    parser.add_argument("--epochs", type=count, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of the run, or of throughput.json")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace, console: Console) -> None:
    """Train, or measure. Raises SnnError for what the backend refuses."""
    backend = choosing.auto()[0] if options.backend == "auto" else registry.load(options.backend, dict(options.options))
    device = registry.require_ready(backend).detail
    spec = TrainSpec(precision=options.precision, steps_per_call=options.steps_per_call)
    torch.manual_seed(options.seed)
    if not options.throughput:
        train(backend, spec, options, console)
        return
    rates: List[Rate] = list(throughput(backend, spec, options.calls, data("train", options.root)))
    print_rates(console, f"{backend.name} ({device})", rates)
    options.out.mkdir(parents=True, exist_ok=True)
    document = {"device": device, "torch": str(torch.__version__), "rates": [rate._asdict() for rate in rates]}
    (options.out / "throughput.json").write_text(json.dumps(document, indent=2), encoding="utf-8")


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Return the exit code: 2 where something was refused, which the error says, as `snn` does."""
    options = options_from(arguments)
    try:
        run(options, Console())
    except snn.SnnError as exc:
        print_error(str(exc))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
