"""Datasets by name, and the checks that stand between a dataset and a device.

A dataset is map-style: `len(dataset)` and `dataset[i] -> (x, target)`. Any of the user's own will do;
`snn_core.data.checks` says what a sample may be.
"""

import os
from typing import Optional, Union

from snn_core.data.dataset import Dataset
from snn_core.data.digits import load_digits
from snn_core.data.vision import SOURCES, load_vision
from snn_core.errors import ConfigError, nearest

__all__ = ["NAMES", "SPLITS", "Dataset", "load"]

NAMES = ("digits", *SOURCES)
SPLITS = ("train", "test")


def load(
    name: str,
    split: str = "train",
    root: Optional[Union[str, "os.PathLike[str]"]] = None,
    download: bool = False,
) -> Dataset:
    """Return a dataset by name: x float32 in [0, 1], target int64 in [0, 10).

    name: "digits" (bundled), "mnist" or "fashion_mnist", x [1, 28, 28], or "cifar10", x [3, 32, 32]; all but the first
    need torchvision. split: "train" or "test". root: the folder where torchvision's files are or shall be; None is the
    environment variable SNN_DATA, or ~/.cache/snn/data. download: fetch what is missing. "digits" uses neither.
    Raises ConfigError for an unknown name or split, DataError where the data cannot be had.
    """
    if name not in NAMES:
        raise ConfigError(f"no dataset {name!r}{nearest(name, NAMES)}; there are {', '.join(NAMES)}")
    if split not in SPLITS:
        raise ConfigError(f"no split {split!r}{nearest(split, SPLITS)} of {name}; there are {' and '.join(SPLITS)}")
    return load_digits(split) if name == "digits" else load_vision(name, split, root, download)
