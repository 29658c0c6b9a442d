"""What a check is: one claim about a backend, a plain function, in one or more cases; and what came of running it."""

import time
from dataclasses import dataclass, field
from typing import Any, Callable, List, Mapping, Optional

from snn_core.backend import Backend
from snn_core.errors import ConformanceError

__all__ = ["Check", "Refused", "Result", "check"]


class Refused(BaseException):
    """A check ends here: the backend refuses what it does not declare, as it must. Raised by `trial.compiled` alone.

    Not an Exception: a check that looks for one must not take this for it.
    """


@dataclass(frozen=True)
class Result:
    """What came of one case of one check.

    status: "passed"; "refused", which is right too: the case asks for what the backend does not declare, and `compile`
    raised Unsupported; "failed", by a ConformanceError; "broken", by any other exception.   detail: why.   case: "" for
    a check without cases.
    """

    theme: str
    check: str
    claim: str
    case: str
    status: str
    detail: str = ""
    seconds: float = 0.0
    cause: Optional[BaseException] = field(default=None, repr=False, compare=False)

    @property
    def ok(self) -> bool:
        return self.status in ("passed", "refused")


@dataclass(frozen=True)
class Check:
    """One claim about a backend. `name` is the function's, `claim` its docstring's first paragraph, `theme` its module.

    cases: what the claim is made of, by name; empty for a claim that is checked once. Call it with a backend and, where
    there
    are cases, the name of one: it returns "passed" or "refused" (see `Result`), or raises ConformanceError.
    """

    name: str
    theme: str
    claim: str
    function: Callable[..., None]
    cases: Mapping[str, Any]

    def __call__(self, backend: Backend, case: str = "") -> str:
        try:
            if self.cases:
                self.function(backend, self.cases[case])
            else:
                self.function(backend)
        except Refused:
            return "refused"
        return "passed"

    def names(self) -> List[str]:
        """The names of the cases; one empty name for a check without cases."""
        return list(self.cases) or [""]

    def result(self, backend: Backend, case: str = "") -> Result:
        """Run one case and tell what came of it, whatever it raises but KeyboardInterrupt and SystemExit."""
        begun = time.perf_counter()
        detail, cause = "", None
        try:
            status = self(backend, case)
        except Exception as exc:
            cause = exc
            kept = isinstance(exc, ConformanceError)
            status, detail = ("failed", str(exc)) if kept else ("broken", f"{type(exc).__name__}: {exc}")
        seconds = time.perf_counter() - begun
        return Result(self.theme, self.name, self.claim, case, status, detail, seconds, cause)


def check(cases: Optional[Mapping[str, Any]] = None) -> Callable[[Callable[..., None]], Check]:
    """Make a Check of a function `(backend)`, or `(backend, value)` where `cases` maps names to values."""

    def make(function: Callable[..., None]) -> Check:
        claim = " ".join((function.__doc__ or function.__name__).split("\n\n")[0].split())
        theme = function.__module__.rpartition(".")[2]
        return Check(function.__name__, theme, claim, function, {} if cases is None else cases)

    return make
