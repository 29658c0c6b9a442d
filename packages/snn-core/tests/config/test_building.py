"""What a configuration builds: core's own things, the user's by factory, and terms that plugins offer."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator

import pytest
import torch

from snn_core import losses
from snn_core.config import Config, build, dataset, trainer
from snn_core.eager import EagerBackend, EagerOptions
from snn_core.errors import BackendNotFound, ConfigError, DataError
from snn_core.trainer import EarlyStopping

if TYPE_CHECKING:
    from conftest import Packages

MINE = """
import torch
from torch import nn
import snn_core as snn

value = 3

class Net(nn.Module):
    def __init__(self, hidden: int, bias: bool = True):
        super().__init__()
        self.fc = nn.Linear(6, hidden, bias)

def data(split, count: int = 8):
    if split == "other":
        return None
    return torch.utils.data.TensorDataset(torch.randn(count, 6), torch.zeros(count, dtype=torch.int64))

def loader(split):
    return torch.utils.data.DataLoader(data(split))

def without_split():
    return [1]

def own_loss(scale: float):
    return lambda output, target: scale * output.sum(0).mean(-1)

def typed(split, weights: "dict[str, int] | torch.Tensor" = 0):
    return weights

def fails():
    return 1 / 0
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with modules of the user's, where the command is run."""
    (tmp_path / "mine_zq.py").write_text(MINE, encoding="utf-8")
    (tmp_path / "broken_zq.py").write_text("import nothing_zq", encoding="utf-8")
    (tmp_path / "exits_zq.py").write_text("import sys; sys.exit(3)", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in ("mine_zq", "broken_zq", "exits_zq"):
        sys.modules.pop(name, None)


def make(**sections: Any) -> Config:
    return Config.from_mapping(sections)


def test_the_default_is_the_seed_network_trained_and_tested_on_the_digits() -> None:
    recipe = build(make())
    assert (len(recipe.train), len(recipe.test), recipe.epochs) == (6000, 1000, 10)
    assert (recipe.train.split, recipe.test.split) == ("train", "test")
    shapes = [tuple(p.shape) for p in recipe.trainer.model.parameters()]
    assert shapes == [(1000, 784), (1000,), (10, 1000), (10,)]
    assert recipe.trainer.model(recipe.test[0][0][None]).shape == (25, 1, 10)


def test_a_configuration_alone_fixes_the_first_weights_and_what_a_data_factory_draws(mine: Path) -> None:
    config = make(data={"factory": "mine_zq:data"}, model={"args": {"hidden": 5}}, train={"seed": 3})
    one, two = build(config), build(config)
    other_net = build(make(data={"factory": "mine_zq:data"}, train={"seed": 3}))
    other_seed = build(make(data={"factory": "mine_zq:data"}, model={"args": {"hidden": 5}}, train={"seed": 4}))

    def weights(recipe: Any) -> torch.Tensor:
        return next(iter(recipe.trainer.model.parameters()))

    assert torch.equal(weights(one), weights(two))
    assert torch.equal(weights(one), weights(build(make(model={"args": {"hidden": 5}}, train={"seed": 3}))))
    assert torch.equal(one.train[0][0], two.train[0][0])
    assert torch.equal(one.train[0][0], other_net.train[0][0])
    assert not torch.equal(weights(one), weights(other_seed))
    assert not torch.equal(one.train[0][0], other_seed.train[0][0])


def test_a_limit_takes_the_first_samples_of_each_split() -> None:
    whole, limited = dataset(make(), "test"), dataset(make(data={"limit": 3}), "test")
    assert len(limited) == 3
    assert all(torch.equal(limited[i][0], whole[i][0]) for i in range(3))
    assert len(dataset(make(data={"limit": 5000}), "test")) == 1000


def test_the_user_s_model_data_and_loss_come_from_the_current_folder(mine: Path) -> None:
    config = make(
        model={"factory": "mine_zq:Net", "args": {"hidden": 4, "bias": False}},
        data={"factory": "mine_zq:data", "args": {"count": 5}},
        loss={"factory": "mine_zq:own_loss", "args": {"scale": 2}},
    )
    recipe = build(config)
    assert [tuple(p.shape) for p in recipe.trainer.model.parameters()] == [(4, 6)]
    assert (len(recipe.train), len(recipe.test)) == (5, 5)
    assert recipe.trainer.loss(torch.ones(3, 5, 2), torch.zeros(5)).item() == 6.0
    assert dataset(config, "other") is None


def test_the_trainer_gets_every_section() -> None:
    mark = EarlyStopping("val_accuracy")
    config = make(
        loss="RateMSE",
        optimizer={"name": "sgd", "lr": 0.5},
        schedule="CosineDecay",
        train={"batch_size": 7},
        data={"time_axis": 1},
        backend={"name": "eager", "num_workers": 1},
        callbacks={"early_stopping": {"patience": 2}},
    )
    made = trainer(config, [mark])
    assert (made.loss, made.optimizer, made.schedule) == (losses.RateMSE(), config.optimizer, config.schedule)
    assert (made.settings, made.settings.batch_size, made.settings.time_axis) == (config.settings(), 7, 1)
    assert made.callbacks[0] is mark
    assert vars(made.callbacks[1]) == vars(EarlyStopping(patience=2))
    (backend,) = [value for value in vars(made).values() if isinstance(value, EagerBackend)]
    assert backend.options == EagerOptions(num_workers=1)
    assert backend.reason == "asked for by name with num_workers=1"


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"model": {"factory": "make_net"}}, "model.factory is 'make_net'; it must be 'module:callable', such as"),
        ({"model": {"factory": "gone_zq.sub:net"}}, "there is no module 'gone_zq.sub' in {here} or among the install"),
        ({"model": {"factory": "broken_zq:net"}},
         "model.factory 'broken_zq:net': module 'broken_zq' cannot be imported: ModuleNotFoundError: No module named"),
        ({"model": {"factory": "exits_zq:net"}}, "module 'exits_zq' cannot be imported: it called sys.exit(3)"),
        ({"model": {"factory": "mine_zq:Ne"}}, "mine_zq.py has no 'Ne' (did you mean 'Net'?)"),
        ({"model": {"factory": "mine_zq:value"}}, "model.factory 'mine_zq:value' is 3; it must be a function or a cl"),
        ({"model": {"factory": "mine_zq:Net"}}, "model.factory 'mine_zq:Net' needs a value for model.args.hidden; go"),
        ({"model": {"factory": "mine_zq:Net", "args": {"hidden": "x"}}}, "model.args.hidden is 'x'; it must be a val"),
        ({"model": {"factory": "mine_zq:Net", "args": {"hiden": 1}}},
         "there is no setting model.args.hiden (did you mean 'hidden'?); model.factory 'mine_zq:Net' has bias, hidden"),
        ({"model": {"factory": "mine_zq:fails"}},
         "model.factory 'mine_zq:fails' failed: ZeroDivisionError: division by zero; --traceback shows where"),
        ({"model": {"factory": "mine_zq:without_split"}},
         "model.factory 'mine_zq:without_split' returned [1] (list); it must return a torch.nn.Module"),
        ({"model": {"args": {"hidden": 0}}}, "model.args.hidden is 0; it must be a whole number of 1 or more"),
        ({"data": {"factory": "mine_zq:without_split"}}, "has no argument 'split'; it is called with split='train'"),
        ({"data": {"factory": "mine_zq:data", "args": {"split": "x"}}}, "data.args.split cannot be set"),
        ({"data": {"factory": "mine_zq:loader"}},
         "data.factory 'mine_zq:loader' for split='train': the dataset is a torch.utils.data.dataloader.DataLoader"),
        ({"data": {"factory": "mine_zq:typed", "args": {"weights": {"a": 1}}}}, "the dataset is a dict; it must be m"),
        ({"loss": {"factory": "mine_zq:without_split"}}, "loss.factory 'mine_zq:without_split': the loss is [1]; it"),
        ({"backend": {"name": "eager", "devise": "cpu"}}, "backend 'eager' has no option 'devise' (did you mean 'dev"),
        ({"callbacks": {"early_stopping": {"patience": 0}}}, "callbacks.EarlyStopping.patience is 0; it must be a nu"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_named_by_its_key_with_the_cause(mine: Path, sections: Any, message: str) -> None:
    with pytest.raises((ConfigError, DataError)) as caught:
        build(make(**sections))
    assert message.format(here=mine) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_factory_that_has_no_training_data_is_refused(mine: Path) -> None:
    (mine / "mine_zq.py").write_text("def data(split): return None", encoding="utf-8")
    with pytest.raises(DataError, match=r"'mine_zq:data' returned None for split='train'; it must be a dataset"):
        build(make(data={"factory": "mine_zq:data"}))


def test_a_backend_that_is_not_installed_is_refused_with_the_pip_line() -> None:
    with pytest.raises(BackendNotFound, match="pip install snn-backend-ipu"):
        build(make(backend={"name": "ipu", "replicas": 2}))


TERMS = """
import snn_core
from snn_core.terms import Term

class Rate(Term):
    name = "rate"
    def __init__(self, weight: float = 1.0): self.weight = weight
    def bind(self, model): raise NotImplementedError

@snn_core.hookimpl
def snn_register_terms(): return {"rate": Rate, "wrong": dict}
"""


def test_terms_are_made_of_what_installed_plugins_offer(installed: "Packages") -> None:
    installed.add("terms-zq", modules={"terms_zq": TERMS}, plugins={"terms": "terms_zq"})
    (term,) = trainer(make(terms={"rate": {"weight": 2}})).terms
    assert (term.name, term.weight) == ("rate", 2.0)  # type: ignore[attr-defined]
    for sections, message in (
        (
            {"rat": True},
            "terms.rat: no installed plugin offers that term (did you mean 'rate'?); they offer rate, wrong",
        ),
        ({"rate": {"weight": "x"}}, "terms.rate.weight is 'x'; it must be a valid number"),
        ({"wrong": True}, "terms.wrong: its plugin made {} (dict); it must be a snn.Term"),
    ):
        with pytest.raises(ConfigError) as caught:
            trainer(make(terms=sections))
        assert message in str(caught.value)


def test_a_term_without_plugins_names_the_package_that_offers_some(installed: "Packages") -> None:
    with pytest.raises(ConfigError, match=r"terms.ops: .*they offer none; pip install snn-metrics"):
        trainer(make(terms={"ops": True}))


CALLBACKS = """
import snn_core

class Loud:
    def __init__(self, times: int = 1): self.times = times
    @snn_core.hookimpl
    def snn_epoch_end(self, run, metrics): pass

@snn_core.hookimpl
def snn_register_callbacks(): return {"loud": Loud}
"""


def test_callbacks_are_made_of_core_s_and_of_what_installed_plugins_offer(installed: "Packages") -> None:
    installed.add("loud-zq", modules={"loud_zq": CALLBACKS}, plugins={"loud": "loud_zq"})
    loud, early = trainer(make(callbacks={"loud": {"times": 3}, "early_stopping": {"patience": 4}})).callbacks
    assert (loud.times, early.patience) == (3, 4)  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"callbacks.loud.times is 'x'; it must be a valid integer"):
        trainer(make(callbacks={"loud": {"times": "x"}}))


def test_a_callback_that_nobody_offers_is_refused_with_those_that_there_are(installed: "Packages") -> None:
    with pytest.raises(ConfigError) as caught:
        trainer(make(callbacks={"early_stoping": {}}))
    assert "callbacks.early_stoping: neither core nor an installed plugin" in str(caught.value)
    assert "there are EarlyStopping, TensorBoard" in str(caught.value)
