"""Neurons that send changes instead of values."""

from typing import Optional, Tuple

import torch
from torch import Tensor

from snn_core.errors import ConfigError
from snn_core.neurons.base import Coefficients, Neuron, Number, State
from snn_core.surrogate import StraightThrough, attach

__all__ = ["SigmaDelta"]


class SigmaDelta(Neuron):
    """Sigma-delta unit: sums the changes it receives, and sends its own change once that reaches the threshold.

    v[t] = v[t-1] + x[t];  a = relu(v + bias);  e = a - sent[t-1];  s = e [|e| >= threshold];  sent[t] = sent[t-1] + s.
    `[T, B, ...]` changes -> graded, signed changes s, whose running sum stays within the threshold of a; `LI(beta=1.0)`
    decodes them. The gradient goes straight through the threshold, so the running sum has that of the activation.
    Yoon 2017; O'Connor and Welling 2017.

    threshold: 0 or more, a scalar or one per channel; 0 sends every change.
    bias: of the activation. A bias in the layer before would be summed up at every step: use `bias=False` there.
    learn_bias: make it a parameter.   sigma: False takes x as the value itself, not as its change: an encoder.
    rectify: False leaves the activation linear.
    """

    states = ("sigma", "sent")
    threshold: Tensor
    bias: Tensor

    def __init__(
        self,
        threshold: Number = 0.1,
        *,
        bias: Optional[Number] = None,
        learn_bias: bool = False,
        sigma: bool = True,
        rectify: bool = True,
    ) -> None:
        super().__init__()
        self.add_value("threshold", threshold)
        if not bool((self.threshold >= 0).all()):
            raise ConfigError(f"SigmaDelta.threshold is {threshold!r}; it must be 0 or more")
        if learn_bias and bias is None:
            raise ConfigError("SigmaDelta.learn_bias needs a bias to start from, such as bias=0.0")
        self.has_bias = bias is not None
        if bias is not None:
            self.add_value("bias", bias, learn_bias)
        self.sigma = sigma
        self.rectify = rectify

    def coefficients(self) -> Coefficients:
        return {"threshold": self.threshold, "bias": self.bias} if self.has_bias else {"threshold": self.threshold}

    def dynamics(self, x: Tensor, state: State, c: Coefficients) -> Tuple[Tensor, State]:
        total, sent = state
        total = total + x if self.sigma else x
        activation = total + c["bias"] if self.has_bias else total
        activation = torch.relu(activation) if self.rectify else activation
        change = activation - sent
        due = (change.abs() >= c["threshold"]).to(change.dtype)
        out = attach(change * due, change, StraightThrough())
        return out, (total, sent + out)
