"""What a model keeps, how its gradient is made, and which losses it holds: found at the line, and not beside it."""

import logging
import random
from collections import deque
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, List, Optional

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import snn_core as snn
from snn_backend_ipu import IpuBackend, IpuOptions
from snn_backend_ipu.lint import check

SOURCE = Path(__file__).read_text(encoding="utf-8").splitlines()
SPEC = snn.BatchSpec(8, snn.TensorSpec((5, 4), "float32", 1), snn.TensorSpec((), "int64"))
STATE_DICT_WORDS = ("running_mean", "running_var")


def line_of(marker: str) -> int:
    """The line that ends with the marker."""
    (line,) = [number for number, text in enumerate(SOURCE, start=1) if text.endswith(f"# <- {marker}")]
    return line


def found_in(model: nn.Module, loss: Any = None, **options: Any) -> List[snn.Finding]:
    step = snn.Step(model, snn.CountCrossEntropy() if loss is None else loss)
    return check(step, SPEC, snn.TrainSpec(), SimpleNamespace(**options))


class Net(nn.Module):
    """`[T, B, 4]` -> `[T, B, 3]`, by a method of the subclass in between."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(4, 3), snn.LIF(0.9)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.body(self.enter(x)))

    def body(self, x: Tensor) -> Any:
        raise NotImplementedError


class Plain(Net):
    def body(self, x: Tensor) -> Tensor:
        return x


class CarriedAttribute(Net):
    def __init__(self) -> None:
        super().__init__()
        self.mem: Any = 0.0

    def body(self, x: Tensor) -> Tensor:
        self.mem = 0.5 * self.mem + x  # <- carried
        return self.mem


class SilentState(Net):
    """No neuron fires on made-up samples, so that what it carries changes no result."""

    def __init__(self) -> None:
        super().__init__()
        self.last: Any = 0.0

    def body(self, x: Tensor) -> Tensor:
        out = self.leave(0.01 * x)
        x = 0.01 * x + out + 0.5 * self.last
        self.last = out.detach()[-1]  # <- silent
        return x


class SilentMoved(SilentState):
    def body(self, x: Tensor) -> Tensor:
        out = self.leave(0.01 * x)
        x = 0.01 * x + torch.as_tensor(self.last).to(x.device)
        self.last = out.detach()[-1]  # <- silent and moved
        return x


class Looking(Net):
    """What is looked at of the call before goes nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.size = torch.zeros(()), 0

    def body(self, x: Tensor) -> Tensor:
        self.size = self.last.abs().square().dim()  # <- rank of the last
        self.last = x.detach()  # <- looked at
        return x


class ResetAttribute(Net):
    def reset(self, x: Tensor) -> None:
        self.mem = torch.zeros_like(x[0])  # <- written

    def body(self, x: Tensor) -> Tensor:
        outs = []
        self.reset(x)
        for x_t in x.unbind(0):
            self.mem = 0.5 * self.mem + x_t
            outs.append(self.mem)
        return torch.stack(outs)


class Local(Net):
    def body(self, x: Tensor) -> Tensor:
        mem, outs = torch.zeros_like(x[0]), []
        for x_t in x.unbind(0):
            mem = 0.5 * mem + x_t
            outs.append(mem)
        return torch.stack(outs)


class WrittenInPlace(Net):
    def __init__(self) -> None:
        super().__init__()
        self.trace = torch.zeros(3)

    def body(self, x: Tensor) -> Tensor:
        self.trace += x.detach().mean((0, 1))  # <- in place
        return x + self.trace


class ReadOnly(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.full((3,), 0.5))
        self.names = ["a", "b"]

    def body(self, x: Tensor) -> Tensor:
        return x * self.scale + len(self.names)


class PlainTensor(Net):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.full((3,), 0.5)

    def body(self, x: Tensor) -> Tensor:
        scale = self.scale.detach() * 2
        return x * scale  # <- plain tensor


