#!/usr/bin/env python3
"""Make the bundled digits from MNIST: make_digits.py FOLDER [--out FILE].

FOLDER holds MNIST's four gzip-compressed IDX files. The bundle has 600 digits of each class from the training set and
100 of each class from the test set, drawn with a fixed seed and kept in MNIST's order, so the same files and zlib give
the same bytes. `snn_core.data.digits` checks the bundle's digest: put the printed one there when the bundle changes.
"""

import argparse
import gzip
import hashlib
import io
import zipfile
from pathlib import Path
from typing import Dict

import numpy as np

SEED = 0
PER_CLASS = {"train": 600, "test": 100}
PREFIX = {"train": "train", "test": "t10k"}
DEFAULT_OUT = Path(__file__).resolve().parents[1] / "packages/snn-core/src/snn_core/data/digits.npz"


def read_idx(path: Path) -> np.ndarray:
    """Read one gzip-compressed IDX file of unsigned bytes: a magic number, big-endian sizes, then the values."""
    with gzip.open(str(path)) as file:
        content = file.read()
    zeros, kind, rank = content[:2], content[2], content[3]
    if zeros != b"\0\0" or kind != 8:
        raise SystemExit(f"{path} is not an IDX file of unsigned bytes: it starts with {content[:4].hex()}")
    shape = np.frombuffer(content, ">u4", rank, 4).astype(int)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(tuple(shape))


def stratified(labels: np.ndarray, per_class: int, random: np.random.RandomState) -> np.ndarray:
    """Return the sorted positions of `per_class` samples of each class, drawn without replacement."""
    chosen = []
    for digit in range(10):
        positions = np.flatnonzero(labels == digit)
        if len(positions) < per_class:
            raise SystemExit(f"class {digit} has {len(positions)} samples; {per_class} are needed")
        chosen.append(random.permutation(positions)[:per_class])
    return np.sort(np.concatenate(chosen))


def bundle(folder: Path) -> Dict[str, np.ndarray]:
    """Return `{split}_images` [N, 28, 28] and `{split}_labels` [N], all uint8, for both splits."""
    # RandomState, because NumPy promises never to change its stream; Generator's may change.
    random = np.random.RandomState(SEED)
    arrays: Dict[str, np.ndarray] = {}
    for split, per_class in PER_CLASS.items():
        images = read_idx(folder / f"{PREFIX[split]}-images-idx3-ubyte.gz")
        labels = read_idx(folder / f"{PREFIX[split]}-labels-idx1-ubyte.gz")
        kept = stratified(labels, per_class, random)
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images[kept], labels[kept]
    return arrays


def write_npz(path: Path, arrays: Dict[str, np.ndarray]) -> None:
    """Write what `numpy.load` reads. `numpy.savez_compressed` would give other bytes under another Python."""
    with zipfile.ZipFile(str(path), "w") as archive:
        for name, array in arrays.items():
            content = io.BytesIO()
            np.save(content, array)
            entry = zipfile.ZipInfo(f"{name}.npy")  # without a date of its own, so always zip's first one
            archive.writestr(entry, content.getvalue(), zipfile.ZIP_DEFLATED, 9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where MNIST's four .gz files are")
    parser.add_argument("--out", type=Path, default=DEFAULT_OUT, help="the bundle to write (default: in the package)")
    arguments = parser.parse_args()
    write_npz(arguments.out, bundle(arguments.folder))
    content = arguments.out.read_bytes()
    print(f"{arguments.out}: {len(content):,} bytes, sha256 {hashlib.sha256(content).hexdigest()}")


if __name__ == "__main__":
    main()
