"""Watch a model's forwards: every call of every weight layer, reduced at once to sums over time for each sample."""

from contextlib import ExitStack, contextmanager
from typing import Any, Collection, Dict, Iterable, Iterator, Mapping, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from snn_core.containers import Sequential
from snn_core.errors import ConfigError, ShapeError, nearest
from snn_core.neurons.base import Temporal
from snn_core.neurons.recurrent import OneToOne, Recurrent
from snn_core.recording import WEIGHT_LAYERS, Clock
from snn_metrics.counting import one_to_one, operations, spatial_dims

__all__ = [
    "Forwards",
    "Reading",
    "checked_resting",
    "counted_layers",
    "declared_size",
    "first_tensor",
    "watch",
]


class Reading(NamedTuple):
    """How a model's forwards are read.

    kinds: what to count, of `counting.KINDS`.   time_axis: of the model's first input, or None where only
    `snn_core.Sequential` and neurons tell.   batched: whether the input has samples.
    factors: of average pools, by layer.   may_rest: layers that may have nothing to do in a forward.
    """

    kinds: Tuple[str, ...]
    time_axis: Optional[int]
    batched: bool
    factors: Mapping[str, float]
    may_rest: Tuple[str, ...]


class Forwards:
    """What forwards of the same samples cost together.

    counts: of each layer that ran `[kinds, B]`, float64, summed over time.   steps: of all forwards.
    """

    def __init__(self) -> None:
        self.counts: Dict[str, Tensor] = {}
        self.steps = 0

    @property
    def samples(self) -> int:
        return next((int(count.shape[1]) for count in self.counts.values()), 0)

    def add(self, name: str, count: Tensor) -> None:
        """Add a layer's count. Raises ShapeError where it is of another number of samples than those before."""
        if self.counts and count.shape[1] != self.samples:
            raise ShapeError(
                f"layer {name!r} got {count.shape[1]} rows, and {self.samples} samples were counted before; take the "
                "counts of a batch (update) before the next one begins, and where time or anything else shares the "
                "batch's axis say where time is: time_axis="
            )
        before = self.counts.get(name)
        self.counts[name] = count if before is None else before + count.to(before.device)

    def clear(self) -> None:
        self.counts.clear()
        self.steps = 0


def counted_layers(model: nn.Module) -> Dict[str, nn.Module]:
    """The layers of a model whose inputs cost operations, by name. Raises ConfigError where there is none."""
    layers: Dict[str, nn.Module] = {
        name: m for name, m in model.named_modules() if isinstance(m, (*WEIGHT_LAYERS, OneToOne))
    }
    if not layers:
        raise ConfigError(
            f"{type(model).__name__} has no weight layer whose operations could be counted; it needs an nn.Linear, a "
            "convolution or a transposed convolution"
        )
    return layers


def checked_resting(may_rest: Iterable[str], layers: Collection[str]) -> Tuple[str, ...]:
    """The names of layers that may have nothing to do in a forward. Raises ConfigError for one that is no layer."""
    resting = tuple(may_rest)
    for name in resting:
        if name not in layers:
            raise ConfigError(
                f"may_rest names {name!r}; the weight layers are {', '.join(map(repr, layers))}{nearest(name, layers)}"
            )
    return resting


def _operations(layer: nn.Module, x: Tensor, out_shape: Tuple[int, ...], kind: str, keep: int) -> Tensor:
    if isinstance(layer, OneToOne):
        return one_to_one(layer, x, kind, keep)
    return operations(layer, x, out_shape, kind, keep)