class PlainNumber(Net):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.tensor(0.5)

    def body(self, x: Tensor) -> Tensor:
        return x * self.scale  # <- plain number


INDEX = torch.tensor([2, 0, 1])


class GlobalTensor(Net):
    def body(self, x: Tensor) -> Tensor:
        return x.index_select(2, INDEX)  # <- global


class MovedTensor(Net):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.full((3,), 0.5)

    def body(self, x: Tensor) -> Tensor:
        return x * self.scale.to(x.device) + INDEX.to(x)


class MadeInside(Net):
    def body(self, x: Tensor) -> Tensor:
        return x * torch.tensor([0.5, 1.0, 2.0]) + torch.zeros(3) - torch.arange(3) * torch.tensor(0.5)


class Constants(Net):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.log = np.arange(3.0), logging.getLogger("lint")
        self.places = {"a": [1, 2], "b": (0.5, None)}

    def body(self, x: Tensor) -> Tensor:
        self.log.debug("a step")
        return x * float(self.table[1]) * self.places["b"][0]


class GrowingList(Net):
    def __init__(self) -> None:
        super().__init__()
        self.history: List[Tensor] = []

    def body(self, x: Tensor) -> Tensor:
        self.history.append(x.detach())  # <- grows
        return x


class Remembering(Net):
    def __init__(self) -> None:
        super().__init__()
        self.last: Any = deque([0.0], maxlen=1)

    def body(self, x: Tensor) -> Tensor:
        y = x + self.last[0]
        self.last.append(x.detach())  # <- remembers
        return y


class Keyed(Net):
    def __init__(self) -> None:
        super().__init__()
        self.seen: Dict[str, Any] = {}

    def body(self, x: Tensor) -> Tensor:
        self.seen["x"] = x.detach()  # <- keyed
        return x


class Holder:
    """A user's object that keeps a value."""

    value: Any = 0.0


class HeldElsewhere(Net):
    def __init__(self) -> None:
        super().__init__()
        self.holder = Holder()

    def body(self, x: Tensor) -> Tensor:
        self.holder.value = self.holder.value + x.detach()  # <- held
        return x + self.holder.value


class ChildWritten(Net):
    def body(self, x: Tensor) -> Tensor:
        setattr(self, "peak", x.detach().amax())  # noqa: B010  # <- setattr
        return x


class Counter(Net):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def body(self, x: Tensor) -> Tensor:
        self.calls += 1  # <- counts
        return x


class Buffers(Net):
    count: Tensor
    mem: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.tensor(0))
        self.register_buffer("mem", torch.zeros(3))


class IntegerBuffer(Buffers):
    def body(self, x: Tensor) -> Tensor:
        self.count += 1  # <- integer
        return x


class ReassignedBuffer(Buffers):
    def body(self, x: Tensor) -> Tensor:
        self.mem = self.mem + x.detach().mean((0, 1))  # <- reassigned
        return x + self.mem


class FloatBuffer(Buffers):
    def body(self, x: Tensor) -> Tensor:
        self.mem.mul_(0.9).add_(x.detach().mean((0, 1)))  # <- float buffer
        return x


