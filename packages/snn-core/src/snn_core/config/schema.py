"""The sections of a configuration as frozen values, checked when they are made."""

import dataclasses
import inspect
import typing
from dataclasses import dataclass, field, fields
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple, Union

from snn_core._check import is_count
from snn_core.config.factories import Source
from snn_core.config.names import CALLBACKS, DATASETS, LOSSES, NETWORKS, OPTIMIZERS, SCHEDULES, choose, spelt
from snn_core.errors import ConfigError, nearest
from snn_core.losses import Loss
from snn_core.optimizers import Adam, Optimizer
from snn_core.options import arguments, from_mapping, located
from snn_core.schedules import Schedule
from snn_core.trainer import Settings

__all__ = ["Config", "Data", "Device", "Source", "Table", "Train"]

Table = Dict[str, Any]
_TIME_AXES = ("time_axis", "target_time_axis")


@dataclass(frozen=True)
class Data(Source):
    """[data]. A factory is called with split="train" and split="test" besides its `args`; None means there is no such.

    root, download: of a dataset by name, as in `snn_core.data.load`.   limit: of a split take the first samples alone.
    time_axis, target_time_axis: 1 where a sample's x (target) has time first; they are the trainer's settings.
    """

    root: Optional[str] = None
    download: bool = False
    limit: Optional[int] = None
    time_axis: Optional[int] = None
    target_time_axis: Optional[int] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.limit is not None and not is_count(self.limit):
            raise ConfigError(f"limit is {self.limit}; it must be a number of samples, 1 or more")
        for key, used in (("root", self.root is not None), ("download", self.download)):
            if used and self.factory is not None:
                raise ConfigError(f"{key} is {getattr(self, key)!r}, but goes with a dataset's name; use args instead")
        if self.args and self.factory is None:
            raise ConfigError(f"args is {self.args!r}, but goes with a factory; {self.name!r} has none")


@dataclass(frozen=True)
class Train(Settings):
    """[train]: epochs, and the trainer's settings but for the time axes, which belong to the data."""

    time_axis: Optional[int] = field(default=None, init=False)
    target_time_axis: Optional[int] = field(default=None, init=False)
    epochs: int = 10

    def __post_init__(self) -> None:
        # the rest is checked by Config.settings, which knows the time axes
        if not is_count(self.epochs):
            raise ConfigError(f"epochs is {self.epochs}; it must be 1 or more")


@dataclass(frozen=True)
class Device:
    """[backend]: its name, or "auto" for the best ready one, and its options."""

    name: str = "auto"
    options: Table = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name == "auto" and self.options:
            names = ", ".join(f"backend.{name}" for name in self.options)
            raise ConfigError(
                f"{names} cannot be set while backend.name is 'auto'; name the backend that it belongs to"
            )


@dataclass(frozen=True)
class Config:
    """Everything that decides a run: plain values and core's frozen ones. Raises ConfigError for values out of range.

    loss: core's, or where the user's comes from.   terms, callbacks: their arguments by name.
    `Config.from_mapping({})` is all defaults: the seed network on the bundled digits.
    """

    model: Source
    data: Data
    loss: Union[Loss, Source]
    optimizer: Optimizer
    schedule: Optional[Schedule]
    train: Train
    backend: Device
    terms: Mapping[str, Table]
    callbacks: Mapping[str, Table]

    def __post_init__(self) -> None:
        self.settings()

    def settings(self) -> Settings:
        """The trainer's settings: those of [train], and the time axes of [data]."""
        homes = {f.name: "data" if f.name in _TIME_AXES else "train" for f in fields(Settings)}
        values = {name: getattr(getattr(self, home), name) for name, home in homes.items()}
        try:
            return Settings(**values)
        except ConfigError as exc:
            raise ConfigError(located(str(exc), {name: f"{home}.{name}" for name, home in homes.items()})) from exc

    @classmethod
    def from_mapping(cls, raw: Mapping[str, Any]) -> "Config":
        """Read a parsed file's sections. Raises ConfigError for unknown names, other types and values out of range."""
        for name in raw:
            if name not in _READERS:
                found = _elsewhere(name)
                hint = f"; it is a setting of [{found}]: {found}.{name}" if found else nearest(name, _READERS)
                raise ConfigError(f"there is no section [{name}]{hint}; sections are {', '.join(_READERS)}")
        absent = {"schedule": False}
        return cls(**{name: read(raw.get(name, absent.get(name, {}))) for name, read in _READERS.items()})

    def to_mapping(self) -> Table:
        """The sections with every setting that has a value, as a file holds them: `from_mapping` gives this back."""
        terms = {name: dict(values) for name, values in self.terms.items()}
        callbacks = {name: dict(values) for name, values in self.callbacks.items()}
        sections = {
            "model": _plain(self.model),
            "data": _plain(self.data),
            "loss": _plain(self.loss) if isinstance(self.loss, Source) else _named(self.loss),
            "optimizer": _named(self.optimizer),
            "schedule": None if self.schedule is None else _named(self.schedule),
            "train": _plain(self.train),
            "backend": {"name": self.backend.name, **self.backend.options},
            "terms": terms or None,
            "callbacks": callbacks or None,
        }
        return {name: section for name, section in sections.items() if section is not None}


def _table(value: Any, key: str) -> Table:
    """A section that chooses something: a table, or its name alone."""
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key} is {value!r}; it must be a name, or a table [{key}]")
    return dict(value)


