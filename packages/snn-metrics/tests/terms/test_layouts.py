"""How time lies in a layer's input: known in snn.Sequential, declared elsewhere, never guessed."""

from typing import Any, Dict

import pytest
import torch
from torch import Tensor, nn

import snn_core as snn
from snn_core.errors import ConfigError
from snn_core.neurons import OneToOne, Recurrent
from snn_core.step import Step
from snn_metrics import OperationCounts, SynOpsBudget

STEPS, SAMPLES = 5, 3


def counts(model: nn.Module, x: Tensor, **arguments: Any) -> Dict[str, float]:
    """Operations of a sample by layer and kind."""
    step = Step(model, snn.OutputMSE(), [OperationCounts(**arguments)])
    out = step(x, torch.zeros(SAMPLES, model(x).shape[-1]), {})
    names = [name[len("operation_counts.") :] for name in step.measure_names]
    return dict(zip(names, (value.item() for value in out.measures)))


class Own(nn.Module):
    """Two layers called by a forward of the user's own; `way` says how time lies in what the second gets."""

    def __init__(self, way: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.way, self.lif, self.fc = way, snn.LIF(beta=0.5), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:  # [T, B, 4]
        spk = self.lif(3 * x)
        if self.way == "first":
            return self.fc(spk)
        if self.way == "folded":
            return self.fc(spk.flatten(0, 1)).unflatten(0, spk.shape[:2])
        if self.way == "static":
            return self.fc(x[0]).expand(len(x), -1, -1)
        return torch.stack([self.fc(step) for step in spk])


def sequence() -> Tensor:
    return torch.rand(STEPS, SAMPLES, 4, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("way", ["first", "folded", "step", "static"])
def test_a_declared_layout_counts_every_sample_over_all_its_steps(way: str) -> None:
    x, model = sequence(), Own(way)
    sent = STEPS * x[0] if way == "static" else model.lif(3 * x).sum(0)
    each = 4 * sent.sum(-1)
    assert counts(model, x, layout=way)["fc.synops"] == pytest.approx(each.mean().item(), rel=1e-6)
    step = Step(model, snn.OutputMSE(), [SynOpsBudget(layout=way)])
    for sample in range(SAMPLES):  # each sample's own, not a share of the sum
        valid = torch.zeros(SAMPLES)
        valid[sample] = 1
        out = step(x, torch.zeros(SAMPLES, 4), {"synops_budget.weight": torch.tensor(1.0)}, valid)
        assert out.measures[0].item() == pytest.approx(each[sample].item(), rel=1e-6)


def test_an_undeclared_layout_is_refused_with_the_layer_and_the_ways_to_declare_it() -> None:
    with pytest.raises(ConfigError, match=r"layer 'fc' is called by a module's own forward.*layout='first'.*'folded'"):
        counts(Own("folded"), sequence())


def test_a_layout_can_be_declared_for_one_layer() -> None:
    assert counts(Own("folded"), sequence(), layout={"fc": "folded"})["fc.synops"] > 0


def test_a_layout_that_does_not_fit_the_batch_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"layer 'fc' has inputs of 15 samples in a batch of 3: its layout, 'step'"):
        counts(Own("folded"), sequence(), layout="step")


def test_a_module_of_the_user_s_inside_sequential_counts_where_time_is_first() -> None:
    x, model = sequence(), Own("first")
    inside = snn.Sequential(model, snn.LIF(beta=0.9))
    want = 4 * model.lif(3 * x).sum(0).sum(-1).mean().item()
    assert counts(inside, x)["0.fc.synops"] == pytest.approx(want, rel=1e-6)


def test_a_module_inside_sequential_that_folds_time_itself_must_say_so() -> None:
    inside = snn.Sequential(Own("folded"), snn.LIF(beta=0.9))
    with pytest.raises(ConfigError, match=r"layer '0.fc' is called by a module's own forward"):
        counts(inside, sequence())
    assert counts(inside, sequence(), layout={"0.fc": "folded"})["0.fc.synops"] > 0


def recurrent(connection: nn.Module) -> Recurrent:
    return Recurrent(snn.LIF(beta=0.7, threshold=0.4), connection)


def test_a_recurrent_connection_costs_its_fan_out_for_each_spike_that_it_feeds_back() -> None:
    torch.manual_seed(2)
    x, model = sequence(), snn.Sequential(recurrent(nn.Linear(4, 4)))
    fed_back = model(x)[:-1]  # the last step's spikes reach no further step
    found = counts(model, x)
    assert fed_back.sum() > 0
    assert found["0.connection.synops"] == pytest.approx(4 * fed_back.sum().item() / SAMPLES, rel=1e-6)
    assert found["0.connection.dense"] == STEPS * 4 * 4


def test_a_one_to_one_connection_costs_one_operation_a_spike() -> None:
    x, model = sequence(), snn.Sequential(recurrent(OneToOne(4, weight=0.3)), nn.Linear(4, 4))
    fed_back = model[0](x)[:-1]
    found = counts(model, x)
    for kind in ("synops", "effective", "sparse", "acs"):
        assert found[f"0.connection.{kind}"] == pytest.approx(fed_back.sum().item() / SAMPLES, rel=1e-6)
    assert found["0.connection.dense"] == (STEPS - 1) * 4
    assert found["0.connection.macs"] == 0


def test_a_one_to_one_weight_of_zero_costs_no_sparse_operation() -> None:
    model = snn.Sequential(recurrent(OneToOne(4, weight=0.3)), nn.Linear(4, 4))
    with torch.no_grad():
        model[0].connection.weight[1] = 0.0
    fed_back = model[0](sequence())[:-1]
    want = (fed_back.sum() - fed_back[..., 1].sum()).item() / SAMPLES
    assert counts(model, sequence())["0.connection.sparse"] == pytest.approx(want, rel=1e-6)


def test_the_layers_of_a_spiking_lstm_are_counted_at_each_step() -> None:
    torch.manual_seed(0)
    x, model = sequence(), snn.Sequential(snn.SLSTM(4, 4))
    found = counts(model, x)
    assert found["0.input_weights.synops"] == pytest.approx(16 * x.sum().item() / SAMPLES, rel=1e-6)
    assert found["0.recurrent_weights.dense"] == STEPS * 4 * 16
