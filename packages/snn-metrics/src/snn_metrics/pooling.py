"""What average pools take from a count: the factor for the counts of the weight layer behind them.

An average pool of k elements divides each spike by k. A chip that only adds sends each spike on, so that the next
weight layer works k times as often as its |activation| says: its factor is k.
"""

import math
from typing import Any, Dict, List, Mapping, NamedTuple, NoReturn, Optional, Tuple, Union

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.pooling import _AdaptiveMaxPoolNd, _LPPoolNd, _MaxPoolNd

from snn_core import containers
from snn_core._check import is_number
from snn_core.encoders import Constant, Encoder
from snn_core.errors import ConfigError, nearest
from snn_core.neurons.base import Temporal
from snn_core.neurons.memory import SLSTM
from snn_core.neurons.recurrent import OneToOne, Recurrent
from snn_core.neurons.stateless import NeuromorphicReLU, SumPool2d
from snn_core.recording import WEIGHT_LAYERS

__all__ = ["pool_factors"]

_WEIGHTED = (*WEIGHT_LAYERS, OneToOne)
_AVERAGE = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_ADAPTIVE = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
# what sends values on as they came, each by itself, the largest or the sum of some, or scaled by a weight
_PASS = (
    Constant,
    SumPool2d,
    nn.ChannelShuffle,
    nn.Flatten,
    nn.FractionalMaxPool2d,
    nn.FractionalMaxPool3d,
    nn.Identity,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.Unflatten,
    _AdaptiveMaxPoolNd,
    _BatchNorm,
    _DropoutNd,
    _MaxPoolNd,
)
# what sends values of its own
_SEND = (Encoder, NeuromorphicReLU, nn.RNNBase)


class _Carried(NamedTuple):
    """What average pools did to the values at one place of a model. pool: the last one's label.

    doubt: why the factor is not certain; "" where it is.
    """

    factor: float = 1.0
    pool: str = ""
    doubt: str = ""

    @property
    def clean(self) -> bool:
        return self.factor == 1 and not self.doubt


_NOTHING = _Carried()


def pool_factors(model: nn.Module, pooling: Union[str, Mapping[str, float]] = "sum") -> Dict[str, float]:
    """The factor for the counts of each weight layer, by its name in `model.named_modules()`.

    pooling: "sum" counts an average pool as the sum pool that hardware has in its place; "none" counts |activation| as
    it stands; a mapping gives the factors of the layers that it names, and 1 to the others.
    "sum" reads the order of layers from `nn.Sequential` and `snn.Sequential`, nested too. A factor passes batch norm,
    dropout, reshaping, padding, sum and max pools; neurons and activations end it, since they send values of their own.
    Functions such as `F.avg_pool2d` are not seen.
    Raises ConfigError where "sum" would have to guess: the order in another module's forward, a module of unknown kind
    behind a pool, a divisor that depends on the input; for a name that is no weight layer's, and for a factor that is
    not above 0.
    """
    names = {m: name for name, m in model.named_modules()}
    layers = [name for m, name in names.items() if isinstance(m, _WEIGHTED)]
    if isinstance(pooling, Mapping):
        return {**dict.fromkeys(layers, 1.0), **_given(pooling, layers)}
    if pooling not in ("sum", "none"):
        raise ConfigError(f"pooling is {pooling!r}; it must be 'sum', 'none', or a mapping of weight layers to factors")
    if pooling == "none":
        return dict.fromkeys(layers, 1.0)
    walk = _Walk(names)
    walk.through(model, _NOTHING)
    return {name: walk.factors.get(name, 1.0) for name in layers}


def _given(pooling: Mapping[str, float], layers: List[str]) -> Dict[str, float]:
    for name, factor in pooling.items():
        if name not in layers:
            known = ", ".join(map(repr, layers))
            raise ConfigError(f"pooling names {name!r}; the weight layers are {known}{nearest(name, layers)}")
        if not is_number(factor) or factor <= 0:
            raise ConfigError(f"pooling[{name!r}] is {factor!r}; a factor must be a number above 0")
    return {name: float(factor) for name, factor in pooling.items()}


