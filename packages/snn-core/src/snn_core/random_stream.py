"""Streams of random numbers apart from the host's, so that what is drawn aside never changes the training."""

import contextlib
import hashlib
import random
from typing import Dict, Iterator

import numpy as np
import torch
from torch import Tensor

__all__ = ["RandomStream", "derived_seed", "draws_from"]


class RandomStream:
    """Torch's generators of the CPU and of one device, swapped in while `active()` and put back after.

    rank: of `count` processes with one stream. Each draws otherwise, and the stream's position stays equal in all of
    them: a block takes one number from it, and its draws come from that number and the rank.
    """

    def __init__(self, device: torch.device, seed: int, rank: int = 0, count: int = 1) -> None:
        self._rank, self._count = rank, count
        self._cuda = device if device.type == "cuda" else None
        with self._borrowed():
            torch.manual_seed(seed)
            self._state = self._read()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Draw from this stream inside the block."""
        with self._borrowed():
            self._write(self._state)
            if self._count > 1:
                number = int(torch.randint(2**62, ()))
                self._state = self._read()
                torch.manual_seed(derived_seed(number, self._rank))
            try:
                yield
            finally:
                if self._count == 1:
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


def derived_seed(seed: int, *purpose: object) -> int:
    """A seed of 48 bits for one purpose of a seed.

    Hashed, not added: seed 0 of epoch 1 must not be seed 1 of epoch 0.
    """
    digest = hashlib.sha256(" ".join(map(str, (seed, *purpose))).encode()).digest()
    return int.from_bytes(digest[:6], "big")


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
