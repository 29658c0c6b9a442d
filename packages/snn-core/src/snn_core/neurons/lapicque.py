"""The oldest neuron: a resistor and a capacitor."""

from typing import Any

from torch import Tensor

from snn_core.errors import ConfigError
from snn_core.neurons.base import Coefficients, Number, State
from snn_core.neurons.spiking import SpikingNeuron

__all__ = ["Lapicque"]


class Lapicque(SpikingNeuron):
    """RC circuit by Euler's method: m[t] = (1 - dt / (R C)) m[t-1] + (dt / C) x[t]. `[T, B, ...]` current -> spikes.

    Lapicque 1907; Brunel and van Rossum 2007, eq. 1. In any consistent units: ohm, farad, second and ampere give volt.

    resistance, capacitance: each positive, a scalar or one per channel.   dt: the time step, at most R C.
    learn_resistance, learn_capacitance: make them parameters; the decay is clamped to [0, 1].
    Other keyword arguments: those of `Firing`. Raises ConfigError for values out of range.
    """

    resistance: Tensor
    capacitance: Tensor

    def __init__(
        self,
        resistance: Number = 1.0,
        capacitance: Number = 10.0,
        *,
        dt: float = 1.0,
        learn_resistance: bool = False,
        learn_capacitance: bool = False,
        **firing: Any,
    ) -> None:
        super().__init__(**firing)
        self.add_value("resistance", resistance, learn_resistance)
        self.add_value("capacitance", capacitance, learn_capacitance)
        if not (bool((self.resistance > 0).all()) and bool((self.capacitance > 0).all()) and dt > 0):
            raise ConfigError(
                f"Lapicque.resistance is {resistance!r}, capacitance {capacitance!r} and dt {dt!r}; "
                "all must be positive"
            )
        if bool((dt > self.resistance * self.capacitance).any()):
            raise ConfigError(
                f"Lapicque.dt is {dt!r}, longer than the time constant R C = "
                f"{(self.resistance * self.capacitance).tolist()}: the membrane would oscillate; take a shorter step"
            )
        self.dt = dt

    def coefficients(self) -> Coefficients:
        decay = (1 - self.dt / (self.resistance * self.capacitance)).clamp(0, 1)
        return {**super().coefficients(), "decay": decay, "inflow": self.dt / self.capacitance}

    def charge(self, x: Tensor, state: State, c: Coefficients) -> State:
        (mem,) = state
        return (c["inflow"] * x + c["decay"] * mem,)
