"""The check as users meet it: the backend's `lint` and `compile`, the trainer's `lint`, without poptorch."""

import subprocess
import sys
import textwrap

import pytest
import torch
from torch import Tensor, nn

import snn_core as snn
from snn_backend_ipu import IpuBackend

SPEC = snn.BatchSpec(8, snn.TensorSpec((5, 4), "float32", 1), snn.TensorSpec((), "int64"))
DATA = [(torch.zeros(5, 4), torch.tensor(0))] * 20


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = snn.Sequential(nn.Linear(4, 3), snn.LIF(0.9))

    def forward(self, x: Tensor) -> Tensor:
        y = self.net(x)
        return y / y.detach().abs().max().item()


def test_compile_refuses_an_error_with_its_line_and_remedy() -> None:
    line = Scaled.forward.__code__.co_firstlineno + 2
    with pytest.raises(
        snn.Unsupported, match=rf"test_backend_lint.py:{line}: .item\(\) reads a tensor's value .*keep it"
    ):
        IpuBackend().compile(snn.Step(Scaled(), snn.CountCrossEntropy()), snn.Adam(), SPEC, snn.TrainSpec())


def test_lint_tells_what_is_undeclared_and_what_the_step_does() -> None:
    step, train = snn.Step(Scaled(), snn.CountCrossEntropy()), snn.TrainSpec(precision="bf16")
    found = IpuBackend().lint(step, snn.Adam(), SPEC, train)
    assert [finding.rule for finding in found] == ["undeclared", "host-value"]


def test_a_step_that_fails_on_the_host_is_told_once() -> None:
    found = IpuBackend().lint(snn.Step(nn.Linear(7, 3), snn.CountCrossEntropy()), snn.Adam(), SPEC, snn.TrainSpec())
    assert [finding.rule for finding in found] == ["refused"]


def test_the_trainer_s_lint_knows_how_long_the_data_is() -> None:
    model = snn.Sequential(nn.Linear(4, 3), snn.LIF(0.9))
    trainer = snn.Trainer(
        model, loss=snn.CountCrossEntropy(), backend=IpuBackend(), time_axis=1, batch_size=8, folder=None
    )
    (found,) = trainer.lint(DATA)
    assert (found.rule, found.severity) == ("short-batch", "warning")
    assert "4 of 20 samples are left out" in found.message


def test_lint_needs_no_poptorch() -> None:
    program = """
        import sys
        sys.modules["poptorch"] = None  # an import of it fails
        from torch import nn
        import snn_core as snn
        from snn_backend_ipu import IpuBackend
        spec = snn.BatchSpec(8, snn.TensorSpec((5, 4), "float32", 1), snn.TensorSpec((), "int64"))
        model = snn.Sequential(nn.Linear(4, 3), snn.LIF(0.9))
        step = snn.Step(model, snn.CountCrossEntropy())
        print(IpuBackend().lint(step, snn.Adam(), spec, snn.TrainSpec(), 16))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
