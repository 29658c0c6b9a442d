"""A budget below what the input alone costs is refused before the first step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, TensorDataset

import snn_core as snn
from snn_core.errors import ConfigError
from snn_metrics import Lagrangian, SynOpsBudget


def network() -> snn.Sequential:
    torch.manual_seed(0)
    return snn.Sequential(snn.Constant(5), nn.Linear(8, 32), snn.LIF(beta=0.8), nn.Linear(32, 2), snn.LIF(beta=0.9))


def data() -> TensorDataset:
    x = torch.rand(40, 8, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, torch.arange(40) % 2)


COST = 5 * 32 * data().tensors[0].sum(1).mean().item()


def fit(term: SynOpsBudget, model: Any = None, dataset: Any = None, **settings: Any) -> snn.RunResult:
    settings = {"folder": None, "progress": False, "plots": False, "batch_size": 8, "seed": 0, **settings}
    trainer = snn.Trainer(model or network(), loss=snn.CountCrossEntropy(), terms=[term], **settings)
    return trainer.fit(dataset or data(), epochs=1)


def test_a_budget_below_the_first_layer_s_cost_names_the_cost_and_the_remedy() -> None:
    with pytest.raises(ConfigError) as caught:
        fit(SynOpsBudget(target=0.9 * COST))
    text = str(caught.value)
    assert f"synops_budget.target is {0.9 * COST:.4g} operations a sample, and layer '1' alone costs {COST:.4g}" in text
    assert f"raise it above {COST:.4g}" in text


def test_a_budget_just_above_that_cost_is_trained() -> None:
    assert fit(SynOpsBudget(target=1.001 * COST)).epochs == 1


def test_a_layer_s_own_budget_is_held_against_that_layer() -> None:
    with pytest.raises(ConfigError, match=r"synops_budget.target.1 is .* and layer '1' alone costs"):
        fit(SynOpsBudget(per_layer={"1": COST / 2}))
    assert fit(SynOpsBudget(per_layer={"3": 1.0})).epochs == 1


def test_a_budget_of_one_step_is_held_against_the_cost_of_one_step() -> None:
    assert fit(SynOpsBudget(target=1.001 * COST / 5, per="step")).epochs == 1
    with pytest.raises(ConfigError, match="operations a step"):
        fit(SynOpsBudget(target=0.9 * COST / 5, per="step"))


def test_a_frozen_first_part_costs_what_it_costs() -> None:
    model = network()
    for parameter in model[1].parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ConfigError, match="layers '1', '3' alone costs"):
        fit(SynOpsBudget(target=1.0001 * COST), model)


def test_a_run_that_is_refused_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        fit(SynOpsBudget(target=1.0), folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


class Noisy(Dataset):  # type: ignore[type-arg]
    """Draws from torch's global stream whenever it is read."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> Any:
        return torch.rand(8), index % 2


def test_looking_at_the_data_draws_nothing_from_the_run_s_random_streams() -> None:
    weights = []
    for term in (SynOpsBudget(target=1e9, weight=0.0), SynOpsBudget(weight=0.0)):  # the second is not looked into
        model = network()
        torch.manual_seed(7)
        fit(term, model, Noisy())
        weights.append((model[1].weight.detach().clone(), torch.rand(1)))
    assert torch.equal(weights[0][0], weights[1][0])
    assert torch.equal(weights[0][1], weights[1][1])


def test_data_with_time_is_read_along_its_axis() -> None:
    x = torch.rand(40, 5, 8, generator=torch.Generator().manual_seed(0))
    cost = 32 * x.sum((1, 2)).mean().item()
    dataset = TensorDataset(x, torch.arange(40) % 2)
    model = snn.Sequential(*list(network())[1:])
    assert fit(SynOpsBudget(target=1.001 * cost), model, dataset, time_axis=1).epochs == 1
    with pytest.raises(ConfigError, match="alone costs"):
        fit(SynOpsBudget(target=0.99 * cost), model, dataset, time_axis=1, callbacks=[Lagrangian()])
