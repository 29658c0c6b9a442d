"""Whole runs on the real poptorch: the loaders' processes, an executable from a file, a resumed run, two processes.

poprun runs this file too, as the program of each process: `check_runs.py FOLDER` leaves its weights there.
"""

import importlib
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import pytest
import torch
from torch import nn

import snn_core as snn
from snn_backend_ipu import IpuBackend, IpuOptions

OnModel = Callable[..., bool]
Show = Callable[[str], None]
BATCH, SAMPLES = 16, 64
SPEC = snn.BatchSpec(BATCH, snn.TensorSpec((20,), "float32"), snn.TensorSpec((), "int64"))
# sums in another order on the device, a few steps at rate 1e-2
NEAR = {"rtol": 0.0, "atol": 1e-5}


def network() -> nn.Module:
    torch.manual_seed(0)
    return snn.Sequential(snn.Constant(steps=5), nn.Linear(20, 32), snn.LIF(0.9), nn.Linear(32, 4), snn.LIF(0.9))


def data() -> List[Tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(SAMPLES, 20, generator=generator), torch.randint(0, 4, (SAMPLES,), generator=generator)
    return list(zip(x, y))


def fit(folder: Any, options: Dict[str, Any], epochs: int = 2, **run: Any) -> Dict[str, torch.Tensor]:
    """The weights after training with Adam, whose moments a resumed run needs, and validation in between."""
    net = network()
    trainer = snn.Trainer(
        net,
        loss=snn.CountCrossEntropy(),
        optimizer=snn.Adam(lr=1e-2),
        backend=IpuBackend(IpuOptions(**options)),
        batch_size=BATCH,
        folder=folder,
        progress=False,
        plots=False,
    )
    trainer.fit(data(), data()[:10], epochs=epochs, **run)
    return {name: value.clone() for name, value in net.state_dict().items()}


@pytest.mark.parametrize("options", [{"loader": "async"}, {"loader": "async_rebatched", "workers": 1}], ids=str)
def test_an_asynchronous_loader_trains_as_the_synchronous_one(on_model: OnModel, options: Dict[str, Any]) -> None:
    model = on_model()
    torch.testing.assert_close(fit(None, {"ipu_model": model, **options}), fit(None, {"ipu_model": model}), **NEAR)


def test_a_resumed_run_ends_where_the_whole_one_does(on_model: OnModel, tmp_path: Path) -> None:
    options = {"ipu_model": on_model()}
    whole = fit(None, options, epochs=4)
    fit(tmp_path, options, epochs=2)
    (run,) = tmp_path.iterdir()
    torch.testing.assert_close(fit(tmp_path, options, epochs=4, resume=run), whole, **NEAR)


def test_an_executable_is_loaded_instead_of_compiled(
    needs_ipus: Callable[[int, str], None], show: Show, tmp_path: Path
) -> None:
    needs_ipus(1, "that executables of the IPU Model can be written to a file is not documented")
    step = snn.Step(network(), snn.CountCrossEntropy())
    with IpuBackend(IpuOptions()).compile(step, snn.Adam(lr=1e-2), SPEC, snn.TrainSpec()) as program:
        program.export(tmp_path)
    seconds = []
    weights = []
    for options in ({}, {"executables": str(tmp_path)}):
        start = time.perf_counter()
        weights.append(fit(None, options))
        seconds.append(time.perf_counter() - start)
    show(f"{seconds[0]:.1f} s with compiling, {seconds[1]:.1f} s from a file")
    torch.testing.assert_close(weights[1], weights[0], **NEAR)


def trained_together(options: Dict[str, Any]) -> Dict[str, torch.Tensor]:
    """The weights after two epochs of optimiser steps of two micro-batches each, however many processes share them."""
    net, samples = network(), data()
    step, train = snn.Step(net, snn.CountCrossEntropy()), snn.TrainSpec(accumulation=2)
    with IpuBackend(IpuOptions(**options)).compile(step, snn.SGD(lr=0.1), SPEC, train) as program:
        for _ in range(2):
            for batch in program.loader(samples, range(SAMPLES), training=True):
                program.train_step(batch)
        program.sync()
    return {name: value.clone() for name, value in net.state_dict().items()}


@pytest.mark.needs_popdist
def test_two_processes_of_poprun_train_one_model(needs_ipus: Callable[[int, str], None], tmp_path: Path) -> None:
    needs_ipus(2, "poprun gives each process one")
    poprun = shutil.which("poprun")
    assert poprun is not None, "there is no poprun on PATH; it comes with Graphcore's SDK: enable it in this shell"
    command = [poprun, "--num-instances", "2", "--num-replicas", "2", "--ipus-per-replica", "1", sys.executable]
    done = subprocess.run([*command, __file__, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    alone = trained_together({})
    assert any(not torch.equal(value, alone[name]) for name, value in network().state_dict().items())
    for process in range(2):
        torch.testing.assert_close(torch.load(tmp_path / f"{process}.pt"), alone, **NEAR)


if __name__ == "__main__":
    index = importlib.import_module("popdist").getInstanceIndex()
    torch.save(trained_together({"popdist": True}), Path(sys.argv[1]) / f"{index}.pt")
