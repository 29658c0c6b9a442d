"""Networks that configuration files know by name: each is a function of plain values that makes a new one."""

from torch import nn

from snn_core._check import is_count
from snn_core.containers import Sequential
from snn_core.encoders import Constant
from snn_core.errors import ConfigError
from snn_core.neurons import LIF

__all__ = ["seed"]


def seed(steps: int = 25, hidden: int = 1000, beta: float = 0.9) -> Sequential:
    """The seed network, 784-hidden-10 leaky integrate-and-fire neurons: `[B, 1, 28, 28]` -> spikes `[steps, B, 10]`.

    steps: how long each image is shown. beta: the neurons' decay per step. Raises ConfigError for sizes below 1.
    """
    for name, value in (("steps", steps), ("hidden", hidden)):
        if not is_count(value):
            raise ConfigError(f"{name} is {value!r}; it must be a whole number of 1 or more")
    return Sequential(
        Constant(steps=steps),
        nn.Flatten(),
        nn.Linear(784, hidden),
        LIF(beta=beta),
        nn.Linear(hidden, 10),
        LIF(beta=beta),
    )
