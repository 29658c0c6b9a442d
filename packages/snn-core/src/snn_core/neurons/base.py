"""What every layer that owns the time axis shares: unrolling, shapes, precision, and the tap of a step that listens."""

from typing import Any, Callable, ClassVar, Dict, List, Mapping, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor, nn

from snn_core.errors import ConfigError, DataError, ShapeError
from snn_core.recording import State, Tap, static_shape

__all__ = ["Coefficients", "Neuron", "Runner", "SequenceLayer", "State", "Temporal", "Unrolled", "unroll_reference"]

Coefficients = Dict[str, Tensor]
Unrolled = Tuple[Tensor, State, Dict[str, Tensor]]
Number = Union[float, Sequence[float], Tensor]


class Temporal(nn.Module):
    """A layer that owns the time axis: `[T, B, ...]` in, `[T, B, ...]` out, its state an argument and a result.

    `states` names the state tensors in their order. `chunkable` promises that running a sequence in pieces, handing
    the state on, equals running it whole. `recurrence` says that a weight stands inside the time loop. `fires` says
    that the output is spikes; a readout that hands out its membrane sets it to False.
    """

    states: Tuple[str, ...] = ()
    recurrence: ClassVar[bool] = False
    chunkable: ClassVar[bool] = True
    fires: bool = True
    tap: Optional[Tap] = None

    def run(
        self, x: Tensor, state: Optional[State] = None, steps: Optional[int] = None, wanted: Sequence[str] = ()
    ) -> Unrolled:
        """Run over time; return the output, the last state and the recorded states by name, each `[T, B, ...]`."""
        raise NotImplementedError(f"{type(self).__name__} must define run(x, state, steps, wanted)")

    def unroll(self, x: Tensor, state: Optional[State] = None, steps: Optional[int] = None) -> Tuple[Tensor, State]:
        """Run over a sequence. x: `[T, B, ...]`, or `[B, ...]` held constant over `steps` steps. Return `[T, B, ...]`
        and the state.

        `state` is what an earlier call returned; None starts at rest. Raises ShapeError for a rank, batch or state that
        does not fit.
        """
        out, state, _ = self.run(x, state, steps)
        return out, state

    def forward(self, x: Tensor, steps: Optional[int] = None) -> Tensor:
        """Run from rest. x: `[T, B, ...]`, or `[B, ...]` held constant over `steps` steps -> `[T, B, ...]`."""
        tap = self.tap
        if tap is None:
            return self.run(x, None, steps)[0]
        out, state, traces = self.run(x, tap.initial(), steps, tap.wanted)
        tap.keep(out, state, traces)
        return out

    def check_input(self, x: Tensor, steps: Optional[int]) -> int:
        """Return the number of time steps of `x`, or raise ShapeError, or DataError for whole numbers and booleans."""
        name = type(self).__name__
        if not x.is_floating_point():
            raise DataError(f"{name} got x of dtype {x.dtype}; it takes floating point: convert it with .float()")
        if steps is None:
            if x.ndim < 3:
                raise ShapeError(
                    f"{name} got x of shape {tuple(x.shape)}; it takes [T, B, ...] with time first: add the missing "
                    "axis, or start the network with snn.Constant(steps=...) for an input without time"
                )
            steps = static_shape(x)[0]
        elif x.ndim < 2:
            raise ShapeError(f"{name} got x of shape {tuple(x.shape)}; with steps= it takes [B, ...] without time")
        if steps < 1:
            raise ShapeError(f"{name} got {steps} time steps; it takes 1 or more")
        return steps

    def align(self, name: str, value: Tensor, x: Tensor) -> Tensor:
        """A coefficient in the type of one step's input x `[B, ...]`, shaped to broadcast against it.

        Whole numbers and conditions keep their type. Raises ShapeError if it cannot.
        """
        value = _typed(value, x)
        if value.ndim == 0:
            return value
        features, own = static_shape(x)[1:], static_shape(value)
        if value.ndim > len(features) or any(v not in (1, f) for v, f in zip(own, features)):
            raise ShapeError(
                f"{type(self).__name__}.{name} has shape {own} and one step's input {tuple(x.shape)}; "
                f"give a scalar, one value for each of the {features[0]} channels (dimension 1), or one for each neuron"
            )
        return value.reshape(own + (1,) * (len(features) - value.ndim))

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> "Temporal":
        # .half() would turn a decay of 0.99 into 0.990234: the device may change, but a neuron's own numbers never fall
        # below float32; the weights of a recurrent connection are a child's and follow the model
        own = [t for t in (*self._parameters.values(), *self._buffers.values()) if t is not None]
        kept = {id(t) for t in own} | {id(t.grad) for t in own if t.grad is not None}

        def keep_precision(t: Tensor) -> Tensor:
            moved = fn(t)
            lowered = moved.dtype in (torch.float16, torch.bfloat16) and id(t) in kept
            return t.to(device=moved.device) if lowered else moved

        return super()._apply(keep_precision, *args, **kwargs)

    def add_value(self, name: str, value: Number, learn: bool = False) -> None:
        """Register a number, or one per channel, as a parameter (`learn`) or a buffer; both are in the state dict."""
        try:
            tensor = torch.as_tensor(value, dtype=_dtype_of(value)).detach().clone()
        except (TypeError, ValueError, RuntimeError) as exc:
            raise ConfigError(
                f"{type(self).__name__}.{name} is {value!r}; it must be a number or one number per channel"
            ) from exc
        if not bool(torch.isfinite(tensor).all()):
            raise ConfigError(f"{type(self).__name__}.{name} is {value!r}; it must be finite")
        if learn:
            self.register_parameter(name, nn.Parameter(tensor))
        else:
            self.register_buffer(name, tensor)


