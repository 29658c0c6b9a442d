"""Which samples of a batch, or of a dataset, are which process's."""

from typing import List, Sequence, Tuple

__all__ = ["share", "shares_of"]


def share(total: int, rank: int, count: int) -> range:
    """Process `rank`'s part of `total` things in their order; the `count` parts differ by one in size at most."""
    return range(total * rank // count, total * (rank + 1) // count)


def shares_of(indices: Sequence[int], size: int, rank: int, count: int) -> Tuple[List[int], Tuple[int, ...]]:
    """Of a batch of samples, this process's share of each micro-batch of `size`, and how many it has of each.

    Where it has none, there is one of another process's: a forward needs a sample, and then it counts nothing.
    """
    mine: List[int] = []
    counts: List[int] = []
    for start in range(0, len(indices), size):
        micro = indices[start : start + size]
        part = share(len(micro), rank, count)
        mine += [micro[i] for i in part] or [micro[0]]
        counts.append(len(part))
    return mine, tuple(counts)
