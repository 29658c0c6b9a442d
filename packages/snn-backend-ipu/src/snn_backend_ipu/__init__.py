"""Graphcore IPUs for snn-core, through poptorch: backend name "ipu"."""

from snn_backend_ipu.backend import IpuBackend
from snn_backend_ipu.options import IpuOptions
from snn_backend_ipu.program import IpuProgram

__all__ = ["IpuBackend", "IpuOptions", "IpuProgram"]
