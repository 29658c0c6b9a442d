"""Whether an IPU can be used from this process, and what to do where it cannot."""

import importlib.util
import os
import sys
from dataclasses import dataclass
from importlib import metadata
from typing import Optional, Tuple

from snn_backend_ipu import calls
from snn_backend_ipu.layout import processes
from snn_backend_ipu.options import IpuOptions
from snn_core.backend import Health
from snn_core.errors import ConfigError, SnnError

__all__ = ["health"]

_PYTHON, _TORCH, _SDK = (3, 8), "2.0.1", "3.4"
_ENABLE = (
    "source POPLAR_SDK/poplar-*/enable.sh and POPLAR_SDK/popart-*/enable.sh in this shell, then start Python again"
)


def health(options: IpuOptions) -> Health:
    """Look, step by step, for what poptorch needs. Never raises."""
    try:
        missing = _missing_package() or _broken_import() or _missing_poprun(options)
        if missing is not None:
            return missing
        count, _, replicas = processes(options)
        wanted = _Wanted(replicas // count, options)
        return _missing_device(wanted) or Health("ready", _described(wanted))
    except Exception as exc:  # a probe never raises, and poptorch may raise anything
        return Health("unavailable", f"looking for an IPU raised {type(exc).__name__}: {exc}", _ENABLE)


def _missing_package() -> Optional[Health]:
    if importlib.util.find_spec("poptorch") is not None:
        return None
    running, installed = sys.version_info[:2], metadata.version("torch").partition("+")[0]
    if running != _PYTHON:
        return Health(
            "unavailable",
            f"poptorch is not installed, and there is none for Python {_spelt(running)}",
            f"make an environment with Python {_spelt(_PYTHON)}, torch {_TORCH} and Graphcore SDK {_SDK} (docs/ipu.md)",
        )
    if installed != _TORCH:
        return Health(
            "unavailable",
            f"poptorch is not installed, and that of SDK {_SDK} needs torch {_TORCH}; here is torch {installed}",
            f"pip install torch=={_TORCH}, then install poptorch from the SDK (docs/ipu.md)",
        )
    return Health(
        "unavailable",
        "poptorch is not installed",
        f"it comes with Graphcore's SDK {_SDK}, not from PyPI: pip install POPLAR_SDK/poptorch-*.whl (docs/ipu.md)",
    )


def _broken_import() -> Optional[Health]:
    try:
        calls.value("__version__")
    except Exception as exc:
        return _explained(exc)
    return None


def _explained(exc: Exception) -> Health:
    cause = exc.__cause__ or exc
    said = f"poptorch cannot be imported: {type(cause).__name__}: {cause}"
    if isinstance(cause, AssertionError) and "torch" in str(cause):
        return Health("unavailable", said, f"pip install torch=={_TORCH}, which poptorch of SDK {_SDK} was built for")
    if isinstance(cause, ImportError) and not os.environ.get("POPLAR_SDK_ENABLED"):
        return Health("unavailable", f"{said}; the SDK is not enabled in this shell", _ENABLE)
    remedy = f"install poptorch of SDK {_SDK} again, into Python {_spelt(_PYTHON)} with torch {_TORCH}"
    return Health("unavailable", said, remedy)


def _missing_poprun(options: IpuOptions) -> Optional[Health]:
    if options.popdist and importlib.util.find_spec("popdist") is None:
        return Health(
            "unavailable",
            "popdist is True, and the package popdist is not installed",
            f"install it from Graphcore's SDK {_SDK}, where poptorch is from, or set popdist=False",
        )
    try:
        processes(options)
    except ConfigError as exc:
        detail, _, remedy = str(exc).partition("; ")
        return Health("unavailable", detail, remedy)
    return None


@dataclass(frozen=True)
class _Wanted:
    """The IPUs that a run of this process holds at a time. replicas: of this process."""

    replicas: int
    options: IpuOptions

    @property
    def ipus(self) -> int:
        used = self.replicas * self.options.ipus
        reserved = 1 << (used - 1).bit_length() if self.options.auto_round_ipus else used
        return reserved if self.options.share_ipus else 2 * reserved

    def __str__(self) -> str:
        parts = f"replicas {self.replicas} x {self.options.ipus}"
        parts += ", rounded up to a power of two" if self.options.auto_round_ipus else ""
        return parts if self.options.share_ipus else f"{parts}, for training and for evaluation"


def _missing_device(wanted: _Wanted) -> Optional[Health]:
    if wanted.options.ipu_model or wanted.options.offline is not None:
        return None
    if calls.call("ipuHardwareIsAvailable", num_ipus=wanted.ipus):
        return None
    if wanted.ipus > 1 and calls.call("ipuHardwareIsAvailable", num_ipus=1):
        return Health(
            "unavailable",
            f"the options need {wanted.ipus} IPUs ({wanted}), which are not here",
            "lower replicas, use fewer stages, share_ipus=True, or attach a larger partition; `gc-info -l` lists IPUs",
        )
    return Health(
        "unavailable",
        "poptorch works, but there is no IPU here",
        "run where there is one (`gc-info -l` lists them), or simulate one with the option ipu_model=True",
    )


def _described(wanted: _Wanted) -> str:
    options = wanted.options
    version = f"poptorch {calls.value('__version__')}, torch {metadata.version('torch')}"
    if options.offline is not None:
        return f"{version}; compiles for IPUs of version {options.offline}, runs on none"
    if options.ipu_model:
        return f"{version}; IPU Model, a simulation on the host"
    try:
        kind = f"IPU version {calls.call('ipuHardwareVersion')}"
    except SnnError:
        kind = "IPU"
    return f"{kind}, {wanted.ipus} of them, {version}"


def _spelt(version: Tuple[int, ...]) -> str:
    return ".".join(map(str, version))
