"""What losses and accuracies read off a model's output: counts, first spike times, the score at a label."""

import torch
from torch import Tensor

from snn_core.errors import ConfigError, ShapeError
from snn_core.losses.base import Traces

__all__ = ["first_spike_time", "hits", "is_class", "pick", "population_mean", "spike_count", "trace", "widen"]


def widen(x: Tensor) -> Tensor:
    """float32, or float64 where x is that: half precision holds whole numbers to 2,048 only, bfloat16 to 256."""
    return x if x.dtype == torch.float64 else x.float()


def _sequence(x: Tensor, name: str) -> Tensor:
    if x.dim() != 3:
        raise ShapeError(
            f"{name} has shape {tuple(x.shape)}; losses and accuracies with classes take [T, B, C]: flatten or pool "
            "what follows the channels, fold pixels into the batch, or write a loss function (output, target) -> [B]"
        )
    return widen(x)


def spike_count(output: Tensor, population: int = 1) -> Tensor:
    """Spikes of each class over all steps, in float32. output: `[T, B, C]` -> `[B, C / population]`.

    population: neurons for each class; class k has the neurons k * population to (k + 1) * population - 1.
    """
    count = _sequence(output, "the output").sum(0)
    return count if population == 1 else count.unflatten(-1, (-1, population)).sum(-1)


def population_mean(output: Tensor, population: int = 1) -> Tensor:
    """Each step's mean over a class's neurons, grouped as in `spike_count`. `[T, B, C]` -> `[T, B, C / population]`."""
    output = _sequence(output, "the output")
    return output if population == 1 else output.unflatten(-1, (-1, population)).mean(-1)


def first_spike_time(output: Tensor) -> Tensor:
    """The step of each neuron's first spike; a silent neuron counts T - 1. output: `[T, B, C]` -> `[B, C]`.

    The gradient is snnTorch's sign estimator: -1 with respect to the output at that step, so that a silent
    neuron is driven at the last step. What fires is anything but 0, so graded and negative spikes have a time too.
    """
    spikes = _sequence(output, "the output")
    still = spikes.detach()
    clock = torch.arange(spikes.shape[0], dtype=spikes.dtype, device=spikes.device).reshape(-1, 1, 1)
    time = torch.where(still != 0, clock, clock[-1:]).amin(0)
    at_first = (clock == time).to(spikes.dtype)
    # spikes - still is an exact zero with gradient 1
    return time - (at_first * (spikes - still)).sum(0)


def trace(traces: Traces, name: str) -> Tensor:
    """The recorded state `name` of the model's last neuron, `[T, B, C]`, in float32 or wider."""
    if name not in traces:
        raise ConfigError(
            f"the loss needs the state {name!r} of the model's last neuron; got {sorted(traces) or 'no traces'}: "
            "end the model with a neuron that has this state and pass its trace"
        )
    return _sequence(traces[name], f"the trace {name!r}")


def is_class(target: Tensor, scores: Tensor) -> Tensor:
    """True at each sample's label. target: `[B]` labels; scores: `[B, C]` -> `[B, C]`."""
    return torch.arange(scores.shape[-1], device=scores.device) == target.unsqueeze(-1)


def pick(scores: Tensor, target: Tensor) -> Tensor:
    """The score at each sample's label, NaN for a label that is no class. scores: `[B, C]`; target: `[B]` -> `[B]`."""
    hit = is_class(target, scores)
    # where, not a gather: a gather's backward is a scatter, which has no deterministic form on every device
    return torch.where(hit, scores, torch.zeros_like(scores)).sum(-1) / hit.to(scores.dtype).sum(-1)


def hits(scores: Tensor, target: Tensor) -> Tensor:
    """1.0 where the label has the highest score, else 0.0; of equal scores the lowest class wins. `[B, C]`, `[B]` ->
    `[B]`.
    """
    return (scores.argmax(-1) == target).float()
