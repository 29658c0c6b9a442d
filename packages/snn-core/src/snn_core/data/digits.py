"""The bundled handwritten digits: 6,000 training and 1,000 test images of MNIST, the same number of each class.

From the MNIST database of Yann LeCun, Corinna Cortes and Christopher J. C. Burges, under CC BY-SA 3.0 (see
LICENSE-digits.txt beside this file). The training images come from MNIST's training set, the test images from its test
set; `scripts/make_digits.py` of the repository made the file.
"""

import hashlib
import io
from pathlib import Path

import numpy as np
import torch

from snn_core.data.dataset import Dataset
from snn_core.errors import DataError

__all__ = ["BUNDLE", "SHA256", "load_digits"]

BUNDLE = Path(__file__).with_name("digits.npz")
SHA256 = "09663bc1c5e19fc148da4d942bf912f815c08f97573ff2299550e913b1823fe4"


def load_digits(split: str, bundle: Path = BUNDLE) -> Dataset:
    """Return the bundled "train" (6,000) or "test" (1,000) digits, x: [1, 28, 28]. Raises DataError if damaged."""
    remedy = "reinstall the package: pip install --force-reinstall --no-deps snn-core"
    try:
        content = bundle.read_bytes()
    except OSError as exc:
        raise DataError(f"the bundled digits cannot be read from {bundle}: {exc.strerror}; {remedy}") from exc
    found = hashlib.sha256(content).hexdigest()
    if found != SHA256:
        raise DataError(
            f"the bundled digits in {bundle} are damaged: {len(content)} bytes with SHA-256 {found[:12]}…, "
            f"not {SHA256[:12]}…; {remedy}"
        )
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        images = torch.from_numpy(arrays[f"{split}_images"]).unsqueeze(1)
        labels = torch.from_numpy(arrays[f"{split}_labels"])
    return Dataset(images, labels, classes=10, name="digits", split=split)
