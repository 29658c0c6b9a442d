"""IpuOptions refuses what cannot be, in Python and in TOML, and says what would be right."""

import dataclasses
import inspect
from typing import Any, Dict

import pytest

from snn_backend_ipu import IpuBackend, IpuOptions
from snn_core.errors import ConfigError
from snn_core.options import from_mapping
from snn_core.registry import load

REFUSED: Dict[str, Dict[str, Any]] = {
    "replicas is 0": {"replicas": 0},
    "replicas is True": {"replicas": True},
    "workers is -1": {"workers": -1},
    "evaluation_iterations is 0": {"evaluation_iterations": 0},
    "loader is 'threads'; it must be one of 'sync', 'async', 'async_rebatched'": {"loader": "threads"},
    "recomputation is 'some'": {"recomputation": "some"},
    "partials is 'half'": {"partials": "half"},
    "loss_scaling is 0": {"loss_scaling": 0},
    "loss_scaling is inf": {"loss_scaling": float("inf")},
    "loss_scaling is nan": {"loss_scaling": float("nan")},
    "loss_scaling is 3.0; it must be a power of two from 1 up to 2**127": {"loss_scaling": 3.0},
    "it must be a power of two from 1 up to 2**127, such as 1024.0": {"loss_scaling": 2**2000},
    "loss_scaling is 0.5; it must be a power of two from 1": {"loss_scaling": 0.5},
    "loss_scaling is 6.223015277861142e-61; it must be": {"loss_scaling": 2.0**-200},
    "offline is 3": {"offline": 3},
    "offline is True": {"offline": True},
    "offline is 2.0": {"offline": 2.0},
    "ipu_model is 'no'; it must be True or False": {"ipu_model": "no"},
    "popdist is 'true'": {"popdist": "true"},
    "stochastic_rounding is 'yes'": {"stochastic_rounding": "yes"},
    "automatic_loss_scaling is 1": {"automatic_loss_scaling": 1},
    "floating_point_exceptions is 0": {"floating_point_exceptions": 0},
    "auto_round_ipus is 'auto'": {"auto_round_ipus": "auto"},
    "share_ipus is None": {"share_ipus": None},
    "progress_bar is None": {"progress_bar": None},
    "cache is 5; it must be the path of a folder": {"cache": 5},
    "cache is ''": {"cache": ""},
    "executables is ['a']": {"executables": ["a"]},
    "stages is 'abc'; it must be names of modules": {"stages": "abc"},
    "stages is 3": {"stages": 3},
    "stages is {0: 0}": {"stages": {0: 0}},
    "stages is {'0': True}": {"stages": {"0": True}},
    "stages is {'0': -1}": {"stages": {"0": -1}},
    "stages is {'0': 'b'}": {"stages": {"0": "b"}, "available_memory": 0.3},
    "available_memory is 1.5": {"available_memory": 1.5},
    "available_memory is {'IPU1': 0.5}": {"available_memory": {"IPU1": 0.5}},
    "IPUs 0, 1, 2, ..., with none left out": {"stages": {"0": 1, "3": 2}},
    "with none left out": {"stages": {"0": 0, "3": 2}},
    "stages is {'0': 'a'}": {"stages": {"0": "a"}},
    "replicas 3 x 1 IPUs each are 3 IPUs, and IPUs come in powers of two": {"replicas": 3},
    "the pipeline has 2 stages": {"stages": {"0": 0, "3": 1}, "evaluation_iterations": 1},
    "poprun decides": {"popdist": True, "replicas": 2},
    "exclude each other": {"offline": 2, "ipu_model": True},
    "set one of them": {"offline": 2, "executables": "somewhere"},
    "it needs workers=1 or more": {"loader": "async_rebatched"},
}


