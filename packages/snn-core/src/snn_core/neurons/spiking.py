"""Firing and reset, written once: what every neuron with a threshold declares instead of implying."""

from dataclasses import dataclass, fields
from typing import Any, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

from snn_core.errors import ConfigError, nearest
from snn_core.neurons.base import Coefficients, Neuron, State
from snn_core.surrogate import ATan, Surrogate, attach, spike

__all__ = ["Firing", "SpikingNeuron"]

_ATAN = ATan()


@dataclass(frozen=True)
class Firing:
    """How a neuron fires and what firing does to it. Every neuron with a threshold takes these as keyword arguments.

    threshold: a scalar or one per channel.           learn_threshold: make it a parameter.
    reset_mechanism: "subtract" takes the threshold off the membrane for each spike, "zero" sets it to `v_reset`, "none"
    leaves it.
    reset_delay: False resets in the step of the spike; True in the next step, before that step's firing.
    reset_clears_input: of a delayed "zero": also drop the input that arrived in the step of the reset.
    detach_reset: no gradient through the reset.      fire_op: ">=" or ">": whether a membrane at the threshold fires.
    surrogate: the spike's derivative.                levels: the most spikes in one step; None is unbounded.
    gain: what one spike is worth at the output ("graded" spikes), a scalar or one per channel.   learn_gain: make it a
    parameter.
    """

    threshold: Union[float, Sequence[float], Tensor] = 1.0
    learn_threshold: bool = False
    reset_mechanism: str = "subtract"
    v_reset: float = 0.0
    reset_delay: bool = False
    reset_clears_input: bool = False
    detach_reset: bool = True
    fire_op: str = ">="
    surrogate: Surrogate = _ATAN
    levels: Optional[int] = 1
    gain: Union[float, Sequence[float], Tensor, None] = None
    learn_gain: bool = False

    def __post_init__(self) -> None:
        if self.reset_mechanism not in ("subtract", "zero", "none"):
            raise ConfigError(f"reset_mechanism is {self.reset_mechanism!r}; it must be 'subtract', 'zero' or 'none'")
        if self.fire_op not in (">=", ">"):
            raise ConfigError(f"fire_op is {self.fire_op!r}; it must be '>=' or '>'")
        if not isinstance(self.surrogate, Surrogate):
            raise ConfigError(
                f"surrogate is {self.surrogate!r}; it must be an object of snn_core.surrogate, such as ATan(), or "
                "Custom(function)"
            )
        if self.levels is not None and (not isinstance(self.levels, int) or self.levels < 1):
            raise ConfigError(f"levels is {self.levels!r}; it must be a whole number above 0, or None for no bound")
        if self.reset_clears_input and not (self.reset_delay and self.reset_mechanism == "zero"):
            raise ConfigError("reset_clears_input needs reset_delay=True and reset_mechanism='zero'")
        if self.v_reset != 0.0 and self.reset_mechanism != "zero":
            raise ConfigError(
                f"v_reset is {self.v_reset} and reset_mechanism {self.reset_mechanism!r}; v_reset needs 'zero'"
            )
        if self.learn_gain and self.gain is None:
            raise ConfigError("learn_gain needs a gain to start from, such as gain=1.0")

    @classmethod
    def of(cls, neuron: str, options: Any) -> "Firing":
        """Make one from a neuron's keyword arguments. Raises ConfigError for an unknown name."""
        allowed = [field.name for field in fields(cls)]
        for name in options:
            if name not in allowed:
                raise ConfigError(
                    f"{neuron} has no argument {name!r}{nearest(name, allowed)}; firing takes {', '.join(allowed)}"
                )
        return cls(**options)


class SpikingNeuron(Neuron):
    """A neuron whose first state is a membrane with a threshold. A subclass writes `charge`; the rest is here."""

    states: Tuple[str, ...] = ("mem",)
    threshold: Tensor
    gain: Tensor

    def __init__(self, **firing: Any) -> None:
        super().__init__()
        self.firing = Firing.of(type(self).__name__, firing)
        self.add_value("threshold", self.firing.threshold, self.firing.learn_threshold)
        if self.firing.gain is not None:
            self.add_value("gain", self.firing.gain, self.firing.learn_gain)

    def coefficients(self) -> Coefficients:
        c = {"threshold": self.threshold}
        if self.firing.gain is not None:
            c["gain"] = self.gain
        return c

    def charge(self, x: Tensor, state: State, c: Coefficients) -> State:
        """Integrate one step's input into the state, before any firing. x: `[B, ...]`. Pure."""
        raise NotImplementedError(f"{type(self).__name__} must define charge(x, state, c)")

    def dynamics(self, x: Tensor, state: State, c: Coefficients) -> Tuple[Tensor, State]:
        if self.firing.reset_delay:
            after = charged = self._charge_after_reset(x, state, c)
            spk = self.fire(charged[0], c)
        else:
            charged = self.charge(x, state, c)
            spk = self.fire(charged[0], c)
            after = self.settle(charged, spk, c)
        return self.emit(charged[0], spk, c), after

    def _charge_after_reset(self, x: Tensor, state: State, c: Coefficients) -> State:
        earlier = self.fire(state[0], c)
        if self.firing.reset_mechanism == "zero" and not self.firing.reset_clears_input:
            return self.charge(x, self.settle(state, earlier, c), c)
        return self.settle(self.charge(x, state, c), earlier, c)

    def settle(self, state: State, spk: Tensor, c: Coefficients) -> State:
        """What spikes `spk` do to the state: reset the membrane. A subclass adds what they do to its other states."""
        return (self.reset(state[0], spk, c), *state[1:])

    def emit(self, mem: Tensor, spk: Tensor, c: Coefficients) -> Tensor:
        """The output for the spikes `spk` of a membrane `[B, ...]`: each is worth the gain."""
        return spk * c["gain"] if "gain" in c else spk

    def fire(self, mem: Tensor, c: Coefficients) -> Tensor:
        """Spikes of a membrane `[B, ...]`: 0 or 1, or their number where `levels` allows more, with a gradient."""
        threshold, rule = c["threshold"], self.firing
        if rule.levels == 1:
            return spike(mem - threshold, rule.surrogate, rule.fire_op)
        ratio = (mem / threshold).detach()
        count = ratio.floor() if rule.fire_op == ">=" else ratio.ceil() - 1
        nearest_level = ratio.round()
        # the gradient is that of the nearest threshold: one surrogate bump at each level
        return attach(
            torch.clamp(count, min=0, max=rule.levels),
            mem - threshold * torch.clamp(nearest_level, min=1, max=rule.levels),
            rule.surrogate,
        )

    def reset(self, mem: Tensor, spk: Tensor, c: Coefficients) -> Tensor:
        """The membrane `[B, ...]` after spikes `spk`."""
        rule = self.firing
        if rule.reset_mechanism == "none":
            return mem
        spk = self.resetting(spk)
        if rule.reset_mechanism == "subtract":
            return mem - spk * c["threshold"]
        kept = mem * (1 - spk)
        return kept if rule.v_reset == 0.0 else kept + spk * rule.v_reset

    def resetting(self, spk: Tensor) -> Tensor:
        """Spikes as a reset takes them: without gradient where `detach_reset`, and for "zero" one at most."""
        spk = spk.detach() if self.firing.detach_reset else spk
        return torch.clamp(spk, max=1) if self.firing.reset_mechanism == "zero" and self.firing.levels != 1 else spk
