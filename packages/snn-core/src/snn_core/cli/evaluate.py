"""`snn eval`: what a trained network is worth, over every sample of a dataset."""

import math
from typing import Any, Dict, Optional, Tuple

import click

from snn_core.cli.output import print_json, print_rows
from snn_core.cli.train import backend_option, changes_option
from snn_core.cli.trained import Trained, data_option, json_option, load_trained, source_argument, split_option

__all__ = ["evaluate"]


@click.command("eval")
@source_argument
@data_option
@split_option
@backend_option
@changes_option
@json_option
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
    from snn_core.distributed import speaks

    found = load_trained(source, name, split, backend, changes)
    document = _document(found, found.trainer.evaluate(found.data))
    if not speaks():
        return
    if as_json:
        print_json(document)
    else:
        _print(document)


def _document(found: Trained, values: Dict[str, float]) -> Dict[str, Any]:
    plain = {key: value if math.isfinite(value) else None for key, value in values.items()}  # JSON has no NaN
    return {
        **found.describe(),
        "samples": len(found.data),
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