class ParameterWritten(Net):
    def body(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.enter.weight.clamp_(-0.1, 0.1)  # <- parameter
        return x


class DataClamped(Net):
    def body(self, x: Tensor) -> Tensor:
        self.enter.weight.data.clamp_(-0.1, 0.1)  # <- data clamped
        return x


class DataReplaced(Net):
    def body(self, x: Tensor) -> Tensor:
        self.enter.weight.data = self.enter.weight.data.clamp(-0.1, 0.1)  # <- data replaced
        return x


class DataOfAll(Net):
    def body(self, x: Tensor) -> Tensor:
        for weight in self.parameters():
            weight.data.clamp_(-0.1, 0.1)  # <- data of all
        return x


class ParameterUsed(Net):
    def body(self, x: Tensor) -> Tensor:
        return x + F.linear(x, self.enter.weight.clamp(-0.1, 0.1)[:, :3])


class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        return (u > 0).float()

    @staticmethod  # <- custom
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


class Custom(Net):
    def body(self, x: Tensor) -> Tensor:
        return Step.apply(x)


class CustomInNeuron(snn.Neuron):
    states = ("mem",)

    def dynamics(self, x: Tensor, state: Any, c: Any) -> Any:
        mem = 0.9 * state[0] + x
        return Step.apply(mem - 1), (mem,)


class CustomInSurrogate(Net):
    def __init__(self) -> None:
        super().__init__()
        self.leave = CustomInNeuron()  # type: ignore[assignment]

    def body(self, x: Tensor) -> Tensor:
        return x


class CustomWithoutGradient(Net):
    def body(self, x: Tensor) -> Tensor:
        return x * Step.apply(x.detach())


class DetachForm(Net):
    def body(self, x: Tensor) -> Tensor:
        return (x > 0).float() + torch.sigmoid(x).detach() * (x - x.detach())


class Recomputed(Net):
    def body(self, x: Tensor) -> Tensor:
        return checkpoint(self.inner, x, use_reentrant=True)  # <- checkpoint

    def inner(self, x: Tensor) -> Tensor:
        return x.sigmoid() * x


class ListedLayer(Net):
    def __init__(self) -> None:
        super().__init__()
        self.layers = [nn.Linear(3, 3, bias=False)]

    def body(self, x: Tensor) -> Tensor:
        return self.layers[0](x)  # <- listed layer


class ModuleListed(Net):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(3, 3, bias=False)])

    def body(self, x: Tensor) -> Tensor:
        return self.layers[0](x)


