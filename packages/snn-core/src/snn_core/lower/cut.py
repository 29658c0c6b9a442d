"""What backward keeps of forward: the fewest bytes that separate it from the inputs of the step."""

from collections import deque
from typing import Dict, Iterable, List, Mapping, Set

from snn_core.lower.graph import Graph

__all__ = ["smallest_cut"]

_INFINITE = 1 << 40


def smallest_cut(graph: Graph, ends: Iterable[int], price: Mapping[int, int]) -> List[int]:
    """The cheapest nodes from which `ends` can be computed again: the smallest vertex cut, nearest to the ends.

    price: bytes for each node; one that has no price costs nothing and need not be kept (constants, coefficients).
    """
    ends = {end for end in ends if end in price}
    within = [index for index in graph.needed(ends) if index in price]
    # each node is an edge from its front to its back; the source reaches inputs, the sink is reached from the ends
    source, sink = ("source", -1), ("sink", -1)
    room: Dict[tuple, Dict[tuple, int]] = {source: {}, sink: {}}

    def edge(start: tuple, end: tuple, capacity: int) -> None:
        room.setdefault(start, {})[end] = capacity
        room.setdefault(end, {}).setdefault(start, 0)

    for index in within:
        edge(("front", index), ("back", index), price[index])
        origins = [arg for arg in graph.nodes[index].args if arg in price]
        for arg in origins:
            edge(("back", arg), ("front", index), _INFINITE)
        if not origins:
            edge(source, ("front", index), _INFINITE)
        if index in ends:
            edge(("back", index), sink, _INFINITE)
    while True:
        came = _search(room, source, sink)
        if sink not in came:
            break
        path, node = [], sink
        while node != source:
            path.append((came[node], node))
            node = came[node]
        flow = min(room[a][b] for a, b in path)
        for a, b in path:
            room[a][b] -= flow
            room[b][a] += flow
    beyond = _reaching(room, sink)
    return sorted(index for index in within if ("back", index) in beyond and ("front", index) not in beyond)


def _search(room: Mapping[tuple, Mapping[tuple, int]], source: tuple, sink: tuple) -> Dict[tuple, tuple]:
    came: Dict[tuple, tuple] = {}
    waiting = deque([source])
    while waiting and sink not in came:
        node = waiting.popleft()
        for other, left in room[node].items():
            if left > 0 and other not in came and other != source:
                came[other] = node
                waiting.append(other)
    return came


def _reaching(room: Mapping[tuple, Mapping[tuple, int]], sink: tuple) -> Set[tuple]:
    """The nodes from which the sink can still be reached."""
    found, waiting = {sink}, deque([sink])
    while waiting:
        node = waiting.popleft()
        for other in room[node]:
            if other not in found and room[other].get(node, 0) > 0:
                found.add(other)
                waiting.append(other)
    return found
