"""Neurons that take the whole sequence at once: without a reset the membrane is a linear function of the inputs.

`ParallelLIF` is a LIF without reset; PSN, MaskedPSN and SlidingPSN learn that linear function. Fang et al. 2023.
"""

import math
from typing import Any, Dict, Optional, Sequence

import torch
from torch import Tensor, nn

from snn_core.errors import ConfigError, ShapeError
from snn_core.neurons.base import Number, SequenceLayer, State, Unrolled, checked_state, widen
from snn_core.neurons.lif import LIF
from snn_core.neurons.spiking import Firing
from snn_core.recording import static_shape
from snn_core.surrogate import ATan, Surrogate, spike

__all__ = ["PSN", "MaskedPSN", "ParallelLIF", "SlidingPSN"]

_REACH = 16
_DEFAULT = ATan()


class ParallelLIF(SequenceLayer):
    """LIF without reset, over all steps at once: m[t] = sum over k of beta^k x[t-k], spikes where m >= threshold.

    `[T, B, ...]` current -> spikes, equal to `LIF(reset_mechanism="none")` up to rounding. The sum over the last 16
    inputs is built by doubling, s_2n[t] = s_n[t] + beta^n s_n[t-n], and goes on as m[t] = s_16[t] + beta^16 m[t-16]:
    4 + T / 16 operations instead of T, no negative power of beta, and the same expression for every t, so that chunks
    equal the whole bit for bit. Hillis and Steele 1986.

    beta: decay per step in [0, 1], a scalar or one per channel; or `tau_mem_s` with `dt_s`, in seconds.
    learn_beta: make it a parameter, clamped to [0, 1]. Other keyword arguments: those of `Firing`, without a reset.
    States: "mem", the last 16 membranes `[B, 16, ...]`, and "x", the last 15 inputs `[B, 15, ...]`; recorded, both
    are `[T, B, ...]`.
    """

    states = ("mem", "x")
    chunkable = True

    def __init__(
        self,
        beta: Optional[Number] = None,
        *,
        tau_mem_s: Optional[Number] = None,
        dt_s: Optional[float] = None,
        learn_beta: bool = False,
        **firing: Any,
    ) -> None:
        super().__init__()
        if firing.get("reset_mechanism", "none") != "none":
            raise ConfigError(
                f"ParallelLIF got reset_mechanism {firing['reset_mechanism']!r}; a reset needs one step after the "
                "other: use LIF, or leave it out"
            )
        options = {**firing, "reset_mechanism": "none"}
        self.neuron = LIF(beta, tau_mem_s=tau_mem_s, dt_s=dt_s, learn_beta=learn_beta, **options)

    def run(
        self, x: Tensor, state: Optional[State] = None, steps: Optional[int] = None, wanted: Sequence[str] = ()
    ) -> Unrolled:
        dtype = x.dtype
        x = _over_time(self, x, steps)
        c = self.neuron.aligned_coefficients(x[0])
        mems, inputs = _past(x, _REACH), _past(x, _REACH - 1)
        if state is not None:
            mems, inputs = (tensor.transpose(0, 1) for tensor in checked_state(self, state, x[0]))
        inputs = torch.cat((inputs, x))
        total, decay, reach = inputs, c["beta"], 1
        while reach < _REACH:
            total = total[reach:] + decay * total[:-reach]
            decay, reach = decay * decay, 2 * reach
        blocks = [mems]
        for part in total.split(_REACH):
            blocks.append(part + decay * blocks[-1][: part.shape[0]])
        mem = torch.cat(blocks)
        last = (mem[-_REACH:].transpose(0, 1), inputs[1 - _REACH :].transpose(0, 1))
        mem = mem[_REACH:]
        out = self.neuron.emit(mem, self.neuron.fire(mem, c), c)
        return out.to(dtype), last, _kept(wanted, mem=mem, x=x)


class PSN(SequenceLayer):
    """Parallel spiking neuron: h = W x over time, spikes where h[t] >= B[t], with W `[T, T]` and B `[T]` learnt.

    `[T, B, ...]` current -> spikes, T = `steps`. Fang et al. 2023. A step may look at later ones: not for streaming.

    threshold: where B starts.   surrogate, fire_op: as in `Firing`. Raises ShapeError for another number of steps.
    """

    def __init__(
        self, steps: int, *, threshold: float = 1.0, surrogate: Surrogate = _DEFAULT, fire_op: str = ">="
    ) -> None:
        super().__init__()
        if steps < 1:
            raise ConfigError(f"{type(self).__name__}.steps is {steps!r}; it must be 1 or more")
        self.steps = steps
        self.firing = Firing(surrogate=surrogate, fire_op=fire_op)
        self.weight = nn.Parameter(torch.empty(steps, steps))
        self.threshold = nn.Parameter(torch.full((steps,), float(threshold)))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    def mixing(self) -> Tensor:
        """The matrix `[T, T]` that makes the membrane of each step from the inputs of all."""
        return self.weight

    def run(
        self, x: Tensor, state: Optional[State] = None, steps: Optional[int] = None, wanted: Sequence[str] = ()
    ) -> Unrolled:
        dtype = x.dtype
        x = _over_time(self, x, steps)
        count = static_shape(x)[0]
        if count != self.steps:
            raise ShapeError(
                f"{type(self).__name__} was made for {self.steps} time steps and got {count}; "
                f"make it with steps={count}"
            )
        if state:
            raise ShapeError(f"{type(self).__name__} got a state; it has none and takes its {self.steps} steps at once")
        flat = x.flatten(1)
        h = widen(self.mixing() @ flat) - self.threshold.unsqueeze(1)
        out = spike(h, self.firing.surrogate, self.firing.fire_op)
        return out.view(x.shape).to(dtype), (), {}


