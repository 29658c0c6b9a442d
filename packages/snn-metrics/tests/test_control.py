"""Callbacks that steer a budget while a run goes on."""

import copy
import math
from pathlib import Path
from typing import Any, List

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import snn_core as snn
from snn_core import plugins
from snn_core.errors import ConfigError
from snn_metrics import BudgetSchedule, Lagrangian, SynOpsBudget


def data(samples: int = 128) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(samples, 8, generator=generator)
    return TensorDataset(x, (x[:, 0] > x[:, 1]).long())


def network() -> snn.Sequential:
    torch.manual_seed(0)
    return snn.Sequential(snn.Constant(5), nn.Linear(8, 32), snn.LIF(beta=0.8), nn.Linear(32, 2), snn.LIF(beta=0.9))


class Watch:
    """Notes the controls after each logged step, behind the callbacks given before it."""

    def __init__(self, name: str) -> None:
        self.name, self.seen = name, []  # type: ignore[var-annotated]

    @snn.hookimpl
    def snn_step_end(self, run: Any, report: Any, metrics: Any) -> None:
        self.seen.append((run.step, run.controls[self.name], metrics))


def train(callbacks: List[Any], term: SynOpsBudget, epochs: int = 4, **settings: Any) -> snn.RunResult:
    trainer = snn.Trainer(
        settings.pop("model", None) or network(), loss=snn.CountCrossEntropy(), optimizer=snn.Adam(lr=5e-3),
        terms=[term], callbacks=callbacks, batch_size=16, log_every=1, progress=False, plots=False, seed=0,
        **{"folder": None, **settings},
    )  # fmt: skip
    return trainer.fit(data(), epochs=epochs)


def hidden_cost() -> float:
    """What `network()` costs before training, in the layer that training can change."""
    measured = train([], SynOpsBudget(per_layer={"3": 1e9}, weight=0.0), epochs=1).history[0]
    return measured["train_synops_budget.3"]


def input_cost() -> float:
    return 5 * 32 * data().tensors[0].sum(1).mean().item()


def test_a_schedule_lowers_the_budget_along_a_geometric_curve() -> None:
    watch = Watch("synops_budget.target")
    target = input_cost() + 50.0
    train([BudgetSchedule(start=4 * target, over=0.5), watch], SynOpsBudget(target=target))
    steps = 4 * 8
    for step, value, _ in watch.seen:
        assert value == pytest.approx(4 * target * 0.25 ** min(1.0, step / (0.5 * steps)), rel=1e-9)
    assert watch.seen[-1][1] == pytest.approx(target)


def test_a_schedule_holds_from_the_first_step() -> None:
    class AtStart:
        @snn.hookimpl
        def snn_checkpoint(self, run: Any) -> None:
            found.append(run.controls["synops_budget.target"])

    found: List[float] = []
    target = input_cost() + 50.0
    train([BudgetSchedule(start=4 * target), AtStart()], SynOpsBudget(target=target), epochs=1)
    assert found[0] == 4 * target