@pytest.mark.parametrize("says", REFUSED)
def test_what_cannot_be_is_refused(says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        IpuOptions(**REFUSED[says])
    assert says in str(caught.value)


def test_options_are_a_frozen_value() -> None:
    stages = {"0": 0, "3": 1}
    options = IpuOptions(stages=stages)
    stages["5"] = 7
    assert options == IpuOptions(stages={"0": 0, "3": 1})
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.replicas = 2  # type: ignore[misc]


def test_options_are_given_by_name() -> None:
    with pytest.raises(TypeError, match="positional"):
        IpuOptions(2)  # type: ignore[misc]
    assert {p.kind for p in inspect.signature(IpuOptions).parameters.values()} == {inspect.Parameter.KEYWORD_ONLY}
    assert dataclasses.replace(IpuOptions(replicas=2), workers=1) == IpuOptions(replicas=2, workers=1)


def test_every_option_that_is_on_or_off_is_checked() -> None:
    on_or_off = [field.name for field in dataclasses.fields(IpuOptions) if field.type is bool]
    assert len(on_or_off) == 8
    for name in on_or_off:
        with pytest.raises(ConfigError, match=f"{name} is 'on'; it must be True or False"):
            IpuOptions(**{name: "on"})


@pytest.mark.parametrize("value", [1, 2.0, 1024, 2.0**127])
def test_a_power_of_two_scales_the_loss(value: Any) -> None:
    assert IpuOptions(loss_scaling=value).loss_scaling == value
    assert isinstance(IpuOptions(loss_scaling=value).loss_scaling, float)


def test_one_share_of_memory_is_that_of_every_ipu() -> None:
    options = IpuOptions(stages={"0": 0, "3": 1}, available_memory=0.3)
    assert options.available_memory == {"IPU0": 0.3, "IPU1": 0.3}


def test_a_pipeline_evaluates_a_batch_for_each_stage() -> None:
    assert IpuOptions().iterations == 1
    assert IpuOptions(stages={"0": 0, "3": 1}).iterations == 2
    assert IpuOptions(stages={"0": 0, "3": 1}, evaluation_iterations=6).iterations == 6


def test_three_stages_are_possible_where_more_ipus_may_be_reserved() -> None:
    assert IpuOptions(stages={"0": 0, "2": 1, "4": 2}, auto_round_ipus=True).ipus == 3


def test_the_options_of_a_configuration_file_are_these() -> None:
    table = {"replicas": 2, "stages": {"0": 0, "3": 1}, "available_memory": {"IPU0": 0.2}, "loader": "async"}
    made = from_mapping(IpuOptions, table, "backend 'ipu'")
    assert made == IpuOptions(**table)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="replicas"):
        from_mapping(IpuOptions, {"replicas": "two"}, "backend 'ipu'")
    with pytest.raises(ConfigError, match="did you mean 'replicas'"):
        from_mapping(IpuOptions, {"replica": 2}, "backend 'ipu'")


FROM_A_FILE: Dict[str, Dict[str, Any]] = {
    'names of modules with the numbers of their IPUs, from 0: {"2": 0, "4": 1}': {"stages": "2"},
    "names of modules with the numbers": {"stages": {"2": "0"}},
    "the path of a folder as text, or None": {"cache": 3},
    "True or False": {"ipu_model": 1},
    "a whole number of 1 or more": {"replicas": "two"},
    "the version of the IPU, 1 or 2": {"offline": "2"},
    "a power of two from 1 up to 2**127": {"loss_scaling": "big"},
}


@pytest.mark.parametrize("says", FROM_A_FILE)
def test_a_value_of_another_type_in_a_configuration_file_is_told_what_is_allowed(says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from_mapping(IpuOptions, FROM_A_FILE[says], "[backend]", "backend.")
    ((name, value),) = FROM_A_FILE[says].items()
    assert str(caught.value).startswith(f"backend.{name} is {value!r}; ")
    assert f": {says}" in str(caught.value)


def test_the_registry_finds_the_backend_by_name() -> None:
    assert isinstance(load("ipu"), IpuBackend)
