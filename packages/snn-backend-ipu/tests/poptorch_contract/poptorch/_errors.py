"""The exceptions of PopTorch, with the attributes that it documents."""


class Error(Exception):
    """Raised by the compiler or the device. `message`, `type` and `location` are strings."""

    def __init__(self, message="", type="poptorch_py_error", location=""):
        super().__init__(f"'{type}': {message}")
        self.message = message
        self.type = type
        self.location = location


class RecoverableError(Error):
    """Raised when the machine can go on after `recovery_action`: IPU_RESET, PARTITION_RESET or FULL_RESET."""

    def __init__(self, message="", recovery_action="IPU_RESET", location=""):
        super().__init__(message, "poplar_recoverable_runtime_error", location)
        self.recovery_action = recovery_action


class UnrecoverableError(Error):
    """Raised when the machine needs to be looked after."""

    def __init__(self, message="", location=""):
        super().__init__(message, "poplar_unrecoverable_runtime_error", location)


def compiler_error(message):
    """Return the error that PopTorch's C++ layer raises."""
    return Error(message, "poptorch_cpp_error", "(contract fake)")
