"""The conformance kit on the reference itself, which declares nearly everything."""

from snn_core.eager import EagerBackend
from snn_core.testing import BackendConformance


class TestEager(BackendConformance):
    def make_backend(self) -> EagerBackend:
        return EagerBackend()
