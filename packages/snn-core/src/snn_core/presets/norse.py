"""Norse 1.1.0's neurons (Pehle and Pedersen 2021): Euler steps of dt, firing on `v > v_th`, the superspike derivative.

Every class takes the fields of Norse's parameter tuple by name and `dt`, so `LIF(**p._asdict(), dt=dt)` takes over a
tuple `p` of Norse's. `tau_*_inv` are inverse time constants in 1/s, `dt` is in seconds. `learn` names numbers to make
parameters. `alpha` is the slope of the methods that have one; "super" ignores it, as in Norse. "adjoint" is refused.
"""

import math
from typing import Any, Callable, ClassVar, Dict, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snn_core.errors import ConfigError, nearest
from snn_core.neurons.base import Coefficients, Neuron, State
from snn_core.presets._norse import METHODS, reset_subtract, reset_value
from snn_core.presets._shared import as_float
from snn_core.surrogate import spike

__all__ = [
    "IAF",
    "LI",
    "LIF",
    "LSNN",
    "Izhikevich",
    "IzhikevichRecurrent",
    "LIBox",
    "LIFAdEx",
    "LIFAdExRecurrent",
    "LIFBox",
    "LIFEx",
    "LIFExRecurrent",
    "LIFRecurrent",
    "LSNNRecurrent",
    "reset_subtract",
    "reset_value",
]


