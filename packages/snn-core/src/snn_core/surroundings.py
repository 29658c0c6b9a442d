"""What a computation depends on besides its inputs, so that it can be run again as it was."""

import contextlib
from typing import Any, Callable, ContextManager, Iterator, List, Tuple

import torch
from torch import Tensor

__all__ = ["Surroundings"]

_Generator = Tuple[Callable[[], Tensor], Callable[[Tensor], None]]


class Surroundings:
    """Autocast as it is when this is made, and the random state before each of `count` computations on `device`."""

    def __init__(self, device: torch.device, count: int) -> None:
        self._generators = _generators(device)
        # one tensor for all: small blocks that live long would lie between the large ones that each computation frees
        self._states = [_rows_like(read(), count) for read, _ in self._generators]
        self._autocasts = [_autocast(kind) for kind in dict.fromkeys(("cpu", device.type))]

    def remember(self, index: int) -> None:
        """Keep the random state, from which computation `index` is about to start."""
        for states, (read, _) in zip(self._states, self._generators):
            states[index] = read()

    @contextlib.contextmanager
    def again(self, index: int) -> Iterator[None]:
        """As it was before computation `index`, inside the block."""
        before = [read() for read, _ in self._generators]
        with contextlib.ExitStack() as stack:
            for autocast in self._autocasts:
                stack.enter_context(autocast())
            try:
                for states, (_, write) in zip(self._states, self._generators):
                    write(states[index].clone())
                yield
            finally:
                for state, (_, write) in zip(before, self._generators):
                    write(state)


def _rows_like(state: Tensor, count: int) -> Tensor:
    return state.new_empty((count, *state.shape))


def _generators(device: torch.device) -> List[_Generator]:
    """How the state of each generator is read and written that a computation on a device may draw from."""
    generators: List[_Generator] = [(torch.get_rng_state, torch.set_rng_state)]
    own: Any = getattr(torch, device.type, None)
    if device.type == "cpu" or not hasattr(own, "get_rng_state"):
        return generators
    where = () if device.type == "mps" else (device,)  # there is one, and older torch takes no name for it
    return [*generators, (lambda: own.get_rng_state(*where), lambda state: own.set_rng_state(state, *where))]


def _autocast(kind: str) -> Callable[[], ContextManager[object]]:
    """What sets autocast of a kind of device as it is now."""
    if hasattr(torch, "get_autocast_dtype"):
        if not torch.amp.is_autocast_available(kind):
            return contextlib.nullcontext
        enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)
    elif kind == "cpu":
        enabled, dtype = torch.is_autocast_cpu_enabled(), torch.get_autocast_cpu_dtype()
    elif kind == "cuda":
        enabled, dtype = torch.is_autocast_enabled(), torch.get_autocast_gpu_dtype()
    else:
        return contextlib.nullcontext
    cached = torch.is_autocast_cache_enabled()
    return lambda: torch.autocast(kind, dtype=dtype, enabled=enabled, cache_enabled=cached)
