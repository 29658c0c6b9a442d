"""Operations of every weight layer of a step's model, of each sample, from what the step recorded."""

from typing import Dict, List, Mapping, Optional, Sequence, Union

import torch
from torch import Tensor, nn

from snn_core.errors import ConfigError, nearest
from snn_core.neurons import OneToOne, Recurrent
from snn_core.recording import WEIGHT_LAYERS, LayerCall, Layout, static_shape
from snn_core.terms import Recorded
from snn_metrics.counting import one_to_one, operations_of_samples, spatial_dims
from snn_metrics.pooling import pool_factors

__all__ = ["LAYOUTS", "LayerOperations", "Layouts"]

LAYOUTS = ("first", "folded", "static", "step")
Layouts = Union[None, str, Mapping[str, str]]
"""How time lies in the inputs of layers that a module's own forward calls: for all, or by the layer's name."""
Pooling = Union[str, Mapping[str, float]]
"""Of `pool_factors`."""


class LayerOperations:
    """Counts the operations of a model's weight layers, in a step; picklable, and copied with the step.

    layout: see `Layouts`.   pooling: of `pool_factors`.
    Raises ConfigError for a model without weight layers, or names that it does not have.
    """

    def __init__(self, model: nn.Module, layout: Layouts = None, pooling: Pooling = "sum") -> None:
        self._layers = {name: module for name, module in model.named_modules() if isinstance(module, WEIGHT_LAYERS)}
        self._one_to_one = {
            f"{name}.connection": (name, module.connection)
            for name, module in model.named_modules()
            if isinstance(module, Recurrent) and isinstance(module.connection, OneToOne)
        }
        if not self.names:
            raise ConfigError(
                "the model has no weight layer (nn.Linear, or a convolution or transposed convolution), so there are "
                "no synaptic operations to count; add one, or leave the term out"
            )
        self._layout = _checked_layouts(layout, self.names)
        self._factors = pool_factors(model, pooling)

    @property
    def names(self) -> Sequence[str]:
        """The layers, by their names in the model."""
        return (*self._layers, *self._one_to_one)

    def of_samples(self, name: str, recorded: Recorded, kind: str = "synops") -> Tensor:
        """A layer's operations for each sample, summed over time: `[B]`. Raises ConfigError for an unknown layout."""
        steps, batch = static_shape(recorded.output)[:2]
        if name in self._one_to_one:
            neuron, connection = self._one_to_one[name]
            # nobody hears what the last step sends; of a sequence in chunks the next one does, which is not seen here
            calls = recorded.neurons[neuron]
            return _sum([one_to_one(connection, call.out[:-1], kind, keep=2).sum(0) for call in calls], recorded.output)
        layer = self._layers[name]
        counts = [
            operations_of_samples(layer, call, self._resolve(name, layer, call, steps), kind)
            for call in recorded.layers.get(name, ())
        ]
        total = _sum(counts, recorded.output)
        samples = static_shape(total)[0]
        if samples != batch:
            raise ConfigError(
                f"layer {name!r} has inputs of {samples} samples in a batch of {batch}: its layout, "
                f"{self._declared(name)!r}, is not how time lies there; give layout={{{name!r}: ...}} one of "
                f"{', '.join(map(repr, LAYOUTS))}"
            )
        # a graded pool's factor is one of spikes, so it is of the weighted count alone
        return total * self._factors.get(name, 1.0) if kind == "synops" else total

    def _declared(self, name: str) -> Optional[str]:
        return self._layout if isinstance(self._layout, str) else (self._layout or {}).get(name)

    def _resolve(self, name: str, layer: nn.Module, call: LayerCall, steps: int) -> Layout:
        declared = self._declared(name)
        if declared is not None:
            return Layout(declared, 1 if declared == "step" else steps)
        layout = call.layout
        if layout is None or (layout.kind == "first" and not _has_time(layer, call.x, layout)):
            raise ConfigError(
                f"layer {name!r} is called by a module's own forward, with an input of shape {static_shape(call.x)}, "
                "and how time lies in that is not known; say so with layout='first' ([T, B, ...]), 'folded' "
                "([T * B, ...]), 'step' (one call for each time step) or 'static' (one call that stands for every "
                "step), for one layer with layout={name: ...}; layers of a snn.Sequential need no word"
            )
        return layout


def _has_time(layer: nn.Module, x: Tensor, layout: Layout) -> bool:
    """Whether an input that should have time first can have it."""
    return x.ndim >= spatial_dims(layer) + 3 and static_shape(x)[0] == layout.steps


def _sum(counts: List[Tensor], output: Tensor) -> Tensor:
    """The sum over a layer's calls; a layer that did not run in this forward has cost nothing."""
    if not counts:
        return output.new_zeros(output.shape[1])
    return counts[0] if len(counts) == 1 else torch.stack(counts).sum(0)


def _checked_layouts(layout: Layouts, names: Sequence[str]) -> Layouts:
    given: Dict[str, str] = dict(layout) if isinstance(layout, Mapping) else {"": layout} if layout else {}
    for name, kind in given.items():
        if name and name not in names:
            raise ConfigError(
                f"layout names a layer {name!r} that the model does not have{nearest(name, names)}; its weight layers "
                f"are {', '.join(map(repr, names))}"
            )
        if kind not in LAYOUTS:
            raise ConfigError(f"layout is {kind!r}; it must be one of {', '.join(map(repr, LAYOUTS))}")
    return layout
