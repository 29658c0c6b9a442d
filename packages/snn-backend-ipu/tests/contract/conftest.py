import importlib

import pytest


@pytest.fixture
def poptorch(poptorch, monkeypatch):
    """The contract fake on the IPU Model, with no fault left over."""
    monkeypatch.setenv("POPTORCH_IPU_MODEL", "1")
    poptorch._contract.reset()
    return poptorch


@pytest.fixture
def popdist(poptorch):
    importlib.import_module("popdist.poptorch")
    return importlib.import_module("popdist")
