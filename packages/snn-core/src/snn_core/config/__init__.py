"""Configuration: a run as plain values in a TOML file, and what is built from them.

`load` reads a file with overrides on top; `Config` is the result, checked, with all defaults filled in. `build` makes
the model, the data and the trainer of it; `save` writes it so that `load` gives it back.
"""

from snn_core.config.building import Recipe, build, dataset, trainer
from snn_core.config.files import CONFIG_NAME, ConfigFile, dumps, load, load_run, save
from snn_core.config.schema import Config, Data, Device, Source, Train

__all__ = [
    "CONFIG_NAME",
    "Config",
    "ConfigFile",
    "Data",
    "Device",
    "Recipe",
    "Source",
    "Train",
    "build",
    "dataset",
    "dumps",
    "load",
    "load_run",
    "save",
    "trainer",
]
