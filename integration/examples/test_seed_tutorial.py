"""The rebuilt tutorial, on the bundled digits: one script for every backend, a training and a table of throughput."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import snn_core as snn

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "seed_tutorial.py"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    spec = importlib.util.spec_from_file_location("seed_tutorial", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    # whatever this machine has: a few of the bundled digits
    few = {split: snn.data.load("digits", split) for split in ("train", "test")}
    monkeypatch.setattr(module, "data", lambda split, root: Few(few[split], 512 if split == "train" else 128))
    return module


class Few:
    def __init__(self, data: Any, count: int) -> None:
        self.data, self.count = data, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        return self.data[index]


def test_it_is_the_tutorials_network(example: ModuleType) -> None:
    shapes = {name: tuple(weight.shape) for name, weight in example.network().named_parameters()}
    assert shapes == {"2.weight": (1000, 784), "2.bias": (1000,), "4.weight": (10, 1000), "4.bias": (10,)}
    assert (example.STEPS, example.BATCH, example.options_from([]).epochs) == (25, 128, 10)


@pytest.mark.parametrize("arguments", [[], ["--options", "num_workers=0"]])
def test_one_command_trains_on_a_backend_of_choice(
    example: ModuleType, arguments: "list[str]", tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert example.main(["--backend", "eager", "--epochs", "2", "--out", str(tmp_path), *arguments]) == 0
    printed = capsys.readouterr().out
    (run,) = tmp_path.iterdir()
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    accuracy = [json.loads(line)["val_accuracy"] for line in lines if "val_accuracy" in line][-1]
    assert f"eager: test accuracy {100 * accuracy:.2f} % after 2 epochs of 512 images" in " ".join(printed.split())
    # chance is 0.1
    assert accuracy > 0.4


def test_a_folder_without_mnist_is_refused_and_nothing_else_taken(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--backend", "eager", "--root", str(tmp_path), "--out", str(tmp_path / "runs")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: mnist ")
    assert not (tmp_path / "runs").exists()


REFUSED = {
    "an unknown option": (["--backend", "eager", "--options", "num_worker=1"], "num_worker"),
    "an option out of range": (["--backend", "eager", "--options", "num_workers=-1"], "num_workers is -1"),
    "an unknown backend": (["--backend", "abacus"], "abacus"),
    "a precision that is not declared": (["--backend", "eager", "--precision", "fp16"], "precision 'fp16'"),
    "several steps in a call": (["--backend", "eager", "--steps-per-call", "4", "--throughput"], "steps_per_call=1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_is_one_line_and_no_traceback(
    example: ModuleType, name: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    arguments, says = REFUSED[name]
    assert example.main([*arguments, "--out", str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert says in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("option", ["--calls", "--epochs", "--steps-per-call"])
def test_a_count_of_none_is_refused(example: ModuleType, option: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as caught:
        example.main(["--backend", "eager", option, "0"])
    assert caught.value.code == 2
    assert f"argument {option}: '0' must be a whole number of 1 or more" in capsys.readouterr().err


def test_one_epoch_is_one(example: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    example.main(["--backend", "eager", "--epochs", "1", "--out", str(tmp_path)])
    assert "after 1 epoch of 512 images," in " ".join(capsys.readouterr().out.split())


def test_throughput_is_printed_for_every_neuron_and_declared_precision(
    example: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(example, "measure", lambda program, samples, calls: 1234.0)
    example.main(["--backend", "eager", "--throughput", "--out", str(tmp_path)])
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.split()[:1]]
    assert ["LIF", "1,234", "1,234", "not", "declared"] in rows
    rates = json.loads((tmp_path / "throughput.json").read_text(encoding="utf-8"))["rates"]
    assert [(rate["neuron"], rate["precision"]) for rate in rates] == [
        (neuron, precision) for neuron in example.NEURONS for precision in example.PRECISIONS
    ]
    assert all((rate["samples_per_s"] is None) == (rate["precision"] == "fp16") for rate in rates)


class Clock:
    """A program whose call takes a second of its own clock."""

    def __init__(self) -> None:
        self.now = 0.0

    def loader(self, samples: Any, order: Any, training: bool) -> Any:
        return iter([None, None])

    def train_step(self, batch: Any) -> Any:
        self.now += 1.0
        return type("Report", (), {"loss": 0.0, "samples": 128.0})


def test_a_throughput_is_samples_over_seconds(example: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Clock()
    monkeypatch.setattr(example.time, "perf_counter", lambda: program.now)
    assert example.measure(program, [0, 1, 2], 5) == 128.0
