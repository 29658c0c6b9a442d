"""The whole kit on one backend, without pytest."""

from typing import Iterator, Optional, Tuple

from snn_core.backend import Backend
from snn_core.testing.check import Check, Result
from snn_core.testing.checks import EVERY

__all__ = ["run_all", "select"]


def run_all(backend: Backend, only: Optional[str] = None) -> Iterator[Result]:
    """Run the checks that `select` chooses on `backend`, and yield a result for each case as it comes."""
    for check, case in select(only):
        yield check.result(backend, case)


def select(only: Optional[str] = None) -> Iterator[Tuple[Check, str]]:
    """Every check with each of its cases, in order.

    only: those whose theme, name or case has this text in it; blanks and underscores are the same.
    """
    wanted = "" if only is None else only.replace("_", " ")
    for check in EVERY:
        for case in check.names():
            if wanted in f"{check.theme}: {check.name} {case}".replace("_", " "):
                yield check, case
