"""How the benchmarks time: steps take turns, so that a busy machine slows all of them alike."""

import time
from typing import Callable, Dict, List

__all__ = ["interleaved"]


def interleaved(steps: Dict[str, Callable[[], object]], turns: int, warm_up: int = 3) -> Dict[str, List[float]]:
    """Run each step once per turn and return its times in milliseconds."""
    times: Dict[str, List[float]] = {name: [] for name in steps}
    for turn in range(warm_up + turns):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn >= warm_up:
                times[name].append(1e3 * (time.perf_counter() - start))
    return times
