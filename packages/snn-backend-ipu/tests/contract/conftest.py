import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "poptorch_contract"


def ours(name):
    return name.partition(".")[0] in ("poptorch", "popdist")


@pytest.fixture(scope="session")
def fake_modules():
    """The fake's modules by name; afterwards none of them can be imported."""
    before = {name: sys.modules.pop(name) for name in list(sys.modules) if ours(name)}
    sys.path.insert(0, str(FOLDER))
    try:
        for name in ("poptorch", "popdist", "popdist.poptorch"):
            importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))
        found = {name: sys.modules.pop(name) for name in list(sys.modules) if ours(name)}
        sys.modules.update(before)
    return found


@pytest.fixture
def poptorch(fake_modules, monkeypatch):
    """The contract fake, on the IPU Model."""
    for name, module in fake_modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv("POPTORCH_IPU_MODEL", "1")
    fake_modules["poptorch"]._contract.reset()
    return fake_modules["poptorch"]


@pytest.fixture
def popdist(fake_modules, poptorch):
    return fake_modules["popdist"]