class NoGrad(Net):
    def body(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            scale = x.abs().mean()  # <- no_grad
        return x * scale


class NoGradOfConstants(Net):
    def body(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            scale = torch.arange(3) / 3 + x.detach()
        return x * scale


class Data(Net):
    def body(self, x: Tensor) -> Tensor:
        return x * x.data.sign()  # <- data


class DataWritten(Net):
    def body(self, x: Tensor) -> Tensor:
        y = x.detach().clone()
        y.data = y * 2  # <- data written
        return x + y


class Detach(Net):
    def body(self, x: Tensor) -> Tensor:
        return x * x.detach().sign()


class Hooked(Net):
    def body(self, x: Tensor) -> Tensor:
        x.register_hook(lambda grad: grad.clamp(-1, 1))  # <- hook
        return x


class GradientInside(Net):
    def body(self, x: Tensor) -> Tensor:
        (grad,) = torch.autograd.grad(x.square().sum(), x, create_graph=True)  # <- gradient
        return x + grad


class Metric(Net):
    def body(self, x: Tensor) -> Tensor:
        error = F.mse_loss(x, x.detach() + 1)  # <- metric
        return x + 0 * error.detach()


class DetachedMetric(Net):
    def body(self, x: Tensor) -> Tensor:
        return x + nn.L1Loss()(x.detach(), x.detach() + 1)  # <- detached metric


class LossInside(Net):
    def body(self, x: Tensor) -> Tensor:
        return x + F.mse_loss(x, x.detach() + 1)


class WeightedInside(Net):
    def __init__(self) -> None:
        super().__init__()
        self.loss = nn.CrossEntropyLoss(weight=torch.ones(3))

    def body(self, x: Tensor) -> Tensor:
        labels = torch.zeros(x.shape[:1] + x.shape[2:], dtype=torch.int64)
        return x + self.loss(x, labels)  # <- weighted inside


class Arithmetic(Net):
    def body(self, x: Tensor) -> Tensor:
        return x + (x - x.detach() - 1).square().mean()


class OtherEachTime(Net):
    def __init__(self) -> None:
        super().__init__()
        self.turns = iter([2, 3] * 50)

    def __deepcopy__(self, memo: Any) -> "OtherEachTime":
        return OtherEachTime()

    def body(self, x: Tensor) -> Tensor:
        for _ in range(next(self.turns)):
            x = x.sin()  # <- other each time
        return x * 2


class CachedAtFirst(Net):
    def __init__(self) -> None:
        super().__init__()
        self.ramp: Optional[Tensor] = None

    def body(self, x: Tensor) -> Tensor:
        if self.ramp is None:
            self.ramp = torch.arange(3.0)  # <- cached
        return x + self.ramp


@lru_cache(maxsize=None)
def slope(steps: int) -> float:
    return 1.0 / steps


class CachedElsewhere(Net):
    def body(self, x: Tensor) -> Tensor:
        return x + slope(3)


class Unrepeatable(Net):
    def body(self, x: Tensor) -> Tensor:
        return x * COUNTER.pop()


COUNTER = [float(number) for number in range(1000)]


VIOLATIONS: Dict[str, Any] = {
    "carried": ("module-state", CarriedAttribute),
    "in place": ("module-state", WrittenInPlace),
    "silent": ("module-state", SilentState),
    "silent and moved": ("module-state", SilentMoved),
    "remembers": ("module-state", Remembering),
    "held": ("module-state", HeldElsewhere),
    "integer": ("integer-buffer", IntegerBuffer),
    "reassigned": ("buffer-reassigned", ReassignedBuffer),
    "parameter": ("parameter-written", ParameterWritten),
    "data clamped": ("parameter-written", DataClamped),
    "data replaced": ("parameter-written", DataReplaced),
    "data of all": ("parameter-written", DataOfAll),
    "custom": ("custom-autograd", Custom),
    "checkpoint": ("custom-autograd", Recomputed),
    "listed layer": ("unregistered-layer", ListedLayer),
    "hook": ("backward-in-forward", Hooked),
    "gradient": ("backward-in-forward", GradientInside),
    "metric": ("second-loss", Metric),
    "detached metric": ("second-loss", DetachedMetric),
    "plain tensor": ("host-tensor", PlainTensor),
    "plain number": ("host-tensor", PlainNumber),
    "global": ("host-tensor", GlobalTensor),
    "weighted inside": ("weighted-loss", WeightedInside),
    "other each time": ("changing-graph", OtherEachTime),
}
WARNINGS: Dict[str, Any] = {
    "no_grad": ("no-grad", NoGrad),
    "data": ("data", Data),
    "data written": ("data", DataWritten),
    "written": ("module-write", ResetAttribute),
    "grows": ("module-write", GrowingList),
    "keyed": ("module-write", Keyed),
    "setattr": ("module-write", ChildWritten),
    "counts": ("module-write", Counter),
    "cached": ("module-write", CachedAtFirst),
}
CLEAN = [
    Arithmetic, CachedElsewhere, Constants, CustomWithoutGradient, Detach, DetachForm, FloatBuffer, Local, LossInside,
    MadeInside, ModuleListed, MovedTensor, NoGradOfConstants, ParameterUsed, Plain, ReadOnly,
]  # fmt: skip
# a step is validated without gradients, at which torch's checkpoint warns
CHECKPOINT_WARNS = pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")


@CHECKPOINT_WARNS
@pytest.mark.parametrize("marker", [*VIOLATIONS, *WARNINGS])
def test_a_violation_is_found_in_its_file_at_its_line(marker: str) -> None:
    rule, model = {**VIOLATIONS, **WARNINGS}[marker]
    found = [finding for finding in found_in(model()) if finding.rule == rule]
    assert [(finding.file, finding.line) for finding in found] == [(__file__, line_of(marker))]
    assert found[0].severity == ("warning" if marker in WARNINGS else "error")
    assert found[0].remedy


@pytest.mark.parametrize("model", CLEAN)
def test_what_looks_alike_and_is_right_has_no_finding(model: Any) -> None:
    assert [str(finding) for finding in found_in(model())] == []


@pytest.mark.parametrize("model", CLEAN)
def test_what_has_no_finding_trains_on_the_contract_fake(model: Any) -> None:
    data = [(torch.rand(5, 4), torch.tensor(label)) for label in (0, 1, 2, 0, 1, 2, 0, 1)]
    step = snn.Step(model(), snn.CountCrossEntropy())
    backend = IpuBackend(IpuOptions(ipu_model=True))
    with backend.compile(step, snn.SGD(lr=0.1), SPEC, snn.TrainSpec()) as program:
        losses = [float(program.train_step(batch).loss) for batch in program.loader(data, range(8), training=True)]
    assert len(losses) == 1
    assert losses[0] > 0


def test_equal_checks_find_the_same_where_a_weight_is_given_other_memory() -> None:
    torch.manual_seed(0)
    model = DataReplaced()
    found = [[str(finding) for finding in found_in(model)] for _ in range(12)]
    assert found == [found[0]] * 12


def test_a_difference_that_no_line_of_the_users_asked_for_is_no_changing_graph() -> None:
    assert "changing-graph" not in {finding.rule for finding in found_in(DataReplaced())}


def test_a_custom_function_inside_a_users_neuron_is_found() -> None:
    assert [(f.rule, f.line) for f in found_in(CustomInSurrogate())] == [("custom-autograd", line_of("custom"))]


@CHECKPOINT_WARNS
def test_a_checkpoint_of_torch_s_is_told_once_and_not_as_a_step_that_fails() -> None:
    (found,) = found_in(Recomputed())
    assert "the backend's option recomputation" in found.remedy


def test_a_layer_in_a_list_is_told_once_with_the_container_to_use() -> None:
    (found,) = found_in(ListedLayer())
    assert "nn.ModuleList" in found.remedy


def test_a_backward_hook_of_a_module_is_found_at_the_hook_and_is_not_run() -> None:
    def halved(module: nn.Module, before: Any, after: Any) -> None:  # <- backward hook
        raise AssertionError("lint ran it")

    model = Plain()
    model.enter.register_full_backward_hook(halved)
    (found,) = found_in(model)
    assert (found.rule, found.file, found.line) == ("backward-in-forward", __file__, line_of("backward hook"))
    assert "'enter'" in found.message


class BackwardFails(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor) -> Tensor:
        return u * 2

    @staticmethod  # <- backward fails
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        raise RuntimeError("no backward")


def test_a_custom_function_is_found_even_where_its_backward_fails() -> None:
    class Failing(Net):
        def body(self, x: Tensor) -> Tensor:
            return BackwardFails.apply(x)

    found = found_in(Failing())
    assert ("custom-autograd", line_of("backward fails")) in {(f.rule, f.line) for f in found}


def test_no_finding_names_a_line_of_the_check_itself() -> None:
    class Failing(Net):
        def body(self, x: Tensor) -> Tensor:
            return BackwardFails.apply(x)

    assert {finding.file for finding in found_in(Failing())} <= {__file__, None}


def test_a_loss_s_own_buffer_is_told_with_a_remedy_that_it_does_not_follow_already() -> None:
    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("shift", torch.ones(3))

        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            return first_loss(output + self.shift, target)  # <- loss's buffer

    (found,) = found_in(Plain(), Shifted())
    assert (found.rule, found.line) == ("host-tensor", line_of("loss's buffer"))
    assert "a loss's own buffers stay on the host" in found.remedy


def test_the_attribute_and_the_layer_are_named() -> None:
    (found,) = found_in(nn.Sequential(CarriedAttribute()))
    assert "the attribute CarriedAttribute.mem (layer '0')" in found.message


def test_a_tensor_of_the_call_before_that_meets_none_of_this_call_is_no_state() -> None:
    found = {(finding.rule, finding.line) for finding in found_in(Looking())}
    assert found == {("module-write", line_of("looked at")), ("module-write", line_of("rank of the last"))}


def test_a_result_that_changes_for_no_reason_to_be_seen_is_told() -> None:
    assert [finding.rule for finding in found_in(Unrepeatable())] == ["not-repeatable"]


def test_batch_norm_is_clean_with_one_replica_and_a_warning_with_two() -> None:
    model = snn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), snn.LIF(0.9))
    assert found_in(model, replicas=1) == []
    found = found_in(model, replicas=2)
    assert {finding.rule for finding in found} == {"replica-buffer"}
    assert {finding.severity for finding in found} == {"warning"}
    assert all(any(word in finding.message for finding in found) for word in STATE_DICT_WORDS)