def _source(kind: Any, value: Any, key: str, table: Mapping[str, Any]) -> Any:
    """A section with a name or a factory; without either it is about core's default, the first of the table."""
    section = _table(value, key)
    if not {"name", "factory"} & set(section):
        section["name"] = next(iter(table))
    made = from_mapping(kind, section, f"[{key}]", f"{key}.")
    return made if made.name is None else dataclasses.replace(made, name=choose(table, made.name, f"{key}.name")[0])


def _model(value: Any) -> Source:
    made: Source = _source(Source, value, "model", NETWORKS)
    if made.name is None:
        return made
    args = _filled(NETWORKS[made.name], made.args, f"network {made.name!r}", "model.args.")
    return dataclasses.replace(made, args=args)


def _callbacks(value: Any) -> Dict[str, Table]:
    chosen = _switches(value, "callbacks", CALLBACKS)
    # those of plugins are checked when they are made: reading a file imports no plugin
    return {
        name: _filled(CALLBACKS[name], args, name, f"callbacks.{name}.") if name in CALLBACKS else args
        for name, args in chosen.items()
    }


def _filled(kind: Callable[..., Any], values: Mapping[str, Any], where: str, path: str) -> Table:
    """Arguments checked, with core's defaults for the others: a run's file must mean the same in a later version."""
    parameters = inspect.signature(kind).parameters.values()
    defaults = {p.name: p.default for p in parameters if p.default not in (p.empty, None)}
    return {**defaults, **arguments(kind, values, where, path)}


def _chosen(value: Any, key: str, table: Mapping[str, Any], default: Optional[str]) -> Tuple[str, Any, Table]:
    """What a section chooses from `table`: its name, what that stands for, and the arguments beside it."""
    section = _table(value, key)
    name = section.pop("name", default)
    if not isinstance(name, str):
        got = "missing" if name is None else repr(name)
        raise ConfigError(f"{key}.name is {got}; it must be one of {', '.join(table)}")
    known, kind = choose(table, name, f"{key}.name")
    return known, kind, section


def _loss(value: Any) -> Union[Loss, Source]:
    if isinstance(value, Mapping) and "factory" in value:
        return from_mapping(Source, value, "[loss] with a factory", "loss.")
    name, kind, section = _chosen(value, "loss", LOSSES, "CountCrossEntropy")
    return from_mapping(kind, section, name, "loss.")


def _optimizer(value: Any) -> Optimizer:
    name, kind, section = _chosen(value, "optimizer", OPTIMIZERS, "Adam")
    return from_mapping(kind, section, name, "optimizer.")


def _schedule(value: Any, key: str = "schedule") -> Optional[Schedule]:
    if value is False:
        return None
    name, kind, section = _chosen(value, key, SCHEDULES, None)
    hints = typing.get_type_hints(kind)
    for part, given in section.items():
        if Schedule in typing.get_args(hints.get(part)):
            section[part] = _schedule(given, f"{key}.{part}")
    return from_mapping(kind, section, name, f"{key}.")


def _train(value: Any) -> Train:
    section = _settings(value, "train")
    for name in section:
        home = _elsewhere(name)
        if home and home != "train":
            raise ConfigError(f"there is no setting train.{name}; it is a setting of [{home}]: {home}.{name}")
    return from_mapping(Train, section, "[train]", "train.")


def _backend(value: Any) -> Device:
    options = _table(value, "backend")
    name = options.pop("name", "auto")
    if not isinstance(name, str):
        raise ConfigError(f"backend.name is {name!r}; it must be a text: a backend's name, or 'auto'")
    return Device(name, options)


def _switches(value: Any, key: str, table: Optional[Mapping[str, Any]] = None) -> Dict[str, Table]:
    """Named things that can be there or not, each with arguments: a table, true for none, false for not at all."""
    found: Dict[str, Table] = {}
    for name, given in _settings(value, key).items():
        known = spelt(table or {}, name)
        # another spelling of a name, as an override may have it, goes on top of the first
        if given is False:
            found.pop(known, None)
        elif given is True or isinstance(given, Mapping):
            found[known] = {**found.get(known, {}), **({} if given is True else given)}
        else:
            raise ConfigError(f"{key}.{name} is {given!r}; it must be a table of arguments, true or false")
    return found


def _settings(value: Any, key: str) -> Table:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key} is {value!r}; it must be a table [{key}]")
    return dict(value)


_READERS: Dict[str, Callable[[Any], Any]] = {
    "model": _model,
    "data": lambda value: _source(Data, value, "data", DATASETS),
    "loss": _loss,
    "optimizer": _optimizer,
    "schedule": _schedule,
    "train": _train,
    "backend": _backend,
    "terms": lambda value: _switches(value, "terms"),
    "callbacks": _callbacks,
}


def _elsewhere(name: str) -> Optional[str]:
    """The section that has a setting of this name, for those who forget the section or mistake it."""
    sections = {"train": Train, "data": Data, "optimizer": Adam}
    return next((key for key, kind in sections.items() if name in _names(kind)), None)


def _names(kind: Any) -> List[str]:
    return [f.name for f in fields(kind) if f.init]


def _plain(value: Any) -> Table:
    """A frozen value's settings, without those that are None: TOML has no such value."""
    values = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
    return {name: v for name, v in values.items() if v is not None and v != {}}


def _named(value: Any) -> Table:
    section = {"name": type(value).__name__, **_plain(value)}
    return {name: _named(v) if isinstance(v, Schedule) else v for name, v in section.items()}