class SequenceLayer(Temporal):
    """A temporal layer with an own computation over the whole sequence. `run` is the only method to write."""

    chunkable = False


def unroll_reference(
    neuron: "Neuron", x: Tensor, state: Optional[State], steps: Optional[int], wanted: Sequence[str]
) -> Unrolled:
    """Run `neuron.dynamics` over time, step by step, in plain torch: the meaning that every backend must keep."""
    count = neuron.check_input(x, steps)
    # unbind, not x[t]: the gradient of an index is a whole sequence of zeros for each step
    inputs = x.unbind(0) if steps is None else (widen(x),) * count
    first = widen(inputs[0])
    c = neuron.aligned_coefficients(first)
    state = starting_state(neuron, state, first, c)
    outs: List[Tensor] = []
    traces: Mapping[str, List[Tensor]] = {name: [] for name in wanted}
    for x_t in inputs:
        out, state = neuron.dynamics(widen(x_t), state, c)
        outs.append(out.to(x.dtype))
        for name, kept in traces.items():
            kept.append(state[neuron.states.index(name)])
    return torch.stack(outs), state, {name: torch.stack(kept) for name, kept in traces.items()}


Runner = Callable[["Neuron", Tensor, Optional[State], Optional[int], Sequence[str]], Unrolled]


class Neuron(Temporal):
    """A neuron model: one pure function of one time step, from which running over time is derived.

    A subclass names its `states`, returns its `coefficients` (once per unroll, differentiable) and writes `dynamics`.
    Parameters stay float32 or wider under any precision; input and output keep the caller's dtype. A step is computed
    in its input's type, float32 for half precision: its coefficients and its state come in that type.
    """

    runner: "Runner" = staticmethod(unroll_reference)

    def coefficients(self) -> Coefficients:
        """Decays, thresholds and so on by name: scalars, `[C]` for dimension 1 of `[B, C, ...]`, or one per neuron."""
        return {}

    def dynamics(self, x: Tensor, state: State, c: Coefficients) -> Tuple[Tensor, State]:
        """One time step, pure. x: `[B, ...]`; state: one tensor for each name. Return the output and the new state."""
        raise NotImplementedError(f"{type(self).__name__} must define dynamics(x, state, c)")

    def initial(self, x: Tensor, c: Coefficients) -> State:
        """The state at rest for one step's input x `[B, ...]`: zeros unless a subclass says otherwise."""
        return tuple(torch.zeros_like(x) for _ in self.states)

    def run(
        self, x: Tensor, state: Optional[State] = None, steps: Optional[int] = None, wanted: Sequence[str] = ()
    ) -> Unrolled:
        return self.runner(self, x, state, steps, wanted)

    def step(self, x: Tensor, state: Optional[State] = None) -> Tuple[Tensor, State]:
        """One time step. x: `[B, ...]` -> output `[B, ...]` and the new state; None starts at rest."""
        out, state, _ = self.runner(self, x, state, 1, ())
        return out[0], state

    def aligned_coefficients(self, x: Tensor) -> Coefficients:
        """The coefficients in the type of a step's input `[B, ...]`, shaped to broadcast against it. Raises ShapeError
        if they cannot.
        """
        return {name: self.align(name, value, x) for name, value in self.coefficients().items()}


def widen(x: Tensor) -> Tensor:
    """Half precision as float32, anything else as it is."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _typed(value: Tensor, x: Tensor) -> Tensor:
    """A floating-point tensor in x's type. Numbers without shape would otherwise be computed in their own."""
    # nothing at all where the types agree, so that no trace of a network holds a conversion
    return value if value.dtype == x.dtype or not value.is_floating_point() else value.to(x.dtype)


def checked_state(layer: Temporal, state: State, x: Tensor) -> State:
    """A state that came from outside, in the type of a step's input x `[B, ...]`. Raises ShapeError if it cannot be."""
    name = type(layer).__name__
    if len(state) != len(layer.states):
        raise ShapeError(f"{name} got a state of {len(state)} tensors; it takes {len(layer.states)}: {layer.states}")
    for label, tensor in zip(layer.states, state):
        if static_shape(tensor)[:1] != static_shape(x)[:1]:
            raise ShapeError(
                f"{name} got state {label!r} of shape {tuple(tensor.shape)} for an input of shape {tuple(x.shape)}; "
                "the batch sizes must agree: pass state=None to start at rest"
            )
    return tuple(_typed(tensor, x) for tensor in state)


def starting_state(neuron: Neuron, state: Optional[State], x: Tensor, c: Coefficients) -> State:
    """What a run starts from, in the type of a step's input x `[B, ...]`: a state from outside, or rest."""
    if state is not None:
        return checked_state(neuron, state, x)
    return tuple(_typed(tensor, x) for tensor in neuron.initial(x, c))


def _dtype_of(value: object) -> torch.dtype:
    if isinstance(value, Tensor) and value.dtype == torch.float64:
        return torch.float64
    default = torch.get_default_dtype()
    return default if default in (torch.float32, torch.float64) else torch.float32
