"""MembraneBound, WeightSparsity and OperationCounts."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import snn_core as snn
from snn_core.errors import ConfigError
from snn_core.step import Step
from snn_metrics import MembraneBound, OperationCounts, WeightSparsity


def network() -> snn.Sequential:
    torch.manual_seed(0)
    return snn.Sequential(nn.Linear(4, 6), snn.LIF(beta=0.8), nn.Linear(6, 3), snn.LI(beta=0.9))


def sequence() -> Tensor:
    return 4 * torch.rand(7, 3, 4, generator=torch.Generator().manual_seed(1)) - 1


def run(term: snn.Term, model: nn.Module, valid: Any = None) -> snn.StepOutput:
    step = Step(model, snn.OutputMSE(), [term])
    controls = {name: torch.tensor(value) for name, value in step.controls.items()}
    return step(sequence(), torch.zeros(3, 3), controls, valid)


def test_the_membrane_s_distance_from_its_range_is_squared_and_averaged() -> None:
    net = network()
    membranes = []
    x = sequence()
    for index in (0, 2):
        drive = net[index](x)
        steps, state = [], None
        for step in drive:  # by hand, one step after another
            spk, state = net[index + 1].step(step, state)
            membranes.append(state[0].flatten())
            steps.append(spk)
        x = torch.stack(steps)
    every = torch.cat(membranes)
    want = (torch.relu(every - 0.4).square() + torch.relu(-0.1 - every).square()).mean().item()
    out = run(MembraneBound(low=-0.1, high=0.4, weight=2.0), net)
    assert want > 0
    assert out.measures[0].item() == pytest.approx(want, rel=1e-5)
    assert out.penalties[0].item() == pytest.approx(2 * want, rel=1e-5)


def test_weights_are_measured_by_magnitude_and_by_how_many_are_zero() -> None:
    net = network()
    with torch.no_grad():
        net[0].weight[:2] = 0.0
    every = torch.cat([net[0].weight.flatten(), net[2].weight.flatten()])
    magnitude, zeros = run(WeightSparsity(), net).measures
    assert magnitude.item() == pytest.approx(every.abs().mean().item(), rel=1e-6)
    assert zeros.item() == pytest.approx(8 / 42)


def test_the_gradient_of_weight_sparsity_is_that_of_the_lasso() -> None:
    net = network()
    step = Step(net, snn.OutputMSE(), [WeightSparsity(weight=3.0)])
    out = step(sequence(), torch.zeros(3, 3), {"weight_sparsity.weight": torch.tensor(3.0)})
    (slope,) = torch.autograd.grad(out.penalties[0], step.model[2].weight)
    torch.testing.assert_close(slope, 3 * net[2].weight.detach().sign() / 42)


def test_operation_counts_are_parts_by_layer_and_kind_and_cost_nothing() -> None:
    term = OperationCounts(kinds=("synops", "acs", "macs", "effective"))
    net = network()
    step = Step(net, snn.OutputMSE(), [term])
    assert step.measure_names[:3] == (
        "operation_counts.0.synops", "operation_counts.0.acs", "operation_counts.0.macs",
    )  # fmt: skip
    out = run(term, net)
    counts = dict(zip(step.measure_names, (m.item() for m in out.measures)))
    spikes = net[1](net[0](sequence())).sum().item() / 3
    assert counts["operation_counts.2.acs"] == pytest.approx(3 * spikes)
    assert counts["operation_counts.2.macs"] == 0
    assert counts["operation_counts.0.macs"] == counts["operation_counts.0.effective"] == 7 * 4 * 6
    assert out.penalties[0].item() == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MembraneBound(low=1.0, high=1.0), r"membrane_bound.high is 1.0; it must be a number above 1"),
        (lambda: MembraneBound(low=float("nan")), r"membrane_bound.low is nan"),
        (lambda: run(MembraneBound(), nn.Linear(4, 3)), r"no layer of the model has a membrane, a state 'mem'"),
        (lambda: run(WeightSparsity(), snn.LIF(beta=0.9)), r"weight_sparsity: the model has no weight layer"),
        (lambda: OperationCounts(kinds=("flops",)), r"operation_counts.kinds is 'flops'; it must be one of 'synops'"),
    ],
)
def test_wrong_use_is_refused_with_what_is_allowed(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
