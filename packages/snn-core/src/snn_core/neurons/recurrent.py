"""Recurrent connections: what a neuron sent in one step joins its input in the next."""

from typing import Optional, Tuple

import torch
from torch import Tensor, nn

from snn_core.errors import ConfigError, ShapeError
from snn_core.neurons.base import Coefficients, Neuron, State, Temporal
from snn_core.recording import static_shape

__all__ = ["OneToOne", "Recurrent"]

_WEIGHT = "connection_weight"


class OneToOne(nn.Module):
    """A connection of each neuron to itself: x times a weight. `[B, ...]` -> `[B, ...]`.

    features: None for one weight in all, or the size of dimension 1 for one weight per channel.
    weight: where it starts.   learn: False keeps it there. Raises ShapeError where the features do not fit.
    """

    deterministic = True

    def __init__(self, features: Optional[int] = None, weight: float = 0.1, *, learn: bool = True) -> None:
        super().__init__()
        if features is not None and features < 1:
            raise ConfigError(f"OneToOne.features is {features!r}; it must be 1 or more, or None for one weight in all")
        value = torch.tensor(float(weight)) if features is None else torch.full((features,), float(weight))
        if learn:
            self.weight = nn.Parameter(value)
        else:
            self.register_buffer("weight", value)

    def forward(self, x: Tensor, weight: Optional[Tensor] = None) -> Tensor:
        """x: `[B, ...]`. `weight` stands in for the module's own, already shaped to broadcast."""
        if weight is None:
            weight = self.weight
            if weight.ndim and (x.ndim < 2 or static_shape(x)[1] != static_shape(weight)[0]):
                raise ShapeError(
                    f"OneToOne has {weight.shape[0]} weights and got x of shape {tuple(x.shape)}; "
                    "dimension 1 must agree"
                )
            weight = weight.reshape(tuple(weight.shape) + (1,) * (x.ndim - 2)) if weight.ndim else weight
        return x * weight


class Recurrent(Neuron):
    """A neuron that hears itself: its input in step t is x[t] + connection(out[t-1]), with out = 0 before the start.

    `[T, B, ...]` -> what the inner neuron sends, `[T, B, ...]`. Neftci et al. 2019, eq. 4 (the term with V).
    What is fed back is the output: graded spikes count by their gain. A bias in the connection acts in every step.

    neuron: any `Neuron` whose output has its input's shape.
    connection: any module `[B, ...]` -> `[B, ...]` of the same shape, such as `nn.Linear(n, n)`,
    `nn.Conv2d(c, c, 3, padding=1)` or `OneToOne(n)`.
    States: "spk", the last output, then the neuron's.
    Raises ConfigError for a connection that holds neurons, ShapeError for one that changes the shape.
    """

    recurrence = True

    def __init__(self, neuron: Neuron, connection: nn.Module) -> None:
        super().__init__()
        if not isinstance(neuron, Neuron) or "spk" in neuron.states:
            raise ConfigError(
                f"Recurrent got {type(neuron).__name__} as its neuron; it takes a Neuron such as LIF(); for two "
                "connections give one module that adds them"
            )
        if not isinstance(connection, nn.Module) or any(isinstance(m, Temporal) for m in connection.modules()):
            raise ConfigError(
                f"Recurrent got {type(connection).__name__} as its connection; it takes a module without neurons, "
                "since their state could not be kept from step to step"
            )
        self.neuron = neuron
        self.connection = connection
        self.states = ("spk", *neuron.states)
        self.fires = neuron.fires

    def coefficients(self) -> Coefficients:
        c = self.neuron.coefficients()
        # pointwise, so a kernel can take the weight with the neuron's own numbers
        return {**c, _WEIGHT: self.connection.weight} if isinstance(self.connection, OneToOne) else c

    def aligned_coefficients(self, x: Tensor) -> Coefficients:
        c = self.neuron.aligned_coefficients(x)
        if isinstance(self.connection, OneToOne):
            c[_WEIGHT] = self.align(_WEIGHT, self.connection.weight, x)
        return c

    def initial(self, x: Tensor, c: Coefficients) -> State:
        return (torch.zeros_like(x), *self.neuron.initial(x, c))

    def dynamics(self, x: Tensor, state: State, c: Coefficients) -> Tuple[Tensor, State]:
        heard = self._hear(state[0], c)
        self._require_shape("its connection", heard, x)
        out, inner = self.neuron.dynamics(x + heard.to(x.dtype), state[1:], c)
        self._require_shape(f"its neuron {type(self.neuron).__name__}", out, x)
        return out, (out, *inner)

    def _hear(self, out: Tensor, c: Coefficients) -> Tensor:
        if isinstance(self.connection, OneToOne):
            return self.connection(out, c[_WEIGHT])
        # the state is float32 and the weights follow the model, so a half-precision model meets both
        weight = next((p for p in self.connection.parameters() if p.is_floating_point()), None)
        return self.connection(out if weight is None else out.to(weight.dtype))

    def _require_shape(self, what: str, got: Tensor, x: Tensor) -> None:
        if static_shape(got) != static_shape(x):
            raise ShapeError(
                f"Recurrent got {tuple(got.shape)} from {what} for an input of {tuple(x.shape)} in one step; "
                "both must have the same shape"
            )
