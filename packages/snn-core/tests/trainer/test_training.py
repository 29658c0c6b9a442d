"""Runs from end to end: what they learn, what they leave, what they refuse and when."""

import json
import math
from pathlib import Path
from typing import Any, Dict

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from snn_core import checkpoint
from snn_core.containers import Sequential
from snn_core.eager import EagerBackend
from snn_core.encoders import Constant
from snn_core.errors import ConfigError, DataError, NonFiniteError, Unsupported
from snn_core.hookspecs import hookimpl
from snn_core.losses import CountCrossEntropy
from snn_core.neurons import LI, LIF
from snn_core.optimizers import SGD
from snn_core.schedules import CosineDecay, Warmup
from snn_core.terms import BoundTerm, Term
from snn_core.trainer import Trainer


def flat(model: nn.Module) -> Tensor:
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def test_a_run_learns_and_the_model_ends_with_the_trained_weights(trainer: Any, samples: Any) -> None:
    subject = trainer()
    test = samples(30, seed=1)
    before = subject.evaluate(test)
    result = subject.fit(samples(120), val=test, epochs=6)
    after = subject.evaluate(test)
    assert before["accuracy"] < 0.8 < after["accuracy"]
    assert after == {"loss": result.history[-1]["val_loss"], "accuracy": result.history[-1]["val_accuracy"]}
    assert (result.epochs, result.steps, result.stopped) == (6, 6 * 15, None)


def test_two_runs_of_one_seed_are_equal_and_of_another_are_not(trainer: Any, samples: Any, network: Any) -> None:
    models = [network(dropout=0.3) for _ in range(3)]
    for model, seed in zip(models, (5, 5, 6)):
        torch.manual_seed(len(models))  # the host's own stream must not matter
        torch.rand(seed)
        trainer(model=model, seed=seed, folder=None, deterministic=True).fit(samples(48), epochs=2)
    assert torch.equal(flat(models[0]), flat(models[1]))
    assert not torch.equal(flat(models[0]), flat(models[2]))


def test_training_leaves_the_hosts_random_stream_alone(trainer: Any, samples: Any, network: Any) -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    trainer(model=network(dropout=0.3), folder=None).fit(samples(48), samples(9), epochs=1)
    assert torch.equal(torch.rand(3), expected)


def test_validation_does_not_change_the_training(trainer: Any, samples: Any, network: Any) -> None:
    models = [network(dropout=0.3), network(dropout=0.3)]
    for model, val in zip(models, (None, samples(20, seed=1))):
        trainer(model=model, folder=None).fit(samples(48), val, epochs=2)
    assert torch.equal(flat(models[0]), flat(models[1]))


def test_the_users_model_changes_at_epoch_ends_alone(trainer: Any, samples: Any, network: Any) -> None:
    model = network()
    first = flat(model)
    seen: Dict[str, list] = {"step": [], "epoch": []}

    class Look:
        @hookimpl
        def snn_step_end(self, run: Any) -> None:
            seen["step"].append(flat(run.model))

        @hookimpl
        def snn_epoch_end(self, run: Any) -> None:
            seen["epoch"].append(flat(run.model))

    trainer(model=model, log_every=1, callbacks=[Look()]).fit(samples(24), epochs=2)
    assert all(torch.equal(weights, first) for weights in seen["step"][:3])
    assert not torch.equal(seen["epoch"][0], first)
    assert all(torch.equal(weights, seen["epoch"][0]) for weights in seen["step"][3:])
    assert torch.equal(flat(model), seen["epoch"][1])


def test_the_schedule_sets_the_rate_of_each_step(trainer: Any, samples: Any) -> None:
    result = trainer(schedule=Warmup(4, then=CosineDecay(1e-4)), log_every=1).fit(samples(40), epochs=2)
    lines = [json.loads(line) for line in (result.folder / "metrics.jsonl").read_text().splitlines()]
    rates = [line["lr"] for line in lines if line["kind"] == "step"]
    warm = [0.01 * (0.01 + 0.99 * step / 4) for step in range(4)]
    cold = [1e-4 + (0.01 - 1e-4) * (1 + math.cos(math.pi * step / 6)) / 2 for step in range(6)]
    assert rates == pytest.approx(warm + cold)


