"""Values that reach Python, tensors that leave, shapes that depend on values: found at the line, and not beside it."""

import random
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
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


def line_of(marker: str) -> int:
    """The line that ends with the marker."""
    (line,) = [number for number, text in enumerate(SOURCE, start=1) if text.endswith(f"# <- {marker}")]
    return line


def found_in(model: nn.Module) -> List[snn.Finding]:
    return check(snn.Step(model, snn.CountCrossEntropy()), SPEC, snn.TrainSpec())


class Net(nn.Module):
    """`[T, B, 4]` -> `[T, B, 3]`, by a method of the subclass in between."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(4, 3), snn.LIF(0.9)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.body(self.enter(x)))

    def body(self, x: Tensor) -> Any:
        raise NotImplementedError


class BranchOnAny(Net):
    def body(self, x: Tensor) -> Tensor:
        if (x > 1).any():  # <- branch
            x = x - 1
        return x


class Where(Net):
    def body(self, x: Tensor) -> Tensor:
        return torch.where((x > 1).any(), x - 1, x)


class WhileLoop(Net):
    def body(self, x: Tensor) -> Tensor:
        while x.abs().amax() > 0.5:  # <- while
            x = x / 2
        return x


class LoopOverShape(Net):
    def body(self, x: Tensor) -> Tensor:
        step = 0
        while step < x.shape[0]:
            x, step = x / 2, step + 1
        return x


class Assertion(Net):
    def body(self, x: Tensor) -> Tensor:
        assert torch.isfinite(x).all(), "not finite"  # <- assert
        return x


class ShapeAssertion(Net):
    def body(self, x: Tensor) -> Tensor:
        assert x.shape[-1] == 3
        assert x.is_floating_point()
        return x


class Equal(Net):
    def body(self, x: Tensor) -> Tensor:
        return x if torch.equal(x, x + 1) else x * 2  # <- equal


class Same(Net):
    def body(self, x: Tensor) -> Tensor:
        return torch.where(torch.eq(x, x + 1), x, x * 2)


class Contains(Net):
    def body(self, x: Tensor) -> Tensor:
        return x if 1.0 in x else x * 2  # <- in


class Item(Net):
    def body(self, x: Tensor) -> Tensor:
        return x / x.abs().max().item()  # <- item


class NoItem(Net):
    def body(self, x: Tensor) -> Tensor:
        return x / x.abs().max()


class Float(Net):
    def body(self, x: Tensor) -> Tensor:
        return x * float(x.mean().detach())  # <- float


class FloatOfNumber(Net):
    def body(self, x: Tensor) -> Tensor:
        return x * float(x.shape[0])


class Int(Net):
    def body(self, x: Tensor) -> Tensor:
        return x + int(x.detach().argmax())  # <- int


class ToList(Net):
    def body(self, x: Tensor) -> Tensor:
        return x + sum(x.detach().mean((0, 1)).tolist())  # <- tolist


class Numpy(Net):
    def body(self, x: Tensor) -> Tensor:
        return x + float(x.detach().numpy().mean())  # <- numpy


class NumpyFunction(Net):
    def body(self, x: Tensor) -> Tensor:
        return x + float(np.mean(np.asarray(x.detach())))  # <- asarray


class Text(Net):
    def body(self, x: Tensor) -> Tensor:
        self.__class__.__doc__ = f"{x.mean().detach()}"  # <- text
        return x


class Printed(Net):
    def body(self, x: Tensor) -> Tensor:
        print(x.detach())  # <- printed
        return x


class Represented(Net):
    def body(self, x: Tensor) -> Tensor:
        self.__class__.__doc__ = repr(x.detach())  # <- repr
        return x


class ShapePrinted(Net):
    def body(self, x: Tensor) -> Tensor:
        print(x.shape, x.dtype, x.device)
        return x


class TensorOfTensors(Net):
    def body(self, x: Tensor) -> Tensor:
        return x * torch.tensor([x.detach().mean(), 1.0, 2.0])  # <- tensor of tensors


class DeviceTable(Net):
    def body(self, x: Tensor) -> Tensor:
        return x * {"cpu": 1.0, "cuda": 2.0}[x.device.type]  # <- device table


class DeviceTableThenHost(Net):
    def body(self, x: Tensor) -> Tensor:
        x = x * {"cpu": 1.0, "cuda": 2.0}[x.device.type]  # <- table before
        return x * HOST_SCALE  # <- host after


HOST_SCALE = torch.ones(3)


class DeviceBranch(Net):
    def body(self, x: Tensor) -> Tensor:
        if x.device.type == "cuda" or x.is_cpu:
            return x.cpu()
        return x + torch.zeros(3, device=x.device)


class Cpu(Net):
    def body(self, x: Tensor) -> Tensor:
        return x.cpu() * 2  # <- cpu


class ToCpu(Net):
    def body(self, x: Tensor) -> Tensor:
        return x.to("cpu") * 2  # <- to


class ToDevice(Net):
    def body(self, x: Tensor) -> Tensor:
        return x.to(device=torch.device("cpu"), dtype=torch.float32) * 2  # <- to device


class Cuda(Net):
    def body(self, x: Tensor) -> Tensor:
        return x.cuda() * 2  # <- cuda


class ToOwnDevice(Net):
    def body(self, x: Tensor) -> Tensor:
        scale = torch.ones(3, device=self.enter.weight.device).to(x.device)
        return (x * scale.to(x)).to(torch.float32)


class IndexByTensor(Net):
    def body(self, x: Tensor) -> Tensor:
        last = x.detach().mean((1, 2)).argmax()
        return x + x[last]  # <- index


class IndexSelect(Net):
    def body(self, x: Tensor) -> Tensor:
        last = x.detach().mean((1, 2)).argmax()
        return x + x.index_select(0, last.reshape(1))


class SliceByTensor(Net):
    def body(self, x: Tensor) -> Tensor:
        end = x.detach().mean((1, 2)).argmax() * 0 + 2
        return torch.cat((x[:end], x[end:]))  # <- slice


class SliceByNumber(Net):
    def body(self, x: Tensor) -> Tensor:
        end = x.shape[0] // 2
        return torch.cat((x[:end], x[end:]))


class RangeOfTensor(Net):
    def body(self, x: Tensor) -> Tensor:
        for _ in range((x.detach() > 9).sum() + 2):  # <- range
            x = x / 2
        return x


class Nonzero(Net):
    def body(self, x: Tensor) -> Tensor:
        return x + torch.nonzero(x.detach() > 0).float().mean()  # <- nonzero


class WhereAlone(Net):
    def body(self, x: Tensor) -> Tensor:
        return x + torch.where(x.detach() > 0)[0].float().mean()  # <- where


class MaskedSelect(Net):
    def body(self, x: Tensor) -> Tensor:
        return x - torch.masked_select(x, x > 0).mean()  # <- masked_select


class Unique(Net):
    def body(self, x: Tensor) -> Tensor:
        return x * len(x.detach().round().unique())  # <- unique


class Mask(Net):
    def body(self, x: Tensor) -> Tensor:
        return x - x[x > 0].mean()  # <- mask


class MaskWrite(Net):
    def body(self, x: Tensor) -> Tensor:
        y = x.clone()
        y[x > 0] = 0.0
        return y


class MaskBesideSlice(Net):
    def body(self, x: Tensor) -> Tensor:
        y = x.clone()
        y[:, :, torch.arange(3) > 0] = 0.0  # <- masked write
        return y


class Repeats(Net):
    def body(self, x: Tensor) -> Tensor:
        often = torch.tensor([1, 1, 1])
        return torch.repeat_interleave(x, often, 2)  # <- repeats


class MaskedFill(Net):
    def body(self, x: Tensor) -> Tensor:
        return x.masked_fill(x > 0, 0.0) + torch.repeat_interleave(x, 2, 2)[..., ::2]


class OneHot(Net):
    def body(self, x: Tensor) -> Tensor:
        return x + F.one_hot(x.detach().argmax(-1), 3)


class OneHotOfAnySize(Net):
    def body(self, x: Tensor) -> Tensor:
        return x + F.one_hot(x.detach().argmax(-1) * 0 + torch.tensor([2])).float()  # <- one_hot


class Pool(Net):
    def body(self, x: Tensor) -> Tensor:
        y, _ = F.max_pool1d(x.transpose(0, 2), 1, return_indices=True)  # <- pool
        return y.transpose(0, 2)


class PoolModule(Net):
    def __init__(self) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(1, return_indices=True)

    def body(self, x: Tensor) -> Tensor:
        return self.pool(x)[0]  # <- pool module


class PoolAlone(Net):
    def body(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, 1)


class Double(Net):
    def body(self, x: Tensor) -> Tensor:
        return (x.double() / 3).float()  # <- double


class Complex(Net):
    def body(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(x, dim=0).abs().mean() + x  # <- complex


class DoubleMade(Net):
    def body(self, x: Tensor) -> Tensor:
        scale = torch.ones(3, dtype=torch.float64)  # <- double made
        return (x * scale).float()


class FromNumpy(Net):
    def body(self, x: Tensor) -> Tensor:
        scale = torch.from_numpy(np.ones(3, dtype="float32"))
        return x * scale  # <- from numpy


class TensorOfNumpy(Net):
    def body(self, x: Tensor) -> Tensor:
        return x * torch.tensor(np.ones(3, dtype="float32"))


class MadeWithoutDevice(Net):
    """By functions that give their tensor no device while poptorch traces."""

    def body(self, x: Tensor) -> Tensor:
        return x @ torch.eye(3)  # <- eye


class OldConstructor(Net):
    def body(self, x: Tensor) -> Tensor:
        return x * torch.Tensor([1.0, 2.0, 3.0])  # <- constructor


class AsTensor(Net):
    def body(self, x: Tensor) -> Tensor:
        return x * torch.as_tensor([1.0, 2.0, 3.0])  # <- as_tensor


class Indices(Net):
    def body(self, x: Tensor) -> Tensor:
        return x + torch.tril_indices(3, 2)[0, :3]  # <- indices


class MadeOnHost(Net):
    def body(self, x: Tensor) -> Tensor:
        return x * torch.ones(3, device="cpu")  # <- on host


class MadeOnDevice(Net):
    """By the functions that poptorch gives its device, and by the others with one of the step's."""

    def body(self, x: Tensor) -> Tensor:
        x = x @ torch.eye(3, device=x.device) + torch.linspace(0, 1, 3) + torch.full_like(x, 0.5)
        x = x * torch.as_tensor([1.0, 2.0, 3.0], device=x.device) + torch.zeros(3).to(x.dtype)
        return x + x.new_tensor([0.1, 0.2, 0.3]) * x.new_ones(3) + torch.tensor(0.5)


