"""The contract fake of poptorch, on the path of these tests alone; production code never knows of it."""

import importlib
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest

FAKE = Path(__file__).resolve().parent / "poptorch_contract"


@pytest.fixture(scope="session", autouse=True)
def _fake_on_the_path() -> Iterator[None]:
    sys.path.insert(0, str(FAKE))
    yield
    sys.path.remove(str(FAKE))


@pytest.fixture
def poptorch() -> Any:
    """The fake, as `import poptorch` finds it."""
    return importlib.import_module("poptorch")
