"""A model's tensors on their way between the device, the program and the user's model."""

from typing import Any, Dict, Mapping

import torch
from torch import Tensor, nn

from snn_core.errors import CheckpointError

__all__ = ["Wide", "plain_state", "require_fit", "write_state"]


def plain_state(model: nn.Module) -> Dict[str, Tensor]:
    """A copy of a model's tensors by name, plain: poptorch makes classes of its own of parameters and buffers."""
    return {name: torch.tensor(value.detach().numpy()) for name, value in model.state_dict().items()}


def write_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Write tensors by name into a model's own memory, each in the dtype that it has there."""
    with torch.no_grad():
        for name, tensor in model.state_dict(keep_vars=True).items():
            tensor.copy_(state[name].to(tensor.dtype))


def require_fit(state: Any, like: Mapping[str, Tensor]) -> Dict[str, Tensor]:
    """Return a saved model's tensors. Raises CheckpointError unless names and shapes are those of `like`."""
    if not isinstance(state, Mapping):
        raise CheckpointError(f"the saved model is a {type(state).__name__}; it must be tensors by name")
    odd = sorted(set(state) ^ set(like))
    if odd:
        raise CheckpointError(
            f"the saved state does not fit this model: {', '.join(odd)} is on one side alone; build the model as it was"
        )
    for name, tensor in like.items():
        if tuple(state[name].shape) != tuple(tensor.shape):
            raise CheckpointError(
                f"the saved {name!r} has shape {list(state[name].shape)}, this model's {list(tensor.shape)}; build the "
                "model as it was"
            )
    return dict(state)


class Wide:
    """The weights as the user's model has them, in float32, where the device has them in half precision.

    A value that the device did not move keeps the digits that it had: 0.1 comes back as 0.1 and not as 0.0999756.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self._state = {name: tensor.clone() for name, tensor in state.items()}

    def follow(self, device: Mapping[str, Tensor]) -> Dict[str, Tensor]:
        """Take over what the device moved, and return a copy of everything."""
        for name, narrow in device.items():
            wide = self._state[name]
            if narrow.dtype == wide.dtype:
                self._state[name] = narrow.clone()
            else:
                moved = narrow != wide.to(narrow.dtype)
                self._state[name] = torch.where(moved, narrow.to(wide.dtype), wide)
        return {name: tensor.clone() for name, tensor in self._state.items()}

    def replace(self, state: Mapping[str, Tensor]) -> None:
        """Start again from other weights."""
        self._state = {name: state[name].to(tensor.dtype).clone() for name, tensor in self._state.items()}
