"""Neurons whose membrane runs away near the threshold, by explicit Euler steps: ExpLIF, QIF, AdEx and Izhikevich.

One step takes every right-hand side at the old state. Two guards keep large inputs from becoming inf or NaN, and
neither changes a neuron that is reset to a value below its threshold: exponents are cut at `max_exponent`, and the
quadratic upstroke is taken at the threshold at most, since above it the spike has happened.
"""

from typing import Any, Sequence

import torch
from torch import Tensor

from snn_core.errors import ConfigError, nearest
from snn_core.neurons.base import Coefficients, Number, State
from snn_core.neurons.spiking import SpikingNeuron
from snn_core.surrogate import ATan

__all__ = ["QIF", "AdEx", "ExpLIF", "Izhikevich"]


class _Euler(SpikingNeuron):
    """What the four share: a hard reset by default, numbers learnt by name, and a step below the time constants."""

    def __init__(self, dt: float, learn: Sequence[str], **firing: Any) -> None:
        super().__init__(**{"reset_mechanism": "zero", **firing})
        if not dt > 0:
            raise ConfigError(f"{type(self).__name__}: the time step is {dt!r}; it must be positive")
        self.dt = dt
        self._learn = (learn,) if isinstance(learn, str) else tuple(learn)

    def _add_values(self, **values: Number) -> None:
        for name in self._learn:
            if name not in values:
                raise ConfigError(
                    f"{type(self).__name__}.learn has {name!r}{nearest(name, values)}; it takes {', '.join(values)}"
                )
        for name, value in values.items():
            self.add_value(name, value, name in self._learn)

    def _require_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not bool((value > 0).all()):
                raise ConfigError(f"{type(self).__name__}.{name} is {value.tolist()}; it must be above 0")

    def _require_slow(self, *names: str) -> None:
        for name in names:
            tau = getattr(self, name)
            if not bool((tau >= self.dt).all()):
                raise ConfigError(
                    f"{type(self).__name__}.{name} is {tau.tolist()} and the time step {self.dt}; "
                    "a time constant must be as long as the step or longer"
                )

    def _rate(self, tau: Tensor) -> Tensor:
        # a learnt time constant below the step would make the Euler step overshoot
        return self.dt / tau.clamp(min=self.dt)


class ExpLIF(_Euler):
    """Exponential LIF: m += (dt / tau) (v_rest - m + delta exp((m - rheobase) / delta) + x).

    `[T, B, ...]` current -> spikes; dimensionless, with resistance 1.
    Fourcaud-Trocme et al. 2003; Gerstner et al. 2014, section 5.2.

    tau: the membrane's time constant in the unit of `dt`, dt or longer.   delta: sharpness of the upstroke, above 0.
    rheobase: where the upstroke begins.   v_rest: rest, at which the membrane starts.
    max_exponent: where the exponent is cut.
    learn: names among tau, delta, rheobase and v_rest to make parameters. Each is a scalar or one per channel.
    Other keyword arguments: those of `Firing`; `reset_mechanism` is "zero" here unless given.
    """

    tau: Tensor
    delta: Tensor
    rheobase: Tensor
    v_rest: Tensor

    def __init__(
        self,
        tau: Number = 10.0,
        delta: Number = 0.2,
        rheobase: Number = 0.8,
        v_rest: Number = 0.0,
        *,
        dt: float = 1.0,
        max_exponent: float = 20.0,
        learn: Sequence[str] = (),
        **firing: Any,
    ) -> None:
        super().__init__(dt, learn, **firing)
        self._add_values(tau=tau, delta=delta, rheobase=rheobase, v_rest=v_rest)
        self._require_slow("tau")
        self._require_positive("delta")
        self.max_exponent = max_exponent

    def coefficients(self) -> Coefficients:
        shape = {"delta": self.delta.clamp(min=1e-3), "rheobase": self.rheobase, "v_rest": self.v_rest}
        return {**super().coefficients(), **shape, "rate": self._rate(self.tau)}

    def initial(self, x: Tensor, c: Coefficients) -> State:
        return (torch.zeros_like(x) + c["v_rest"],)

    def charge(self, x: Tensor, state: State, c: Coefficients) -> State:
        (mem,) = state
        return (mem + c["rate"] * (c["v_rest"] - mem + upstroke(mem, c, self.max_exponent) + x),)