Currents = Tuple[Tensor, ...]
ResetMethod = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class _Norse(Neuron):
    """Numbers by name with Norse's defaults; each becomes a buffer, or a parameter where `learn` names it.

    A subclass writes `advance`, which its recurrent class shares.
    """

    defaults: ClassVar[Dict[str, float]] = {}

    def __init__(
        self,
        *,
        method: str = "super",
        alpha: Any = 100.0,
        dt: float = 0.001,
        learn: Sequence[str] = (),
        **numbers: Any,
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if method not in METHODS:
            raise ConfigError(
                f"{name}.method is {method!r}{nearest(method, METHODS)}; it must be one of {', '.join(METHODS)}"
            )
        for given in (*numbers, *learn):
            if given not in self.defaults:
                raise ConfigError(
                    f"{name} has no number {given!r}{nearest(given, self.defaults)}; it has {', '.join(self.defaults)}"
                )
        if not dt > 0:
            raise ConfigError(f"{name}.dt is {dt!r} s; it must be above 0")
        self.surrogate = METHODS[method](as_float(name, "alpha", alpha))
        self.dt = dt
        for given, default in self.defaults.items():
            self.add_value(given, numbers.get(given, default), learn=given in learn)

    def coefficients(self) -> Coefficients:
        """Norse multiplies `dt * tau_inv` first; a rate is that product, one step's decay."""
        c = {name: getattr(self, name) for name in self.defaults}
        return {**c, **{name: self.dt * value for name, value in c.items() if name.startswith("tau_")}}

    def initial(self, x: Tensor, c: Coefficients) -> State:
        zeros = torch.zeros_like(x)
        # as in Norse, what a membrane starts at passes no gradient to v_leak
        return (zeros + c["v_leak"].detach(), *(zeros for _ in self.states[1:]))

    def fire(self, u: Tensor) -> Tensor:
        """Spikes of u = membrane - threshold `[B, ...]`, strictly above 0."""
        return spike(u, self.surrogate, ">")

    def hard_reset(self, mem: Tensor, spk: Tensor, c: Coefficients) -> Tensor:
        """The membrane `[B, ...]` after spikes `spk`: v_reset where it fired."""
        return (1 - spk) * mem + spk * c["v_reset"]

    def dynamics(self, x: Tensor, state: State, c: Coefficients) -> Tuple[Tensor, State]:
        return self.advance((x,), state, c)

    def advance(self, currents: Currents, state: State, c: Coefficients) -> Tuple[Tensor, State]:
        """One step on one or two currents `[B, ...]`, added one after the other, as Norse rounds."""
        raise NotImplementedError(f"{type(self).__name__} must define advance(currents, state, c)")

    def for_reset(self, spk: Tensor) -> Tensor:
        """The spikes `[B, ...]` that act on the state: with their gradient, save in two recurrent classes."""
        return spk


def add(start: Tensor, currents: Currents) -> Tensor:
    """start + currents, from left to right."""
    for current in currents:
        start = start + current
    return start


class IAF(_Norse):
    """v = v + x, reset to v_reset, where it starts. `[T, B, ...]` current -> spikes."""

    states = ("mem",)
    defaults: ClassVar[Dict[str, float]] = {"v_th": 1.0, "v_reset": 0.0}

    def initial(self, x: Tensor, c: Coefficients) -> State:
        return (torch.zeros_like(x) + c["v_reset"],)

    def advance(self, currents: Currents, state: State, c: Coefficients) -> Tuple[Tensor, State]:
        mem = add(state[0], currents)
        spk = self.fire(mem - c["v_th"])
        return spk, (self.hard_reset(mem, spk, c),)


class LI(_Norse):
    """A readout that never fires: i = i + x; v = v + dt/tau_m (v_leak - v + i); i = i - dt/tau_s i.

    `[T, B, ...]` -> membrane.
    """

    states = ("mem", "syn")
    fires = False
    defaults: ClassVar[Dict[str, float]] = {"tau_syn_inv": 200.0, "tau_mem_inv": 100.0, "v_leak": 0.0}

    def advance(self, currents: Currents, state: State, c: Coefficients) -> Tuple[Tensor, State]:
        mem, syn = state
        syn = add(syn, currents)
        mem = mem + c["tau_mem_inv"] * (c["v_leak"] - mem + syn)
        return mem, (mem, syn - c["tau_syn_inv"] * syn)


class LIBox(_Norse):
    """A readout without synapse: v = v + dt/tau_m (v_leak - v + x). `[T, B, ...]` current -> membrane."""

    states = ("mem",)
    fires = False
    defaults: ClassVar[Dict[str, float]] = {"tau_mem_inv": 100.0, "v_leak": 0.0}

    def advance(self, currents: Currents, state: State, c: Coefficients) -> Tuple[Tensor, State]:
        mem = state[0] + c["tau_mem_inv"] * add(c["v_leak"] - state[0], currents)
        return mem, (mem,)


class LIFBox(_Norse):
    """LIF without synapse: v = v + dt/tau_m (x + v_leak - v), then `reset_method`: reset_value or reset_subtract.

    `[T, B, ...]` current -> spikes.
    """

    states = ("mem",)
    defaults: ClassVar[Dict[str, float]] = {"tau_mem_inv": 100.0, "v_leak": 0.0, "v_th": 1.0, "v_reset": 0.0}

    def __init__(self, *, reset_method: ResetMethod = reset_value, **numbers: Any) -> None:
        super().__init__(**numbers)
        self.reset_method = reset_method

    def advance(self, currents: Currents, state: State, c: Coefficients) -> Tuple[Tensor, State]:
        (current,) = currents
        mem = state[0] + c["tau_mem_inv"] * (current + c["v_leak"] - state[0])
        spk = self.fire(mem - c["v_th"])
        return spk, (self.reset_method(spk, mem, c["v_reset"], c["v_th"]),)


class LIF(_Norse):
    """i = i + x; v = v + dt/tau_m (v_leak - v + i); i = i - dt/tau_s i; fire; v to v_reset.

    `[T, B, ...]` current -> spikes.
    """

    states: Tuple[str, ...] = ("mem", "syn")
    defaults: ClassVar[Dict[str, float]] = {
        "tau_syn_inv": 200.0,
        "tau_mem_inv": 100.0,
        "v_leak": 0.0,
        "v_th": 1.0,
        "v_reset": 0.0,
    }

    def advance(self, currents: Currents, state: State, c: Coefficients) -> Tuple[Tensor, State]:
        mem, syn = state
        syn = add(syn, currents)
        mem = mem + c["tau_mem_inv"] * (c["v_leak"] - mem + syn)
        spk = self.fire(mem - c["v_th"])
        return spk, (self.hard_reset(mem, self.for_reset(spk), c), syn - c["tau_syn_inv"] * syn)


class LIFEx(_Norse):
    """LIF with an exponential upstroke, delta_T exp((v - v_th) / delta_T), in the leak.

    `[T, B, ...]` current -> spikes.
    """

    states: Tuple[str, ...] = ("mem", "syn")
    defaults: ClassVar[Dict[str, float]] = {"delta_T": 0.5, **LIF.defaults}

    def advance(self, currents: Currents, state: State, c: Coefficients) -> Tuple[Tensor, State]:
        mem, syn = state
        syn = add(syn, currents)
        mem = mem + c["tau_mem_inv"] * (c["v_leak"] - mem + upstroke(mem, c) + syn)
        spk = self.fire(mem - c["v_th"])
        return spk, (self.hard_reset(mem, spk, c), syn - c["tau_syn_inv"] * syn)


class LIFAdEx(_Norse):
    """LIFEx with an adaptation current a = a + dt/tau_a (adaptation_current (v - v_leak) - a).

    A spike adds adaptation_spike to it. `[T, B, ...]` current -> spikes.
    """

    states: Tuple[str, ...] = ("mem", "syn", "adapt")
    defaults: ClassVar[Dict[str, float]] = {
        "adaptation_current": 4.0,
        "adaptation_spike": 0.02,
        "tau_ada_inv": 2.0,
        **LIFEx.defaults,
    }

    def advance(self, currents: Currents, state: State, c: Coefficients) -> Tuple[Tensor, State]:
        before, syn, adapt = state
        syn = add(syn, currents)
        mem = before + c["tau_mem_inv"] * (c["v_leak"] - before + upstroke(before, c) + syn - adapt)
        adapt = adapt + c["tau_ada_inv"] * (c["adaptation_current"] * (before - c["v_leak"]) - adapt)
        spk = self.fire(mem - c["v_th"])
        adapt = adapt + spk * c["adaptation_spike"]
        return spk, (self.hard_reset(mem, spk, c), syn - c["tau_syn_inv"] * syn, adapt)


class LSNN(_Norse):
    """LIF with a threshold that relaxes to v_th and grows by beta a spike; the input acts one step late.

    tau_adapt_inv is 1/800 in Norse, in 1/s. `[T, B, ...]` current -> spikes. Bellec et al. 2018.
    """

    states: Tuple[str, ...] = ("mem", "syn", "threshold")
    defaults: ClassVar[Dict[str, float]] = {**LIF.defaults, "tau_adapt_inv": 1.0 / 800, "beta": 1.8}

    def initial(self, x: Tensor, c: Coefficients) -> State:
        zeros = torch.zeros_like(x)
        rest, threshold = c["v_leak"].detach(), c["v_th"].detach()
        return (zeros + rest, zeros, zeros + threshold, *(zeros for _ in self.states[3:]))

    def advance(self, currents: Currents, state: State, c: Coefficients) -> Tuple[Tensor, State]:
        mem, syn, threshold = state
        mem = mem + c["tau_mem_inv"] * (c["v_leak"] - mem + syn)
        threshold = threshold + c["tau_adapt_inv"] * (c["v_th"] - threshold)
        spk = self.fire(mem - threshold)
        acting = self.for_reset(spk)
        syn = add(syn - c["tau_syn_inv"] * syn, currents)
        return spk, (self.hard_reset(mem, acting, c), syn, threshold + acting * c["beta"])


class Izhikevich(_Norse):
    """v + k (sq v^2 + mn v + bias - u + x), u + k a (b v - u) with k = tau_inv dt; v to c and u + d at a spike.

    a, b, c, d, sq, mn, bias, v_th and tau_inv are numbers that do not learn. v_rest, u_rest: the start; u_rest None
    is b v_rest. `[T, B, ...]` current -> spikes. Izhikevich 2003.
    """

    states: Tuple[str, ...] = ("mem", "recovery")

    def __init__(
        self,
        a: float,
        b: float,
        c: float,
        d: float,
        sq: float = 0.04,
        mn: float = 5.0,
        bias: float = 140.0,
        v_th: float = 30.0,
        tau_inv: float = 250.0,
        *,
        v_rest: float = -70.0,
        u_rest: Optional[float] = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.a, self.b, self.c, self.d, self.v_th = a, b, c, d, v_th
        self.sq, self.mn, self.bias, self.rate = sq, mn, bias, tau_inv * self.dt
        self.rest = (v_rest, b * v_rest if u_rest is None else u_rest)

    def initial(self, x: Tensor, c: Coefficients) -> State:
        zeros = torch.zeros_like(x)
        return (*(torch.full_like(x, value) for value in self.rest), *(zeros for _ in self.states[2:]))

    def advance(self, currents: Currents, state: State, c: Coefficients) -> Tuple[Tensor, State]:
        v, u = state
        mem = v + self.rate * add(self.sq * v**2 + self.mn * v + self.bias - u, currents)
        u = u + self.rate * self.a * (self.b * v - u)
        spk = self.fire(mem - self.v_th)
        return spk, ((1 - spk) * mem + spk * self.c, (1 - spk) * u + spk * (u + self.d))


class _Recurrent(_Norse):
    """A step that weighs its input and the layer's last spikes: `[T, B, input_size]` -> spikes `[T, B, hidden_size]`.

    Weights start as in Norse, randn sqrt(2 / hidden_size). Without `autapses` a neuron's weight to itself is 0 and
    stays so.
    """

    recurrence = True

    def __init__(self, input_size: int, hidden_size: int, *args: Any, autapses: bool = False, **numbers: Any) -> None:
        super().__init__(*args, **numbers)
        self.input_weights = nn.Parameter(torch.randn(hidden_size, input_size) * math.sqrt(2.0 / hidden_size))
        self.recurrent_weights = nn.Parameter(torch.randn(hidden_size, hidden_size) * math.sqrt(2.0 / hidden_size))
        self.autapses = autapses
        if not autapses:
            with torch.no_grad():
                self.recurrent_weights.fill_diagonal_(0.0)

    def aligned_coefficients(self, x: Tensor) -> Coefficients:
        # numbers belong to the hidden neurons, not to the input's channels
        weights: Tensor = self.recurrent_weights
        if not self.autapses:
            weights = weights * (1 - torch.eye(weights.shape[0], dtype=weights.dtype, device=weights.device))
        return {**self.coefficients(), "recurrent_weights": weights}

    def initial(self, x: Tensor, c: Coefficients) -> State:
        return super().initial(x.new_zeros((*x.shape[:-1], self.input_weights.shape[0])), c)

    def dynamics(self, x: Tensor, state: State, c: Coefficients) -> Tuple[Tensor, State]:
        *inner, spk = state
        currents = F.linear(x, self.input_weights), F.linear(spk, c["recurrent_weights"])
        spk, after = self.advance(currents, tuple(inner), c)
        return spk, (*after, spk)


class LIFRecurrent(_Recurrent, LIF):
    """LIF with recurrent weights. The reset carries no gradient, as in Norse."""

    states = ("mem", "syn", "spk")

    def for_reset(self, spk: Tensor) -> Tensor:
        return spk.detach()


class LIFExRecurrent(_Recurrent, LIFEx):
    """LIFEx with recurrent weights."""

    states = ("mem", "syn", "spk")


class LIFAdExRecurrent(_Recurrent, LIFAdEx):
    """LIFAdEx with recurrent weights."""

    states = ("mem", "syn", "adapt", "spk")


class LSNNRecurrent(_Recurrent, LSNN):
    """LSNN with recurrent weights. Neither the reset nor the threshold's growth carries a gradient, as in Norse."""

    states = ("mem", "syn", "threshold", "spk")

    def for_reset(self, spk: Tensor) -> Tensor:
        return spk.detach()


class IzhikevichRecurrent(_Recurrent, Izhikevich):
    """Izhikevich with recurrent weights."""

    states = ("mem", "recovery", "spk")


def upstroke(mem: Tensor, c: Coefficients) -> Tensor:
    """The exponential current of a membrane `[B, ...]`. Fourcaud-Trocme et al. 2003."""
    return c["delta_T"] * torch.exp((mem - c["v_th"]) / c["delta_T"])
