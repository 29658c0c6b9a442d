"""The conformance kit: every claim of the backend against the reference."""

from snn_core.testing import BackendConformance


class TestCpu(BackendConformance):
    backend_name = "cpu"
