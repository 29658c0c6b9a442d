"""MNIST, FashionMNIST and CIFAR10 by name, through the real torchvision, on files that the tests write themselves."""

import functools
import gzip
import hashlib
import http.server
import io
import pickle
import struct
import tarfile
import threading
from pathlib import Path
from typing import Any, Dict, Iterator, Tuple

import numpy as np
import pytest
import torch
import torchvision

from snn_core import data
from snn_core.data import checks
from snn_core.errors import DataError
from snn_core.specs import BatchSpec

FOLDERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}
Arrays = Dict[str, Tuple[np.ndarray, np.ndarray]]


def idx(values: np.ndarray) -> bytes:
    """The IDX format of LeCun's page: two zeros, 8 for unsigned bytes, the rank, big-endian sizes, the values."""
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def random_images(shape: Tuple[int, ...], seed: int) -> Tuple[np.ndarray, np.ndarray]:
    random = np.random.RandomState(seed)
    return random.randint(0, 256, shape).astype(np.uint8), random.randint(0, 10, shape[0]).astype(np.uint8)


def write_idx_files(folder: Path, packed: bool = False) -> Arrays:
    folder.mkdir(parents=True)
    arrays = {"train": random_images((30, 28, 28), 1), "test": random_images((7, 28, 28), 2)}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        for values, ending in zip(arrays[split], ("images-idx3-ubyte", "labels-idx1-ubyte")):
            file = folder / f"{prefix}-{ending}{'.gz' if packed else ''}"
            file.write_bytes(gzip.compress(idx(values)) if packed else idx(values))
    return arrays


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_idx_files_under_a_root_give_their_images_and_labels(name: str, split: str, tmp_path: Path) -> None:
    images, labels = write_idx_files(tmp_path / FOLDERS[name] / "raw")[split]
    dataset = data.load(name, split=split, root=tmp_path)
    assert (len(dataset), dataset.input_shape, dataset.classes) == (len(images), (1, 28, 28), 10)
    assert (dataset.name, dataset.split) == (name, split)
    for i in (0, len(images) - 1):
        x, target = dataset[i]
        assert np.array_equal(x[0].numpy(), (images[i] / 255.0).astype(np.float32))
        assert (int(target), target.dtype) == (labels[i], torch.int64)


@pytest.mark.parametrize("how", ["str", "environment", "home"])
def test_the_root_may_be_a_string_the_environments_or_the_users_cache(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SNN_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    root = tmp_path / ".cache" / "snn" / "data" if how == "home" else tmp_path / "elsewhere"
    write_idx_files(root / "MNIST" / "raw")
    if how == "environment":
        monkeypatch.setenv("SNN_DATA", str(root))
    assert len(data.load("mnist", root=str(root) if how == "str" else None)) == 30


def test_a_dataset_from_torchvision_is_read_in_whole_batches(tmp_path: Path) -> None:
    images, labels = write_idx_files(tmp_path / "MNIST" / "raw")["train"]
    dataset = data.load("mnist", root=tmp_path)
    x, target = checks.read_batch(dataset, [4, 2, 4], BatchSpec(3, *checks.sample_spec(dataset)))
    assert np.array_equal(x[:, 0].numpy(), (images[[4, 2, 4]] / 255.0).astype(np.float32))
    assert target.tolist() == labels[[4, 2, 4]].tolist()


@pytest.mark.parametrize(
    ("name", "folder", "file"),
    [
        ("mnist", "MNIST/raw", "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images"),
        ("fashion_mnist", "FashionMNIST/raw", "t10k-labels-idx1-ubyte"),
        ("cifar10", "cifar-10-batches-py", "data_batch_1, .*test_batch, batches.meta"),
    ],
)
def test_missing_files_are_named_with_their_folder_and_both_remedies(
    name: str, folder: str, file: str, tmp_path: Path
) -> None:
    message = rf"{name} is not in {tmp_path / folder}: missing .*{file}.*as root .*SNN_DATA.*or pass download=True"
    with pytest.raises(DataError, match=message):
        data.load(name, root=tmp_path)


def test_only_the_files_that_are_missing_are_named(tmp_path: Path) -> None:
    write_idx_files(tmp_path / "MNIST" / "raw")
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="missing t10k-labels-idx1-ubyte;"):
        data.load("mnist", root=tmp_path)


@pytest.mark.parametrize("kept", [0, 3, 10, 1000])
@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
def test_a_truncated_file_is_refused_with_what_to_do(file: str, kept: int, tmp_path: Path) -> None:
    path = tmp_path / "MNIST" / "raw" / file
    write_idx_files(path.parent)
    path.write_bytes(path.read_bytes()[: min(kept, path.stat().st_size - 1)])
    with pytest.raises(DataError, match=r"mnist cannot be read from .*delete that folder.*download=True"):
        data.load("mnist", root=tmp_path)


