"""`snn train`: a run from a configuration file, from overrides, or from the defaults alone."""

from typing import TYPE_CHECKING, Mapping, Optional, Tuple, Union

import click

from snn_core.cli.output import print_rows

if TYPE_CHECKING:
    from snn_core.config import Config
    from snn_core.trainer import RunResult

__all__ = ["backend_option", "changes_option", "fit", "outcome", "train"]

backend_option = click.option(
    "--backend", metavar="NAME", help="The device: a name that `snn backends` shows, or auto for the best ready one."
)
changes_option = click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change a setting, such as train.epochs=3; may be given again and again.",
)


@click.command()
@click.argument("config", required=False, metavar="[CONFIG.toml]")
@backend_option
@changes_option
@click.option("--resume", is_flag=True, help="Go on with the run of this train.name where there is one, else begin it.")
def train(config: Optional[str], backend: Optional[str], changes: Tuple[str, ...], resume: bool) -> None:
    """Train the network that CONFIG.toml describes. Without a file, train the seed network (784-1000-10 leaky
    integrate-and-fire neurons, 25 steps) on bundled handwritten digits for 10 epochs.

    \b
      snn train --set train.epochs=1
      snn train --set optimizer=sgd --set optimizer.lr=0.1
      snn train mine.toml --backend cuda
      torchrun --nproc-per-node 2 -m snn_core train mine.toml

    The run gets a folder of its own under runs/ with settings, metrics, checkpoints and plots. Ctrl-C saves, and says
    how to go on. docs/configuration.md lists every setting.
    """
    from snn_core.config import load

    fit(load(config, changes, backend), resume or None)


def fit(config: "Config", resume: Union[str, bool, None] = None) -> None:
    """Carry out a configured run, or go on with one (`resume`: as in `Trainer.fit`), and print how it ended."""
    from snn_core.config import ConfigFile, build
    from snn_core.distributed import speaks

    recipe = build(config, [ConfigFile(config)])
    result = recipe.trainer.fit(recipe.train, recipe.test, epochs=recipe.epochs, resume=resume)
    if speaks():
        click.echo(f"{outcome(result.history[-1])} after epoch {result.epochs}")
        _print_files(result)


def outcome(metrics: Mapping[str, float]) -> str:
    """What an epoch's metrics come to: the accuracy, or the loss where there are no classes."""
    split, prefix = ("test", "val_") if "val_loss" in metrics else ("training", "train_")
    if f"{prefix}accuracy" in metrics:
        return f"{split} accuracy {100 * metrics[f'{prefix}accuracy']:.2f} %"
    return f"{split} loss {metrics[f'{prefix}loss']:.6g}"


def _print_files(result: "RunResult") -> None:
    if result.folder is None:
        return
    plots = sorted(str(path) for path in (result.folder / "plots").glob("*.png"))
    rows = [("run folder", str(result.folder)), *(("plot", path) for path in plots)]
    print_rows([*rows, ("evaluate it", f"snn eval {result.folder}")], indent="")