class IndexByList(Net):
    def body(self, x: Tensor) -> Tensor:
        return x[:, :, [2, 0, 1]] + x[[0]]


class Distributed(Net):
    """Torch's distributions look at their parameters' values, unless poptorch traces."""

    def body(self, x: Tensor) -> Tensor:
        return x + torch.distributions.Normal(torch.zeros(3), torch.ones(3)).rsample()


def branching(x: Tensor) -> Tensor:
    if bool(x.sum() > 0):
        x = x * 2
    return x


class ScriptedBranch(Net):
    def body(self, x: Tensor) -> Tensor:
        return torch.jit.script(branching)(x)  # <- scripted


class NumpyMoved(Net):
    def body(self, x: Tensor) -> Tensor:
        return x * torch.from_numpy(np.ones(3, dtype="float32")).to(x.device) * float(np.float32(2))


class NumberOfPython(Net):
    def body(self, x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 0.1) * 0.3 + torch.tensor(0.5) + torch.arange(3) / 7


class Cumsum(Net):
    def body(self, x: Tensor) -> Tensor:
        return x.cumsum(0)  # <- cumsum


class SumInLoop(Net):
    def body(self, x: Tensor) -> Tensor:
        total, sums = torch.zeros_like(x[0]), []
        for x_t in x.unbind(0):
            total = total + x_t
            sums.append(total)
        return torch.stack(sums)


