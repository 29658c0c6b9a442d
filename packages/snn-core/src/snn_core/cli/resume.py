"""`snn resume`: go on with a run that was interrupted, or train a finished one for longer."""

from typing import TYPE_CHECKING, Optional, Tuple

import click

from snn_core.cli.train import backend_option, changes_option, fit, outcome

if TYPE_CHECKING:
    from snn_core.config import Config

__all__ = ["resume"]


@click.command()
@click.argument("run", metavar="RUN")
@backend_option
@changes_option
def resume(run: str, backend: Optional[str], changes: Tuple[str, ...]) -> None:
    """Go on with the run in the folder RUN where its last checkpoint stands, with the settings in RUN/config.toml.

    \b
      snn resume runs/20250131-093000
      snn resume runs/20250131-093000 --set train.epochs=20    longer than first planned

    What decides the weights (network, loss, optimiser, batch size and the like) must stay as it was.
    """
    from snn_core.config import load_run

    config = load_run(run, changes, backend)
    ended = _ended(run, config)
    if ended:
        click.echo(ended)
    else:
        fit(config, resume=run)


def _ended(run: str, config: "Config") -> str:
    """What to say of a run in which nothing is left to do, or ""."""
    from snn_core import checkpoint
    from snn_core.trainer.checkpointing import checkpoint_path

    state, meta = checkpoint.load(checkpoint_path(run, "last"))
    if meta.get("kind") != "run":
        return ""  # the trainer says what is wrong with it
    history, stopped, epochs = state["loop"]["history"], state["loop"]["stopped"], config.train.epochs
    if len(history) >= epochs:
        why = f"{len(history)} of {epochs} epochs"
    elif stopped is not None and epochs <= state["epochs"]:
        why = f"it stopped after {len(history)} of {epochs} epochs: {stopped}"
    else:
        return ""
    more = f"snn resume {run} --set train.epochs={2 * max(epochs, state['epochs'])}"
    return f"the run {run} is finished ({why}), {outcome(history[-1])}; to train on: {more}"
