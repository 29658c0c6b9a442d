"""Two processes that share a batch see the whole batch's operations, and train on their gradient."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).with_name("processes.py")


def processes():
    spec = importlib.util.spec_from_file_location("processes", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_values_and_gradients_of_two_processes_are_the_whole_batchs(tmp_path):
    shared = processes()
    results = [tmp_path / f"{rank}.pt" for rank in range(len(shared.SHARES))]
    running = [
        subprocess.Popen([sys.executable, str(SCRIPT), str(rank), str(tmp_path / "store"), str(result)])
        for rank, result in enumerate(results)
    ]
    try:
        assert [process.wait(timeout=120) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
            process.wait()
    expected = shared.measured(shared.batch(), None)
    found = [torch.load(result) for result in results]
    for each in found:
        torch.testing.assert_close(each["everyone"]["values"], expected["values"])
        torch.testing.assert_close(each["everyone"]["gradients"], expected["gradients"])
    # without a group each process sees its own samples alone
    totals = [each["alone"]["values"]["total"] for each in found]
    whole = expected["values"]["total"]
    assert totals[0] < whole < totals[1]
    torch.testing.assert_close((3 * totals[0] + totals[1]) / 4, whole)