def test_labels_outside_the_classes_are_refused(tmp_path: Path) -> None:
    write_idx_files(tmp_path / "MNIST" / "raw")
    labels = np.full(30, 10, np.uint8)
    (tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    with pytest.raises(DataError, match=r"mnist train: labels lie in \[10, 10\]; they must lie in \[0, 9\]"):
        data.load("mnist", root=tmp_path)


# ------------------------------------------------------------------------------------------------- CIFAR10


def cifar_archive(monkeypatch: pytest.MonkeyPatch) -> Tuple[bytes, Arrays]:
    """CIFAR10's archive with four images a file. Only the checksums that torchvision expects are replaced."""
    files: Dict[str, bytes] = {}
    batches = []
    for number, name in enumerate([*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]):
        images, labels = random_images((4, 3, 32, 32), number)
        files[name] = pickle.dumps({"data": images.reshape(4, -1), "labels": labels.tolist()})
        batches.append((images, labels))
    files["batches.meta"] = pickle.dumps({"label_names": [str(i) for i in range(10)]})
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, blob in files.items():
            entry = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            entry.size = len(blob)
            archive.addfile(entry, io.BytesIO(blob))
    sums = {name: hashlib.md5(blob).hexdigest() for name, blob in files.items()}
    kind = torchvision.datasets.CIFAR10
    monkeypatch.setattr(kind, "train_list", [[name, sums[name]] for name in files if name.startswith("data")])
    monkeypatch.setattr(kind, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": sums["batches.meta"]})
    monkeypatch.setattr(kind, "tgz_md5", hashlib.md5(content.getvalue()).hexdigest())
    train: Any = tuple(np.concatenate(parts) for parts in zip(*batches[:5]))
    return content.getvalue(), {"train": train, "test": batches[5]}


@pytest.mark.parametrize("split", ["train", "test"])
def test_cifar_images_are_channels_first(split: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, arrays = cifar_archive(monkeypatch)
    with tarfile.open(fileobj=io.BytesIO(archive)) as file:
        file.extractall(tmp_path)
    images, labels = arrays[split]
    dataset = data.load("cifar10", split=split, root=tmp_path)
    assert (dataset.input_shape, dataset.classes, len(dataset)) == ((3, 32, 32), 10, len(images))
    x, target = dataset.get_batch(range(len(images)))
    assert np.array_equal(x.numpy(), (images / 255.0).astype(np.float32))
    assert target.tolist() == labels.tolist()
    assert dataset.images.is_contiguous()


def test_a_damaged_cifar_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, _ = cifar_archive(monkeypatch)
    with tarfile.open(fileobj=io.BytesIO(archive)) as file:
        file.extractall(tmp_path)
    with open(tmp_path / "cifar-10-batches-py" / "data_batch_2", "ab") as batch:
        batch.write(b"!")
    with pytest.raises(DataError, match=r"cifar10 cannot be read from .*corrupted.*delete that folder"):
        data.load("cifar10", root=tmp_path)


# ------------------------------------------------------------------------------------------------- download


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tuple[Path, str]]:
    """A folder that does not exist yet, and its address on a web server of this process."""
    folder = tmp_path / "server"
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder))) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()
        thread.join()


def test_a_download_fetches_once_and_then_needs_no_network(
    server: Tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, address = server
    images, _ = write_idx_files(folder, packed=True)["train"]
    sums = [(file.name, hashlib.md5(file.read_bytes()).hexdigest()) for file in folder.iterdir()]
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", sums)
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [address])
    fetched = data.load("mnist", root=tmp_path / "root", download=True)
    assert torch.equal(fetched.images[:, 0], torch.from_numpy(images))
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [])
    for download in (True, False):
        assert len(data.load("mnist", split="test", root=tmp_path / "root", download=download)) == 7


def test_cifar_is_downloaded_too(server: Tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, address = server
    archive, arrays = cifar_archive(monkeypatch)
    folder.mkdir()
    (folder / "cifar.tar.gz").write_bytes(archive)
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "url", f"{address}cifar.tar.gz")
    dataset = data.load("cifar10", split="test", root=tmp_path / "root", download=True)
    assert torch.equal(dataset.images, torch.from_numpy(arrays["test"][0]))


def test_a_failed_download_says_which_files_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", ["http://127.0.0.1:1/"])  # nobody listens there
    message = rf"(?s)mnist cannot be downloaded to {tmp_path}/MNIST/raw: .*check the network.*train-images-idx3-ubyte"
    with pytest.raises(DataError, match=message):
        data.load("mnist", root=tmp_path, download=True)


def test_a_download_to_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("not a folder")
    with pytest.raises(DataError, match=r"mnist cannot be downloaded to .*Not a directory.*the folder's rights"):
        data.load("mnist", root=tmp_path / "root", download=True)


def test_damaged_files_are_not_taken_for_a_failed_download(tmp_path: Path) -> None:
    write_idx_files(tmp_path / "MNIST" / "raw")
    (tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(b"")
    with pytest.raises(DataError, match=r"mnist cannot be read from .*delete that folder"):
        data.load("mnist", root=tmp_path, download=True)
