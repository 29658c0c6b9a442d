"""From a configuration to objects: the model, the data and the trainer."""

import inspect
import random
from dataclasses import asdict
from typing import Any, List, NamedTuple, Union

import numpy as np
import torch
from torch import nn
from torch.utils.data import Subset

from snn_core import data, plugins, registry
from snn_core.backend import Backend
from snn_core.config.factories import Source, call, find
from snn_core.config.names import CALLBACKS, NETWORKS
from snn_core.config.schema import Config
from snn_core.data.checks import check_dataset
from snn_core.errors import ConfigError, DataError, nearest
from snn_core.losses import Loss, as_loss
from snn_core.options import from_mapping
from snn_core.terms import Term
from snn_core.trainer import Trainer

__all__ = ["Recipe", "build", "dataset", "trainer"]


class Recipe(NamedTuple):
    """What a configuration describes. train, test: datasets; test is None where a factory has no such."""

    trainer: Trainer
    train: Any
    test: Any
    epochs: int


def build(config: Config, callbacks: Any = ()) -> Recipe:
    """Make everything that training needs; `callbacks` are called before the configured ones.

    All global random generators are seeded before each factory is called, so that a run can be repeated from its
    configuration. Raises ConfigError, DataError, or what the backend's registry raises.
    """
    train = dataset(config, "train")
    if train is None:
        raise DataError(f"data.factory {config.data.factory!r} returned None for split='train'; it must be a dataset")
    return Recipe(trainer(config, callbacks), train, dataset(config, "test"), config.train.epochs)


def trainer(config: Config, callbacks: Any = ()) -> Trainer:
    """Make the trainer with its model, for data that comes later."""
    return Trainer(
        _model(config),
        loss=_loss(config),
        optimizer=config.optimizer,
        backend=_backend(config),
        terms=_terms(config),
        schedule=config.schedule,
        callbacks=[*callbacks, *_callbacks(config)],
        **asdict(config.settings()),
    )


def dataset(config: Config, split: str) -> Any:
    """Return one split of the configured data, None where a factory has none. Raises DataError, ConfigError."""
    section = config.data
    if section.factory is None:
        name = str(section.name)
        found: Any = data.load(name, split, section.root, section.download)
    else:
        found = _call_data_factory(section, split, config.train.seed)
        if found is None:
            return None
        try:
            check_dataset(found)
        except DataError as exc:
            raise DataError(f"data.factory {section.factory!r} for split={split!r}: {exc}") from exc
    limit = section.limit
    return found if limit is None or limit >= len(found) else Subset(found, range(limit))


def _call_data_factory(section: Source, split: str, seed: int) -> Any:
    what = f"data.factory {section.factory!r}"
    factory = find(str(section.factory), "data.factory")
    if "split" in section.args:
        raise ConfigError("data.args.split cannot be set: a factory is called with split='train' and split='test'")
    _require_split(factory, what)
    _seed(seed)
    return call(factory, what, "data.args.", section.args, split=split)


def _require_split(factory: Any, what: str) -> None:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):
        return
    if "split" not in parameters and all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
        raise ConfigError(f"{what} has no argument 'split'; it is called with split='train' and with split='test'")


def _model(config: Config) -> nn.Module:
    section = config.model
    _seed(config.train.seed)
    if section.name is not None:
        return from_mapping(NETWORKS[section.name], section.args, f"network {section.name!r}", "model.args.")
    what = f"model.factory {section.factory!r}"
    made = call(find(str(section.factory), "model.factory"), what, "model.args.", section.args)
    if not isinstance(made, nn.Module):
        raise ConfigError(f"{what} returned {_short(made)}; it must return a torch.nn.Module")
    return made


def _loss(config: Config) -> Loss:
    section = config.loss
    if isinstance(section, Loss):
        return section
    what = f"loss.factory {section.factory!r}"
    made = call(find(str(section.factory), "loss.factory"), what, "loss.args.", section.args)
    try:
        return as_loss(made)
    except ConfigError as exc:
        raise ConfigError(f"{what}: {exc}") from exc


def _backend(config: Config) -> Union[str, Backend]:
    section = config.backend
    return registry.load(section.name, section.options) if section.options else section.name


def _terms(config: Config) -> List[Term]:
    if not config.terms:
        return []
    offered = plugins.terms(plugins.plugin_manager())
    made = []
    for name, values in config.terms.items():
        if name not in offered:
            known = f"they offer {', '.join(offered)}" if offered else "they offer none; pip install snn-metrics"
            raise ConfigError(f"terms.{name}: no installed plugin offers that term{nearest(name, offered)}; {known}")
        term = from_mapping(offered[name], values, f"term {name!r}", f"terms.{name}.")
        if not isinstance(term, Term):
            raise ConfigError(f"terms.{name}: its plugin made {_short(term)}; it must be a snn.Term: tell its authors")
        made.append(term)
    return made


def _callbacks(config: Config) -> List[object]:
    foreign = [name for name in config.callbacks if name not in CALLBACKS]
    offered = {**(plugins.callbacks(plugins.plugin_manager()) if foreign else {}), **CALLBACKS}
    for name in foreign:
        if name not in offered:
            raise ConfigError(
                f"callbacks.{name}: neither core nor an installed plugin offers that callback{nearest(name, offered)}; "
                f"there are {', '.join(offered)}"
            )
    return [
        from_mapping(offered[name], values, name, f"callbacks.{name}.") for name, values in config.callbacks.items()
    ]


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _short(value: Any) -> str:
    return f"{repr(value)[:80]} ({type(value).__name__})"