class HostRandom(Net):
    def body(self, x: Tensor) -> Tensor:
        return x * random.uniform(0.9, 1.1)  # <- random


class HostRandomBits(Net):
    def body(self, x: Tensor) -> Tensor:
        return x * (0.5 + random.random())  # <- random bits


class NumpyRandom(Net):
    def body(self, x: Tensor) -> Tensor:
        return x * float(np.random.rand())  # <- numpy random


class NumpyRandomChoice(Net):
    def body(self, x: Tensor) -> Tensor:
        return x * 2 if np.random.randint(2) else x  # <- numpy choice


class OwnGenerator(Net):
    def body(self, x: Tensor) -> Tensor:
        return x * torch.rand(3, generator=torch.Generator().manual_seed(0))  # <- generator


class TorchRandom(Net):
    def body(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.2, self.training) * torch.rand_like(x)


VIOLATIONS: Dict[str, Any] = {
    "branch": ("control-flow", BranchOnAny),
    "while": ("control-flow", WhileLoop),
    "assert": ("control-flow", Assertion),
    "equal": ("control-flow", Equal),
    "in": ("control-flow", Contains),
    "item": ("host-value", Item),
    "float": ("host-value", Float),
    "int": ("host-value", Int),
    "tolist": ("host-value", ToList),
    "numpy": ("host-value", Numpy),
    "asarray": ("host-value", NumpyFunction),
    "text": ("host-value", Text),
    "printed": ("host-value", Printed),
    "repr": ("host-value", Represented),
    "tensor of tensors": ("host-value", TensorOfTensors),
    "device table": ("device-name", DeviceTable),
    "from numpy": ("host-tensor", FromNumpy),
    "eye": ("host-tensor", MadeWithoutDevice),
    "constructor": ("host-tensor", OldConstructor),
    "as_tensor": ("host-tensor", AsTensor),
    "indices": ("host-tensor", Indices),
    "on host": ("host-tensor", MadeOnHost),
    "scripted": ("control-flow", ScriptedBranch),
    "cpu": ("host-move", Cpu),
    "to": ("host-move", ToCpu),
    "to device": ("host-move", ToDevice),
    "cuda": ("host-move", Cuda),
    "index": ("constant-index", IndexByTensor),
    "slice": ("constant-index", SliceByTensor),
    "range": ("constant-index", RangeOfTensor),
    "one_hot": ("constant-index", OneHotOfAnySize),
    "nonzero": ("value-shape", Nonzero),
    "where": ("value-shape", WhereAlone),
    "masked_select": ("value-shape", MaskedSelect),
    "unique": ("value-shape", Unique),
    "mask": ("value-shape", Mask),
    "masked write": ("masked-write", MaskBesideSlice),
    "repeats": ("value-shape", Repeats),
    "pool": ("max-pool-indices", Pool),
    "pool module": ("max-pool-indices", PoolModule),
    "complex": ("complex", Complex),
    "random": ("host-random", HostRandom),
    "random bits": ("host-random", HostRandomBits),
    "numpy random": ("host-random", NumpyRandom),
    "numpy choice": ("host-random", NumpyRandomChoice),
}
WARNINGS: Dict[str, Any] = {
    "double": ("float64", Double),
    "double made": ("float64", DoubleMade),
    "cumsum": ("cumsum", Cumsum),
    "generator": ("own-generator", OwnGenerator),
}
CLEAN = [
    DeviceBranch, FloatOfNumber, IndexSelect, LoopOverShape, MaskWrite, MaskedFill, NoItem, NumberOfPython, NumpyMoved,
    OneHot, PoolAlone, Same, ShapeAssertion, ShapePrinted, SliceByNumber, SumInLoop, ToOwnDevice, TorchRandom, Where,
    Distributed, IndexByList, MadeOnDevice, TensorOfNumpy,
]  # fmt: skip