class MeanInput(Term):
    """The mean of the output, with a linear penalty: enough to see a term's way through the trainer."""

    name = "activity"

    @property
    def controls(self) -> Dict[str, float]:
        return {"weight": 0.1}

    def bind(self, model: nn.Module) -> BoundTerm:
        return _BoundMean()


class _BoundMean(BoundTerm):
    def measure(self, recorded: Any, valid: Any) -> Tensor:
        each = recorded.output.float().sum((0, 2))
        return each.mean() if valid is None else (each * valid).sum() / valid.sum()

    def penalty(self, measure: Tensor, controls: Any) -> Tensor:
        return controls["weight"] * measure


def test_terms_are_reported_by_name_over_every_sample(trainer: Any, samples: Any) -> None:
    subject = trainer(terms=[MeanInput()])
    data = samples(29)
    result = subject.fit(samples(40), data, epochs=1)
    expected = float(subject.predict(data).sum((0, 2)).mean())
    assert subject.evaluate(data)["activity"] == pytest.approx(expected, rel=1e-6)
    assert {"train_activity", "val_activity"} <= set(result.history[0])


def test_a_term_cannot_take_the_name_of_a_metric(trainer: Any) -> None:
    class Misnamed(MeanInput):
        name = "accuracy"

    with pytest.raises(ConfigError, match="a term is named 'accuracy'"):
        trainer(terms=[Misnamed()])


def test_the_last_short_batch_is_trained_on_only_without_drop_last(trainer: Any, samples: Any) -> None:
    assert trainer().fit(samples(20), epochs=1).steps == 2
    assert trainer(drop_last=False).fit(samples(20), epochs=1).steps == 3


def test_auto_takes_a_ready_backend_and_says_why(trainer: Any, samples: Any, capsys: Any) -> None:
    result = trainer(backend="auto", progress=True).fit(samples(16), epochs=1)
    assert result.backend in capsys.readouterr().out.splitlines()[0]
    assert result.reason in json.loads((result.folder / "settings.json").read_text())["reason"]


