"""Two processes with shares of the data of other sizes tell what one process tells of all of it."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

RANKS = Path(__file__).with_name("ranks.py")


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("ranks", RANKS)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def of_two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    results = [folder / f"{rank}.pt" for rank in range(2)]
    processes = [
        subprocess.Popen(
            [sys.executable, str(RANKS), str(rank), "2", str(folder / "store"), str(result)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, result in enumerate(results)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    # what this test wrote itself, of named tuples
    return [torch.load(result, **_trusted()) for result in results]


def _trusted():
    # torch 2.0 knows the argument too, and its default is another
    return {"weights_only": False}


@pytest.mark.parametrize("name", ["FiringRate", "Sparsity", "Latency", "SynOps"])
def test_every_process_has_the_value_of_all_samples(of_two_processes, script, name):
    expected = script.measured(script.data())[name]
    # the sums are of whole numbers, so that their order changes nothing: equal to the last bit
    for value in of_two_processes:
        assert value[name] == expected


def test_the_data_of_this_test_fires_and_is_silent(script):
    value = script.measured(script.data())
    assert 0 < float(value["FiringRate"]) < 1
    assert 0 < float(value["Latency"]["silent_share"]) < 1
    assert float(value["Latency"]["latency_steps"]) > 0
    assert float(value["SynOps"]["acs"].synops_total) > 0
    assert float(value["SynOps"]["macs"].synops_total) > 0