class _Walk:
    """Goes through a model in the order in which values do, where that is certain; gives each layer its factor."""

    def __init__(self, names: Mapping[nn.Module, str]) -> None:
        self.names = names
        self.factors: Dict[str, float] = {}

    def through(self, module: nn.Module, carried: _Carried) -> _Carried:
        """What leaves a module when `carried` enters it."""
        if isinstance(module, _WEIGHTED):
            self._take(module, carried)
            return _NOTHING
        if isinstance(module, Temporal):
            self._neuron(module, carried)
            return _NOTHING
        if isinstance(module, nn.Sequential) and _in_order(module):
            for child in module:
                carried = self.through(child, carried)
            return carried
        if isinstance(module, (*_AVERAGE, *_ADAPTIVE)):
            return self._averaged(module, carried)
        if _passes(module):
            return carried
        if isinstance(module, _SEND) or _defined_in(module, "torch.nn.modules.activation"):
            return _NOTHING
        return self._unknown(module, carried)

    def _take(self, layer: nn.Module, carried: _Carried) -> None:
        name = self.names[layer]
        if carried.doubt:
            _refuse([name], carried.doubt)
        before = self.factors.setdefault(name, carried.factor)
        if before != carried.factor:
            _refuse([name], f"it stands in two places, with the factors {before:g} and {carried.factor:g}")

    def _neuron(self, module: Temporal, carried: _Carried) -> None:
        if isinstance(module, Recurrent):
            # the connection hears the neuron's own output
            self.through(module.connection, _NOTHING)
            self._neuron(module.neuron, carried)
        elif isinstance(module, SLSTM):
            self._take(module.input_weights, carried)
            self._take(module.recurrent_weights, _NOTHING)
        else:
            self._unknown(module, carried)

    def _averaged(self, module: nn.Module, carried: _Carried) -> _Carried:
        label = self._label(module)
        divisor = _divisor(module)
        if divisor is None:
            doubt = f"the divisor of {label} depends on the input"
            return carried._replace(pool=label, doubt=carried.doubt or doubt)
        return carried._replace(factor=carried.factor * divisor, pool=label)

    def _unknown(self, module: nn.Module, carried: _Carried) -> _Carried:
        """A module with a forward of its own, in which anything may come after anything."""
        label = self._label(module)
        pending = [] if carried.clean else [(carried, _weighted(module))]
        for child in module.children():
            left = self.through(child, _NOTHING)
            if not left.clean:
                # what stands inside the child has come before
                inside = set(_weighted(child))
                pending.append((left, [layer for layer in _weighted(module) if layer not in inside]))
        doubt = ""
        for left, layers in pending:
            doubt = left.doubt or f"what {left.pool} sends may go anywhere in the forward of {label}"
            if layers:
                _refuse([self.names[layer] for layer in layers], doubt)
        return _Carried(1.0, "", doubt)

    def _label(self, module: nn.Module) -> str:
        name = self.names[module]
        return f"{type(module).__name__} {name!r}" if name else type(module).__name__


def _refuse(names: List[str], reason: str) -> NoReturn:
    who = f"weight layer {names[0]!r}" if len(names) == 1 else f"one of the weight layers {names[0]!r} to {names[-1]!r}"
    raise ConfigError(
        f"{who} may stand behind an average pool, by a factor that is not certain: {reason}; give "
        f"pooling={{{names[-1]!r}: factor}} with the number of elements that are averaged, or "
        "pooling='none' to count |activation| as it stands; a pool's divisor_override makes its divisor certain"
    )


def _weighted(module: nn.Module) -> List[nn.Module]:
    return [m for m in module.modules() if isinstance(m, _WEIGHTED)]


def _in_order(module: nn.Sequential) -> bool:
    """Whether the container calls its children one after the other; a subclass with a forward of its own may not."""
    return type(module).forward in (nn.Sequential.forward, containers.Sequential.forward)


def _passes(module: nn.Module) -> bool:
    if isinstance(module, _LPPoolNd):
        return module.norm_type == 1
    if isinstance(module, nn.Upsample):
        return module.mode == "nearest"
    return isinstance(module, _PASS) or _defined_in(module, "torch.nn.modules.padding")


def _defined_in(module: nn.Module, place: str) -> bool:
    """Whether the module is of a kind that torch defines in one of its own files; attention, with weights, is none."""
    return any(c.__module__ == place for c in type(module).__mro__) and not _weighted(module)


def _divisor(pool: nn.Module) -> Optional[float]:
    """By what every window's sum is divided, None where that depends on the input's size or the window's place."""
    if isinstance(pool, _ADAPTIVE):
        return None
    override = getattr(pool, "divisor_override", None)
    if override is not None:
        return float(override)
    dims = _AVERAGE.index(next(kind for kind in _AVERAGE if isinstance(pool, kind))) + 1
    kernel, stride, padding = (_each(size, dims) for size in (pool.kernel_size, pool.stride, pool.padding))
    short = pool.ceil_mode and any(step > 1 for step in stride)  # a window that reaches over the edge
    return None if short or (any(padding) and not pool.count_include_pad) else float(math.prod(kernel))


def _each(size: Any, dims: int) -> Tuple[int, ...]:
    return (size,) * dims if isinstance(size, int) else tuple(size) * (dims // len(size))