class Diverging(nn.Module):
    """A readout whose output overflows once its weight has grown."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = Sequential(Constant(steps=2), nn.Linear(6, 3), LI(beta=0.9))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def growth(output: Tensor, target: Tensor) -> Tensor:
    return -(output.sum(0) ** 2).sum(-1)  # gradient descent doubles the weights at each step, and more


def test_a_loss_of_nan_stops_the_run_and_spoils_nothing(trainer: Any, samples: Any) -> None:
    model = Diverging()
    subject = trainer(model=model, loss=growth, optimizer=SGD(lr=0.5), log_every=3, checkpoint_every=1)
    with pytest.raises(NonFiniteError) as caught:
        subject.fit(samples(400), epochs=2)
    text = str(caught.value)
    assert "(epoch 1)" in text
    assert "at step" in text
    assert "the last finite loss: -" in text
    assert "lower the learning rate or set clip_norm" in text
    folder = next(Path(subject.settings.folder).iterdir())
    state, _ = checkpoint.load(folder / "checkpoints" / "last.safetensors")
    assert all(bool(torch.isfinite(value).all()) for value in state["program"]["model"].values())
    assert bool(torch.isfinite(flat(model)).all())


def test_finite_losses_do_not_hide_weights_of_nan(trainer: Any, samples: Any) -> None:
    class Spoil:
        @hookimpl
        def snn_step_end(self, run: Any) -> None:
            state = run.program.state_dict()
            state["model"] = {name: value.clone() for name, value in state["model"].items()}
            state["model"]["1.weight"][0, 0] = math.nan
            run.program.load_state_dict(state)

    for settings in ({}, {"checkpoint_every": 1}):
        subject = trainer(log_every=3, callbacks=[Spoil()], **settings)
        before = flat(subject.model)
        with pytest.raises(NonFiniteError, match=r"weight '1.weight' is not finite after step 3 \(epoch 1\)"):
            subject.fit(samples(48 if settings else 24), epochs=1)
        assert torch.equal(flat(subject.model), before)
        for folder in Path(subject.settings.folder).iterdir():
            state, _ = checkpoint.load(folder / "checkpoints" / "last.safetensors")
            assert bool(torch.isfinite(state["program"]["model"]["1.weight"]).all())


def test_an_infinite_buffer_is_no_error(trainer: Any, samples: Any, network: Any) -> None:
    model = network()
    model.register_buffer("mask", torch.tensor([0.0, -math.inf]))
    trainer(model=model).fit(samples(16), epochs=1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batchsize": 8}, r"Trainer has no option 'batchsize' \(did you mean 'batch_size'\?\)"),
        ({"batch_size": 0}, "batch_size is 0; it must be 1 or more"),
        ({"batch_size": "8"}, "batch_size is '8'; it must be .*integer"),
        ({"seed": -1}, "seed is -1"),
        ({"precision": "fp8"}, "precision is 'fp8'"),
        ({"clip_norm": 0.0}, "clip_norm is 0.0"),
        ({"chunk": 3}, "set time_axis=1"),
        ({"time_axis": 2}, "time_axis is 2"),
        ({"name": "a/b"}, "name is 'a/b'; it must be one folder's name"),
        ({"optimizer": torch.optim.Adam}, r"optimizer is .*; it must be such as snn.Adam"),
        ({"schedule": 0.1}, "schedule is 0.1"),
        ({"backend": EagerBackend}, "backend is .*; it must be such as 'auto', a name or a Backend object"),
        ({"loss": 3}, "the loss is 3"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(trainer: Any, settings: Dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        trainer(**settings)


@pytest.mark.parametrize("epochs", [0, -1, 1.5, True])
def test_epochs_must_be_a_positive_integer(trainer: Any, samples: Any, epochs: Any) -> None:
    with pytest.raises(ConfigError, match="epochs is"):
        trainer().fit(samples(16), epochs=epochs)


def test_a_dataset_smaller_than_a_batch_is_refused_with_the_remedy(trainer: Any, samples: Any) -> None:
    with pytest.raises(DataError, match=r"7 samples, fewer than the 16 of one batch .*drop_last=False"):
        trainer(accumulation=2).fit(samples(7), epochs=1)


def test_an_empty_dataset_is_refused(trainer: Any) -> None:
    with pytest.raises(DataError, match="is empty"):
        trainer().fit(TensorDataset(torch.zeros(0, 6), torch.zeros(0, dtype=torch.int64)), epochs=1)


def test_validation_data_of_another_shape_is_refused_before_the_first_step(trainer: Any, samples: Any) -> None:
    wrong = TensorDataset(torch.zeros(8, 5), torch.zeros(8, dtype=torch.int64))
    with pytest.raises(DataError, match=r"float32\[5\] in the validation data and float32\[6\] in the training data"):
        trainer(log_every=1, callbacks=[NoStep()]).fit(samples(16), wrong, epochs=1)


class NoStep:
    @hookimpl
    def snn_step_end(self) -> None:
        raise RuntimeError("a step was taken")


def test_what_the_backend_lacks_is_refused_before_a_run_folder_is_left(trainer: Any, samples: Any) -> None:
    subject = trainer(precision="fp16")
    with pytest.raises(Unsupported, match="precision 'fp16'"):
        subject.fit(samples(16), epochs=1)
    assert list(Path(subject.settings.folder).iterdir()) == []


def test_labels_out_of_range_are_refused(trainer: Any, samples: Any) -> None:
    data = samples(16)
    data.tensors[1][9] = 3
    with pytest.raises(DataError, match="3"):
        trainer().fit(data, epochs=1)


def test_fit_goes_on_from_the_models_own_weights(trainer: Any, samples: Any) -> None:
    subject = trainer()
    first = subject.fit(samples(48), epochs=3)
    second = subject.fit(samples(48), epochs=1)
    assert second.history[0]["train_loss"] < first.history[0]["train_loss"]
    assert second.folder != first.folder


def test_a_learnable_decay_is_trained_and_synced(trainer: Any, samples: Any) -> None:
    torch.manual_seed(0)
    model = Sequential(
        Constant(steps=4), nn.Linear(6, 8), LIF(beta=0.8, learn_beta=True), nn.Linear(8, 3), LI(beta=0.9)
    )
    Trainer(model, loss=CountCrossEntropy(), backend="eager", batch_size=8, folder=None, progress=False).fit(
        samples(32), epochs=1
    )
    assert model[2].beta.item() != pytest.approx(0.8, abs=1e-6)
