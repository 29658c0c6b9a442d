"""A trial: everything that one compile takes, as a value, so that it can be run on a backend and on the reference
alike.
"""

import contextlib
from dataclasses import dataclass, field, replace
from typing import Any, Callable, Iterator, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from snn_core.backend import Backend, Program, Tolerance
from snn_core.capabilities import require_declared
from snn_core.eager import EagerBackend
from snn_core.errors import ConformanceError, Unsupported
from snn_core.losses import CountCrossEntropy
from snn_core.optimizers import SGD, Optimizer
from snn_core.specs import BatchSpec, TensorSpec, TrainSpec
from snn_core.step import Step
from snn_core.terms import Term
from snn_core.testing.check import Refused

__all__ = ["Data", "Trial", "compiled", "finest", "reference", "tolerance"]

Data = Sequence[Tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Trial:
    """A model with its loss, terms, optimiser, data and training options. Running it twice starts twice from the same
    weights.

    model: makes the user's model.   data: samples (x, target) in float32.   size: of a micro-batch.   seed: of the
    model's weights.
    dtype: of weights and data; None takes the finest that the backend declares (`on`).
    """

    model: Callable[[], nn.Module]
    data: Data
    loss: Any = field(default_factory=CountCrossEntropy)
    terms: Tuple[Term, ...] = ()
    optimizer: Optimizer = field(default_factory=lambda: SGD(lr=0.5))
    size: int = 4
    time_axis: Optional[int] = 1
    target_time_axis: Optional[int] = None
    train: TrainSpec = field(default_factory=TrainSpec)
    dtype: Optional[str] = None
    seed: int = 1

    def on(self, backend: Backend) -> "Trial":
        """The same with a dtype: the finest one that `backend` declares, unless it has one."""
        return self if self.dtype is not None else replace(self, dtype=finest(backend))

    def but(self, **changes: Any) -> "Trial":
        """The same with other fields."""
        return replace(self, **changes)

    def training(self, **options: Any) -> "Trial":
        """The same with other fields of `train`."""
        return replace(self, train=replace(self.train, **options))

    def torch_dtype(self) -> torch.dtype:
        return getattr(torch, self.dtype or "float32")

    def build(self) -> nn.Module:
        """A user's model, with the same weights at every call; the process's random stream is left as it was."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return self.model().to(self.torch_dtype())

    def samples(self) -> Data:
        """The data in the trial's dtype."""
        return [(self._cast(x), self._cast(target)) for x, target in self.data]

    def _cast(self, value: Tensor) -> Tensor:
        return value.to(self.torch_dtype()) if value.is_floating_point() else value

    def step(self, model: nn.Module) -> Step:
        return Step(model, self.loss, self.terms)

    def batch(self) -> BatchSpec:
        x, target = (self._cast(part) for part in self.data[0])
        return BatchSpec(
            self.size,
            TensorSpec(tuple(x.shape), _name(x.dtype), self.time_axis),
            TensorSpec(tuple(target.shape), _name(target.dtype), self.target_time_axis),
        )


@contextlib.contextmanager
def compiled(backend: Backend, trial: Trial, model: Optional[nn.Module] = None) -> Iterator[Program]:
    """Compile a trial and close the program in the end. model: the user's; None makes one.

    What the backend does not declare, `compile` must refuse: raises Refused where it raises Unsupported, which ends the
    check, and ConformanceError where it does not. What it declares, `compile` must take.
    """
    trial = trial.on(backend)
    step = trial.step(trial.build() if model is None else model)
    arguments = (step, trial.optimizer, trial.batch(), trial.train)
    reason = _undeclared(backend, *arguments)
    try:
        program = backend.compile(*arguments)
    except Unsupported as exc:
        if reason is not None:
            raise Refused(str(exc)) from exc
        raise ConformanceError(
            f"compile raises Unsupported ({exc}) for what the backend declares: do it, or do not declare it"
        ) from exc
    except Exception as exc:
        if reason is not None:
            raise ConformanceError(
                f"compile raises {type(exc).__name__} ({exc}); it must raise Unsupported: {reason}"
            ) from exc
        raise
    if reason is not None:
        program.close()
        raise ConformanceError(
            f"compile accepts what the backend does not declare; it must raise Unsupported: {reason} "
            "(snn_core.capabilities.require_declared raises it)"
        )
    try:
        yield program
    finally:
        program.close()


def _undeclared(backend: Backend, *arguments: Any) -> Optional[str]:
    try:
        require_declared(backend, *arguments)
    except Unsupported as exc:
        return str(exc)
    return None


def reference() -> Backend:
    """What every backend is compared with."""
    return EagerBackend()


def finest(backend: Backend) -> str:
    """The widest dtype that a backend declares: where it has float64, rounding cannot hide a wrong result."""
    return "float64" if "float64" in backend.capabilities.dtypes else "float32"


def tolerance(backend: Backend, trial: Trial) -> Tolerance:
    """How far the results of a trial may lie from the reference's, by the backend's own declaration."""
    dtype = trial.dtype or finest(backend)
    declared = backend.capabilities.tolerances
    if dtype not in declared:
        raise ConformanceError(
            f"the backend declares dtype {dtype!r} and no tolerance for it; it has {sorted(declared)}"
        )
    return declared[dtype]


def _name(dtype: torch.dtype) -> str:
    return str(dtype).replace("torch.", "")
