"""What the graph of the gradient tells: custom autograd functions, and losses that are no part of the objective."""

from typing import Any, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from torch import Tensor

from snn_backend_ipu.lint.rules import Findings
from snn_backend_ipu.lint.watch import SKIPPED
from snn_core.lower.refusal import Place

__all__ = ["find_custom_functions", "find_other_losses"]


def find_custom_functions(results: Sequence[Tensor], applied: Mapping[type, Place], findings: Findings) -> None:
    """Add each `torch.autograd.Function` that the results' gradient goes through: a user's at its backward, and one of
    torch's own, such as that of its checkpoint, at the line that applied it.
    """
    for node in _nodes_before(results):
        kind = getattr(type(node), "_forward_cls", None)
        if kind is not None:
            place = _backward_of(kind)
            of_torch = place is not None and place.file.startswith(SKIPPED)
            findings.add("custom-autograd", applied.get(kind) if of_torch else place, kind.__name__)


def find_other_losses(
    objective: Tensor, losses: Sequence[Tuple[str, Optional[Place], Tensor]], findings: Findings
) -> None:
    """Add each of torch's losses, by name, line and result, that the objective's gradient does not go through."""
    nodes = set(_nodes_before([objective])) if losses else set()
    for name, place, result in losses:
        if result.grad_fn not in nodes:
            findings.add("second-loss", place, name)


def _nodes_before(results: Sequence[Tensor]) -> Iterator[Any]:
    seen: Set[Any] = set()
    ahead: List[Any] = [result.grad_fn for result in results if result.grad_fn is not None]
    while ahead:
        node = ahead.pop()
        if node not in seen:
            seen.add(node)
            yield node
            ahead += [before for before, _ in node.next_functions if before is not None]


def _backward_of(kind: Any) -> Optional[Place]:
    for name in ("backward", "vjp", "forward"):
        code = getattr(getattr(kind, name, None), "__code__", None)
        if code is not None:
            return Place(code.co_filename, code.co_firstlineno)
    return None
