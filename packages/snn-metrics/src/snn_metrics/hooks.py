"""Count synaptic operations with forward hooks on any module: the interface that users of sinabs know."""

from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple, Union

import torch
from torch import Tensor, nn

from snn_core._check import is_number
from snn_core.containers import Sequential, contains_temporal
from snn_core.distributed import GlobalMean
from snn_core.errors import ConfigError
from snn_core.neurons.base import Temporal
from snn_core.neurons.recurrent import OneToOne, Recurrent
from snn_core.recording import WEIGHT_LAYERS, Clock
from snn_metrics._compiling import is_compiling
from snn_metrics.counting import magnitude, operations, spatial_dims
from snn_metrics.hook_data import HookData, data_of, forget, give_data, watch
from snn_metrics.pooling import pool_factors
from snn_metrics.watching import checked_resting, counted_layers, declared_size, first_tensor

__all__ = ["SynOpsHandle", "register_synops_hooks"]

_TOTAL, _EACH = "total_synops_per_timestep", "synops_per_timestep"
_TOTAL_PER_SECOND, _EACH_PER_SECOND = "total_synops_per_second", "synops_per_second"


class _Counter:
    """What the hooks of one registration share. Its methods are hooks on the whole module, so that a copy of the module
    has a copy of it.

    data: the module's `hook_data`, to which each call of a layer adds at once: torch.compile runs the hooks of the
    outermost module outside of what it compiles, so no graph may have to come through them.
    rows: how many samples times steps a layer's calls stand for, where a module around the layer tells.
    frame: that module's hook.   samples: the first call's rows.   ran: whether each layer ran in this forward.
    """

    def __init__(
        self,
        data: HookData,
        factors: Mapping[str, float],
        may_rest: Tuple[str, ...],
        dt_s: Optional[float],
        time_axis: Optional[int],
        batched: bool,
        mean: Optional[GlobalMean],
    ) -> None:
        self.data = data
        self.factors = dict(factors)
        self.may_rest = may_rest
        self.dt_s = dt_s
        self.time_axis = time_axis
        self.batched = batched
        self.mean = mean
        self.clock = Clock()
        self.handles: List[Any] = []
        self.running = False
        self.rows: Optional[int] = None
        self.frame: Any = None
        self.samples: Optional[int] = None
        self.ran: Dict[str, bool] = {}

    def begin(self, module: nn.Module, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> None:
        # a forward that failed may have left anything behind
        self.frame = self.rows = self.samples = None
        self.ran = dict.fromkeys(self.factors, False)
        self.data.clear()
        self.data[_EACH] = {}
        if self.dt_s is not None:
            self.data[_EACH_PER_SECOND] = {}
        if self.time_axis is not None:
            x = first_tensor(module, args, kwargs)
            steps, samples = declared_size(module, x, self.time_axis, self.batched)
            self.rows = steps * samples
        self.running = True

    def add(self, name: str, layer: nn.Module, operations: Tensor, own_rows: int) -> None:
        """Add one call's operations, 0-d. own_rows: what the call stands for where nothing around it tells."""
        layout = self.clock.layout
        if layout is not None and layout.kind == "static":
            operations = operations * layout.steps
        rows = own_rows if self.rows is None else self.rows
        if self.samples is None:
            self.samples = rows
        value = operations * self.factors[name] / rows
        before = self.data[_EACH][name] if self.ran[name] else None
        self.ran[name] = True
        self._put(name, layer, value if before is None else before + value, value)

    def _put(self, name: str, layer: nn.Module, value: Tensor, more: Tensor) -> None:
        """Write a layer's value, by which the total is `more`."""
        total = self.data[_TOTAL] + more.to(self.data[_TOTAL].device) if _TOTAL in self.data else more
        self.data[_TOTAL] = total
        self.data[_EACH][name] = value
        if name:  # a module that is a weight layer itself has what every hooked module has
            data_of(layer)[_EACH] = value
        if self.dt_s is not None:
            self.data[_TOTAL_PER_SECOND] = total / self.dt_s
            self.data[_EACH_PER_SECOND][name] = value / self.dt_s
            if name:
                data_of(layer)[_EACH_PER_SECOND] = value / self.dt_s

    def finish(self, module: nn.Module, args: Tuple[Any, ...], output: Any) -> None:
        self.running = False
        silent = [name for name, ran in self.ran.items() if not ran]
        unexpected = [name for name in silent if name not in self.may_rest]
        if unexpected:
            raise ConfigError(
                f"weight layer {unexpected[0]!r} did not run as a module in this forward, so its operations cannot be "
                "counted: call the layer itself, not a function on its weights; name it in may_rest=[...] if it "
                "rightly has nothing to do, or hook the part of the model that runs"
            )
        for name in silent:
            zero = torch.zeros_like(self.data[_TOTAL]) if _TOTAL in self.data else torch.zeros(())
            self._put(name, module.get_submodule(name), zero.detach(), zero.detach())
        if self.mean is not None:
            self._reduce(module, self.mean)
        if not is_compiling():
            watch(module)  # a copy of the module that was registered has never been watched

    def _reduce(self, module: nn.Module, mean: GlobalMean) -> None:
        """Make the values those of all processes' samples, in one message."""
        total, names = self.data.pop(_TOTAL), list(self.factors)
        own = torch.stack([self.data[_EACH][name].to(total) for name in names])
        whole = mean(own, own.new_tensor(float(self.samples or 0)))
        for index, name in enumerate(names):
            self._put(name, module.get_submodule(name), whole[index], whole[index])


class _LayerHook:
    """Counts the calls of one weight layer."""

    def __init__(self, counter: _Counter, name: str) -> None:
        self.counter = counter
        self.name = name

    def count(self, layer: nn.Module, args: Tuple[Any, ...], kwargs: Dict[str, Any], output: Tensor) -> None:
        x = args[0] if args else next(iter(kwargs.values()))
        if isinstance(layer, OneToOne):
            self._add(layer, magnitude(x).sum(), x)
            return
        if x.ndim == 1 + spatial_dims(layer):
            x = x.unsqueeze(0)
        self._add(layer, operations(layer, x, tuple(int(size) for size in output.shape)).sum(), x)

    def fed_back(self, layer: Recurrent, args: Tuple[Any, ...], output: Tensor) -> None:
        """Count the one-to-one connection of a recurrent layer, which kernels fuse into the neuron."""
        self._add(layer.connection, magnitude(output[:-1]).sum(), output)

    def _add(self, layer: nn.Module, operations: Tensor, x: Tensor) -> None:
        # not sooner: a checkpointed part runs again in the backward, and must then save what it saved in the forward
        if self.counter.running:
            self.counter.add(self.name, layer, operations, x.shape[0] if self.counter.batched else 1)


class _Frame:
    """Tells how many samples times steps stand behind the calls of the layers inside a module, because the module, or
    the container that calls it, fixes where time is.

    leading: 2 for a module that gets [T, B, ...], 1 for one that gets [T * B, ...] or [B, ...].
    """

    def __init__(self, counter: _Counter, leading: int) -> None:
        self.counter = counter
        self.leading = leading

    def enter(self, module: nn.Module, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> None:
        counter = self.counter
        if counter.rows is not None or not counter.running:
            return
        x = first_tensor(module, args, kwargs)
        steps = (args[1] if len(args) > 1 else kwargs.get("steps")) if isinstance(module, Temporal) else None
        layout = counter.clock.layout
        if layout is not None and layout.kind == "static":
            steps = layout.steps
        counter.rows = x.shape[0] * ((x.shape[1] if self.leading == 2 else 1) if steps is None else steps)
        counter.frame = self

    def leave(self, module: nn.Module, args: Tuple[Any, ...], output: Any) -> None:
        if self.counter.frame is self:
            self.counter.rows = self.counter.frame = None


class SynOpsHandle:
    """Takes the hooks off a module again: `remove()`, or the end of a `with` block. `SynOpsHandle(module)` is the
    handle of a hooked module's copy.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._counter = _counter_of(module)

    def remove(self) -> None:
        """Remove hooks, `hook_data` and clocks; a second call does nothing."""
        counter, self._counter = self._counter, None
        if counter is None:
            return
        for handle in counter.handles:
            handle.remove()
        forget(self._module)
        for module in self._module.modules():
            if isinstance(getattr(module, "hook_data", None), HookData):
                del module.hook_data
            if isinstance(module, Sequential) and module.clock is counter.clock:
                module.clock = None

    def __enter__(self) -> "SynOpsHandle":
        return self

    def __exit__(self, *exception: Any) -> None:
        self.remove()


def register_synops_hooks(
    module: nn.Module,
    dt_s: Optional[float] = None,
    *,
    time_axis: Optional[int] = None,
    batched: bool = True,
    pooling: Union[str, Mapping[str, float]] = "sum",
    may_rest: Iterable[str] = (),
    group: Any = None,
) -> SynOpsHandle:
    """Count the synaptic operations of every forward of a module, with their gradient.

    After a forward `module.hook_data["synops_per_timestep"]` has for each weight layer, by its name in
    `module.named_modules()`, its operations in one time step of one sample: the sum of |input| x fan-out, a mean over
    samples and steps; `module.hook_data["total_synops_per_timestep"]` is their sum. Both are 0-d. A layer's own
    `hook_data["synops_per_timestep"]` is its value. Calls of one layer in one forward add up.

    dt_s: the length of a step in seconds; adds `total_synops_per_second` and `synops_per_second`.
    time_axis: which axis of the module's first input is time; the first other axis is the batch, unless batched=False:
    then the input is one sample. Without time_axis snn.Sequential and neurons still tell where time is; elsewhere
    dimension 0 of a layer's input is the batch (a convolution's [C, H, W] and a linear layer's [F] are one sample),
    and other axes are positions.
    pooling: as in `pool_factors`.   may_rest: layers that may have nothing to do in a forward, and then count 0.
    group: a process group of torch.distributed, or True for all processes: values are the whole batch's, with the
    gradient that DistributedDataParallel turns into the whole batch's (`snn_core.distributed.GlobalMean`).
    A graph behind a value lives until it is used, until the next forward, or until the step of an optimizer that
    trains the module. Register before torch.compile first runs the module: it does not look for hooks again.
    Raises ConfigError for a wrong setting, a module without weight layers or one that is hooked already; a forward
    raises ShapeError for an input without that axis, ConfigError for a weight layer that did not run.
    Sorbaro et al. 2020 train on this count.
    """
    layers = counted_layers(module)
    _check(module, dt_s, time_axis)
    factors = pool_factors(module, pooling)
    resting = checked_resting(may_rest, layers)
    mean = None if group is None or group is False else GlobalMean(None if group is True else group)
    data = give_data(module)
    counter = _Counter(data, {n: factors[n] for n in layers}, resting, dt_s, time_axis, batched, mean)
    for m in module.modules():
        if isinstance(m, Sequential):
            m.clock = counter.clock
    _hook(module, layers, counter)
    watch(module)
    return SynOpsHandle(module)


def _check(module: nn.Module, dt_s: Optional[float], time_axis: Optional[int]) -> None:
    hooked = [name for name, m in module.named_modules() if hasattr(m, "hook_data")]
    if hooked:
        part = f"its part {hooked[0]!r}" if hooked[0] else "it"
        raise ConfigError(
            f"{type(module).__name__} cannot be hooked: {part} has hook_data of other hooks; call remove() of their "
            "handle first (SynOpsHandle(module) is the handle of a hooked module's copy)"
        )
    if dt_s is not None and not (is_number(dt_s) and dt_s > 0):
        raise ConfigError(f"dt_s is {dt_s!r}; it must be the length of a time step in seconds, above 0")
    if time_axis is not None and (isinstance(time_axis, bool) or not isinstance(time_axis, int)):
        raise ConfigError(f"time_axis is {time_axis!r}; it must be the number of an axis, such as 0, or None")


def _hook(module: nn.Module, layers: Mapping[str, nn.Module], counter: _Counter) -> None:
    """Register all hooks. The order matters: torch runs those of one module in the order of their registration."""
    keep = counter.handles.append
    keep(module.register_forward_pre_hook(counter.begin, with_kwargs=True))
    frames = [(m, _Frame(counter, leading)) for m, leading in _timed(module).items()]
    for m, frame in frames:
        keep(m.register_forward_pre_hook(frame.enter, with_kwargs=True))
    fused = {
        m: m.connection for m in module.modules() if isinstance(m, Recurrent) and isinstance(m.connection, OneToOne)
    }
    for name, layer in layers.items():
        if layer is not module:
            give_data(layer)
        hook = _LayerHook(counter, name)
        hearing = [m for m, connection in fused.items() if connection is layer]
        for m in hearing:
            keep(m.register_forward_hook(hook.fed_back))
        if not hearing:
            keep(layer.register_forward_hook(hook.count, with_kwargs=True))
    for m, frame in frames:
        keep(m.register_forward_hook(frame.leave))
    keep(module.register_forward_hook(counter.finish))


def _timed(module: nn.Module) -> Dict[nn.Module, int]:
    """Every module with weight layers inside of which it is certain where time is: how many leading axes are samples
    and time.
    """
    timed: Dict[nn.Module, int] = {}
    for m in module.modules():
        if isinstance(m, Sequential):
            timed.update({child: 2 if contains_temporal(child) else 1 for child in m})
        elif isinstance(m, Temporal):
            timed[m] = 2
    weighted = (*WEIGHT_LAYERS, OneToOne)
    # a container inside a container runs its children on its own account
    return {
        m: leading
        for m, leading in timed.items()
        if not isinstance(m, Sequential) and any(isinstance(inner, weighted) for inner in m.modules())
    }


def _counter_of(module: nn.Module) -> Optional[_Counter]:
    for hook in module._forward_pre_hooks.values():
        owner = getattr(hook, "__self__", None)
        if isinstance(owner, _Counter):
            return owner
    return None
