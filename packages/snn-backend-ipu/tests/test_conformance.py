"""The conformance kit on the contract fake: every claim of the backend against the reference."""

from snn_backend_ipu import IpuBackend, IpuOptions
from snn_core.backend import Backend
from snn_core.testing import BackendConformance


class TestIpu(BackendConformance):
    def make_backend(self) -> Backend:
        return IpuBackend(IpuOptions(ipu_model=True))
