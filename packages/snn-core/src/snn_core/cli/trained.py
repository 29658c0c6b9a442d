"""What commands about a trained network share: where it lies, what it is, and the data that it is asked about."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, NamedTuple, Optional, Sequence, Tuple

import click

from snn_core.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from snn_core.config import Config
    from snn_core.trainer import Trainer

__all__ = ["Trained", "data_option", "find_run", "json_option", "load_trained", "source_argument", "split_option"]

source_argument = click.argument("source", metavar="RUN|CHECKPOINT")
data_option = click.option(
    "--data", "name", metavar="NAME", help="Another dataset: digits, mnist, fashion_mnist or cifar10."
)
split_option = click.option(
    "--split", default="test", show_default=True, metavar="SPLIT", help="Which part of it: train or test."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


class Trained(NamedTuple):
    """A trained network. config: the run's, with the name of the backend that "auto" stands for.   trainer: with the
    checkpoint's weights in its model.   data: the split that it is asked about.
    """

    run: Path
    checkpoint: Path
    config: "Config"
    trainer: "Trainer"
    data: Any
    split: str

    def describe(self) -> Dict[str, str]:
        """What is asked about what, as JSON values."""
        data = self.config.data
        return {
            "checkpoint": str(self.checkpoint),
            "backend": self.config.backend.name,
            "data": str(data.name or data.factory),
            "split": self.split,
        }


def load_trained(
    source: str,
    name: Optional[str] = None,
    split: str = "test",
    backend: Optional[str] = None,
    changes: Sequence[str] = (),
    *,
    with_terms: bool = True,
) -> Trained:
    """Load what a run's folder or a checkpoint in it holds, and one split of its data, or of the dataset `name`.

    with_terms: False leaves out the run's terms and callbacks. Raises CheckpointError, RunFolderError, ConfigError and
    DataError for what is not there or does not fit.
    """
    run, checkpoint = find_run(source)
    from snn_core.config import dataset, load_run, trainer
    from snn_core.trainer import load_weights

    config = _resolved(load_run(run, [*([f"data={name}"] if name else []), *changes], backend))
    data = dataset(config, split)
    if data is None:
        raise DataError(f"data.factory {config.data.factory!r} has no split {split!r} (it returned None)")
    made = trainer(config if with_terms else dataclasses.replace(config, terms={}, callbacks={}))
    load_weights(made.model, checkpoint)
    return Trained(run, checkpoint, config, made, data, split)


def find_run(source: str) -> Tuple[Path, Path]:
    """A run's folder, and the checkpoint in it: its best one, or the one that `source` is. Raises CheckpointError."""
    path = Path(source)
    if path.is_dir():
        best, last = (path / "checkpoints" / f"{which}.safetensors" for which in ("best", "last"))
        return path, best if best.exists() or not last.exists() else last
    if not path.exists():
        raise CheckpointError(f"there is no run folder or checkpoint {source}; give what `snn train` printed")
    run = path.absolute().parent.parent
    if not (run / "config.toml").is_file():
        raise CheckpointError(
            f"{source} does not lie in the checkpoints of a run folder, whose config.toml says what network it is for; "
            "give RUN/checkpoints/best.safetensors"
        )
    return run, path


def _resolved(config: "Config") -> "Config":
    """The configuration with a backend's name for "auto", so that the answer says which it was."""
    from snn_core import choosing
    from snn_core.config import Device

    if config.backend.name != "auto":
        return config
    return dataclasses.replace(config, backend=Device(choosing.auto()[0].name))
