"""What a folder of executables was compiled for, so that another run's are refused before they are loaded."""

import hashlib
import importlib.util
import json
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Optional, Tuple

import torch
from torch import nn

from snn_backend_ipu import calls
from snn_backend_ipu.layout import Layout
from snn_backend_ipu.nodes import Nodes
from snn_backend_ipu.options import IpuOptions
from snn_core.errors import ConfigError
from snn_core.optimizers import Optimizer
from snn_core.specs import BatchSpec, TrainSpec

__all__ = ["FILES", "description", "require_executables", "write_manifest"]

FILES: Dict[bool, str] = {True: "training.poptorch", False: "evaluation.poptorch"}
"""The executables by whether they train."""

_MANIFEST = "manifest.json"
# options that say where a run reads, compiles and takes turns; replicas and iterations are in the layouts
_FREE = (
    "cache",
    "evaluation_iterations",
    "executables",
    "loader",
    "offline",
    "popdist",
    "progress_bar",
    "replicas",
    "share_ipus",
    "workers",
)


def description(
    model: nn.Module,
    nodes: Nodes,
    batch: BatchSpec,
    train: TrainSpec,
    optimizer: Optimizer,
    options: IpuOptions,
    cuts: Mapping[bool, Layout],
) -> Dict[str, Any]:
    """What an executable depends on, in JSON's values. Weights, learning rate and seed are a run's own."""
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    described = {
        "version": {
            "poptorch": _poptorch(),
            "torch": torch.__version__,
            "snn-backend-ipu": metadata.version("snn-backend-ipu"),
        },
        "model": {
            name: f"{str(value.dtype)[6:]} {list(value.shape)}{' trained' if name in trained else ''}"
            for name, value in model.state_dict(keep_vars=True).items()
        },
        "graph of model, loss and terms": f"{nodes.total} nodes, {nodes.digest[:12]}",
        "batch": asdict(batch),
        "train": _without(asdict(train), "seed"),
        "optimizer": {"name": optimizer.name, **_without(asdict(optimizer), "lr")},
        "options": _without(asdict(options), *_FREE),
        "layout": {FILES[training]: _without(asdict(cut), "process") for training, cut in cuts.items()},
    }
    return dict(json.loads(json.dumps(described)))


def _poptorch() -> Optional[str]:
    """Its version, None where it is not installed: there a run can be looked at and not compiled."""
    return None if importlib.util.find_spec("poptorch") is None else str(calls.value("__version__"))


def write_manifest(folder: Path, described: Mapping[str, Any]) -> None:
    """Write beside a folder's executables what they were compiled for."""
    files = {name: _digest(folder / name) for name in FILES.values()}
    text = json.dumps({"compiled for": described, "sha256": files}, indent=2)
    (folder / _MANIFEST).write_text(text + "\n", encoding="utf-8")


def require_executables(folder: Path, described: Optional[Mapping[str, Any]]) -> None:
    """Raise ConfigError unless `folder` holds whole executables that were compiled for this run.

    described: None where the run itself is refused, so that the folder alone can be looked at.
    """
    again = "write them with IpuProgram.export(folder)"
    if not folder.is_dir():
        raise ConfigError(f"executables is {str(folder)!r}, which is no folder; {again}")
    missing = [name for name in (*FILES.values(), _MANIFEST) if not (folder / name).is_file()]
    if missing:
        raise ConfigError(f"executables is {str(folder)!r}, in which there is no {', no '.join(missing)}; {again}")
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
        theirs, files = dict(manifest["compiled for"]), dict(manifest["sha256"])
    except (KeyError, TypeError, ValueError) as exc:
        raise ConfigError(f"{folder / _MANIFEST} cannot be read: {exc!r}; {again} again") from exc
    odd = [] if described is None else list(_differences(theirs, described))
    if odd:
        more = f" and {len(odd) - 5} more" if len(odd) > 5 else ""
        raise ConfigError(
            f"executables is {str(folder)!r}, which was compiled for another run: {', '.join(odd[:5])}{more}; make the "
            f"run as that was, or {again} from a program of this run"
        )
    damaged = [name for name in FILES.values() if _digest(folder / name) != files.get(name)]
    if damaged:
        raise ConfigError(
            f"executables is {str(folder)!r}, in which {' and '.join(damaged)} is not as it was written; copy the "
            f"folder again, or {again} again"
        )


def _without(values: Dict[str, Any], *names: str) -> Dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def _differences(theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> Iterator[str]:
    there, here = dict(_flat(theirs)), dict(_flat(ours))
    for name in sorted(set(there) | set(here)):
        unknown = name == "version: poptorch" and here.get(name) is None
        if there.get(name) != here.get(name) and not unknown:
            yield f"{name} is {there.get(name)!r} there and {here.get(name)!r} here"


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[Tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}: ")
        else:
            yield f"{prefix}{name}", value


def _digest(path: Path) -> str:
    found = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            found.update(block)
    return found.hexdigest()
