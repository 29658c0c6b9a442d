"""Whether a model may be run on a sequence in pieces: what its layers promise, and what a trial shows."""

import copy
from typing import TYPE_CHECKING, Callable, Dict, List, NamedTuple, Optional, TypeVar

import torch
from torch import Tensor, nn

from snn_core._entry_points import describe
from snn_core.encoders import Delta
from snn_core.errors import ConfigError, SnnError
from snn_core.neurons.base import Temporal
from snn_core.recording import CarriedStates
from snn_core.specs import BatchSpec, TensorSpec

if TYPE_CHECKING:
    from snn_core.step import Step

__all__ = ["Cut", "Prepare", "as_reference_fails", "require_promised", "require_shown"]

Prepare = Callable[[nn.Module, bool], None]
"""Lets a model's layers run as a backend runs them; the second argument: whether values count, or shapes alone."""

T = TypeVar("T")

_DRIVE = 4.0
"""The largest value of a trial's input: of layers with torch's first weights about half of the neurons fire."""

_ROUNDED = 0.05
"""The share of numbers that may differ in single precision, where a rounding now and then decides a spike."""


class Cut(NamedTuple):
    """What cuts a sequence into pieces of `steps` time steps: the setting's name, and whether each is run twice."""

    setting: str
    steps: int
    twice: bool


def as_reference_fails(trial: Callable[[Optional[Prepare]], T], prepare: Optional[Prepare]) -> T:
    """Carry out a trial of a model whose layers `prepare` lets run otherwise than the reference does.

    Where that fails, the reference's trial is what raises; the first error stands where the reference has none.
    """
    failed: Optional[Exception] = None
    if prepare is not None:
        try:
            return trial(prepare)
        except Exception as exc:
            failed = exc
    result = trial(None)
    if failed is not None:
        raise failed
    return result


def require_promised(model: nn.Module, batch: BatchSpec, cut: Cut) -> None:
    """Raise ConfigError for an input without time, and for a layer that does not promise to give the same in pieces."""
    said = f"{cut.setting} is {cut.steps}, but"
    if batch.x.time_axis is None:
        raise ConfigError(
            f"{said} x has no time axis to be cut; give x as [B, T, ...] with time_axis=1, or leave {cut.setting} unset"
        )
    for name, module in model.named_modules():
        layer = f"layer {name!r}, {type(module).__name__},"
        # Delta compares each step with the one before, and of a piece's first step nobody tells it
        if isinstance(module, Delta) or (isinstance(module, Temporal) and not module.chunkable):
            raise ConfigError(
                f"{said} {layer} does not promise that a sequence in pieces equals the whole; leave {cut.setting} "
                "unset, or set chunkable = True in a layer that hands its state on"
            )
        if cut.twice and isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ConfigError(
                f"{said} {layer} takes statistics over all steps of the sequence, which no segment has; leave "
                f"{cut.setting} unset, or normalise each sample: nn.GroupNorm, nn.LayerNorm"
            )


def require_shown(step: "Step", batch: BatchSpec, cut: Cut, prepare: Optional[Prepare] = None) -> None:
    """Run the first two pieces, and raise ConfigError where they do not give what the same steps give as a whole.

    The weights and the random state are left alone. Outputs are compared in evaluation mode, and in double precision
    where the model runs in it: rounding then decides no spike. A model that draws random numbers is not compared.
    prepare: as in `Step.validate`.
    """
    as_reference_fails(lambda given: _show(step, batch, cut, given), prepare)


def _show(step: "Step", batch: BatchSpec, cut: Cut, prepare: Optional[Prepare]) -> None:
    x = _drive(batch.x)[: 2 * cut.steps]
    try:
        if cut.twice:
            _require_nothing_written(_probe(step, prepare, training=True), x[: cut.steps], cut)
        if len(x) <= cut.steps:
            return
        probe = _probe(step, prepare)
        looped = _looped(probe, x)
        same = looped is None if _draws(probe, x) else _same_in_pieces(step, prepare, x, cut.steps)
    except SnnError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as exc:
        raise ConfigError(
            f"{cut.setting} is {cut.steps}, and the model cannot run so many steps of the sequence ({describe(exc)}); "
            f"leave {cut.setting} unset, or let the model's forward take a sequence of any length"
        ) from exc
    if not same:
        what = "the model's output in pieces is not that of the whole sequence"
        if looped is not None:
            what = f"the model runs layer {looped!r} in a loop of its own, so that nothing hands its state on: {what}"
        raise ConfigError(
            f"{cut.setting} is {cut.steps}, but {what}; leave {cut.setting} unset, or keep what passes from step to "
            "step in the states of neurons that are called as layers"
        )


