"""What is counted of a trained network, against a count from its recorded activations by other means."""

import dataclasses
import json
import math
from typing import Any, Dict

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

import snn_core as snn
from snn_core.cli.trained import Trained, load_trained
from snn_core.errors import ConfigError, ShapeError
from snn_metrics.energy import COSTS
from snn_metrics.report import SynOpsReport, count_operations, watch

SAMPLES, STEPS = 70, 6
# counts are means of float32 sums over batches; a sum of n roundings errs by some sqrt(n) 2^-24, far below this
CLOSE: Dict[str, Any] = {"rel": 1e-5, "abs": 1e-9}


@pytest.fixture(scope="module")
def found(runs: Any) -> Trained:
    return load_trained(str(runs.budget), with_terms=False)


@pytest.fixture(scope="module")
def report(found: Trained) -> SynOpsReport:
    return count_operations(found.trainer, found.data)


def inputs_of(model: nn.Module, x: Tensor) -> Dict[str, Tensor]:
    """What every leaf module of a model gets for x, by name."""
    seen: Dict[str, Tensor] = {}
    leaves = {name: m for name, m in model.named_modules() if not list(m.children())}
    handles = [
        m.register_forward_pre_hook(lambda _, args, name=name: seen.__setitem__(name, args[0]))
        for name, m in leaves.items()
    ]
    with torch.no_grad():
        model.eval()(x)
    for handle in handles:
        handle.remove()
    return seen


def counted_by_hand(found: Trained) -> Dict[str, Dict[str, float]]:
    """Per-sample operations of the two weight layers: an application of a weight is an element of a convolution, or
    product, with weights of one.
    """
    model = found.trainer.model
    x = torch.stack([found.data[index][0] for index in range(SAMPLES)])
    seen = inputs_of(model, x)
    conv, full = (dict(model.named_modules())[name] for name in ("features.conv", "head.full"))

    def of_conv(amounts: Tensor, weight: Tensor) -> float:
        # the image stands still: it meets the weights again in each step
        return STEPS * float(F.conv2d(amounts.double(), weight.double(), stride=2, padding=1).sum()) / SAMPLES

    def of_full(amounts: Tensor, weight: Tensor) -> float:
        return float(F.linear(amounts.double(), weight.double()).sum()) / SAMPLES

    rows = {}
    for name, layer, count in (("features.conv", conv, of_conv), ("head.full", full, of_full)):
        a, ones = seen[name].abs(), torch.ones_like(layer.weight)
        rows[name] = {
            "synops": count(a, ones),
            "dense": count(torch.ones_like(a), ones),
            "effective": count(a != 0, ones),
            "sparse": count(a != 0, layer.weight != 0),
            "acs": count(a == 1, ones),
            "macs": count((a != 0) & (a != 1), ones),
        }
    rows["head.full"]["synops"] *= 4  # behind an average pool of 2 x 2, which counts as a sum pool
    return rows


def test_every_count_of_every_layer_equals_a_count_by_hand(report: SynOpsReport, found: Trained) -> None:
    expected = counted_by_hand(found)
    assert [row.layer for row in report.layers] == list(expected)
    for row in report.layers:
        got = {kind: getattr(row, f"{kind}_per_sample") for kind in expected[row.layer]}
        assert got == {kind: pytest.approx(value, **CLOSE) for kind, value in expected[row.layer].items()}
        assert row.synops_per_step == pytest.approx(expected[row.layer]["synops"] / STEPS, **CLOSE)
        assert row.synops_per_sample > 0


def test_weights_that_are_zero_leave_the_sparse_count_alone(found: Trained) -> None:
    pruned = load_trained(str(found.run), with_terms=False)
    with torch.no_grad():
        dict(pruned.trainer.model.named_modules())["features.conv"].weight[:, :, 1:3] = 0.0
    row = count_operations(pruned.trainer, pruned.data).layers[0]
    assert row.sparse_per_sample == pytest.approx(counted_by_hand(pruned)["features.conv"]["sparse"], **CLOSE)
    assert row.sparse_per_sample < 0.7 * row.effective_per_sample


def test_the_total_is_the_sum_over_layers_and_the_shape_is_told(report: SynOpsReport) -> None:
    names = [f.name for f in dataclasses.fields(report.total) if f.name not in ("layer", "kind")]
    for name in names:
        assert getattr(report.total, name) == pytest.approx(sum(getattr(row, name) for row in report.layers), **CLOSE)
    assert (report.samples, report.steps) == (SAMPLES, STEPS)
    kinds = [row.kind for row in report.layers]
    assert kinds == ["Conv2d 1 -> 3, kernel 5x5, stride 2x2", "Linear 108 -> 10"]


