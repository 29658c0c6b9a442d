"""Comparing what a backend returned with what it should have returned; every difference is a ConformanceError that
shows both.
"""

from typing import Any, Callable, Mapping, Optional, Tuple, Type, Union

import torch
from torch import Tensor

from snn_core.backend import Tolerance
from snn_core.errors import ConformanceError

__all__ = ["EXACT", "require", "require_close", "require_equal", "require_raises", "require_same_tensors"]

EXACT = Tolerance(0.0, 0.0)
"""The same bits."""


def require(ok: bool, message: str) -> None:
    """Raise ConformanceError with `message` unless `ok`."""
    if not ok:
        raise ConformanceError(message)


def require_equal(what: str, got: Any, want: Any) -> None:
    """Raise ConformanceError unless two plain values are equal."""
    require(got == want, f"{what} is {got!r}; it must be {want!r}")


def require_close(what: str, got: Any, want: Any, tolerance: Tolerance) -> None:
    """Raise ConformanceError unless |got - want| <= absolute + relative * max|want|, element by element.

    The largest magnitude of the tensor and not of the element, because sums over a batch or over time cancel: an
    element near 0 carries the rounding of the addends that made it.
    """
    got_t, want_t = torch.as_tensor(got).detach().cpu(), torch.as_tensor(want).detach().cpu()
    require(
        got_t.shape == want_t.shape,
        f"{what} has shape {list(got_t.shape)}; it must have shape {list(want_t.shape)}",
    )
    if want_t.numel() == 0:
        return
    a, b = got_t.to(torch.float64), want_t.to(torch.float64)
    # written so that a NaN is a difference
    difference = torch.where(a == b, torch.zeros_like(b), (a - b).abs().nan_to_num(nan=float("inf")))
    allowed = tolerance.absolute + tolerance.relative * float(b.abs().max())
    if float(difference.max()) <= allowed:
        return
    worst = int(difference.argmax())
    count = int((difference > allowed).sum())
    raise ConformanceError(
        f"{what} differs from what it must be in {count} of {b.numel()} values, by up to {float(difference.max()):.3g} "
        f"(allowed: {allowed:.3g}): got {float(a.flatten()[worst]):.9g} for {float(b.flatten()[worst]):.9g} at "
        f"{_index(worst, b)}"
    )


def require_same_tensors(
    what: str, got: Mapping[str, Tensor], want: Mapping[str, Tensor], tolerance: Tolerance = EXACT
) -> None:
    """Raise ConformanceError unless two mappings hold the same names, each with close tensors."""
    odd = sorted(set(got) ^ set(want))
    require(not odd, f"{what}: {', '.join(odd)} is on one side alone; got {sorted(got)}, it must be {sorted(want)}")
    for name in want:
        require_close(f"{what} {name!r}", got[name], want[name], tolerance)


def require_raises(
    what: str, errors: Union[Type[BaseException], Tuple[Type[BaseException], ...]], action: Callable[[], Any]
) -> None:
    """Raise ConformanceError unless `action` raises one of `errors`, with a message."""
    kinds = errors if isinstance(errors, tuple) else (errors,)
    names = " or ".join(kind.__name__ for kind in kinds)
    raised: Optional[BaseException] = None
    try:
        action()
    except kinds as exc:
        require(
            bool(str(exc)),
            f"{what} raises {type(exc).__name__} without a message; say what, got, allowed and what to do",
        )
        return
    except Exception as exc:
        raised = exc
    if raised is None:
        raise ConformanceError(f"{what} raises nothing; it must raise {names}")
    raise ConformanceError(f"{what} raises {type(raised).__name__} ({raised}); it must raise {names}") from raised


def _index(flat: int, like: Tensor) -> str:
    index = []
    for size in reversed(like.shape):
        index.append(flat % size)
        flat //= size
    return str(list(reversed(index)))