def test_the_multiplier_is_that_of_dual_ascent() -> None:
    watch = Watch("synops_budget.weight")
    target = input_cost() + 40.0
    train([Lagrangian(rate=0.3, maximum=0.5), watch], SynOpsBudget(target=target, weight=0.1), epochs=2)
    weight = 0.1
    for _, value, metrics in watch.seen:
        weight = min(max(weight + 0.3 * math.log(metrics["synops_budget"] / target), 0.0), 0.5)
        assert value == pytest.approx(weight, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("weight", [0.0, 5.0])
def test_the_controller_reaches_the_target_from_any_weight(weight: float) -> None:
    torch.manual_seed(0)
    deep = snn.Sequential(
        snn.Constant(5), nn.Linear(8, 16), snn.LIF(beta=0.8), nn.Linear(16, 64), snn.LIF(beta=0.8), nn.Linear(64, 2),
        snn.LIF(beta=0.9),
    )  # fmt: skip
    free = train([], SynOpsBudget(weight=0.0), epochs=25, model=copy.deepcopy(deep)).history[-1]["train_synops_budget"]
    cost = input_cost() / 2  # half as many neurons as in `network`
    target = cost + (free - cost) / 2  # of what training can change, half
    term = SynOpsBudget(target=target, weight=weight)
    history = train([Lagrangian(rate=0.3)], term, epochs=40, model=deep).history
    # the multiplier goes on swinging, so the mean over a swing
    found = sum(metrics["train_synops_budget"] for metrics in history[-10:]) / 10
    assert found - cost == pytest.approx(target - cost, rel=0.05)


def test_a_resumed_run_goes_on_with_the_multiplier_and_ends_with_the_same_bits(tmp_path: Path) -> None:
    def term() -> SynOpsBudget:
        return SynOpsBudget(target=input_cost() + 40.0, weight=0.0)

    def callbacks() -> List[Any]:
        return [Lagrangian(rate=0.3), BudgetSchedule(start=2 * input_cost(), over=0.9)]

    whole, cut = network(), network()
    train(callbacks(), term(), epochs=3, model=whole)

    class Stop:
        @snn.hookimpl
        def snn_epoch_end(self, run: Any, metrics: Any) -> None:
            raise RuntimeError("the machine went down")

    with pytest.raises(RuntimeError, match="went down"):
        train([*callbacks(), _after(2, Stop())], term(), epochs=3, model=cut, folder=tmp_path, name="run")
    resumed = network()
    trainer = snn.Trainer(
        resumed, loss=snn.CountCrossEntropy(), optimizer=snn.Adam(lr=5e-3), terms=[term()], callbacks=callbacks(),
        batch_size=16, log_every=1, progress=False, plots=False, seed=0, folder=tmp_path,
    )  # fmt: skip
    trainer.fit(data(), epochs=3, resume=tmp_path / "run")
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name


def _after(epoch: int, plugin: Any) -> Any:
    class Late:
        @snn.hookimpl
        def snn_epoch_end(self, run: Any, metrics: Any) -> None:
            if run.epoch == epoch:
                plugin.snn_epoch_end(run, metrics)

    return Late()


def test_a_weight_of_zero_only_measures() -> None:
    with_term, without = network(), network()
    train([], SynOpsBudget(target=1e9, weight=0.0), model=with_term, epochs=1)
    trainer = snn.Trainer(
        without, loss=snn.CountCrossEntropy(), optimizer=snn.Adam(lr=5e-3), batch_size=16, log_every=1,
        progress=False, plots=False, seed=0, folder=None,
    )  # fmt: skip
    trainer.fit(data(), epochs=1)
    for name, value in without.state_dict().items():
        assert torch.equal(with_term.state_dict()[name], value), name


def test_installing_the_package_changes_nothing_in_a_run_without_its_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    def plain() -> snn.Sequential:
        model = network()
        trainer = snn.Trainer(
            model, loss=snn.CountCrossEntropy(), batch_size=16, progress=False, plots=False, seed=0, folder=None
        )
        trainer.fit(data(), epochs=1)
        return model

    installed = plain()
    monkeypatch.setattr(plugins, "entries", lambda group: [])
    absent = plain()
    assert plugins.installed() == []
    for name, value in absent.state_dict().items():
        assert torch.equal(installed.state_dict()[name], value), name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BudgetSchedule(start=0), r"BudgetSchedule.start is 0; it must be a number above 0"),
        (lambda: BudgetSchedule(start=1e6, over=0), r"BudgetSchedule.over is 0; it must be a part of the run, above 0"),
        (lambda: Lagrangian(rate=-1), r"Lagrangian.rate is -1; it must be a number above 0"),
        (lambda: Lagrangian(maximum=math.inf), r"Lagrangian.maximum is inf"),
        (
            lambda: train([Lagrangian()], SynOpsBudget(target=1e9, name="ops")),
            r"Lagrangian needs the control 'synops_budget.weight'.*its controls are ops.weight, ops.target",
        ),
        (
            lambda: train([BudgetSchedule(start=1e6)], SynOpsBudget()),
            r"BudgetSchedule needs the control 'synops_budget.target'.*add SynOpsBudget\(target=...\)",
        ),
    ],
)
def test_wrong_use_is_refused_before_training(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
