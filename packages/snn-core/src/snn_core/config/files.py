"""Configurations in files: read with overrides on top, written so that reading gives the same back."""

import datetime
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterable, Mapping, Optional, Union

import tomli_w

from snn_core.config.overrides import override
from snn_core.config.schema import Config, Device
from snn_core.config.toml import TOMLDecodeError, loads
from snn_core.errors import ConfigError, RunFolderError
from snn_core.hookspecs import hookimpl
from snn_core.trainer.folder import writing

if TYPE_CHECKING:
    from snn_core.trainer import Run

__all__ = ["CONFIG_NAME", "ConfigFile", "dumps", "load", "load_run", "save"]

CONFIG_NAME = "config.toml"
"""The file's name in a run folder."""

PathLike = Union[str, "os.PathLike[str]"]


def load(path: Optional[PathLike] = None, changes: Iterable[str] = (), backend: Optional[str] = None) -> Config:
    """Read a file, or nothing but defaults, with a backend's name and `changes` such as "train.epochs=3" on top of it.

    A backend other than the file's starts from its own defaults. Raises ConfigError for a file that is missing or no
    TOML, for changes that name another backend, and for what `Config.from_mapping` refuses.
    """
    raw = {} if path is None else dict(_read(Path(path)))
    if backend is not None:
        section = raw.get("backend", {})
        kept = isinstance(section, Mapping) and section.get("name") == backend
        raw["backend"] = section if kept else backend
    config = Config.from_mapping(override(raw, changes))
    if backend is not None and config.backend.name != backend:
        raise ConfigError(f"--backend names {backend!r}, and --set {config.backend.name!r}; give one of them")
    return config


def load_run(folder: PathLike, changes: Iterable[str] = (), backend: Optional[str] = None) -> Config:
    """Read the configuration of the run in `folder`. Raises RunFolderError where there is none; else as `load`."""
    path = Path(folder) / CONFIG_NAME
    if not path.is_file():
        if not Path(folder).is_dir():
            text = f"the run folder {folder} does not exist; give the folder that `snn train` printed"
        elif (Path(folder) / "checkpoints").is_dir():
            text = (
                f"{folder} has no {CONFIG_NAME}: the run was started in Python, not by `snn train`; go on there with "
                f"fit(..., resume={os.fspath(folder)!r}), or read it with snn.load_weights(model, ...)"
            )
        else:
            text = f"{folder} is no run folder (it has no {CONFIG_NAME}); give the folder that `snn train` printed"
        raise RunFolderError(text)
    return load(path, changes, backend)


def dumps(config: Config) -> str:
    """Return the file's text."""
    return tomli_w.dumps(config.to_mapping())


def save(config: Config, path: PathLike) -> None:
    """Write a file, replacing what is there in one step. Raises RunFolderError where it cannot be written."""
    import snn_core

    path = Path(path)
    temporary = path.with_name(f".{path.name}.tmp")
    head = f"# All settings of this run, defaults included. Written by snn-core {snn_core.__version__}.\n\n"
    with writing(path):
        temporary.write_text(head + dumps(config), encoding="utf-8")
        os.replace(temporary, path)


class ConfigFile:
    """A callback that writes the configuration into the run's folder, with the backend that "auto" stood for."""

    def __init__(self, config: Config) -> None:
        self._config = config

    @hookimpl
    def snn_run_start(self, run: "Run") -> None:
        if run.folder is not None:
            device = Device(run.plan.backend, self._config.backend.options)
            save(replace(self._config, backend=device), run.folder / CONFIG_NAME)


def _read(path: Path) -> Dict[str, Any]:
    try:
        parsed = loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        hint = f"; to change a setting: --set {path}" if "=" in str(path) else "; check the path"
        raise ConfigError(f"there is no configuration file {path}{hint}") from exc
    except IsADirectoryError as exc:
        raise ConfigError(f"{path} is a folder; give a file, such as {path / CONFIG_NAME}") from exc
    except OSError as exc:
        raise ConfigError(f"the configuration file {path} cannot be read: {exc.strerror or exc}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path} is no text in UTF-8 (byte {exc.start}); save it as UTF-8") from exc
    except TOMLDecodeError as exc:
        raise ConfigError(f"{path} is no valid TOML: {exc}") from exc
    _refuse_dates(parsed, "")
    return parsed


def _refuse_dates(value: Any, key: str) -> None:
    if isinstance(value, (datetime.date, datetime.time)):
        raise ConfigError(f"{key} is the date or time {value}; no setting is one: put it in quotes")
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, below in items:
        _refuse_dates(below, f"{key}.{name}" if key else str(name))
