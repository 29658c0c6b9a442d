"""Encoders: values without time `[B, ...]` become spikes or currents over time `[T, B, ...]`.

They hold no state, take any batch size and encode each sample by itself. Random ones draw from torch's global generator
in `forward`, so that a resumed run draws what the uninterrupted one would have drawn.
"""

from typing import ClassVar, Optional

import torch
from torch import Tensor, nn

from snn_core._check import is_count, is_number
from snn_core.errors import ConfigError, DataError, ShapeError

__all__ = ["Constant", "Delta", "Encoder", "Latency", "Poisson", "Population", "Rate"]


class Encoder(nn.Module):
    """What every encoder is: `[B, ...]` -> `[T, B, ...]`, in the input's dtype. A subclass writes `forward`.

    steps: T; None for an encoder whose input has time already, `[T, B, ...]`. Raises ConfigError unless 1 or more.
    static: every step is the same, so that what follows may be computed once.   random: each call draws anew.
    """

    static: ClassVar[bool] = False
    random: bool = False

    def __init__(self, steps: Optional[int]) -> None:
        super().__init__()
        if steps is not None and not is_count(steps):
            raise ConfigError(f"{type(self).__name__}.steps is {steps!r}; it must be a whole number of 1 or more")
        self.steps = steps

    def over_time(self, x: Tensor) -> Tensor:
        """x repeated at every step, without a copy, `[B, ...]` -> `[T, B, ...]`; x as it is where `steps` is None."""
        return x if self.steps is None else x.unsqueeze(0).expand(self.steps, *([-1] * x.dim()))

    def check(self, x: Tensor, integers: bool = False) -> None:
        """Raise ShapeError for too few dimensions and, unless allowed, DataError for integers."""
        name, rank, shape = type(self).__name__, 1, "[B, ...]"
        if self.steps is None:
            rank, shape = 2, "[T, B, ...]"
        if x.dim() < rank:
            raise ShapeError(f"{name} got x of shape {tuple(x.shape)}; it takes {shape}: add the missing dimension")
        if not (integers or x.is_floating_point()):
            raise DataError(
                f"{name} got x of {x.dtype}; it takes floating-point numbers: scale the data, such as x.float() / 255"
            )

    def extra_repr(self) -> str:
        return ", ".join(
            f"{name}={value}" for name, value in vars(self).items() if name != "training" and name[0] != "_"
        )


class Constant(Encoder):
    """The same input at every step ("direct" encoding): `[B, ...]` -> `[T, B, ...]`. Rueckauer et al. 2017.

    x in any range. A container computes the layers between this and the first neuron once instead of T times.
    """

    static = True

    def __init__(self, steps: int) -> None:
        super().__init__(_given("Constant", steps))

    def forward(self, x: Tensor) -> Tensor:
        self.check(x, integers=True)
        return self.over_time(x)


class Rate(Encoder):
    """A spike with probability clip(gain x + offset, 0, 1) at every step (Bernoulli): `[B, ...]` -> `[T, B, ...]` of 0
    and 1.

    With steps=None, x is `[T, B, ...]` and each step has a probability of its own.
    """

    random = True

    def __init__(self, steps: Optional[int], gain: float = 1.0, offset: float = 0.0) -> None:
        super().__init__(steps)
        self.gain = _finite("Rate.gain", gain)
        self.offset = _finite("Rate.offset", offset)

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        probability = (_widen(x) * self.gain + self.offset).clamp(0, 1)
        return torch.bernoulli(self.over_time(probability)).to(x.dtype)


class Poisson(Encoder):
    """Poisson spike trains of rate clip(x, 0, 1) * max_rate_hz, in steps of dt_s: `[B, ...]` -> `[T, B, ...]`.

    A step covers dt_s seconds, in which lam = rate * dt_s events are expected. By default a step is 1 if there was any
    event, with probability 1 - exp(-lam); with counts=True it is the number of events, which may exceed 1. With
    steps=None, x is `[T, B, ...]`. Dayan and Abbott 2001, section 1.4.
    """

    random = True

    def __init__(
        self, steps: Optional[int], max_rate_hz: float = 100.0, dt_s: float = 1e-3, counts: bool = False
    ) -> None:
        super().__init__(steps)
        self.max_rate_hz = _positive("Poisson.max_rate_hz", max_rate_hz)
        self.dt_s = _positive("Poisson.dt_s", dt_s)
        self.counts = counts

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        expected = _widen(x).clamp(0, 1) * (self.max_rate_hz * self.dt_s)
        if self.counts:
            return torch.poisson(self.over_time(expected)).to(x.dtype)
        return torch.bernoulli(self.over_time(-torch.expm1(-expected))).to(x.dtype)