class MaskedPSN(PSN):
    """PSN that sees the last `order` inputs: W is multiplied by a band, and with masking below 1 partly so.

    `[T, B, ...]` current -> spikes, T = `steps`. W (masking M + 1 - masking), M[t, s] = 1 for 0 <= t - s < order.
    Fang et al. 2023, who raise the masking from 0 to 1 while they train.

    masking: in [0, 1], kept as a buffer.   threshold: where B starts.   surrogate, fire_op: as in `Firing`.
    Raises ShapeError for another number of steps.
    """

    masking: Tensor
    band: Tensor

    def __init__(
        self,
        steps: int,
        order: int,
        *,
        masking: float = 1.0,
        threshold: float = 1.0,
        surrogate: Surrogate = _DEFAULT,
        fire_op: str = ">=",
    ) -> None:
        super().__init__(steps, threshold=threshold, surrogate=surrogate, fire_op=fire_op)
        _require_order(self, order)
        if not 0 <= masking <= 1:
            raise ConfigError(f"MaskedPSN.masking is {masking!r}; it must lie in [0, 1]")
        self.order = order
        self.add_value("masking", masking)
        ones = torch.ones(steps, steps)
        self.register_buffer("band", ones.tril() * ones.triu(1 - order), persistent=False)

    def mixing(self) -> Tensor:
        return self.weight * (self.masking * self.band + (1 - self.masking))


class SlidingPSN(SequenceLayer):
    """PSN with one filter for all steps: h[t] = sum over i of w[i] x[t - order + 1 + i], spikes where h[t] >= B.

    `[T, B, ...]` current -> spikes, any T. Fang et al. 2023. Inputs before the first step are 0.
    State: "x", the last order - 1 inputs `[B, order - 1, ...]`; recorded, it is `[T, B, ...]`.

    order: the filter's length.   exponential: start at w = (..., 1/4, 1/2, 1), else at random.
    threshold: where B starts.   surrogate, fire_op: as in `Firing`.
    """

    states = ("x",)
    chunkable = True

    def __init__(
        self,
        order: int,
        *,
        exponential: bool = True,
        threshold: float = 1.0,
        surrogate: Surrogate = _DEFAULT,
        fire_op: str = ">=",
    ) -> None:
        super().__init__()
        _require_order(self, order)
        self.order = order
        self.firing = Firing(surrogate=surrogate, fire_op=fire_op)
        self.weight = nn.Parameter(0.5 ** torch.arange(order - 1, -1, -1.0))
        self.threshold = nn.Parameter(torch.tensor(float(threshold)))
        if not exponential:
            bound = 1 / math.sqrt(order)
            nn.init.uniform_(self.weight, -bound, bound)

    def run(
        self, x: Tensor, state: Optional[State] = None, steps: Optional[int] = None, wanted: Sequence[str] = ()
    ) -> Unrolled:
        dtype = x.dtype
        x = _over_time(self, x, steps)
        past = _past(x, self.order - 1)
        if state is not None:
            past = checked_state(self, state, x[0])[0].transpose(0, 1)
        inputs = torch.cat((past, x))
        count = x.shape[0]
        # shifted products, not a convolution: the same additions for every step, so chunks equal the whole bit for bit
        h = self.weight[0] * inputs[:count]
        for i in range(1, self.order):
            h = h + self.weight[i] * inputs[i : i + count]
        out = spike(h - self.threshold, self.firing.surrogate, self.firing.fire_op)
        return out.to(dtype), (inputs[count:].transpose(0, 1),), _kept(wanted, x=x)


def _over_time(layer: SequenceLayer, x: Tensor, steps: Optional[int]) -> Tensor:
    layer.check_input(x, steps)
    return widen(x if steps is None else x.unsqueeze(0).expand(steps, *x.shape))


def _past(x: Tensor, steps: int) -> Tensor:
    return x.new_zeros((steps, *x.shape[1:]))


def _kept(wanted: Sequence[str], **traces: Tensor) -> Dict[str, Tensor]:
    return {name: traces[name] for name in wanted}


def _require_order(layer: SequenceLayer, order: int) -> None:
    if order < 1:
        raise ConfigError(f"{type(layer).__name__}.order is {order!r}; it must be 1 or more")