def test_a_buffer_of_the_users_that_replicas_write_is_named_with_its_line() -> None:
    (found,) = found_in(FloatBuffer(), replicas=2)
    assert (found.rule, found.line) == ("replica-buffer", line_of("float buffer"))


def first_loss(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output.sum(0), target, reduction="none")


def smoothed_loss(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output.sum(0), target, reduction="none", label_smoothing=0.1)


def second_loss(output: Tensor, target: Tensor) -> Tensor:
    counts = output.sum(0)
    return F.mse_loss(counts, counts * 0, reduction="none").mean(1)  # <- second


def weighted_loss(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output.sum(0), target, torch.ones(3), reduction="none")  # <- weighted


def weighted_nll(output: Tensor, target: Tensor) -> Tensor:
    return F.nll_loss(output.sum(0).log_softmax(1), target, weight=torch.ones(3), reduction="none")  # <- weighted nll


def weighted_shares(output: Tensor, target: Tensor) -> Tensor:
    shares = F.one_hot(target, 3).float()
    return F.cross_entropy(output.sum(0), shares, torch.ones(3), reduction="none")  # <- weighted shares


def beside(output: Tensor, target: Tensor) -> Tensor:
    return first_loss(output, target) + 0 * second_loss(output, target).detach()


def both(output: Tensor, target: Tensor) -> Tensor:
    return first_loss(output, target) + second_loss(output, target)


