"""This project's own side, for real, at sizes of a moment; and the whole command on it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterator

import pytest
import torch
from coordinator import Side, Worker, take_turns
from ratios import differences

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "seed": {"steps": 3, "batch": 4, "hidden": 20, "beta": 0.9, "lr": 1e-3, "by_layer": False},
    "layer": {"steps": 20, "shape": [2, 8], "beta": 0.9},
    "neuron": {"steps": 20, "shape": [2, 8], "kind": "Synaptic"},
    "vgg": {"steps": 2, "batch": 2, "channels": [4, 0, 8], "beta": 0.5, "lr": 0.01},
    "synops": {"batch": 4},
}
OUTPUTS = {
    "seed": [3, 4, 10],
    "layer": [20, 2, 8],
    "neuron": [20, 2, 8],
    "vgg": [2, 2, 10],
    "synops": [4, 10],
}
PARAMETERS = {
    "seed": 784 * 20 + 20 + 20 * 10 + 10,
    "layer": 8 * 8,
    "neuron": 0,
    "vgg": 3 * 4 * 9 + 2 * 4 + 4 * 8 * 9 + 2 * 8 + 8 * 10 + 10,
    "synops": 16 * 25 + 16 * 32 * 25 + 32 * 120 * 16 + 120 * 10,
}


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dict[str, Worker]]:
    logs = tmp_path_factory.mktemp("logs")
    made = {mode: Worker(Side(mode, "ours", mode, sys.executable), 1, logs) for mode in ("cpu", "eager")}
    yield made
    for worker in made.values():
        worker.close()


@pytest.mark.slow
def test_a_worker_has_the_threads_it_was_given_and_flushes_denormal_numbers(workers: Dict[str, Worker]) -> None:
    about = workers["cpu"].ask(120, do="about")
    assert about["threads"] == 1
    assert about["denormals_flushed"] is True
    assert about["versions"]["torch"] == torch.__version__
    assert set(about["versions"]) == {"python", "torch", "numpy", "snn-core", "snn-backend-cpu", "numba"}


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", SETTINGS)
def test_the_backend_cpu_and_the_reference_do_the_same_work(workers: Dict[str, Worker], benchmark: str) -> None:
    found = take_turns(workers, benchmark, SETTINGS[benchmark], turns=1, patience_s=120)
    for outcome in found.values():
        assert outcome.error is None
        assert outcome.facts["output"] == OUTPUTS[benchmark]
        assert outcome.facts["parameters"] == PARAMETERS[benchmark]
        assert all(ms > 0 for turns in outcome.turns_ms.values() for ms in turns)
    assert differences(found["cpu"], found["eager"]) == (None, None)


@pytest.mark.slow
def test_a_worker_outlives_a_benchmark_that_fails(workers: Dict[str, Worker]) -> None:
    answer = workers["eager"].ask(120, do="prepare", benchmark="unknown", settings={})
    assert answer == {"error": "KeyError: 'unknown'"}
    assert "facts" in workers["eager"].ask(120, do="prepare", benchmark="seed", settings=SETTINGS["seed"])


@pytest.mark.slow
def test_the_command_writes_its_table_plot_and_document(tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["--quick", "--peers", "", "--threads", "1", "--only", "a,e,f", "--out", str(out)]
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "QUICK: sizes from which nothing can be concluded" in done.stdout
    assert (out / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert "seed network" in (out / "table.txt").read_text(encoding="utf-8")
    document = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert document["sides"]["cpu"]["threads"] == 1
    assert {"processor", "cores", "memory", "load_before", "load_after"} <= set(document["machine"])
    assert document["options"]["quick"] is True
    titles = [row["title"] for row in document["rows"]]
    assert titles == [
        "seed network",
        "seed network, peers tuned by hand",
        "seed network, T = 5",
        "seed network, T = 5, memory",
        "seed network, T = 10",
        "seed network, T = 10, memory",
        "first step, cold cache",
        "first step, cold cache, no imports",
        "first step, warm cache",
        "first step, warm cache, no imports",
    ]
    for row in document["rows"]:
        assert set(row["cells"]) == {"cpu", "eager"}
        assert all(cell["value"] > 0 for cell in row["cells"].values())