def _probe(step: "Step", prepare: Optional[Prepare], training: bool = False, double: bool = False) -> "Step":
    probe = copy.deepcopy(step).cpu().train(training)
    probe = probe.double() if double else probe
    if prepare is not None:
        prepare(probe.model, True)
    return probe


def _require_nothing_written(probe: "Step", x: Tensor, cut: Cut) -> None:
    before = {name: buffer.clone() for name, buffer in probe.model.named_buffers()}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        probe.model(x)
    written = [name for name, buffer in probe.model.named_buffers() if not torch.equal(before[name], buffer)]
    if written:
        raise ConfigError(
            f"{cut.setting} is {cut.steps}, but in training the model writes its buffer {written[0]!r}, and a segment "
            f"that is computed again would write it a second time; leave {cut.setting} unset, or leave that layer out"
        )


def _drive(spec: TensorSpec) -> Tensor:
    """A sequence `[T, 2, ...]` that excites a model: random where x is real, else zeros, the one index that exists."""
    shape, dtype = (2, *spec.shape), getattr(torch, spec.dtype)
    x = torch.zeros(shape)
    if dtype.is_floating_point:
        x = _DRIVE * torch.rand(shape, generator=torch.Generator().manual_seed(0))
    return x.to(dtype).transpose(0, 1)


def _looped(probe: "Step", x: Tensor) -> Optional[str]:
    """The name of a temporal layer that is not called, and that no other one runs, or None."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        probe.recorder.begin(())
        probe.model(x)
        silent = [name for name, tap in probe.recorder.neurons.items() if not tap.calls]
        probe.recorder.end()
    outer = tuple(f"{name}." for name in probe.recorder.neurons)
    return next((name for name in silent if not name.startswith(outer)), None)


def _draws(probe: "Step", x: Tensor) -> bool:
    """Whether the model's output is random in evaluation too, so that two runs cannot be compared."""
    return not _same(_seen(probe, [x], seed=0), _seen(probe, [x], seed=1))


def _same_in_pieces(step: "Step", prepare: Optional[Prepare], x: Tensor, steps: int) -> bool:
    try:
        double, wide = _probe(step, prepare, double=True), x.double() if x.is_floating_point() else x
        return _same(_seen(double, [wide]), _seen(double, list(wide.split(steps))))
    except RuntimeError:  # of a model that makes tensors of one precision
        single = _probe(step, prepare)
        return _same(_seen(single, [x]), _seen(single, list(x.split(steps))), _ROUNDED)


def _seen(probe: "Step", pieces: List[Tensor], seed: int = 0) -> List[Tensor]:
    """The outputs of the model and of its temporal layers, each `[T, B, ...]`, joined along time."""
    found: Dict[object, List[Tensor]] = {}
    states: CarriedStates = ()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for piece in pieces:
            probe.recorder.begin(states)
            found.setdefault("model", []).append(probe.model(piece))
            for name, tap in probe.recorder.neurons.items():
                for number, call in enumerate(tap.calls):
                    found.setdefault((name, number), []).append(call.out)
            states = probe.recorder.states()
            probe.recorder.end()
    return [torch.cat(outs).double() for outs in found.values()]


def _same(one: List[Tensor], other: List[Tensor], share: float = 0.0) -> bool:
    """Whether tensors are equal within rounding; `share` of the elements of each may differ."""
    return [t.shape for t in one] == [t.shape for t in other] and all(
        torch.isclose(a, b, rtol=1e-6, atol=1e-9, equal_nan=True).double().mean() >= 1 - share
        for a, b in zip(one, other)
    )
