"""What poptorch raises, as errors that say what happened and what to do."""

from typing import Dict, Optional

from snn_core.errors import ConfigError, DeviceError, SnnError, Unsupported

__all__ = ["ATTRIBUTES", "cause_of", "translated"]

ATTRIBUTES = ("Error.location", "Error.message", "RecoverableError.recovery_action")
"""What is read of poptorch's errors: a part of `calls.VALUES`, which cannot be imported here."""

_ACTIONS: Dict[str, str] = {
    "IPU_RESET": "reset the IPUs: end this process, which gives them back, and start again",
    "PARTITION_RESET": "reset the partition (`vipu reset partition NAME`, or ask who runs the pod), then start again",
    "FULL_RESET": "reset the whole IPU machine, or ask whoever runs the pod, then start again",
}
_MISUSE = (AssertionError, AttributeError, RuntimeError, TypeError, ValueError)


def translated(exc: Exception, running: bool = False) -> Exception:
    """Return the error to raise instead of `exc`: poptorch's by its class, misuse of its Python layer, or `exc` itself.

    running: the step was executing; before that, poptorch's plain errors are about what it was given.
    """
    if isinstance(exc, SnnError):
        return exc
    cause = cause_of(exc)
    if isinstance(cause, SnnError):
        return cause
    names = [kind.__name__ for kind in type(cause).__mro__ if kind.__module__.split(".")[0] == "poptorch"]
    if "RecoverableError" in names:
        return _recoverable(cause)
    if "UnrecoverableError" in names:
        return DeviceError(
            f"the IPU failed and does not recover: {_said(cause)}; the machine needs looking after: tell who runs it",
            action="look after the machine",
        )
    if "Error" in names and running:
        return DeviceError(f"the IPU failed: {_said(cause)}", action="read the message")
    if "Error" in names:
        return Unsupported(f"poptorch could not compile or run this: {_said(cause)}")
    if isinstance(cause, ModuleNotFoundError):
        return ConfigError(f"{cause}; `snn backends` says what is missing and what to do")
    if isinstance(cause, _MISUSE):
        return ConfigError(f"poptorch refuses: {type(cause).__name__}: {cause}")
    return exc


def cause_of(exc: BaseException) -> BaseException:
    """The true cause: where a compile fails early, poptorch's own clean-up fails too and hides it in the context."""
    hidden: Optional[BaseException] = exc.__context__
    while isinstance(exc, UnboundLocalError) and "cpu_aliases" in str(exc) and hidden is not None:
        exc, hidden = hidden, hidden.__context__
    return exc


def _recoverable(exc: BaseException) -> DeviceError:
    action = _read(exc, "RecoverableError.recovery_action") or "unknown"
    key = action.rpartition(".")[2].upper()
    remedy = _ACTIONS.get(key, "see Graphcore's documentation of this recovery action, then start again")
    return DeviceError(
        f"the IPU failed and can recover ({action}): {_said(exc)}; {remedy}", recoverable=True, action=action
    )


def _said(exc: BaseException) -> str:
    """Message and place, as poptorch's errors carry them."""
    message = _read(exc, "Error.message") or str(exc)
    location = _read(exc, "Error.location")
    return f"{message} (at {location})" if location else message


def _read(exc: BaseException, name: str) -> str:
    """An attribute of an error, one of `ATTRIBUTES`, as text; empty where it is not there."""
    if name not in ATTRIBUTES:
        raise KeyError(f"{name} is not listed in ATTRIBUTES")
    return str(getattr(exc, name.rpartition(".")[2], "") or "")
