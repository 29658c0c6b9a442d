"""The fake has the signatures that are written down, and no others."""

import enum
import importlib.util
import inspect
from pathlib import Path

import pytest
import torch

PATH = Path(__file__).resolve().parents[1] / "poptorch_contract" / "signatures.py"


# What options inherit that is no option.
DICTIONARY = ("set", "createOrSet", "exists", "deleteIfExists")


def loaded():
    spec = importlib.util.spec_from_file_location("poptorch_signatures", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


DATA = loaded()


def found(poptorch, popdist, name):
    """The function of a dotted name; of a class, its constructor."""
    start, path = (popdist, name[len("popdist.") :]) if name.startswith("popdist.") else (poptorch, name)
    if path.startswith("Options."):
        start, path = poptorch.Options(), path[len("Options.") :]
    for part in path.split("."):
        start = getattr(start, part)
    return start


def described(parameter):
    if parameter.kind is parameter.VAR_POSITIONAL:
        return parameter.name, DATA.VARIADIC
    if parameter.kind is parameter.VAR_KEYWORD:
        return parameter.name, DATA.KEYWORDS
    if parameter.default is parameter.empty:
        return parameter.name, DATA.REQUIRED
    default = parameter.default
    return parameter.name, f"{type(default).__name__}.{default.name}" if isinstance(default, enum.Enum) else default


@pytest.mark.parametrize("name", sorted(DATA.SIGNATURES))
def test_the_fake_has_the_documented_signature(poptorch, popdist, name):
    function = found(poptorch, popdist, name)
    if inspect.isclass(function):
        function = function.__init__.__get__(object())
    parameters = [described(parameter) for parameter in inspect.signature(function).parameters.values()]
    assert [entry for entry in parameters if entry[0] != "self"] == list(DATA.SIGNATURES[name])


def test_every_setter_of_the_fakes_options_is_documented(poptorch):
    options = poptorch.Options()
    parts = ("", "Training.", "Precision.", "Distributed.", "TensorLocations.", "_Popart.")
    for part in parts:
        owner = getattr(options, part[:-1]) if part else options
        common = {"checkIsFrozen"} if part == "_Popart." else {"checkIsFrozen", *DICTIONARY}
        names = {name for name in dir(type(owner)) if not name.startswith("_")} - common
        functions = {name for name in names if inspect.isfunction(getattr(type(owner), name))}
        assert {f"Options.{part}{name}" for name in functions} <= set(DATA.SIGNATURES)


@pytest.mark.parametrize("name", sorted(DATA.VALUES))
def test_the_fake_has_the_documented_values(poptorch, name):
    owner = poptorch
    for part in name.split("."):
        owner = getattr(owner, part)
    if inspect.isclass(owner) and issubclass(owner, enum.Enum):
        assert [member.name for member in owner] == list(DATA.VALUES[name])
    elif name == "PoplarExecutor":
        assert all(isinstance(getattr(owner, value), property) for value in DATA.VALUES[name])
    else:
        error = inspect.isclass(owner) and issubclass(owner, Exception)
        made = owner("said") if error else poptorch.optim.SGD([torch.zeros(1)], lr=1.0)
        assert all(hasattr(made, value) for value in DATA.VALUES[name])


def test_the_fake_says_what_it_is(poptorch):
    assert "contract fake" in poptorch.__doc__
    assert poptorch.is_contract_fake
    assert poptorch.__version__.startswith("3.4.")


def test_everything_that_is_public_is_documented(poptorch):
    classes = {"Error", "PoplarExecutor", "RecoverableError", "TensorLocationSettings", "UnrecoverableError", "optim"}
    known = {name.partition(".")[0] for name in {**DATA.SIGNATURES, **DATA.VALUES}} | classes
    undocumented = {"Liveness", "OverlapMode", "ipu_print_tensor"}
    assert set(poptorch.__all__) - known <= undocumented
