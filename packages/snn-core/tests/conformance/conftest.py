"""What the tests of the conformance kit share."""

import sys
from pathlib import Path
from typing import Iterator

import pytest
import torch

# the wrong backends stand beside the tests, where pytest's importlib mode does not look
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Small nets are quicker in one thread, and do not fight over the cores with the tests beside them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