def test_firing_rates_equal_the_mean_of_recorded_outputs(report: SynOpsReport, found: Trained) -> None:
    model = found.trainer.model
    sent: Dict[str, Tensor] = {}
    modules = dict(model.named_modules())
    for name in ("features.spikes", "head.spikes"):
        modules[name].register_forward_hook(lambda _, args, out, name=name: sent.__setitem__(name, out))
    x = torch.stack([found.data[index][0] for index in range(SAMPLES)])
    with torch.no_grad():
        model.eval()(x)
    got = {row.layer: (row.kind, row.neurons, row.firing_rate) for row in report.neurons}
    assert got == {
        name: ("LIF", out[0, 0].numel(), pytest.approx(float(out.double().mean()), **CLOSE))
        for name, out in sent.items()
    }
    assert list(got) == ["features.spikes", "head.spikes"]


def test_accuracy_and_loss_are_those_of_an_evaluation(report: SynOpsReport, found: Trained) -> None:
    values = found.trainer.evaluate(found.data)
    assert report.accuracy == values["accuracy"]
    assert report.loss == pytest.approx(values["loss"], rel=1e-6)


def test_energy_is_counts_times_published_costs(report: SynOpsReport, found: Trained) -> None:
    acs, macs = report.total.acs_per_sample, report.total.macs_per_sample
    (only,) = report.energy
    assert (only.cost.ac_pj, only.cost.mac_pj, only.cost.process_nm) == (0.9, 4.6, 45)
    assert only.joules_per_sample == pytest.approx(acs * 0.9e-12 + macs * 4.6e-12)
    with pytest.raises(ConfigError, match="prices spikes of one size"):
        count_operations(found.trainer, found.data, costs=[COSTS["davies-2018-loihi-14nm"]])


def test_the_report_survives_json_with_every_number(report: SynOpsReport) -> None:
    document = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert document["layers"][1]["synops_per_sample"] == report.layers[1].synops_per_sample
    assert document["energy"][0]["cost"]["citation"] == report.energy[0].cost.citation
    lost = dataclasses.replace(report, loss=math.inf)
    assert lost.to_dict()["loss"] is None


def test_counting_leaves_the_trainer_s_terms_and_model_alone(found: Trained) -> None:
    before = {name: value.clone() for name, value in found.trainer.model.state_dict().items()}
    hooks = [len(m._forward_hooks) for m in found.trainer.model.modules()]
    terms = found.trainer.terms
    count_operations(found.trainer, found.data)
    watch(found.trainer, found.data)
    assert found.trainer.terms is terms
    assert [len(m._forward_hooks) for m in found.trainer.model.modules()] == hooks
    assert all(torch.equal(value, before[name]) for name, value in found.trainer.model.state_dict().items())


def trainer_of(model: nn.Module, **settings: Any) -> snn.Trainer:
    return snn.Trainer(model, loss=snn.OutputMSE(), backend="eager", folder=None, batch_size=4, **settings)


def test_data_with_a_time_axis_are_counted_step_by_step() -> None:
    x = (torch.rand(6, 5, 8) < 0.4).float()  # [N, T, features]
    net = snn.Sequential(nn.Linear(8, 3), snn.LIF(beta=0.9))
    data = TensorDataset(x, torch.zeros(6, 3))
    report = count_operations(trainer_of(net, time_axis=1), data)
    assert report.steps == 5
    assert report.layers[0].synops_per_sample == pytest.approx(float(x.sum()) * 3 / 6)
    assert report.layers[0].macs_per_sample == 0
    assert report.accuracy is None


def test_a_network_whose_neurons_never_fire_has_counts_and_no_rates() -> None:
    net = snn.Sequential(snn.Constant(steps=2), nn.Linear(4, 3), snn.LI(beta=0.9))
    report = count_operations(trainer_of(net), TensorDataset(torch.ones(5, 4), torch.zeros(5, 3)))
    assert report.neurons == ()
    assert report.total.synops_per_sample == 2 * 4 * 3


def test_a_model_without_weight_layers_is_refused_before_anything_runs() -> None:
    net = snn.Sequential(snn.Constant(steps=2), snn.LIF(beta=0.9))
    with pytest.raises(ConfigError, match="no weight layer"):
        count_operations(trainer_of(net), TensorDataset(torch.ones(5, 4), torch.zeros(5, 4)))


def test_data_that_do_not_fit_the_model_are_refused_with_the_shapes() -> None:
    net = snn.Sequential(snn.Constant(steps=2), nn.Linear(4, 3), snn.LIF(beta=0.9))
    with pytest.raises(ShapeError, match=r"cannot take a batch of shape \(2, 7\)"):
        count_operations(trainer_of(net), TensorDataset(torch.ones(5, 7), torch.zeros(5, 3)))


def test_watched_rates_and_raster_equal_recorded_outputs(found: Trained) -> None:
    activity = watch(found.trainer, found.data, 40)  # batches of 32: the second is short
    model = found.trainer.model
    x = torch.stack([found.data[index][0] for index in range(40)])
    seen = inputs_of(model, x)["features.pool"].unflatten(0, (STEPS, 40))  # what the neurons before it sent
    assert (activity.samples, activity.steps) == (40, STEPS)
    assert torch.allclose(activity.rates["features.spikes"], seen.mean((0, 1)).flatten())
    assert torch.equal(activity.raster["features.spikes"], seen[:, 0].flatten(1))