@pytest.mark.parametrize(
    ("marker", "loss"),
    [
        ("weighted", weighted_loss),
        ("weighted nll", weighted_nll),
        ("weighted shares", weighted_shares),
        ("second", beside),
    ],
)
def test_a_loss_that_the_device_has_not_is_found_at_its_line(marker: str, loss: Callable[..., Tensor]) -> None:
    (found,) = found_in(Plain(), loss)
    assert (found.rule, found.file, found.line) == (
        "second-loss" if marker == "second" else "weighted-loss",
        __file__,
        line_of(marker),
    )


class CountLoss(nn.Module):
    def __init__(self, weight: Optional[Tensor]) -> None:
        super().__init__()
        self.loss = nn.CrossEntropyLoss(weight, reduction="none")

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        return self.loss(output.sum(0), target)  # <- weighted module


def test_a_loss_module_with_class_weights_is_found_where_it_is_called_and_without_is_clean() -> None:
    assert found_in(Plain(), CountLoss(None)) == []
    # the weight is a buffer of the loss's, which is no part of the model that the device gets
    found = found_in(Plain(), CountLoss(torch.ones(3)))
    assert {finding.rule for finding in found} == {"weighted-loss", "host-tensor"}
    assert {finding.line for finding in found} == {line_of("weighted module")}


def test_losses_of_torch_in_the_objective_are_clean_and_so_are_class_weights_of_core() -> None:
    assert found_in(Plain(), first_loss) == []
    assert found_in(Plain(), both) == []
    assert found_in(Plain(), smoothed_loss) == []
    assert found_in(Plain(), snn.CountCrossEntropy(class_weights=(1.0, 2.0, 3.0))) == []


