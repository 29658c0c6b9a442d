"""A configuration's sections: what they mean, what they refuse, and that a file gives the same back."""

import dataclasses
from typing import Any, Dict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snn_core import losses, optimizers, schedules
from snn_core.config import Config, Data, Device, Source, Train, dumps
from snn_core.config.names import LOSSES, OPTIMIZERS, SCHEDULES
from snn_core.config.toml import loads
from snn_core.errors import ConfigError
from snn_core.trainer import Settings

VALUE = st.recursive(
    st.one_of(st.integers(), st.floats(allow_nan=False), st.booleans(), st.text()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=5,
)
ARGS = st.dictionaries(st.text(max_size=5), VALUE, max_size=3)
RATE = st.floats(0, 1)


def section(**values: Any) -> Any:
    """A table in which any of the values may be missing."""
    return st.fixed_dictionaries({}, optional=values)


def named(name: str, required: Any = None, **values: Any) -> Any:
    return st.fixed_dictionaries({"name": st.just(name), **(required or {})}, optional=values)


DECAY = st.one_of(
    named("CosineDecay", minimum=RATE),
    named("OneCycle", rise=RATE, start_divisor=st.floats(1, 100)),
    named("StepDecay", {"every": st.integers(1, 9)}, factor=RATE),
)
RAW = section(
    model=st.one_of(
        named("seed", args=section(steps=st.integers(1, 50), beta=RATE)),
        st.fixed_dictionaries({"factory": st.just("mine:net")}, optional={"args": ARGS}),
    ),
    data=st.one_of(
        named("mnist", root=st.text(), download=st.booleans(), limit=st.integers(1, 9), time_axis=st.just(1)),
        st.fixed_dictionaries({"factory": st.just("mine:data")}, optional={"args": ARGS}),
    ),
    loss=st.one_of(
        named("TET", lam=RATE, level=st.floats(-2, 2)),
        named("CountCrossEntropy", class_weights=st.lists(st.floats(0.5, 2), min_size=1, max_size=3)),
        st.fixed_dictionaries({"factory": st.just("mine:loss")}, optional={"args": ARGS}),
    ),
    optimizer=st.one_of(
        named("SGD", lr=RATE, momentum=st.floats(0, 0.9)), named("AdamW", betas=st.tuples(*2 * [st.floats(0, 0.9)]))
    ),
    schedule=st.one_of(DECAY, named("Warmup", {"steps": st.integers(1, 9)}, then=DECAY)),
    train=section(
        epochs=st.integers(1, 99), seed=st.integers(0, 2**63 - 1), clip_norm=st.floats(0.1, 9), folder=st.text()
    ),
    backend=st.one_of(named("auto"), named("eager", device=st.text())),
    terms=st.dictionaries(st.text(max_size=5), ARGS, max_size=2),
    callbacks=section(EarlyStopping=section(monitor=st.text(), patience=st.integers(1, 9)), TensorBoard=st.just({})),
)


@settings(deadline=None, max_examples=60)
@given(RAW)
def test_a_configuration_written_to_a_file_comes_back_equal(raw: Dict[str, Any]) -> None:
    config = Config.from_mapping(raw)
    assert Config.from_mapping(loads(dumps(config))) == config


def test_no_settings_at_all_mean_the_seed_network_on_the_bundled_digits() -> None:
    assert Config.from_mapping({}) == Config(
        model=Source(name="seed", args={"steps": 25, "hidden": 1000, "beta": 0.9}),
        data=Data(name="digits"),
        loss=losses.CountCrossEntropy(),
        optimizer=optimizers.Adam(lr=1e-3),
        schedule=None,
        train=Train(epochs=10),
        backend=Device("auto"),
        terms={},
        callbacks={},
    )
    assert Config.from_mapping({}).settings() == Settings(batch_size=128, seed=0)


def test_what_is_written_holds_every_default_so_that_a_later_version_reads_the_same() -> None:
    sections = Config.from_mapping({"callbacks": {"EarlyStopping": True}}).to_mapping()
    for name, made in (("optimizer", optimizers.Adam()), ("train", Settings())):
        expected = {field for field, value in dataclasses.asdict(made).items() if value is not None}
        assert expected <= set(sections[name])
    assert sections["model"]["args"] == {"steps": 25, "hidden": 1000, "beta": 0.9}
    assert sections["callbacks"]["EarlyStopping"] == {"monitor": "val_loss", "patience": 5, "min_delta": 0.0}


@pytest.mark.parametrize(
    ("raw", "part", "expected"),
    [
        ({"optimizer": "sgd"}, "optimizer", optimizers.SGD()),
        ({"optimizer": {"name": "RMSPROP", "lr": 1}}, "optimizer", optimizers.RMSprop(lr=1.0)),
        ({"optimizer": {"betas": [0.5, 0.6]}}, "optimizer", optimizers.Adam(betas=(0.5, 0.6))),
        ({"loss": "rate_mse"}, "loss", losses.RateMSE()),
        ({"schedule": False}, "schedule", None),
        ({"schedule": {"name": "warmup", "steps": 3, "then": "cosine_decay"}}, "schedule",
         schedules.Warmup(3, then=schedules.CosineDecay())),
        ({"backend": "cuda"}, "backend", Device("cuda")),
        ({"backend": {"name": "cpu", "threads": 2}}, "backend", Device("cpu", {"threads": 2})),
        ({"model": {"args": {"hidden": 3}}}, "model", Source("seed", args={"steps": 25, "hidden": 3, "beta": 0.9})),
        ({"terms": {"ops": True, "rate": {"weight": 2}, "off": False}}, "terms", {"ops": {}, "rate": {"weight": 2}}),
        ({"callbacks": {"TensorBoard": True, "tensorboard": False}}, "callbacks", {}),
    ],
)  # fmt: skip
def test_a_section_is_a_name_or_a_table_and_a_switch_is_on_or_off(raw: Any, part: str, expected: Any) -> None:
    assert getattr(Config.from_mapping(raw), part) == expected


def test_another_spelling_of_a_callback_changes_the_first_instead_of_replacing_it() -> None:
    raw = {"EarlyStopping": {"monitor": "val_accuracy", "patience": 3}, "early_stopping": {"patience": 7}}
    made = Config.from_mapping({"callbacks": raw}).callbacks["EarlyStopping"]
    assert (made["monitor"], made["patience"]) == ("val_accuracy", 7)


def test_the_time_axes_are_the_data_s_and_reach_the_trainer_s_settings() -> None:
    config = Config.from_mapping({"data": {"time_axis": 1, "target_time_axis": 1}, "train": {"chunk": 5}})
    assert config.settings() == Settings(time_axis=1, target_time_axis=1, chunk=5)


def test_the_names_are_those_of_the_modules_without_what_needs_more_than_plain_values() -> None:
    assert set(OPTIMIZERS) == set(optimizers.__all__) - {"Optimizer"}
    assert set(SCHEDULES) == set(schedules.__all__) - {"Schedule"}
    helpers = {"CallableLoss", "LabelLoss", "Loss", "Traces", "WeightedSum", "as_loss"}
    assert set(LOSSES) == set(losses.__all__) - helpers
    for name in (*LOSSES, *OPTIMIZERS):
        kind = "loss" if name in LOSSES else "optimizer"
        assert type(getattr(Config.from_mapping({kind: name}), kind)).__name__ == name


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"optimiser": {}}, "there is no section [optimiser] (did you mean 'optimizer'?); sections are model, data,"),
        ({"epochs": 3}, "there is no section [epochs]; it is a setting of [train]: train.epochs; sections are"),
        ({"train": {"epoch": 3}}, "there is no setting train.epoch (did you mean 'epochs'?); [train] has accumulatio"),
        ({"train": {"lr": 3}}, "there is no setting train.lr; it is a setting of [optimizer]: optimizer.lr"),
        ({"train": {"time_axis": 1}}, "there is no setting train.time_axis; it is a setting of [data]: data.time_axis"),
        ({"data": {"time_axis": 2}}, "data.time_axis is 2; it must be None (no time) or 1"),
        ({"train": {"epochs": "3"}}, "train.epochs is '3'; it must be a valid integer"),
        ({"train": {"epochs": True}}, "train.epochs is True; it must be a valid integer"),
        ({"train": {"epochs": 0}}, "train.epochs is 0; it must be 1 or more"),
        ({"train": {"batch_size": 0}}, "train.batch_size is 0; it must be 1 or more"),
        ({"train": {"clip_norm": -1}}, "train.clip_norm is -1.0; it must be positive"),
        ({"train": {"recompute_every": -3}}, "train.recompute_every is -3; it must be positive"),
        ({"train": {"precision": "fp8"}}, "train.precision is 'fp8'; it must be 'fp32', 'bf16' or 'fp16'"),
        ({"train": {"chunk": 5}}, "train.chunk is 5, but x has no time"),
        ({"train": 3}, "train is 3; it must be a table [train]"),
        ({"optimizer": {"lr": -1}}, "optimizer.lr is -1.0; it must be a finite number >= 0"),
        ({"optimizer": {"beta": 1}}, "there is no setting optimizer.beta (did you mean 'betas'?); Adam has betas, ep"),
        ({"optimizer": {"betas": [0.9, "x"]}}, "optimizer.betas is [0.9, 'x']; at [1] it must be a valid number"),
        ({"optimizer": "adamm"}, "optimizer.name is 'adamm' (did you mean 'Adam'?); it must be one of SGD, Adam, Ada"),
        ({"optimizer": {"name": 3}}, "optimizer.name is 3; it must be one of SGD"),
        ({"optimizer": 3}, "optimizer is 3; it must be a name, or a table [optimizer]"),
        ({"loss": "Loss"}, "loss.name is 'Loss'; it must be one of "),
        ({"loss": {"population": 0}}, "loss.population is 0; it must be a whole number of 1 or more"),
        ({"loss": {"name": "TET", "factory": "a:b"}}, "it has both name 'TET' and factory 'a:b'; give a name, or a f"),
        ({"loss": {"factory": "a:b", "lam": 1}}, "there is no setting loss.lam; [loss] with a factory has args, fact"),
        ({"schedule": {"minimum": 0}}, "schedule.name is missing; it must be one of CosineDecay"),
        ({"schedule": "StepDecay"}, "StepDecay needs a value for schedule.every; got none"),
        ({"schedule": {"name": "StepDecay", "every": 0}}, "schedule.every is 0; it must be a whole number of 1 or mo"),
        ({"schedule": {"name": "Warmup", "steps": 1, "then": 3}}, "schedule.then is 3; it must be a name, or a table"),
        ({"schedule": {"name": "Warmup", "steps": 1, "then": {"name": "OneCycle", "rise": 2}}},
         "schedule.then.rise is 2.0; it must be a number in [0, 1]"),
        ({"model": "sed"}, "model.name is 'sed' (did you mean 'seed'?); it must be one of seed"),
        ({"model": {"args": {"hiden": 1}}},
         "there is no setting model.args.hiden (did you mean 'hidden'?); network 'seed' has beta, hidden, steps"),
        ({"model": {"args": {"hidden": "x"}}}, "model.args.hidden is 'x'; it must be a valid integer"),
        ({"data": "digit"}, "data.name is 'digit' (did you mean 'digits'?); it must be one of digits, mnist,"),
        ({"data": {"limit": 0}}, "data.limit is 0; it must be a number of samples, 1 or more"),
        ({"data": {"args": {"a": 1}}}, "data.args is {'a': 1}, but goes with a factory; 'digits' has none"),
        ({"data": {"factory": "a:b", "root": "x"}}, "data.root is 'x', but goes with a dataset's name; use args inst"),
        ({"backend": {"device": "cpu"}}, "backend.device cannot be set while backend.name is 'auto'"),
        ({"backend": {"name": 1}}, "backend.name is 1; it must be a text"),
        ({"terms": {"ops": 1}}, "terms.ops is 1; it must be a table of arguments, true or false"),
        ({"callbacks": {"early_stopping": {"patienc": 1}}},
         "there is no setting callbacks.EarlyStopping.patienc (did you mean 'patience'?); EarlyStopping has min_delta"),
        ({"callbacks": {"early_stopping": {"patience": "x"}}}, "callbacks.EarlyStopping.patience is 'x'; it must be"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_by_its_key_with_what_is_allowed(raw: Dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_mapping(raw)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