# newer torch gives TorchScript up
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("marker", [*VIOLATIONS, *WARNINGS])
def test_a_violation_is_found_in_its_file_at_its_line(marker: str) -> None:
    rule, model = {**VIOLATIONS, **WARNINGS}[marker]
    found = [finding for finding in found_in(model()) if finding.rule == rule]
    assert [(finding.file, finding.line) for finding in found] == [(__file__, line_of(marker))]
    assert found[0].severity == ("warning" if marker in WARNINGS else "error")
    assert found[0].remedy


# newer torch gives TorchScript up
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("marker", [*VIOLATIONS, *WARNINGS])
def test_a_violation_is_blamed_on_no_other_line(marker: str) -> None:
    _, model = {**VIOLATIONS, **WARNINGS}[marker]
    assert {(finding.file, finding.line) for finding in found_in(model())} == {(__file__, line_of(marker))}


@pytest.mark.parametrize("model", CLEAN)
def test_what_looks_alike_and_is_right_has_no_finding(model: Any) -> None:
    assert [str(finding) for finding in found_in(model())] == []


@pytest.mark.parametrize("model", CLEAN)
def test_what_has_no_finding_trains_on_the_contract_fake(model: Any) -> None:
    step = snn.Step(model(), snn.CountCrossEntropy())
    losses = trained(IpuBackend(IpuOptions(ipu_model=True)).compile(step, snn.SGD(lr=0.1), SPEC, snn.TrainSpec()))
    assert len(losses) == 1
    assert losses[0] > 0


def trained(program: snn.Program) -> List[float]:
    data = [(torch.rand(5, 4), torch.tensor(label)) for label in (0, 1, 2, 0, 1, 2, 0, 1)]
    with program:
        return [float(program.train_step(batch).loss) for batch in program.loader(data, range(8), training=True)]


def test_what_comes_after_a_failure_for_the_device_s_name_is_found_too() -> None:
    found = {finding.rule: finding.line for finding in found_in(DeviceTableThenHost())}
    assert found == {"device-name": line_of("table before"), "host-tensor": line_of("host after")}


# what the device refuses while it compiles; left out are .cuda(), which fails before, and two of which the fake knows
# nothing: torch.equal, and counts to repeat by
REFUSED = ("control-flow", "host-value", "host-move", "constant-index", "value-shape", "masked-write", "host-tensor")
NOT_THERE = ("cuda", "equal", "repeats")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("marker", [m for m, (rule, _) in VIOLATIONS.items() if rule in REFUSED and m not in NOT_THERE])
def test_what_is_an_error_does_not_compile_on_the_contract_fake(marker: str) -> None:
    step = snn.Step(VIOLATIONS[marker][1](), snn.CountCrossEntropy())
    with pytest.raises(SnnError):
        trained(IpuProgram(step, snn.SGD(lr=0.1), SPEC, snn.TrainSpec(), IpuOptions(ipu_model=True)))