LAYERS: Dict[str, Any] = {
    "affine=False": (nn.LayerNorm(3, elementwise_affine=False), nn.LayerNorm(3)),
    "bidirectional=True": (nn.LSTM(3, 2, bidirectional=True), nn.LSTM(3, 2)),
    "num_layers=2": (nn.GRU(3, 2, num_layers=2), nn.GRU(3, 2, bias=False)),
    "bias=False": (nn.RNN(3, 2, bias=False), nn.RNN(3, 2)),
    "padding_idx": (nn.Embedding(3, 2, padding_idx=0), nn.Embedding(3, 2)),
    "a dilation": (nn.ConvTranspose1d(3, 2, 2, dilation=2), nn.ConvTranspose1d(3, 2, 2)),
}


@pytest.mark.parametrize("setting", LAYERS)
def test_a_setting_that_the_device_lacks_is_told_with_the_layer(setting: str) -> None:
    wrong, right = LAYERS[setting]
    for layer, count in ((wrong, 1), (right, 0)):
        model = Plain()
        model.extra = layer
        found = found_in(model)
        assert [finding.rule for finding in found] == ["layer-setting"] * count
        assert all(f"layer 'extra', {type(layer).__name__}" in f.message and setting in f.message for f in found)


class Unfit(Plain):
    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.register_buffer("odd", tensor)  # <- unfit


@pytest.mark.parametrize(
    ("tensor", "why"),
    [
        (torch.zeros(0, 2), "buffer 'odd' has no elements (shape [0, 2])"),
        (torch.zeros(2, dtype=torch.complex64), "buffer 'odd' is of type complex64"),
        (nn.Parameter(torch.zeros(2)), "buffer 'odd' is an nn.Parameter"),
    ],
    ids=["empty", "complex", "parameter"],
)
def test_a_buffer_that_cannot_be_moved_is_told_at_the_line_that_makes_it(tensor: Tensor, why: str) -> None:
    (found,) = found_in(Unfit(tensor))
    assert (found.rule, found.line) == ("unfit-tensor", line_of("unfit"))
    assert why in found.message


