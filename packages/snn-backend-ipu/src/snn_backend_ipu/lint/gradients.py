"""Custom autograd functions, found where they leave a trace: in the graph of the gradient."""

from typing import Any, Iterator, List, Optional, Sequence, Set

from torch import Tensor

from snn_backend_ipu.lint.rules import Findings
from snn_core.lower.refusal import Place

__all__ = ["find_custom_functions"]


def find_custom_functions(results: Sequence[Tensor], findings: Findings) -> None:
    """Add each `torch.autograd.Function` that the results' gradient goes through, at its backward."""
    for kind in _custom_functions(results):
        findings.add("custom-autograd", _backward_of(kind), kind.__name__)


def _custom_functions(results: Sequence[Tensor]) -> Iterator[Any]:
    seen: Set[Any] = set()
    ahead: List[Any] = [result.grad_fn for result in results if result.grad_fn is not None]
    while ahead:
        node = ahead.pop()
        if node in seen:
            continue
        seen.add(node)
        kind = getattr(type(node), "_forward_cls", None)
        if kind is not None:
            yield kind
        ahead += [before for before, _ in node.next_functions if before is not None]


def _backward_of(kind: Any) -> Optional[Place]:
    for name in ("backward", "vjp", "forward"):
        code = getattr(getattr(kind, name, None), "__code__", None)
        if code is not None:
            return Place(code.co_filename, code.co_firstlineno)
    return None
