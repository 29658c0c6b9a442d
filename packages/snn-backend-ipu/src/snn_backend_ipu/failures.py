"""What poptorch raises, as errors that say what happened and what to do."""

from typing import Dict, Optional

from snn_core.errors import ConfigError, DataError, DeviceError, SnnError, Unsupported

__all__ = ["ATTRIBUTES", "cause_of", "translated"]

ATTRIBUTES = ("Error.location", "Error.message", "Error.type", "RecoverableError.recovery_action")
"""What is read of poptorch's errors: a part of `calls.VALUES`, which cannot be imported here."""

_ACTIONS: Dict[str, str] = {
    "IPU_RESET": "reset the IPUs: end this process, which gives them back, and start again",
    "PARTITION_RESET": "reset the partition (`vipu reset partition NAME`, or ask who runs the pod), then start again",
    "FULL_RESET": "reset the whole IPU machine, or ask whoever runs the pod, then start again",
}
_MISUSE = (AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
# of an error that poptorch's Python layer raises before it asks the device
_PYTHON_LAYER = "poptorch_py_error"
_NOT_THE_USERS = ("poptorch", "snn_backend_ipu", "snn_core", "torch")


def translated(exc: BaseException, running: bool = False, loading: bool = False) -> BaseException:
    """Return the error to raise instead of `exc`: poptorch's by its class, misuse of its Python layer, a forward that
    fails under it, or what `exc` hides, which may be itself.

    running: the step was executing, or what the device has was moved; before that, poptorch's plain errors are about
    what it was given.   loading: a batch was read.
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
    if "Error" in names and running and _read(cause, "Error.type") == _PYTHON_LAYER:
        return _refused(f"Error: {_said(cause)}")
    if "Error" in names and running:
        return DeviceError(f"the IPU failed: {_said(cause)}", action="read the message")
    if "Error" in names:
        return Unsupported(f"poptorch could not compile or run this: {_said(cause)}")
    if isinstance(cause, ModuleNotFoundError):
        return ConfigError(f"{cause}; `snn backends` says what is missing and what to do")
    if not isinstance(cause, _MISUSE):
        return cause
    told = f"{type(cause).__name__}: {cause}"
    if running and isinstance(cause, RuntimeError):
        return DeviceError(f"a call of the IPU failed while it ran: {told}", action="read the message")
    if loading:
        return DataError(f"the loader failed: {told}; what its processes printed, if it has some, says where")
    place = _line_of_forward(cause)
    if place is not None:
        return Unsupported(
            f"the step's forward fails when poptorch compiles it, at {place}: {told}; it may do on the host what it "
            "cannot on an IPU: `snn lint --backend ipu` looks for that, else write this line in another way"
        )
    if isinstance(cause, LookupError):
        return Unsupported(
            f"poptorch could not compile or run this, for it looked something up that it did not find: {told}; where "
            "this names a layer or a tensor of the model that stands at two places, make two instances of it"
        )
    return _refused(told)


def _refused(told: str) -> ConfigError:
    return ConfigError(
        f"poptorch refuses: {told}; change what this names among the backend's options, the batch size, accumulation "
        "and steps_per_call"
    )


def cause_of(exc: BaseException) -> BaseException:
    """The true cause: where a compile fails early, poptorch's own clean-up fails too and hides it in the context."""
    hidden: Optional[BaseException] = exc.__context__
    while isinstance(exc, UnboundLocalError) and "cpu_aliases" in str(exc) and hidden is not None:
        exc, hidden = hidden, hidden.__context__
    return exc


def _line_of_forward(exc: BaseException) -> Optional[str]:
    """The innermost line of the user's that forward had come to, as "FILE:LINE"; None where forward was not running."""
    place, trace = None, exc.__traceback__
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__"))
        if module == "snn_backend_ipu.modules" and place is None:
            place = "a line of a library"
        if place is not None and module.partition(".")[0] not in _NOT_THE_USERS:
            place = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


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
