"""MNIST, FashionMNIST and CIFAR10 through torchvision, which reads and downloads them; here they become a `Dataset`.

torchvision is imported when one of them is asked for and not before. MNIST: LeCun et al. 1998; FashionMNIST: Xiao et
al. 2017; CIFAR10: Krizhevsky 2009.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Tuple, Union

import torch
from torch import Tensor

from snn_core.data.dataset import Dataset
from snn_core.errors import DataError

__all__ = ["SOURCES", "Source", "default_root", "load_vision"]

_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)


@dataclass(frozen=True)
class Source:
    """A torchvision dataset: its class, and where under the root torchvision expects which unpacked files."""

    class_name: str
    folder: str
    files: Tuple[str, ...]


SOURCES: Dict[str, Source] = {
    "mnist": Source("MNIST", "MNIST/raw", _IDX_FILES),
    "fashion_mnist": Source("FashionMNIST", "FashionMNIST/raw", _IDX_FILES),
    "cifar10": Source(
        "CIFAR10", "cifar-10-batches-py", (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
    ),
}


def default_root() -> Path:
    """Return the folder for data: the environment variable SNN_DATA, or ~/.cache/snn/data."""
    return Path(os.environ.get("SNN_DATA") or Path.home() / ".cache" / "snn" / "data")


def load_vision(name: str, split: str, root: Optional[Union[str, "os.PathLike[str]"]], download: bool) -> Dataset:
    """Return one split of a source by name. Raises DataError without torchvision or the files, or for damaged ones."""
    source = SOURCES[name]
    base = default_root() if root is None else Path(root).expanduser()
    datasets = _torchvision_datasets(name)
    folder = base / source.folder
    if not download:
        _require_files(name, source, folder)
    try:
        found = getattr(datasets, source.class_name)(str(base), train=split == "train", download=download)
    # torchvision raises RuntimeError, ValueError, AssertionError, OSError and URLError, as the damage may be.
    except Exception as exc:
        missing = _missing(source, folder)
        if missing:
            problem, remedy = "downloaded to", f"check the network and the folder's rights, or put there: {missing}"
        else:
            problem, remedy = "read from", f"delete that folder and call load({name!r}, download=True)"
        raise DataError(f"{name} cannot be {problem} {folder}: {exc}; {remedy}") from exc
    return Dataset(_channels_first(found.data), torch.as_tensor(found.targets), classes=10, name=name, split=split)


def _channels_first(pixels: Any) -> Tensor:
    """[N, H, W] or [N, H, W, C], a tensor or NumPy array, to a contiguous tensor [N, C, H, W]."""
    images = torch.as_tensor(pixels)
    images = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
    return images.contiguous()


def _missing(source: Source, folder: Path) -> str:
    return ", ".join(file for file in source.files if not (folder / file).is_file())


def _require_files(name: str, source: Source, folder: Path) -> None:
    missing = _missing(source, folder)
    if missing:
        raise DataError(
            f"{name} is not in {folder}: missing {missing}; unpack the files there, give the folder above "
            f"{source.folder} as root (or in the environment variable SNN_DATA), or pass download=True"
        )


def _torchvision_datasets(name: str) -> Any:
    try:
        import torchvision.datasets
    except ModuleNotFoundError as exc:
        raise DataError(
            f"{name} needs torchvision, which is not installed; run: pip install snn-core[vision] "
            "('digits' is bundled and needs nothing)"
        ) from exc
    # A torchvision built for another torch fails at import with a RuntimeError or an OSError.
    except Exception as exc:
        raise DataError(
            f"{name} needs torchvision, which is installed but cannot be imported: {exc}; "
            f"install the release made for torch {torch.__version__}"
        ) from exc
    return torchvision.datasets
