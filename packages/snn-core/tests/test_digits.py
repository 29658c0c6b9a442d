"""The bundled digits, and the script that makes them."""

import gzip
import io
import re
import struct
import subprocess
import sys
from pathlib import Path
from typing import Dict

import numpy as np
import pytest
import torch

from snn_core import data
from snn_core.data import digits
from snn_core.errors import DataError

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "make_digits.py"


@pytest.mark.parametrize(("split", "per_class"), [("train", 600), ("test", 100)])
def test_each_split_holds_the_same_number_of_every_class(split: str, per_class: int) -> None:
    dataset = data.load("digits", split=split)
    assert torch.bincount(dataset.labels).tolist() == [per_class] * 10
    assert len(dataset) == 10 * per_class


def test_a_sample_is_an_image_in_the_unit_interval_and_a_class() -> None:
    dataset = data.load("digits")
    x, target = dataset[0]
    assert (x.shape, x.dtype) == ((1, 28, 28), torch.float32)
    assert (target.shape, target.dtype) == ((), torch.int64)
    assert dataset.input_shape == (1, 28, 28)
    assert (dataset.classes, dataset.name, dataset.split) == (10, "digits", "train")


def test_digits_are_centred_by_mass_as_mnist_states() -> None:
    # LeCun et al.: each digit lies in a 20 x 20 box whose centre of mass was put at the centre of the 28 x 28 field.
    images = data.load("digits", split="test").images[:, 0].double()
    mass = images.sum((1, 2))
    rows = (images.sum(2) * torch.arange(28.0)).sum(1) / mass
    columns = (images.sum(1) * torch.arange(28.0)).sum(1) / mass
    for centre in (rows, columns):
        assert torch.all((centre - 14).abs() < 1.5)
    assert int(images.max()) == 255


def test_a_nearest_mean_classifier_learnt_on_train_recognises_test() -> None:
    # 82 % is what this classifier reaches on MNIST; images and labels out of step would give 10 %.
    train, test = data.load("digits"), data.load("digits", split="test")
    x, y = train.images.flatten(1).float(), train.labels
    means = torch.stack([x[y == digit].mean(0) for digit in range(10)])
    guess = torch.cdist(test.images.flatten(1).float(), means).argmin(1)
    assert (guess == test.labels).float().mean() > 0.75


def test_no_test_image_is_also_a_training_image() -> None:
    train, test = ({image.numpy().tobytes() for image in data.load("digits", split=s).images} for s in data.SPLITS)
    assert not train & test


def test_the_bundle_is_about_a_megabyte_with_its_licence_beside_it() -> None:
    assert digits.BUNDLE.stat().st_size < 1_200_000
    licence = digits.BUNDLE.with_name("LICENSE-digits.txt").read_text(encoding="utf-8")
    for words in ("LeCun", "Cortes", "Burges", "CC BY-SA 3.0", "https://creativecommons.org/licenses/by-sa/3.0/"):
        assert words in licence


@pytest.mark.parametrize("kept", [0, 1000, -1])
def test_a_truncated_bundle_is_refused_with_what_to_do(tmp_path: Path, kept: int) -> None:
    bundle = tmp_path / "digits.npz"
    bundle.write_bytes(digits.BUNDLE.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"digits\.npz are damaged.*pip install --force-reinstall"):
        digits.load_digits("train", bundle)


def test_one_changed_bit_in_the_bundle_is_found(tmp_path: Path) -> None:
    content = bytearray(digits.BUNDLE.read_bytes())
    content[500_000] ^= 1
    bundle = tmp_path / "digits.npz"
    bundle.write_bytes(content)
    with pytest.raises(DataError, match="damaged"):
        digits.load_digits("train", bundle)


def test_a_missing_bundle_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read from .*No such file.*pip install"):
        digits.load_digits("train", tmp_path / "digits.npz")


def write_idx(path: Path, values: np.ndarray) -> None:
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    with gzip.open(str(path), "wb") as file:
        file.write(header + values.tobytes())


def write_mnist(folder: Path, per_class: Dict[str, int]) -> Dict[str, np.ndarray]:
    """Four small IDX files. An image's pixels state its label and its position, so that any mix-up can be seen."""
    arrays = {}
    for prefix, count in per_class.items():
        labels = np.tile(np.arange(10, dtype=np.uint8), count)
        positions = np.arange(len(labels))
        images = np.stack([labels, positions // 256, positions % 256, np.full(len(labels), len(prefix))], 1)
        images = images.astype(np.uint8).reshape(-1, 2, 2)
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", labels)
        arrays[prefix] = images
    return arrays


def make(folder: Path, out: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(SCRIPT), str(folder), "--out", str(out)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_script_draws_whole_samples_of_each_class_in_order_and_the_same_bytes_again(tmp_path: Path) -> None:
    sources = write_mnist(tmp_path, {"train": 610, "t10k": 103})
    assert make(tmp_path, tmp_path / "a.npz").returncode == 0
    assert make(tmp_path, tmp_path / "b.npz").returncode == 0
    content = (tmp_path / "a.npz").read_bytes()
    assert content == (tmp_path / "b.npz").read_bytes()
    with np.load(io.BytesIO(content), allow_pickle=False) as made:
        for split, prefix, count in (("train", "train", 600), ("test", "t10k", 100)):
            images, labels = made[f"{split}_images"], made[f"{split}_labels"]
            positions = images[:, 0, 1].astype(int) * 256 + images[:, 1, 0]
            assert np.all(np.diff(positions) > 0)
            assert np.array_equal(images, sources[prefix][positions])
            assert np.array_equal(images[:, 0, 0], labels)
            assert np.bincount(labels).tolist() == [count] * 10


def test_the_script_refuses_too_few_samples_and_foreign_files(tmp_path: Path) -> None:
    write_mnist(tmp_path, {"train": 599, "t10k": 100})
    result = make(tmp_path, tmp_path / "out.npz")
    assert result.returncode != 0
    assert re.search("class 0 has 599 samples; 600 are needed", result.stderr)
    with gzip.open(str(tmp_path / "train-images-idx3-ubyte.gz"), "wb") as file:
        file.write(b"not an IDX file")
    result = make(tmp_path, tmp_path / "out.npz")
    assert result.returncode != 0
    assert "is not an IDX file" in result.stderr
    assert not (tmp_path / "out.npz").exists()
