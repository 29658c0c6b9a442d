"""Fused CPU kernels for snn-core: backend name "cpu"."""

from snn_backend_cpu.backend import CpuBackend, CpuOptions, CpuProgram

__all__ = ["CpuBackend", "CpuOptions", "CpuProgram"]
