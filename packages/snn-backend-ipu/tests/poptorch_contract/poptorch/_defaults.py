"""What torch does otherwise while a model is traced: some of its functions make their tensors on the device."""

import contextlib
import functools

import torch

# the only ones; every other function makes its tensor on the host, where no device is named
ON_DEVICE = (
    "arange", "empty", "full", "full_like", "linspace", "logspace", "ones", "rand", "randint", "randn", "randperm",
    "range", "tensor", "zeros", "zeros_like",
)  # fmt: skip
FROM_PYTHON = ("tensor", "as_tensor", "asarray")


@contextlib.contextmanager
def device_by_default(device):
    """Let the functions of the list take `device`; distributions do not look at the values of their parameters."""
    real = {name: getattr(torch, name) for name in (*ON_DEVICE, "normal", *FROM_PYTHON)}
    for name, function in real.items():
        function = moving(function) if name in FROM_PYTHON else function
        default = None if name in ("as_tensor", "asarray") else device
        setattr(torch, name, placing(function, default, only_without_tensors=name == "normal"))
    kind = torch.distributions.Distribution
    validates = kind._validate_args
    kind.set_default_validate_args(False)
    try:
        yield
    finally:
        kind.set_default_validate_args(validates)
        for name, function in real.items():
            setattr(torch, name, function)


def placing(function, device, only_without_tensors):
    """Return the function with a device for a default. only_without_tensors: of tensors it takes theirs."""

    @functools.wraps(function)
    def made(*args, **kwargs):
        takes = any(isinstance(arg, torch.Tensor) for arg in (*args, *kwargs.values()))
        if "device" not in kwargs and not (takes and only_without_tensors):
            kwargs["device"] = device
        return function(*args, **kwargs)

    return made


def moving(function):
    """Return a function of Python's numbers that takes a device which torch was not built for."""

    @functools.wraps(function)
    def made(*args, device=None, **kwargs):
        result = function(*args, **kwargs)
        return result if device is None else result.to(device)

    return made
