"""Executables that are compiled in one process and loaded in another, and those that are refused."""

import json
from pathlib import Path
from typing import Any, Callable, Dict

import pytest
import torch
from torch import nn

import snn_core as snn
from snn_backend_ipu import IpuBackend, IpuOptions, IpuProgram
from snn_core.errors import ConfigError
from snn_core.optimizers import SGD, Adam
from snn_core.surrogate import ATan
from snn_core.testing.fit import evaluate, fit, train, weights_of
from snn_core.testing.nets import dense, dropout
from snn_core.testing.trial import Trial, compiled

TRIAL = dense(12, optimizer=SGD(lr=0.3, momentum=0.9), dtype="float32")


def ipu(**options: Any) -> IpuBackend:
    return IpuBackend(IpuOptions(ipu_model=True, **options))


def exported(folder: Path, trial: Trial = TRIAL, **options: Any) -> str:
    with compiled(ipu(**options), trial) as program:
        assert isinstance(program, IpuProgram)
        program.export(folder)
    return str(folder)


def refused(folder: Path, trial: Trial = TRIAL, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught, compiled(ipu(executables=str(folder), **options), trial):
        pass
    return str(caught.value)


def test_an_executable_made_offline_is_loaded_instead_of_compiled(tmp_path: Path, poptorch: Any) -> None:
    with compiled(IpuBackend(IpuOptions(offline=2)), TRIAL) as program:
        assert isinstance(program, IpuProgram)
        batch = next(iter(program.loader(TRIAL.samples(), range(4), training=True)))
        with pytest.raises(ConfigError, match=r"compiled offline and has no IPU.*export"):
            program.train_step(batch)
        program.export(tmp_path)
    written = sorted(path.name for path in tmp_path.iterdir())
    assert written == ["evaluation.poptorch", "manifest.json", "training.poptorch"]
    results = []
    with poptorch._contract.hardware(1):
        for options in (IpuOptions(), IpuOptions(executables=str(tmp_path))):
            model = TRIAL.build()
            with compiled(IpuBackend(options), TRIAL, model) as program:
                train(program, TRIAL.samples())
                evaluate(program, TRIAL.samples())
                program.sync()
            results.append(weights_of(model))
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_a_loaded_executable_draws_from_the_seed_of_the_run_that_loads_it(tmp_path: Path) -> None:
    trial = dropout(12, dtype="float32")
    folder = exported(tmp_path, trial.training(seed=1))
    runs = [fit(one, trial.training(seed=seed)).weights for one in (ipu(), ipu(executables=folder)) for seed in (1, 2)]
    assert all(torch.equal(runs[index][name], runs[index + 2][name]) for index in (0, 1) for name in runs[0])
    assert any(not torch.equal(runs[2][name], runs[3][name]) for name in runs[2])


def test_an_executable_serves_other_weights_rates_and_ways_of_loading(tmp_path: Path) -> None:
    folder = exported(tmp_path)
    trial = TRIAL.but(seed=5, optimizer=SGD(lr=0.1, momentum=0.9))
    got = fit(ipu(executables=folder, loader="async", share_ipus=False), trial).weights
    want = fit(ipu(), trial).weights
    assert all(torch.equal(got[name], want[name]) for name in want)


def wider() -> nn.Module:
    return snn.Sequential(nn.Linear(6, 8), snn.LIF(0.9), nn.Linear(8, 3), snn.LIF(0.8))


def steeper() -> nn.Module:
    return snn.Sequential(nn.Linear(6, 7), snn.LIF(0.9, surrogate=ATan(slope=2.0000001)), nn.Linear(7, 3), snn.LIF(0.8))


OTHERS: Dict[str, Callable[[], Trial]] = {
    "model: 0.bias is 'float32 [7] trained' there and 'float32 [8] trained' here": lambda: TRIAL.but(model=wider),
    "graph of model, loss and terms is": lambda: TRIAL.but(model=steeper),
    "optimizer: name is 'sgd' there and 'adam' here": lambda: TRIAL.but(optimizer=Adam(lr=0.3)),
    "optimizer: momentum is 0.9 there and 0.5 here": lambda: TRIAL.but(optimizer=SGD(lr=0.3, momentum=0.5)),
    "batch: size is 4 there and 3 here": lambda: TRIAL.but(size=3),
    "train: accumulation is 1 there and 2 here": lambda: TRIAL.training(accumulation=2),
    "train: precision is 'fp32' there and 'fp16' here": lambda: TRIAL.training(precision="fp16"),
}


@pytest.mark.parametrize("difference", OTHERS)
def test_the_executables_of_another_run_are_refused_with_what_differs(tmp_path: Path, difference: str) -> None:
    exported(tmp_path)
    told = refused(tmp_path, OTHERS[difference]())
    assert "compiled for another run: " in told
    assert difference in told
    assert "IpuProgram.export(folder) from a program of this run" in told


@pytest.mark.parametrize("option", [{"partials": "float16"}, {"stages": {"0": 0}}, {"evaluation_iterations": 2}])
def test_the_executables_of_other_options_are_refused(tmp_path: Path, option: Dict[str, Any]) -> None:
    exported(tmp_path)
    (name,) = option
    assert ("options: stages" if name == "stages" else "iterations" if "evaluation" in name else name) in refused(
        tmp_path, **option
    )


def test_the_executables_of_another_version_are_refused(tmp_path: Path) -> None:
    exported(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["compiled for"]["version"]["torch"] = "1.0"
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert "version: torch is '1.0' there and '2.0.1" in refused(tmp_path)


def test_a_folder_of_executables_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "which is no folder; write them with IpuProgram.export(folder)" in refused(tmp_path / "none")


def test_an_empty_folder_is_refused_and_not_compiled(tmp_path: Path) -> None:
    assert "there is no training.poptorch, no evaluation.poptorch, no manifest.json" in refused(tmp_path)


@pytest.mark.parametrize("name", ["training.poptorch", "evaluation.poptorch"])
def test_a_truncated_executable_is_refused(tmp_path: Path, name: str) -> None:
    exported(tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-1])
    assert f"{name} is not as it was written; copy the folder again" in refused(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "{}"])
def test_a_manifest_that_cannot_be_read_is_refused(tmp_path: Path, text: str) -> None:
    exported(tmp_path)
    (tmp_path / "manifest.json").write_text(text)
    assert "manifest.json cannot be read: " in refused(tmp_path)
