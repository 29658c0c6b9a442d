"""Streams of random numbers apart from the host's, so that what is drawn aside never changes the training."""

import contextlib
import random
from typing import Dict, Iterator

import numpy as np
import torch
from torch import Tensor

__all__ = ["RandomStream", "draws_from"]


class RandomStream:
    """Torch's generators of the CPU and of one device, swapped in while `active()` and put back after."""

    def __init__(self, device: torch.device, seed: int) -> None:
        self._cuda = device if device.type == "cuda" else None
        with self._borrowed():
            torch.manual_seed(seed)
            self._state = self._read()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Draw from this stream inside the block."""
        with self._borrowed():
            self._write(self._state)
            try:
                yield
            finally:
                self._state = self._read()

    def state(self) -> Dict[str, Tensor]:
        """The stream's position, as bytes by device kind."""
        return dict(self._state)

    def restore(self, state: Dict[str, Tensor]) -> None:
        """Go on from `state()`."""
        self._state = dict(state)

    @contextlib.contextmanager
    def _borrowed(self) -> Iterator[None]:
        before = self._read()
        try:
            yield
        finally:
            self._write(before)

    def _read(self) -> Dict[str, Tensor]:
        state = {"cpu": torch.get_rng_state()}
        if self._cuda is not None:
            state["cuda"] = torch.cuda.get_rng_state(self._cuda)
        return state

    def _write(self, state: Dict[str, Tensor]) -> None:
        torch.set_rng_state(state["cpu"])
        if self._cuda is not None and "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"], self._cuda)


@contextlib.contextmanager
def draws_from(seed: int) -> Iterator[None]:
    """Let torch (CPU), random and NumPy draw from `seed` inside the block, and from their own streams again after."""
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()
    torch.default_generator.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        random.setstate(before[1])
        np.random.set_state(before[2])
