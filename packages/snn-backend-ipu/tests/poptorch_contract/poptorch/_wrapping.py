"""What wrapping for training does to the user's model: its class and those of its parameters and buffers."""

import collections
import weakref

import torch

from ._errors import Error


def is_wrapped(model):
    """Say whether a model is wrapped for training."""
    return getattr(type(model), "_poptorch_wraps", None) is not None


def wrap(executor, model):
    """Wrap the model: its weights come from the device when they are looked at."""
    parent = weakref.ref(executor)
    wrapped = type(model)

    def copy_if_needed():
        executor = parent()
        return executor is not None and executor.copyWeightsToHostIfNeeded()

    class PoptorchModel(wrapped):
        """The wrapped model."""

        _poptorch_wraps = wrapped

        def copyWeightsToHostIfNeeded(self):
            """Copy weights that changed on the device; say whether there were any."""
            return copy_if_needed()

        def destroy(self):
            """Destroy the executor."""
            if parent() is not None:
                parent().destroy()

        def __getattribute__(self, name):
            if name == "_host_weights_version":
                return None if parent() is None else parent()._host_weights_version
            if name in ("_buffers", "_parameters", "forward"):
                copy_if_needed()
            return object.__getattribute__(self, name)

        def state_dict(self, *args, destination=None, prefix="", keep_vars=False):
            """Return the state in plain tensors."""
            state = super().state_dict(*args, destination=destination, prefix=prefix, keep_vars=keep_vars)
            return collections.OrderedDict((name, plain(value)) for name, value in state.items())

    class PoptorchParameter(torch.nn.Parameter):
        """A parameter of a wrapped model."""

        def __getattribute__(self, name):
            copy_if_needed()
            return object.__getattribute__(self, name)

        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            copy_if_needed()
            return super().__torch_function__(func, types, args, kwargs or {})

    class PoptorchBuffer(torch.Tensor):
        """A buffer of a wrapped model."""

        def __getattribute__(self, name):
            copy_if_needed()
            return super().__getattribute__(name)

        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            copy_if_needed()
            return super().__torch_function__(func, types, args, kwargs or {})

    for parameter in model.parameters():
        parameter.__class__ = PoptorchParameter
    for buffer in model.buffers():
        if type(buffer) is not torch.Tensor:
            raise Error(f"All buffers must be an instance of torch.Tensor (Got {type(buffer)})")
        buffer.__class__ = PoptorchBuffer
    PoptorchModel.__name__ = f"Poptorch{wrapped.__name__}"
    model.__class__ = PoptorchModel


def unwrap(model):
    """Give the model its class back. Its parameters stay what they became, as was observed of the real one."""
    if not is_wrapped(model):
        raise Error("model was never wrapped")
    for buffer in model.buffers():
        buffer.__class__ = torch.Tensor
    model.__class__ = type(model)._poptorch_wraps


def plain(value):
    """Return a parameter or a buffer of a wrapped model as a plain tensor."""
    if not isinstance(value, torch.Tensor) or type(value) in (torch.Tensor, torch.nn.Parameter):
        return value
    made = value.detach().clone().as_subclass(torch.Tensor)
    return torch.nn.Parameter(made, value.requires_grad) if isinstance(value, torch.nn.Parameter) else made
