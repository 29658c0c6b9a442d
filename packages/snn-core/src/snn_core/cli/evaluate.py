"""`snn eval`: what a trained network is worth, over every sample of a dataset."""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Optional, Tuple

import click

from snn_core.cli.output import print_json, print_rows
from snn_core.cli.train import backend_option, changes_option
from snn_core.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from snn_core.config import Config

__all__ = ["evaluate"]


@click.command("eval")
@click.argument("source", metavar="RUN|CHECKPOINT")
@click.option("--data", "name", metavar="NAME", help="Another dataset: digits, mnist, fashion_mnist or cifar10.")
@click.option("--split", default="test", show_default=True, metavar="SPLIT", help="Which part of it: train or test.")
@backend_option
@changes_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def evaluate(
    source: str, name: Optional[str], split: str, backend: Optional[str], changes: Tuple[str, ...], as_json: bool
) -> None:
    """Evaluate a trained network: its loss, accuracy and terms over every sample.

    Give a run's folder, whose best checkpoint is taken (the last one before the first epoch's end), or a checkpoint in
    RUN/checkpoints.

    \b
      snn eval runs/20250131-093000
      snn eval runs/20250131-093000/checkpoints/last.safetensors --split train --json
    """
    run, checkpoint = _find(source)
    from snn_core.config import dataset, load_run, trainer
    from snn_core.trainer import load_weights

    config = _resolved(load_run(run, [*([f"data={name}"] if name else []), *changes], backend))
    data = dataset(config, split)
    if data is None:
        raise DataError(f"data.factory {config.data.factory!r} has no split {split!r} (it returned None)")
    made = trainer(config)
    load_weights(made.model, checkpoint)
    values = made.evaluate(data)
    document = _document(config, checkpoint, split, len(data), values)
    if as_json:
        print_json(document)
    else:
        _print(document)


def _find(source: str) -> Tuple[Path, Path]:
    """A run's folder, and the checkpoint in it."""
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
    from snn_core import registry
    from snn_core.config import Device

    if config.backend.name != "auto":
        return config
    return dataclasses.replace(config, backend=Device(registry.auto()[0].name))


def _document(config: "Config", checkpoint: Path, split: str, samples: int, values: Dict[str, float]) -> Dict[str, Any]:
    plain = {key: value if math.isfinite(value) else None for key, value in values.items()}  # JSON has no NaN
    return {
        "checkpoint": str(checkpoint),
        "backend": config.backend.name,
        "data": config.data.name or config.data.factory,
        "split": split,
        "samples": samples,
        "loss": plain.pop("loss"),
        "accuracy": plain.pop("accuracy", None),
        "terms": plain,
    }


def _print(document: Dict[str, Any]) -> None:
    rows = [(key, str(document[key])) for key in ("checkpoint", "backend", "data", "split")]
    rows.append(("samples", f"{document['samples']:,}"))
    rows.append(("loss", f"{document['loss']:.6g}"))
    if document["accuracy"] is not None:
        rows.append(("accuracy", f"{100 * document['accuracy']:.2f} %"))
    rows += [(f"term {name}", "not finite" if v is None else f"{v:.6g}") for name, v in document["terms"].items()]
    print_rows(rows, indent="")
