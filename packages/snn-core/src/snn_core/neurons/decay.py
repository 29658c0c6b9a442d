"""Decays per step from time constants: beta = exp(-dt / tau)."""

import math
from typing import Optional, Sequence, Union

import torch
from torch import Tensor

from snn_core.errors import ConfigError

__all__ = ["decay_per_step"]

Number = Union[float, Sequence[float], Tensor]


def decay_per_step(
    name: str, decay: Optional[Number], tau_s: Optional[Number], dt_s: Optional[float], default: float
) -> Number:
    """Return the decay factor of one step, given directly or as a time constant with a time step, both in seconds.

    Raises ConfigError when both or half of the pair are given, when a decay is outside [0, 1] or a time is not
    positive.
    """
    if decay is not None and tau_s is not None:
        raise ConfigError(f"both {name} and its time constant are given; give {name}, or tau_*_s with dt_s")
    if tau_s is None:
        value = default if decay is None else decay
        if not bool(((torch.as_tensor(value) >= 0) & (torch.as_tensor(value) <= 1)).all()):
            raise ConfigError(f"{name} is {value!r}; a decay per step must lie in [0, 1]")
        return value
    if dt_s is None:
        raise ConfigError(f"a time constant needs the time step too: give dt_s in seconds with it, or {name} instead")
    tau = torch.as_tensor(tau_s, dtype=torch.float64)
    if not (dt_s > 0 and bool((tau > 0).all())):
        raise ConfigError(f"the time constant is {tau_s!r} s and dt_s {dt_s!r} s; both must be positive")
    return math.exp(-dt_s / float(tau)) if tau.ndim == 0 else torch.exp(-dt_s / tau).to(torch.get_default_dtype())
