"""Typed errors. Each message says what, got, allowed and what to do; none of them needs torch."""

import difflib
from typing import Iterable

__all__ = [
    "BackendBroken",
    "BackendConflict",
    "BackendIncompatible",
    "BackendNotFound",
    "BackendUnavailable",
    "CheckpointError",
    "ConfigError",
    "ConformanceError",
    "DataError",
    "DeviceError",
    "NonFiniteError",
    "ProcessFailed",
    "RunFolderError",
    "ShapeError",
    "SnnError",
    "TrainingInterrupted",
    "Unsupported",
    "nearest",
]


class SnnError(Exception):
    """Root of every error that the framework raises on purpose; the CLI prints it without a traceback."""


class ShapeError(SnnError, ValueError):
    """A tensor has the wrong rank or size."""


class DataError(SnnError, ValueError):
    """A dataset, batch or label cannot be used: empty, ragged, not finite, out of range, of another dtype."""


class ConfigError(SnnError, ValueError):
    """A setting is unknown, of the wrong type or out of range."""


class Unsupported(SnnError):
    """A backend does not do what was asked; raised at compile, before device time is spent."""


class BackendNotFound(SnnError, LookupError):
    """No installed package registers a backend of that name."""


class BackendConflict(SnnError):
    """Two installed packages register a backend of the same name."""


class BackendBroken(SnnError, ImportError):
    """A backend's package is installed and cannot be imported, or its probe crashed or hung."""


class BackendIncompatible(SnnError):
    """A backend was written for another version of the backend API."""


class BackendUnavailable(SnnError):
    """A backend works, but its device or driver is not here."""


class DeviceError(SnnError):
    """A device failed while it ran. `recoverable`: whether the run can go on from its checkpoint after `action`."""

    def __init__(self, message: str, *, recoverable: bool = False, action: str = "") -> None:
        super().__init__(message)
        self.recoverable = recoverable
        self.action = action


class CheckpointError(SnnError):
    """A checkpoint cannot be read, is truncated, or belongs to another model."""


class RunFolderError(SnnError, OSError):
    """The run folder cannot be written: read-only, full, or taken by another run."""


class NonFiniteError(SnnError, FloatingPointError):
    """The loss became NaN or infinite; training stopped before the weights were saved over."""


class ProcessFailed(SnnError, RuntimeError):
    """Another process of the run failed or was lost, or did not come in time; the message says which and why."""


class TrainingInterrupted(SnnError, KeyboardInterrupt):
    """Ctrl-C or SIGTERM arrived; the state was saved and the message says how to resume."""


class ConformanceError(SnnError, AssertionError):
    """A backend's results differ from the reference, or it accepts what it does not declare."""


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the allowed name closest to `name`, or "" when none is close."""
    folded = {str(candidate).lower(): candidate for candidate in allowed}
    matches = difflib.get_close_matches(str(name).lower(), list(folded), n=1, cutoff=0.6)
    return f" (did you mean {folded[matches[0]]!r}?)" if matches else ""
