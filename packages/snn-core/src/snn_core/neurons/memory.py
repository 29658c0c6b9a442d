"""LSTM cells whose hidden state is a membrane that fires: SLSTM and SConv2dLSTM."""

import math
from typing import Any, Optional, Tuple, Union

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from snn_core.errors import ConfigError, ShapeError
from snn_core.neurons.base import Coefficients, State, widen
from snn_core.neurons.spiking import SpikingNeuron
from snn_core.recording import static_shape

__all__ = ["SLSTM", "SConv2dLSTM"]

Size = Union[int, Tuple[int, int]]


class _SpikingLSTM(SpikingNeuron):
    """What both share: a cell state "syn", a hidden state "mem" that fires, and shapes that need not be the input's."""

    states = ("mem", "syn")
    recurrence = True

    def __init__(self, **firing: Any) -> None:
        super().__init__(**{"reset_mechanism": "none", **firing})

    def hidden(self, x: Tensor) -> Tuple[int, ...]:
        """The states' shape for one step's input x `[B, ...]`."""
        raise NotImplementedError(f"{type(self).__name__} must define hidden(x)")

    def initial(self, x: Tensor, c: Coefficients) -> State:
        return x.new_zeros(self.hidden(x)), x.new_zeros(self.hidden(x))

    def aligned_coefficients(self, x: Tensor) -> Coefficients:
        like = x.new_empty(self.hidden(x))
        return {name: self.align(name, value, like) for name, value in self.coefficients().items()}

    def _require(self, fits: bool, x: Tensor, allowed: str) -> None:
        if not fits:
            raise ShapeError(f"{type(self).__name__} got x of shape {tuple(x.shape)}; it takes {allowed}")


class SLSTM(_SpikingLSTM):
    """Spiking LSTM: an LSTM cell with hidden state "mem" and cell state "syn" that fires on mem.

    `[T, B, input_size]` -> spikes `[T, B, hidden_size]`. i, f, g, o = W x + b + U mem + b';
    syn = sigmoid(f) syn + sigmoid(i) tanh(g);  mem = sigmoid(o) tanh(syn). Hochreiter and Schmidhuber 1997.
    mem stays within (-1, 1), so the threshold must be below 1 for spikes: 0.5 unless given. A reset acts on mem.

    input_weights, recurrent_weights: the layers W and U, `[4 hidden_size, ...]` in `nn.LSTMCell`'s order i, f, g, o.
    Keyword arguments: those of `Firing`; `reset_mechanism` is "none" here unless given. Raises ShapeError.
    """

    def __init__(self, input_size: int, hidden_size: int, *, bias: bool = True, **firing: Any) -> None:
        super().__init__(**{"threshold": 0.5, **firing})
        for name, size in (("input_size", input_size), ("hidden_size", hidden_size)):
            if size < 1:
                raise ConfigError(f"SLSTM.{name} is {size!r}; it must be 1 or more")
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.input_weights = nn.Linear(input_size, 4 * hidden_size, bias=bias)
        self.recurrent_weights = nn.Linear(hidden_size, 4 * hidden_size, bias=bias)
        bound = 1 / math.sqrt(hidden_size)
        for parameter in (*self.input_weights.parameters(), *self.recurrent_weights.parameters()):
            nn.init.uniform_(parameter, -bound, bound)

    def check_input(self, x: Tensor, steps: Optional[int]) -> int:
        count = super().check_input(x, steps)
        axes = "T, B" if steps is None else "B"
        rank = 3 if steps is None else 2
        self._require(x.ndim == rank and static_shape(x)[-1] == self.input_size, x, f"[{axes}, {self.input_size}]")
        return count

    def hidden(self, x: Tensor) -> Tuple[int, ...]:
        return x.shape[0], self.hidden_size

    def charge(self, x: Tensor, state: State, c: Coefficients) -> State:
        mem, syn = state
        gates = _product(self.input_weights, x) + _product(self.recurrent_weights, mem)
        i, f, g, o = gates.chunk(4, dim=1)
        return _cell(i, f, g, o, syn)


class SConv2dLSTM(_SpikingLSTM):
    """Spiking convolutional LSTM: one convolution on input and hidden state "mem" together; it fires on mem, pooled.

    `[T, B, in_channels, H, W]` -> spikes `[T, B, out_channels, H', W']`, smaller by the pool.
    i, f, o, g = conv(cat(x, mem));  syn = sigmoid(f) syn + sigmoid(i) tanh(g);  mem = sigmoid(o) tanh(syn).
    Shi et al. 2015, eq. 3, without peepholes. mem stays within (-1, 1), so the threshold must be below 1 for spikes:
    0.5 unless given. A reset acts on mem where mem itself crosses the threshold, before pooling.

    kernel_size: odd, so that the shape stays; an integer or a pair.   max_pool, avg_pool: a pool's size, one at most.
    conv: the layer, `[4 out_channels, in_channels + out_channels, ...]` in the order i, f, o, g.
    Keyword arguments: those of `Firing`; `reset_mechanism` is "none" here unless given. Raises ShapeError, ConfigError.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        *,
        bias: bool = True,
        max_pool: Optional[Size] = None,
        avg_pool: Optional[Size] = None,
        **firing: Any,
    ) -> None:
        super().__init__(**{"threshold": 0.5, **firing})
        if max_pool is not None and avg_pool is not None:
            raise ConfigError(f"SConv2dLSTM got max_pool={max_pool!r} and avg_pool={avg_pool!r}; give one or neither")
        height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        if height % 2 == 0 or width % 2 == 0:
            raise ConfigError(f"SConv2dLSTM.kernel_size is {kernel_size!r}; it must be odd, so that the shape stays")
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.max_pool = max_pool
        self.avg_pool = avg_pool
        padding = (height // 2, width // 2)
        self.conv = nn.Conv2d(in_channels + out_channels, 4 * out_channels, (height, width), padding=padding, bias=bias)

    def check_input(self, x: Tensor, steps: Optional[int]) -> int:
        count = super().check_input(x, steps)
        axes = "T, B" if steps is None else "B"
        rank = 5 if steps is None else 4
        self._require(
            x.ndim == rank and static_shape(x)[-3] == self.in_channels, x, f"[{axes}, {self.in_channels}, H, W]"
        )
        return count

    def hidden(self, x: Tensor) -> Tuple[int, ...]:
        return (x.shape[0], self.out_channels, *x.shape[2:])

    def charge(self, x: Tensor, state: State, c: Coefficients) -> State:
        mem, syn = state
        i, f, o, g = _product(self.conv, torch.cat((x, mem), dim=1)).chunk(4, dim=1)
        return _cell(i, f, g, o, syn)

    def emit(self, mem: Tensor, spk: Tensor, c: Coefficients) -> Tensor:
        if self.max_pool is not None:
            spk = self.fire(F.max_pool2d(mem, self.max_pool), c)
        elif self.avg_pool is not None:
            spk = self.fire(F.avg_pool2d(mem, self.avg_pool), c)
        return super().emit(mem, spk, c)


def _product(layer: Union[nn.Linear, nn.Conv2d], x: Tensor) -> Tensor:
    # the states are float32 and the weights follow the model, so a half-precision model meets both
    return widen(layer(x.to(layer.weight.dtype)))


def _cell(i: Tensor, f: Tensor, g: Tensor, o: Tensor, syn: Tensor) -> State:
    syn = torch.sigmoid(f) * syn + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(syn), syn
