"""Operands of two types in half precision: found at the line before a compile, and refused by the fake."""

from pathlib import Path
from typing import Any, List

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import snn_core as snn
from snn_backend_ipu import IpuBackend, IpuOptions
from snn_backend_ipu.lint import check
from snn_backend_ipu.program import IpuProgram
from snn_core.errors import SnnError

SOURCE = Path(__file__).read_text(encoding="utf-8").splitlines()
SPEC = snn.BatchSpec(8, snn.TensorSpec((5, 4), "float32", 1), snn.TensorSpec((), "int64"))
HALF = snn.TrainSpec(precision="fp16")


def line_of(marker: str) -> int:
    """The line that ends with the marker."""
    (line,) = [number for number, text in enumerate(SOURCE, start=1) if text.endswith(f"# <- {marker}")]
    return line


def step_of(model: nn.Module) -> snn.Step:
    return snn.Step(model, snn.CountCrossEntropy())


def found_in(model: nn.Module, train: snn.TrainSpec = HALF) -> List[snn.Finding]:
    return check(step_of(model), SPEC, train)


class Net(nn.Module):
    """`[T, B, 4]` -> `[T, B, 3]`, by a neuron that is written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave, self.out = nn.Linear(4, 5), nn.Linear(5, 3), snn.LIF(0.9)

    def forward(self, x: Tensor) -> Tensor:
        membrane, outs = torch.zeros(x.shape[1], 5, device=x.device), []
        for x_t in x.unbind(0):
            membrane = 0.9 * membrane + self.enter(x_t)
            spikes = snn.surrogate.spike(membrane - 1.0, snn.surrogate.ATan())
            membrane = membrane - spikes.detach()
            outs.append(self.read(spikes))
        return self.out(torch.stack(outs))

    def read(self, spikes: Tensor) -> Tensor:
        raise NotImplementedError


class WideSpikes(Net):
    def read(self, spikes: Tensor) -> Tensor:
        return self.leave(spikes)  # <- linear


class Converted(Net):
    def read(self, spikes: Tensor) -> Tensor:
        return self.leave(spikes.to(self.leave.weight.dtype))


class WideConvolution(Net):
    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Conv1d(1, 1, 3)

    def read(self, spikes: Tensor) -> Tensor:
        return self.kernel(spikes.unsqueeze(1)).squeeze(1).float()  # <- convolution


class WideMatrices(Net):
    def read(self, spikes: Tensor) -> Tensor:
        products = torch.bmm(spikes.unsqueeze(1), self.leave.weight.t().expand(len(spikes), 5, 3))  # <- bmm
        return products.squeeze(1)


class WideNorm(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(5)

    def read(self, spikes: Tensor) -> Tensor:
        return self.norm(spikes)[:, :3]  # <- norm


class WideBatchNorm(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(5)

    def read(self, spikes: Tensor) -> Tensor:
        return self.norm(spikes)[:, :3]  # <- batch norm


class NamedTypes(Net):
    def read(self, spikes: Tensor) -> Tensor:
        half = self.leave.weight.dtype == torch.float16
        return F.linear(spikes.half() if half else spikes, self.leave.weight)


@pytest.mark.parametrize(
    ("marker", "model"),
    [
        ("linear", WideSpikes),
        ("convolution", WideConvolution),
        ("bmm", WideMatrices),
        ("norm", WideNorm),
        ("batch norm", WideBatchNorm),
    ],
)
def test_operands_of_two_types_are_found_at_their_line(marker: str, model: Any) -> None:
    assert [(f.rule, f.file, f.line) for f in found_in(model())] == [("mixed-precision", __file__, line_of(marker))]


@pytest.mark.parametrize("model", [WideSpikes, WideConvolution, WideMatrices, WideNorm])
def test_in_single_precision_they_are_of_one_type(model: Any) -> None:
    assert found_in(model(), snn.TrainSpec()) == []


def test_every_place_is_told_and_not_the_first_alone() -> None:
    class Both(WideSpikes):
        def forward(self, x: Tensor) -> Tensor:
            wide = self.enter(x.float() + 1)  # <- enter
            return super().forward(wide[..., :4].to(x.dtype))

    assert {finding.line for finding in found_in(Both())} == {line_of("enter"), line_of("linear")}


@pytest.mark.parametrize("model", [Converted, NamedTypes])
def test_operands_of_one_type_have_no_finding_and_train_on_the_contract_fake(model: Any) -> None:
    data = [(torch.rand(5, 4), torch.tensor(label)) for label in (0, 1, 2, 0, 1, 2, 0, 1)]
    with IpuBackend(IpuOptions(ipu_model=True)).compile(step_of(model()), snn.SGD(lr=0.1), SPEC, HALF) as program:
        losses = [float(program.train_step(batch).loss) for batch in program.loader(data, range(8), training=True)]
    assert losses[0] > 0


@pytest.mark.parametrize("model", [WideSpikes, WideConvolution, WideMatrices, WideNorm])
def test_operands_of_two_types_do_not_compile_on_the_contract_fake(model: Any) -> None:
    data = [(torch.rand(5, 4), torch.tensor(0))] * 8
    program = IpuProgram(step_of(model()), snn.SGD(lr=0.1), SPEC, HALF, IpuOptions(ipu_model=True))
    with program, pytest.raises(SnnError, match=r"of one type|should be the same"):  # the fake's words, or torch's
        program.train_step(next(program.loader(data, range(8), training=True)))


def test_the_check_leaves_the_step_in_single_precision() -> None:
    step = step_of(Converted())
    check(step, SPEC, HALF)
    assert {parameter.dtype for parameter in step.parameters()} == {torch.float32}