class Built(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(3, elementwise_affine=False)  # <- built
        norms = [nn.LayerNorm(3, elementwise_affine=False) for _ in range(2)]
        self.net = nn.Sequential(*norms)  # <- built in a container

    def body(self, x: Tensor) -> Tensor:
        return self.net(self.norm(x))


def test_a_setting_is_told_at_the_line_that_makes_the_layer() -> None:
    found = [(finding.line, finding.message.partition(",")[0]) for finding in found_in(nn.Sequential(Built()))]
    container = line_of("built in a container")
    assert found == [
        (line_of("built"), "layer '0.norm'"),
        (container, "layer '0.net.0'"),
        (container, "layer '0.net.1'"),
    ]


def test_a_loss_module_that_keeps_something_is_found() -> None:
    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean: Any = 0.0

        def forward(self, output: Tensor, target: Tensor) -> Tensor:
            losses = first_loss(output, target)
            self.mean = self.mean + losses.detach().mean()  # <- kept by a loss
            return losses * self.mean

    (found,) = found_in(Plain(), Keeping())
    assert (found.rule, found.line) == ("module-state", line_of("kept by a loss"))


class Buggy(Net):
    def body(self, x: Tensor) -> Tensor:
        return x @ torch.ones(7, 3)  # <- bug


class Failing(Net):
    def body(self, x: Tensor) -> Tensor:
        raise KeyError("weight")  # <- failure


def test_a_bug_of_the_users_is_told_as_a_bug_with_its_line() -> None:
    (found,) = found_in(Failing())
    assert (found.rule, found.file, found.line) == ("forward-fails", __file__, line_of("failure"))
    assert "KeyError: 'weight'" in found.message


def test_shapes_that_do_not_fit_are_told_in_cores_words_with_the_users_line() -> None:
    (found,) = found_in(Buggy())
    assert (found.rule, found.line) == ("refused", line_of("bug"))
    assert "the model cannot take a batch" in found.message


class Unwatchable(Net):
    def body(self, x: Tensor) -> Tensor:
        if torch.utils._python_dispatch._get_current_dispatch_mode() is not None:
            raise RuntimeError("not under a mode")
        return x


def test_a_step_that_runs_and_cannot_be_watched_is_a_warning_that_says_so() -> None:
    (found,) = found_in(Unwatchable())
    assert (found.rule, found.severity) == ("not-watched", "warning")
    assert "not under a mode" in found.message


class FailsInTraining(Net):
    def body(self, x: Tensor) -> Tensor:
        if self.training:
            raise RuntimeError("no training")  # <- fails in training
        return x


def test_a_bug_that_shows_in_training_alone_is_told_as_a_bug() -> None:
    (found,) = found_in(FailsInTraining())
    assert (found.rule, found.line) == ("forward-fails", line_of("fails in training"))


class Sparse(Net):
    def body(self, x: Tensor) -> Tensor:
        places = torch.tensor([[0, 1, 2], [0, 1, 2]])
        eye = torch.sparse_coo_tensor(places, torch.ones(3), (3, 3), check_invariants=False)
        return torch.sparse.mm(eye, x.flatten(0, 1).t()).t().unflatten(0, x.shape[:2])


def test_a_sparse_tensor_is_no_reason_to_fail() -> None:
    assert [finding.rule for finding in found_in(Sparse()) if finding.rule in ("not-watched", "forward-fails")] == []


class Returning(Net):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value

    def forward(self, x: Tensor) -> Any:
        self.enter(x)
        return self.value


@pytest.mark.parametrize("value", [{}, (), None, [torch.zeros(5, 2, 3)]], ids=["dict", "tuple", "None", "list"])
def test_a_model_that_returns_no_tensor_is_refused_with_what_it_returned(value: Any) -> None:
    (found,) = found_in(Returning(value))
    assert found.rule == "refused"
    assert f"the model returned {type(value).__name__}" in found.message


def test_checking_leaves_weights_modes_and_streams_as_they_were() -> None:
    model = snn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(), snn.LIF(0.9)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    streams = torch.random.get_rng_state(), random.getstate()
    assert found_in(model) == []
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training
    assert torch.equal(torch.random.get_rng_state(), streams[0])
    assert random.getstate() == streams[1]


def test_data_that_leaves_a_part_of_a_batch_is_a_warning_with_the_factors() -> None:
    train = snn.TrainSpec(accumulation=4, steps_per_call=2)
    (found,) = check(snn.Step(Plain(), snn.CountCrossEntropy()), SPEC, train, samples=200)
    assert (found.rule, found.severity) == ("short-batch", "warning")
    assert "64 samples (batch_size 8 x accumulation 4 x steps_per_call 2)" in found.message
    assert "8 of 200" in found.message


def test_data_that_fills_its_batches_is_clean() -> None:
    train = snn.TrainSpec(accumulation=4, steps_per_call=2)
    assert check(snn.Step(Plain(), snn.CountCrossEntropy()), SPEC, train, samples=192) == []


def test_a_batch_without_time_and_whole_numbers_as_input_are_taken() -> None:
    spec = replace(SPEC, x=snn.TensorSpec((4,), "uint8"))

    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = snn.Sequential(snn.Constant(steps=3), nn.Linear(4, 3), snn.LIF(0.9))

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x.float())

    assert check(snn.Step(Counts(), snn.CountCrossEntropy()), spec, snn.TrainSpec()) == []


class TrainingAlone(Net):
    def body(self, x: Tensor) -> Tensor:
        if not self.training and x.mean() > 0:  # <- in evaluation
            return x * 2
        return x


def test_what_evaluation_alone_does_is_watched_too() -> None:
    (found,) = found_in(TrainingAlone())
    assert (found.rule, found.line) == ("control-flow", line_of("in evaluation"))
