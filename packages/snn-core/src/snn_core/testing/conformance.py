"""The conformance kit as a class for pytest: a third party subclasses it in the tests of a backend."""

from typing import Any, Callable, ClassVar, Optional

import pytest

from snn_core import registry
from snn_core.backend import Backend
from snn_core.errors import ConfigError
from snn_core.testing.check import Check
from snn_core.testing.checks import EVERY

__all__ = ["BackendConformance"]


class BackendConformance:
    """One test method for each check of the kit, one test for each case. Name the subclass Test…, and say which
    backend.

    backend_name: the name under which an installed package registers it. Or override `make_backend`, where options are
    needed. A device that is not here is an error of every test (BackendUnavailable), not a pass. Nothing is skipped:
    what the backend does not declare, `compile` must refuse.
    """

    backend_name: ClassVar[Optional[str]] = None

    def make_backend(self) -> Backend:
        """The backend under test, made anew for each test. Raises what `snn_core.registry.load` raises."""
        if self.backend_name is None:
            raise ConfigError(f"{type(self).__name__} names no backend; set backend_name, or override make_backend")
        return registry.load(self.backend_name)

    @pytest.fixture
    def backend(self) -> Backend:
        backend = self.make_backend()
        registry.require_ready(backend)
        return backend


def _method(check: Check) -> Callable[..., None]:
    if check.cases:

        @pytest.mark.parametrize("case", list(check.cases))
        def test(self: Any, backend: Backend, case: str) -> None:
            check(backend, case)

    else:

        def test(self: Any, backend: Backend) -> None:
            check(backend)

    test.__name__ = f"test_{check.name}"
    test.__qualname__ = f"{BackendConformance.__name__}.{test.__name__}"
    test.__doc__ = check.claim
    return test


# made of the kit's one list, so that the command and the class cannot come to check different things
for _check in EVERY:
    setattr(BackendConformance, f"test_{_check.name}", _method(_check))