class Latency(Encoder):
    """One spike for each value, the earlier the larger: x in `[0, 1]`, clipped: `[B, ...]` -> `[T, B, ...]` of 0 and 1.

    Logarithmic: t = tau log(x / (x - threshold)), when a membrane charged by x reaches the threshold. linear=True: t =
    tau (1 - x). A value below the threshold spikes when one at the threshold would, or never with clip=True.
    normalize=True sets tau so that a value of 0 spikes at step T - 1 (in the linear code: would, but for the
    threshold). The step is t rounded, half to even; what would come after step T - 1 does not spike. threshold in (0,
    1); tau > 0, in steps. As snnTorch's spikegen.latency, except that the logarithmic code is normalised by the latest
    possible time and not by the latest in the batch, so that a sample's spikes do not depend on its neighbours.
    """

    epsilon: ClassVar[float] = 1e-7  # how near to the threshold a value may come, where the logarithm has its pole

    def __init__(
        self,
        steps: int,
        threshold: float = 0.01,
        tau: float = 1.0,
        *,
        linear: bool = False,
        normalize: bool = False,
        clip: bool = False,
    ) -> None:
        super().__init__(_given("Latency", steps))
        if not (is_number(threshold) and 0 < threshold < 1):
            raise ConfigError(f"Latency.threshold is {threshold!r}; it must be above 0 and below 1")
        self.threshold = float(threshold)
        self.tau = _positive("Latency.tau", tau)
        self.linear, self.normalize, self.clip = linear, normalize, clip

    def time(self, x: Tensor) -> Tensor:
        """When each value spikes, in steps before rounding: `[B, ...]` -> `[B, ...]`, in float32 or wider."""
        last = _given("Latency", self.steps) - 1
        # in half precision threshold + epsilon would be the threshold, and the time infinite
        x = _widen(x).clamp(0, 1)
        if self.linear:
            return (1 - x.clamp(min=self.threshold)) * (last if self.normalize else self.tau)
        time = self._charging_time(x)
        return time * last / self._charging_time(torch.zeros_like(x)) if self.normalize else time * self.tau

    def _charging_time(self, x: Tensor) -> Tensor:
        x = x.clamp(min=self.threshold + self.epsilon)
        return torch.log(x / (x - self.threshold))

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        step = self.time(x).round()
        clock = torch.arange(_given("Latency", self.steps), dtype=step.dtype, device=x.device).reshape(
            -1, *([1] * x.dim())
        )
        spikes = clock == step
        return (spikes & (_widen(x) >= self.threshold) if self.clip else spikes).to(x.dtype)


class Delta(Encoder):
    """A spike where the input rose by `threshold` or more since the step before: `[T, B, ...]` -> `[T, B, ...]` of 0
    and 1.

    off_spikes: also -1 where it fell by as much. The step before the first is 0, or with padding=True the first itself,
    which then does not spike. threshold > 0. snnTorch's spikegen.delta.
    """

    def __init__(self, threshold: float = 0.1, *, padding: bool = False, off_spikes: bool = False) -> None:
        super().__init__(None)
        self.threshold = _positive("Delta.threshold", threshold)
        self.padding, self.off_spikes = padding, off_spikes

    def forward(self, x: Tensor) -> Tensor:
        self.check(x)
        value = _widen(x)
        before_first = value[:1] if self.padding else torch.zeros_like(value[:1])
        change = value - torch.cat((before_first, value[:-1]))
        spikes = (change >= self.threshold).to(x.dtype)
        return spikes - (change <= -self.threshold).to(x.dtype) if self.off_spikes else spikes


class Population(Encoder):
    """Each value as the activity of `neurons` Gaussian receptive fields, coded by another encoder. Bohte et al. 2002.

    `[B, C, ...]` -> `[T, B, C * neurons, ...]`; channel c becomes the channels c * neurons to (c + 1) * neurons - 1,
    and `[B]` becomes `[T, B, neurons]`. Field i = 1..n has its centre at low + (2 i - 3) / 2 * (high - low) / (n - 2)
    and the deviation (high - low) / (beta (n - 2)); its activity exp(-(x - centre)^2 / (2 deviation^2)) in (0, 1] goes
    into `code`, such as Latency(steps=11, linear=True, normalize=True, clip=True, threshold=0.1), which is the paper's,
    or Rate(steps=25). Raises ConfigError unless neurons >= 3, low < high and beta > 0.
    """

    def __init__(self, code: Encoder, neurons: int = 8, low: float = 0.0, high: float = 1.0, beta: float = 1.5) -> None:
        if not isinstance(code, Encoder) or code.steps is None:
            raise ConfigError(
                f"Population.code is {code!r}; it must be an encoder with a number of steps, such as "
                "Latency(steps=25, linear=True, normalize=True) or Rate(steps=25)"
            )
        super().__init__(code.steps)
        if not is_count(neurons) or neurons < 3:
            raise ConfigError(f"Population.neurons is {neurons!r}; it must be a whole number of 3 or more")
        self.neurons, self.low, self.high = neurons, _finite("Population.low", low), _finite("Population.high", high)
        if not low < high:
            raise ConfigError(f"Population has low {low!r} and high {high!r}; low must be below high")
        self.beta = _positive("Population.beta", beta)
        self.code, self.random = code, code.random

    def activity(self, x: Tensor) -> Tensor:
        """The receptive fields' activity: `[B, C, ...]` -> `[B, C * neurons, ...]`, and `[B]` -> `[B, neurons]`; in (0,
        1].
        """
        self.check(x)
        x = x.unsqueeze(1) if x.dim() == 1 else x
        value = _widen(x).unsqueeze(2)
        spacing = (self.high - self.low) / (self.neurons - 2)
        field = torch.arange(self.neurons, dtype=value.dtype, device=x.device)
        centre = (field * spacing + (self.low - spacing / 2)).reshape(-1, *([1] * (x.dim() - 2)))
        distance = (value - centre) * (self.beta / spacing)
        return torch.exp(-distance.square() / 2).flatten(1, 2).to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        spikes: Tensor = self.code(self.activity(x))
        return spikes


def _widen(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def _given(name: str, steps: Optional[int]) -> int:
    if steps is None:
        raise ConfigError(f"{name}.steps is None; it must be a whole number of 1 or more")
    return steps


def _finite(name: str, value: float) -> float:
    if not is_number(value):
        raise ConfigError(f"{name} is {value!r}; it must be a finite number")
    return float(value)


def _positive(name: str, value: float) -> float:
    if not (is_number(value) and value > 0):
        raise ConfigError(f"{name} is {value!r}; it must be a finite number above 0")
    return float(value)
