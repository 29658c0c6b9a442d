"""Every call into poptorch is in one list, which agrees with the documented signatures; there is no other way in."""

import ast
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Iterator, Tuple

import pytest

import snn_backend_ipu
from snn_backend_ipu import calls

SOURCES = Path(snn_backend_ipu.__file__).parent


def documented() -> ModuleType:
    path = Path(__file__).parent / "poptorch_contract" / "signatures.py"
    spec = importlib.util.spec_from_file_location("signatures", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SIGNATURES = documented()


@pytest.mark.parametrize("name", calls.CALLS)
def test_the_arguments_are_documented_ones_in_their_order(name: str) -> None:
    parameters = [parameter for parameter, _ in SIGNATURES.SIGNATURES[name]]
    listed = list(calls.CALLS[name])
    assert [parameter for parameter in parameters if parameter in listed] == listed


@pytest.mark.parametrize("name", calls.CALLS)
def test_no_required_argument_is_missing(name: str) -> None:
    required = {p for p, default in SIGNATURES.SIGNATURES[name] if default == SIGNATURES.REQUIRED}
    assert required <= set(calls.CALLS[name])


@pytest.mark.parametrize("name", calls.VALUES)
def test_attributes_are_documented_ones(name: str) -> None:
    owner, _, member = name.rpartition(".")
    assert member in (SIGNATURES.VALUES[owner] if owner else SIGNATURES.PLAIN)


def trees() -> Iterator[Tuple[Path, ast.AST]]:
    for path in sorted(SOURCES.glob("**/*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def test_no_module_imports_poptorch_but_the_list() -> None:
    for path, tree in trees():
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.split(".")[0] in ("poptorch", "popdist")], path
            if isinstance(node, ast.Attribute) and node.attr in ("import_module", "__import__"):
                assert path.name == "calls.py", path


def calls_in_the_sources() -> "list[Tuple[str, Tuple[str, ...]]]":
    """Name and keywords of each `call("name", ...)` of the package."""
    found = []
    for _, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) == "call":
                first = node.args[0] if node.args else None
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    found.append((first.value, tuple(k.arg for k in node.keywords if k.arg is not None)))
    return found


def test_every_call_of_the_package_is_listed_with_its_arguments_in_order() -> None:
    found = calls_in_the_sources()
    assert len(found) > 30
    for name, keywords in found:
        listed = calls.CALLS[name]
        assert set(keywords) <= set(listed), name
        assert [word for word in listed if word in keywords] == list(keywords), name


# torch's and our own objects have these too
SHARED = {"clone", "destroy", "load", "load_state_dict", "message", "model", "options", "state_dict", "type"}


def test_nothing_that_poptorch_alone_has_is_looked_up_past_the_list() -> None:
    documented = {name.rpartition(".")[2] for name in SIGNATURES.SIGNATURES}
    documented |= {member for members in SIGNATURES.VALUES.values() for member in members}
    looked_up = set()
    for _, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                looked_up.add(node.attr)
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "getattr":
                looked_up.add(getattr(node.args[1], "value", None))
    assert looked_up & documented - SHARED == set()


def test_every_listed_value_is_read() -> None:
    texts = [node.value for _, tree in trees() for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    for name in calls.VALUES:
        assert texts.count(name) >= 2, name  # in the list, and where it is read


def test_nothing_is_listed_that_is_not_called() -> None:
    used = {name for name, _ in calls_in_the_sources()}
    chosen = {"optim.SGD", "optim.Adam", "optim.AdamW", "optim.RMSprop"}  # by the optimiser's name
    processes = {"popdist.getNumInstances", "popdist.getInstanceIndex", "popdist.getNumTotalReplicas"}  # in one loop
    assert set(calls.CALLS) - used == chosen | processes


def test_an_argument_that_is_not_listed_is_refused_before_poptorch_sees_it() -> None:
    with pytest.raises(TypeError, match="deviceIterations is listed with"):
        calls.call("Options.deviceIterations", object(), iterations=2)
    with pytest.raises(KeyError):
        calls.call("Options.syncPattern", object(), sync_pattern=1)
    with pytest.raises(KeyError):
        calls.value("OutputMode.Final")