class QIF(_Euler):
    """Quadratic integrate-and-fire: m += (dt / tau) (a (m - v_rest) (m - v_crit) + x).

    `[T, B, ...]` current -> spikes; dimensionless, with resistance 1. The parabola is taken at the threshold at most.
    Gerstner et al. 2014, section 5.3.

    tau: the time constant in the unit of `dt`, dt or longer.   a: steepness, above 0.
    v_rest: rest, at which the membrane starts.   v_crit: above it the membrane runs away.
    learn: names among tau, a, v_rest and v_crit to make parameters. Each is a scalar or one per channel.
    Other keyword arguments: those of `Firing`; `reset_mechanism` is "zero" here unless given.
    """

    tau: Tensor
    a: Tensor
    v_rest: Tensor
    v_crit: Tensor

    def __init__(
        self,
        tau: Number = 10.0,
        a: Number = 1.0,
        v_rest: Number = 0.0,
        v_crit: Number = 0.8,
        *,
        dt: float = 1.0,
        learn: Sequence[str] = (),
        **firing: Any,
    ) -> None:
        super().__init__(dt, learn, **firing)
        self._add_values(tau=tau, a=a, v_rest=v_rest, v_crit=v_crit)
        self._require_slow("tau")
        self._require_positive("a")

    def coefficients(self) -> Coefficients:
        curve = {"a": self.a, "v_rest": self.v_rest, "v_crit": self.v_crit}
        return {**super().coefficients(), **curve, "rate": self._rate(self.tau)}

    def initial(self, x: Tensor, c: Coefficients) -> State:
        return (torch.zeros_like(x) + c["v_rest"],)

    def charge(self, x: Tensor, state: State, c: Coefficients) -> State:
        (mem,) = state
        below = torch.minimum(mem, c["threshold"])
        return (mem + c["rate"] * (c["a"] * (below - c["v_rest"]) * (below - c["v_crit"]) + x),)


class AdEx(_Euler):
    """Adaptive exponential LIF. `[T, B, ...]` current -> spikes. Brette and Gerstner 2005, eqs. 1 to 3, dimensionless.

    m += (dt / tau) (v_rest - m + delta exp((m - rheobase) / delta) - w + x);   w += (dt / tau_w) (a (m - v_rest) - w);
    each spike adds b to w. The adaptation keeps its gradient under `detach_reset`, which concerns the membrane.

    tau, tau_w: time constants in the unit of `dt`, dt or longer.   delta: sharpness of the upstroke, above 0.
    rheobase: where the upstroke begins.   v_rest: rest, at which the membrane starts.   a: adaptation by the membrane.
    b: adaptation by each spike.   max_exponent: where the exponent is cut.
    learn: names among tau, tau_w, delta, rheobase, v_rest, a and b to make parameters.
    Each is a scalar or one per channel.
    Other keyword arguments: those of `Firing`; `reset_mechanism` is "zero" here unless given.
    """

    states = ("mem", "adaptation")
    tau: Tensor
    tau_w: Tensor
    a: Tensor
    b: Tensor
    delta: Tensor
    rheobase: Tensor
    v_rest: Tensor

    def __init__(
        self,
        tau: Number = 10.0,
        tau_w: Number = 100.0,
        a: Number = 0.0,
        b: Number = 0.1,
        delta: Number = 0.2,
        rheobase: Number = 0.8,
        v_rest: Number = 0.0,
        *,
        dt: float = 1.0,
        max_exponent: float = 20.0,
        learn: Sequence[str] = (),
        **firing: Any,
    ) -> None:
        super().__init__(dt, learn, **firing)
        self._add_values(tau=tau, tau_w=tau_w, a=a, b=b, delta=delta, rheobase=rheobase, v_rest=v_rest)
        self._require_slow("tau", "tau_w")
        self._require_positive("delta")
        self.max_exponent = max_exponent

    def coefficients(self) -> Coefficients:
        shape = {"delta": self.delta.clamp(min=1e-3), "rheobase": self.rheobase, "v_rest": self.v_rest}
        rates = {"rate": self._rate(self.tau), "rate_w": self._rate(self.tau_w)}
        return {**super().coefficients(), **shape, **rates, "a": self.a, "b": self.b}

    def initial(self, x: Tensor, c: Coefficients) -> State:
        return torch.zeros_like(x) + c["v_rest"], torch.zeros_like(x)

    def charge(self, x: Tensor, state: State, c: Coefficients) -> State:
        mem, adaptation = state
        inflow = c["v_rest"] - mem + upstroke(mem, c, self.max_exponent) - adaptation + x
        drift = c["a"] * (mem - c["v_rest"]) - adaptation
        return mem + c["rate"] * inflow, adaptation + c["rate_w"] * drift

    def settle(self, state: State, spk: Tensor, c: Coefficients) -> State:
        mem, adaptation = super().settle(state, spk, c)
        return mem, adaptation + c["b"] * spk


