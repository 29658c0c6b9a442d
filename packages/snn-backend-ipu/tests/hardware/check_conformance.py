"""The conformance kit on the real poptorch."""

import importlib
from typing import Any, Callable

import pytest

from snn_backend_ipu import IpuBackend, IpuOptions
from snn_core import registry
from snn_core.backend import Backend
from snn_core.testing import BackendConformance


class TestIpu(BackendConformance):
    def make_backend(self) -> Backend:
        found = importlib.import_module("poptorch").ipuHardwareIsAvailable()
        return IpuBackend(IpuOptions(ipu_model=not found))

    @pytest.fixture
    def backend(self, on_model: Callable[[int], bool]) -> Any:
        on_model(1)
        backend = self.make_backend()
        registry.require_ready(backend)
        return backend
