"""SynOpsBudget: what it measures against brute force, what it costs, and what it refuses."""

import copy
import math
import pickle
from typing import Any, Dict, List, Optional

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import snn_core as snn
from snn_core.errors import ConfigError
from snn_core.recording import LayerCall, Layout
from snn_core.specs import BatchSpec, TensorSpec
from snn_core.step import Step
from snn_metrics import SynOpsBudget

BATCH = BatchSpec(3, TensorSpec((2, 6, 6), "float32"), TensorSpec((), "int64"))


def number(value: Tensor) -> float:
    return value.detach().item()


def images(seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return 2 * torch.rand(3, 2, 6, 6, generator=torch.Generator().manual_seed(seed)).to(dtype)


def labels() -> Tensor:
    return torch.tensor([0, 1, 2])


def spiking(steps: int = 5) -> snn.Sequential:
    torch.manual_seed(0)
    return snn.Sequential(
        snn.Constant(steps), nn.Conv2d(2, 4, 3), snn.LIF(beta=0.8), nn.Flatten(), nn.Linear(64, 3), snn.LIF(beta=0.9)
    )


def controls(step: Step) -> Dict[str, Tensor]:
    return {name: torch.tensor(value, dtype=torch.float64) for name, value in step.controls.items()}


def output(model: nn.Module, term: snn.Term, x: Tensor, valid: Optional[Tensor] = None) -> snn.StepOutput:
    step = Step(model, snn.CountCrossEntropy(), [term])
    return step(x, torch.arange(x.shape[0] if x.ndim != 3 else x.shape[1]) % 3, controls(step), valid)


def unrolled(net: snn.Sequential, x: Tensor) -> List[float]:
    """Operations of the conv and the linear layer of `spiking()` for each sample, layer by layer: every time step runs
    both, and a convolution of ones tells what each input element meets.
    """
    steps = net[0].steps
    drive, spikes = net[1](x), None
    hidden = net[2](drive.expand(steps, *drive.shape))
    ones = torch.ones(4, 2, 3, 3)
    conv = steps * F.conv2d(x.abs(), ones).flatten(1).sum(1)
    spikes = hidden.flatten(2)
    linear = F.linear(spikes, torch.ones(3, 64)).sum(2).sum(0)
    return [number(conv.mean()), number(linear.mean())]


def test_the_measure_is_that_of_the_network_unrolled_over_time() -> None:
    net, x = spiking(), images()
    conv, linear = unrolled(net, x)
    measured = output(net, SynOpsBudget(), x).measures
    assert linear > 0
    assert [number(value) for value in measured] == [pytest.approx(conv + linear, rel=1e-6)]


def test_layers_with_a_budget_of_their_own_are_parts_of_the_measure() -> None:
    net, x = spiking(), images()
    step = Step(net, snn.CountCrossEntropy(), [SynOpsBudget(per_layer={"4": 10.0, "1": 1e6})])
    assert step.measure_names == ("synops_budget.total", "synops_budget.4", "synops_budget.1")
    conv, linear = unrolled(net, x)
    found = [number(value) for value in step(x, labels(), controls(step)).measures]
    assert found == [pytest.approx(value, rel=1e-6) for value in (conv + linear, linear, conv)]


def test_a_static_layer_counts_at_every_step_as_an_expanded_input_does() -> None:
    net, x = spiking(), images()
    dynamic = snn.Sequential(*list(net)[1:])
    static = number(output(net, SynOpsBudget(), x).measures[0])
    step = Step(dynamic, snn.CountCrossEntropy(), [SynOpsBudget()])
    assert number(step(x.expand(5, *x.shape), labels(), controls(step)).measures[0]) == pytest.approx(static, rel=1e-6)


def test_per_step_is_per_sample_over_the_number_of_steps() -> None:
    net, x = spiking(steps=4), images()
    whole, each = (number(output(net, SynOpsBudget(per=per), x).measures[0]) for per in ("sample", "step"))
    assert each == pytest.approx(whole / 4, rel=1e-6)


def test_padded_samples_count_nothing() -> None:
    net, x = spiking(), images()
    alone = number(output(net, SynOpsBudget(), x[:2]).measures[0])
    padded = torch.cat([x[:2], torch.full((1, 2, 6, 6), 50.0)])
    found = output(net, SynOpsBudget(), padded, torch.tensor([1.0, 1.0, 0.0])).measures[0]
    assert number(found) == pytest.approx(alone, rel=1e-6)


@pytest.mark.parametrize(
    ("penalty", "expected"),
    [
        ("log", lambda m, t: max(0.0, math.log(m / t))),
        ("hinge", lambda m, t: max(0.0, m / t - 1)),
        ("squared", lambda m, t: (m / t - 1) ** 2),
    ],
)
@pytest.mark.parametrize("share", [0.25, 0.9, 1.5])
def test_the_penalty_is_the_weight_times_its_formula(penalty: str, expected: Any, share: float) -> None:
    net, x = spiking(), images()
    conv, linear = unrolled(net, x)
    measure, target = conv + linear, share * (conv + linear)
    budget = SynOpsBudget(target=target, per_layer={"4": linear / 2}, penalty=penalty, weight=0.7)
    out = output(net, budget, x)
    want = 0.7 * (expected(measure, target) + expected(linear, linear / 2))
    assert number(out.penalties[0]) == pytest.approx(want, rel=1e-5)
    assert number(out.objective) == pytest.approx(number(out.loss) + want, rel=1e-5)


@pytest.mark.parametrize("penalty", ["log", "hinge", "squared"])
def test_gradients_of_the_penalty_agree_with_finite_differences(penalty: str) -> None:
    torch.manual_seed(1)
    # smooth, so that differences tell the slope: spikes have a surrogate's
    net = snn.Sequential(
        snn.Constant(2), nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), nn.Tanh(), nn.Flatten(),
        nn.Linear(108, 5), nn.Sigmoid(), nn.Linear(5, 3),
    ).double()  # fmt: skip
    term = SynOpsBudget(target=500.0, per_layer={"6": 3.0}, penalty=penalty)
    step, x = Step(net, snn.CountCrossEntropy(), [term]), images(dtype=torch.float64)

    def penalty_of() -> Tensor:
        return step(x, labels(), controls(step)).penalties[0]

    for parameter in (step.model[1].weight, step.model[4].bias):
        (slope,) = torch.autograd.grad(penalty_of(), parameter)
        flat = parameter.data.view(-1)
        for index in range(0, len(flat), max(1, len(flat) // 7)):
            before = flat[index].item()
            found = []
            for shift in (1e-6, -1e-6):
                flat[index] = before + shift
                found.append(number(penalty_of()))
            flat[index] = before
            want = (found[0] - found[1]) / 2e-6
            assert slope.view(-1)[index].item() == pytest.approx(want, rel=1e-5, abs=1e-8)


def test_steps_without_a_spike_keep_the_surrogate_s_gradient() -> None:
    # nonnegative spikes: the count is their plain weighted sum, zeros included
    net, x = spiking(), images()
    step = Step(net, snn.CountCrossEntropy(), [SynOpsBudget()])
    out = step(x, labels(), controls(step))
    (slope,) = torch.autograd.grad(out.measures[0], step.model[1].weight)
    weight = net[1].weight.detach().clone().requires_grad_()
    drive = F.conv2d(x, weight, net[1].bias)
    spikes = net[2](drive.expand(5, *drive.shape))
    (want,) = torch.autograd.grad(3 * spikes.sum() / 3, weight)
    torch.testing.assert_close(slope, want)


@pytest.mark.parametrize("penalty", ["log", "hinge", "squared"])
def test_a_silent_network_has_finite_gradients(penalty: str) -> None:
    net = spiking()
    for parameter in net.parameters():
        nn.init.zeros_(parameter)
    step = Step(net, snn.CountCrossEntropy(), [SynOpsBudget(target=5.0, per_layer={"4": 3.0}, penalty=penalty)])
    step(0 * images(), labels(), controls(step)).objective.backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in step.model.parameters() if p.grad is not None)


def test_targets_and_weight_are_inputs_of_the_step() -> None:
    net, x = spiking(), images()
    step = Step(net, snn.CountCrossEntropy(), [SynOpsBudget(target=100.0, per_layer={"4": 2.0})])
    assert step.controls == {
        "synops_budget.weight": 1.0, "synops_budget.target": 100.0, "synops_budget.target.4": 2.0,
    }  # fmt: skip
    conv, linear = unrolled(net, x)
    given = {"weight": 2.0, "target": conv, "target.4": linear / 3}
    values = {f"synops_budget.{name}": torch.tensor(value) for name, value in given.items()}
    want = 2 * (math.log((conv + linear) / conv) + math.log(3))
    assert number(step(x, labels(), values).penalties[0]) == pytest.approx(want, rel=1e-5)


def test_a_half_precision_input_is_counted_in_single_precision() -> None:
    # 40,000 times 2: a float16 sum is infinite, a bfloat16 sum stops at 512
    bound = SynOpsBudget().bind(snn.Sequential(nn.Linear(40_000, 1)))
    for dtype in (torch.float16, torch.bfloat16):
        call = LayerCall(torch.full((3, 40_000), 2.0, dtype=dtype), Layout("folded", 1), (3, 1))
        measured = bound.measure(snn.Recorded(torch.zeros(1, 3, 1), {}, {"0": [call]}), None)
        assert (measured.dtype, number(measured)) == (torch.float32, 80_000.0)


def test_a_bound_term_survives_copies_and_pickling_with_its_step() -> None:
    net, x = spiking(), images()
    step = Step(net, snn.CountCrossEntropy(), [SynOpsBudget(target=100.0)])
    want = step(x, labels(), controls(step))
    for other in (copy.deepcopy(step), pickle.loads(pickle.dumps(step))):
        with torch.no_grad():
            for parameter in step.model.parameters():
                parameter.zero_()  # a copy counts its own layers
        out = other(x, labels(), controls(step))
        assert torch.equal(out.measures[0], want.measures[0])
        step = other


WRONG = [
    ({"target": -1.0}, r"synops_budget.target, in operations a sample, is -1.0; it must be a number above 0"),
    ({"target": 0}, "it must be a number above 0"),
    ({"target": float("nan")}, "it must be a number above 0"),
    ({"target": True}, "it must be a number above 0"),
    ({"per_layer": {"4": -3}}, r"synops_budget.target.4, .* is -3"),
    ({"weight": -0.1}, "synops_budget.weight is -0.1; it must be a number of at least 0"),
    ({"penalty": "lin"}, "synops_budget.penalty is 'lin'; it must be one of 'log', 'hinge', 'squared'"),
    ({"per": "second"}, "synops_budget.per is 'second'; it must be one of 'sample', 'step'"),
]


@pytest.mark.parametrize(("values", "message"), WRONG)
def test_numbers_out_of_range_are_refused_when_the_term_is_made(values: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SynOpsBudget(**values)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (SynOpsBudget(per_layer={"5": 1.0}), r"per_layer names a layer '5' that the model does not have.*'1', '4'"),
        (SynOpsBudget(layout={"3": "first"}), r"layout names a layer '3' that the model does not have"),
        (SynOpsBudget(layout="time"), r"layout is 'time'; it must be one of 'first', 'folded', 'static', 'step'"),
    ],
)
def test_names_that_the_model_does_not_have_are_refused_before_training(term: SynOpsBudget, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Step(spiking(), snn.CountCrossEntropy(), [term])


def test_a_model_without_weight_layers_is_refused_before_training() -> None:
    with pytest.raises(ConfigError, match=r"the model has no weight layer .* add one, or leave the term out"):
        Step(snn.Sequential(snn.Constant(3), snn.LIF(beta=0.9)), snn.CountCrossEntropy(), [SynOpsBudget()])


def test_a_weight_layer_that_is_used_without_being_called_is_refused_before_training() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.lif = nn.Linear(72, 3), snn.LIF(beta=0.9)

        def forward(self, x: Tensor) -> Tensor:
            drive = F.linear(x.flatten(1), self.fc.weight, self.fc.bias)
            return self.lif(drive.expand(4, *drive.shape))

    step = Step(Hidden(), snn.CountCrossEntropy(), [SynOpsBudget()])
    with pytest.raises(ConfigError, match="weight layer 'fc' never ran as a module"):
        step.validate(BATCH)