class Izhikevich(_Euler):
    """Two-variable neuron with many firing patterns. `[T, B, ...]` current -> spikes. Izhikevich 2003, eqs. 1 to 3.

    v += dt_ms (0.04 v^2 + 5 v + 140 - u + x);   u += dt_ms a (b v - u);   a spike sets v to c and adds d to u.
    As in the paper v is in millivolt and time in milliseconds. The parabola is taken at the threshold, the spike's
    peak, at most. The jump of u keeps its gradient under `detach_reset`, which concerns v.

    a: rate of the recovery u, per millisecond.   b: its sensitivity to v.   c: v after a spike.   d: jump of u.
    square, slope, offset: the parabola's three numbers.   v_start: v at the start, where u = b v_start.
    learn: names among a, b, d, square, slope, offset and v_start to make parameters.
    Each is a scalar or one per channel, c a number.
    Other keyword arguments: those of `Firing`. The threshold is 30 unless given, and the surrogate ATan(slope=0.1),
    some millivolts wide.
    """

    states = ("mem", "recovery")

    def __init__(
        self,
        a: Number = 0.02,
        b: Number = 0.2,
        c: float = -65.0,
        d: Number = 8.0,
        *,
        square: Number = 0.04,
        slope: Number = 5.0,
        offset: Number = 140.0,
        v_start: Number = -65.0,
        dt_ms: float = 0.5,
        learn: Sequence[str] = (),
        **firing: Any,
    ) -> None:
        if "v_reset" in firing:
            raise ConfigError(f"Izhikevich got v_reset = {firing['v_reset']!r}; here it is called c")
        if firing.get("reset_mechanism", "zero") != "zero":
            raise ConfigError(
                f"Izhikevich got reset_mechanism {firing['reset_mechanism']!r}; its spike sets v to c: leave it out"
            )
        super().__init__(dt_ms, learn, **{"threshold": 30.0, "surrogate": ATan(slope=0.1), **firing, "v_reset": c})
        self._add_values(a=a, b=b, d=d, square=square, slope=slope, offset=offset, v_start=v_start)

    def coefficients(self) -> Coefficients:
        names = ("a", "b", "d", "square", "slope", "offset", "v_start")
        return {**super().coefficients(), **{name: getattr(self, name) for name in names}}

    def initial(self, x: Tensor, c: Coefficients) -> State:
        mem = torch.zeros_like(x) + c["v_start"]
        return mem, c["b"] * mem

    def charge(self, x: Tensor, state: State, c: Coefficients) -> State:
        mem, recovery = state
        below = torch.minimum(mem, c["threshold"])
        inflow = c["square"] * below * below + c["slope"] * below + c["offset"] - recovery + x
        return mem + self.dt * inflow, recovery + self.dt * c["a"] * (c["b"] * mem - recovery)

    def settle(self, state: State, spk: Tensor, c: Coefficients) -> State:
        mem, recovery = super().settle(state, spk, c)
        return mem, recovery + c["d"] * spk


def upstroke(mem: Tensor, c: Coefficients, max_exponent: float) -> Tensor:
    """The current delta exp((m - rheobase) / delta), its exponent cut at `max_exponent`. mem, result: `[B, ...]`."""
    return c["delta"] * torch.exp(torch.clamp((mem - c["rheobase"]) / c["delta"], max=max_exponent))