def first_tensor(module: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
    """The first tensor that a module is called with. Raises ShapeError where there is none."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            return value
    raise ShapeError(f"{type(module).__name__} got no tensor as an argument, in which time could be found")


def declared_size(module: nn.Module, x: Tensor, time_axis: int, batched: bool) -> Tuple[int, int]:
    """Steps and samples of a module's input; the first axis that is not time is the batch. Raises ShapeError."""
    if not -x.ndim <= time_axis < x.ndim or x.ndim < 1 + batched:
        raise ShapeError(
            f"{type(module).__name__} got an input of shape {tuple(x.shape)}, in which time_axis={time_axis} with "
            f"batched={batched} names no axis of time{' beside one of samples' if batched else ''}; register the hooks "
            "with the axis that is time, or make the metric with it"
        )
    time = time_axis % x.ndim
    return x.shape[time], x.shape[1 if time == 0 else 0] if batched else 1


@contextmanager
def watch(model: nn.Module, reading: Reading, into: Forwards) -> Iterator[None]:
    """Add what the model's forwards cost to `into` while the block runs; then the model is as it was."""
    watcher = _Watcher(reading, counted_layers(model), into)
    with ExitStack() as stack:
        watcher.clock = _shared_clock(model, stack)
        for handle in watcher.hook(model):
            stack.callback(handle.remove)
        yield


def _shared_clock(model: nn.Module, stack: ExitStack) -> Clock:
    """The clock of the model's containers: another watcher's, which tells the same, or a new one for this block."""
    containers = [module for module in model.modules() if isinstance(module, Sequential)]
    clock = next((module.clock for module in containers if module.clock is not None), None) or Clock()
    for module in containers:
        if module.clock is None:
            module.clock = clock
            stack.callback(setattr, module, "clock", None)
    return clock


class _Watcher:
    """Reads one model's forwards: `begin`, a count for each call of a layer, `end`, which hands the counts over.

    size: steps and samples of what runs now, where the model's input or a module that owns time tells them.
    batch_first: whether the samples come before the steps there.   frame: the module that tells them.
    """

    def __init__(self, reading: Reading, layers: Mapping[str, nn.Module], into: Forwards) -> None:
        self.reading = reading
        self.layers = layers
        self.into = into
        self.clock = Clock()
        self.running = False
        self._restart()

    def _restart(self) -> None:
        self.forward = Forwards()
        self.size: Optional[Tuple[int, int]] = None
        self.batch_first = False
        self.frame: Optional[nn.Module] = None
        self.undeclared: Optional[str] = None

    def hook(self, model: nn.Module) -> Iterator[Any]:
        """Register all hooks. The order matters: torch runs those of one module in the order of their registration."""
        yield model.register_forward_pre_hook(self.begin, with_kwargs=True)
        frames = _owners_of_time(model)
        for module in frames:
            yield module.register_forward_pre_hook(self.enter, with_kwargs=True)
        names = {layer: name for name, layer in self.layers.items()}
        fused = [m for m in model.modules() if isinstance(m, Recurrent) and isinstance(m.connection, OneToOne)]
        for module in fused:
            yield module.register_forward_hook(_FedBackHook(self, names[module.connection]))
        uncalled = {module.connection for module in fused}
        for layer, name in names.items():
            if layer not in uncalled:
                yield layer.register_forward_hook(_LayerHook(self, name), with_kwargs=True)
        for module in frames:
            yield module.register_forward_hook(self.leave)
        yield model.register_forward_hook(self.end)

    def begin(self, model: nn.Module, args: Sequence[Any], kwargs: Dict[str, Any]) -> None:
        self._restart()  # what a forward that failed left is dropped
        axis = self.reading.time_axis
        if axis is not None:
            x = first_tensor(model, args, kwargs)
            self.size = declared_size(model, x, axis, self.reading.batched)
            self.batch_first = axis % x.ndim != 0
            self.forward.steps = self.size[0]
        self.running = True

    def enter(self, module: nn.Module, args: Sequence[Any], kwargs: Dict[str, Any]) -> None:
        if self.size is not None or not self.running:
            return
        x = first_tensor(module, args, kwargs)
        steps = (args[1] if len(args) > 1 else kwargs.get("steps")) if isinstance(module, Temporal) else None
        self.frame = module
        self.size = (int(x.shape[0]), int(x.shape[1])) if steps is None else (int(steps), int(x.shape[0]))
        self.forward.steps = max(self.forward.steps, self.size[0])

    def leave(self, module: nn.Module, args: Sequence[Any], output: Any) -> None:
        if self.frame is module:
            self.frame = self.size = None

    def count(self, name: str, layer: nn.Module, x: Tensor, out_shape: Tuple[int, ...]) -> None:
        """Count one call of a layer."""
        layout = self.clock.layout
        steps = layout.steps if layout is not None and layout.kind in ("folded", "static") else 0
        self.forward.steps = max(self.forward.steps, steps)
        time: Optional[int] = None
        if layout is not None and layout.kind == "folded":
            x, time = x.unflatten(0, (steps, -1)), 0
        elif not steps:
            x, time = self._placed(name, layer, x)
        counts = [_operations(layer, x, out_shape, kind, 1 if time is None else 2) for kind in self.reading.kinds]
        if time is not None:
            counts = [count.sum(time) for count in counts]
        elif not steps and not self.reading.batched:
            counts = [count.sum(0, keepdim=True) for count in counts]
        self.add(name, counts, max(steps, 1) if time is None else 1)

    def _placed(self, name: str, layer: nn.Module, x: Tensor) -> Tuple[Tensor, Optional[int]]:
        """A layer's input, with samples and time alone before its positions and features; and which of the two axes is
        time, None where there is no such axis.
        """
        dims = spatial_dims(layer)
        if x.ndim == 1 + dims:
            x = x.unsqueeze(0)
        if self.size is None:
            self.undeclared = name
        if self.size is None or not self.reading.batched:
            return x, None
        steps, batch = self.size
        lead = tuple(x.shape[: x.ndim - 1 - dims])
        time = int(self.batch_first)
        sizes = (batch, steps) if self.batch_first else (steps, batch)
        if lead[:2] in (sizes, sizes[::-1]):
            return x, time if lead[:2] == sizes else 1 - time
        if lead[0] == steps * batch:
            return x.unflatten(0, sizes), time
        if lead[0] == batch:
            return x, None  # a loop over time
        raise ShapeError(
            f"layer {name!r} got x of shape {tuple(x.shape)}; with {steps} steps of {batch} samples it must begin with "
            f"{list(sizes)} or [{steps * batch}], or in a loop over time with [{batch}]"
        )

    def add(self, name: str, counts: Sequence[Tensor], times: int = 1) -> None:
        """Add operations of each kind, each `[B]`, of a call that stands for so many."""
        factor = self.reading.factors.get(name, 1.0)
        # the factor is one of graded values, so it is of the count that weighs them alone
        scaled = [count * factor if kind == "synops" else count for kind, count in zip(self.reading.kinds, counts)]
        self.forward.add(name, torch.stack(scaled) * times)

    def end(self, model: nn.Module, args: Sequence[Any], output: Any) -> None:
        self.running = False
        silent = [n for n in self.layers if n not in self.forward.counts and n not in self.reading.may_rest]
        if silent:
            raise ConfigError(
                f"weight layer {silent[0]!r} did not run as a module in this forward, so its operations cannot be "
                "counted: call the layer itself, not a function on its weights; name it in may_rest=[...] if it "
                "rightly has nothing to do, or watch the part of the model that runs"
            )
        if self.undeclared is not None and self.reading.time_axis is None and self.forward.steps > 0:
            raise ConfigError(
                f"the model runs over time, and layer {self.undeclared!r} stands outside of its snn.Sequential and "
                "neurons, so where time is in its input is not known; say where time is in the model's input: "
                "time_axis=, or put the layer into an snn.Sequential"
            )
        for name, count in self.forward.counts.items():
            self.into.add(name, count)
        self.into.steps += max(self.forward.steps, 1)
        self._restart()


def _owners_of_time(model: nn.Module) -> Sequence[nn.Module]:
    """The modules whose input is [T, B, ...]: neurons, and children of an snn.Sequential that hold some."""
    owners: Dict[nn.Module, None] = {m: None for m in model.modules() if isinstance(m, Temporal)}
    for container in (m for m in model.modules() if isinstance(m, Sequential)):
        held = (m for m in container if not isinstance(m, Sequential))
        owners.update({m: None for m in held if any(isinstance(inner, Temporal) for inner in m.modules())})
    return list(owners)


class _LayerHook:
    """Counts the calls of one weight layer."""

    def __init__(self, watcher: _Watcher, name: str) -> None:
        self.watcher = watcher
        self.name = name

    def __call__(self, layer: nn.Module, args: Tuple[Any, ...], kwargs: Dict[str, Any], output: Tensor) -> None:
        if self.watcher.running:
            x = args[0] if args else next(iter(kwargs.values()))
            # float64, so that whole counts stay whole
            self.watcher.count(self.name, layer, x.detach().double(), tuple(int(size) for size in output.shape))


class _FedBackHook:
    """Counts a recurrent layer's one-to-one connection, which kernels fuse into the neuron, so that it is not called.

    It hears what the layer sent in all steps but the last.
    """

    def __init__(self, watcher: _Watcher, name: str) -> None:
        self.watcher = watcher
        self.name = name

    def __call__(self, layer: nn.Module, args: Tuple[Any, ...], output: Tensor) -> None:
        if self.watcher.running:
            sent, connection = output[:-1].detach().double(), self.watcher.layers[self.name]
            kinds = self.watcher.reading.kinds
            counts = [_operations(connection, sent, (), kind, keep=2).sum(0) for kind in kinds]
            self.watcher.add(self.name, counts)
