"""Writing through views while a step is traced, which shows only in its gradient, where no line is known."""

from typing import Any, Callable, Dict, Optional, Sequence

from torch import Tensor

from snn_core.lower.refusal import LoweringError, Place, refused_operation

__all__ = ["ViewWatch"]

_VIEWED = (
    "writes through a view, which torch takes apart in the gradient; do not write through a view: write "
    "`m = m.clamp(max=1.0)` for `m.view(shape).clamp_(max=1.0)`"
)
_STALE = (
    "reads a view of a tensor that was written since, which torch takes apart in the gradient; make the view after "
    "the last write, or write `m = m + x` for `m += x`"
)


class ViewWatch:
    """Remembers the first operation that the gradient, if it is wanted, will fail for.

    number: tells a tensor's place in the order in which they were made.
    """

    def __init__(self, neuron: str, number: Callable[[Tensor], int]) -> None:
        self.suspect: Optional[LoweringError] = None
        self._neuron, self._number = neuron, number
        self._written: Dict[int, int] = {}  # how many tensors there were when one was written last

    def note(self, op: str, in_place: bool, args: Sequence[Any], place: Optional[Place], count: int) -> None:
        """See an operation before torch performs it. count: how many tensors there are."""
        tensors = [arg for arg in args if isinstance(arg, Tensor)]
        why = None
        if in_place and tensors[0]._is_view() and any(tensor.requires_grad for tensor in tensors):
            why = _VIEWED
        elif any(self._is_stale(tensor) for tensor in tensors):
            why = _STALE
        if why is not None and self.suspect is None:
            self.suspect = refused_operation(self._neuron, op, place, why)
        if in_place:
            self._written[id(tensors[0])] = count

    def _is_stale(self, tensor: Tensor) -> bool:
        """Whether what it is a view of was written after it was made."""
        if not tensor._is_view() or not tensor.requires_grad:
            return False
        return self._number(tensor) < self._written.get(id(tensor._base), 0)
