"""The contract between core and a device: a Backend compiles one Step into a Program that owns everything after it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Dict, FrozenSet, Iterator, Mapping, Optional, Sequence, Type

if TYPE_CHECKING:
    import torch

    from snn_core.optimizers import Optimizer
    from snn_core.specs import BatchSpec, TrainSpec
    from snn_core.step import Step

__all__ = ["API_VERSION", "Backend", "Capabilities", "Finding", "Health", "Program", "Report", "Tolerance"]

API_VERSION = 1
"""The version of this contract. A backend states the one that it was written for; another one is refused at load."""


@dataclass(frozen=True)
class Health:
    """What a probe found. `status`: "ready" or "unavailable"; `detail`: the device, or why there is none; `remedy`:
    what to do.
    """

    status: str
    detail: str = ""
    remedy: str = ""

    @property
    def ready(self) -> bool:
        return self.status == "ready"


@dataclass(frozen=True)
class Finding:
    """What a check on the host found in a step, before device time is spent. rule: a short name, such as "host-value".

    message: what is wrong; remedy: what to do instead; file, line: of the user's code, None where nobody's line is to
    blame. severity: "error" for what `compile` refuses, "warning" for what runs, but perhaps not as it was meant.
    """

    rule: str
    message: str
    remedy: str
    file: Optional[str] = None
    line: Optional[int] = None
    severity: str = "error"

    @property
    def place(self) -> str:
        """As "file:line", empty where there is none."""
        return "" if self.file is None else f"{self.file}:{self.line}"

    def __str__(self) -> str:
        where = f"{self.place}: " if self.file is not None else ""
        return f"{where}{self.message} [{self.rule}]; {self.remedy}"


@dataclass(frozen=True)
class Tolerance:
    """How far results may lie from the reference b: |a - b| <= absolute + relative * max |b| over the tensor."""

    relative: float
    absolute: float


@dataclass(frozen=True)
class Capabilities:
    """Operations and features that a backend declares; declared means the conformance kit demands it, undeclared
    means `Unsupported`.

    dtypes: of inputs and weights ("float32", "float64").       precisions: of `TrainSpec.precision`.
    optimizers: names of `snn_core.optimizers`.                 recurrence: a weight inside the time loop.
    recomputation: forward in segments of time, computed again in backward.
    carried_state: truncated back-propagation through time.     ragged_batches: a short last batch in training.
    accumulation, clipping, steps_per_call: of `TrainSpec`.     random: dropout and random encoders inside the step.
    deterministic: the same seed gives the same bits.           distributed: several processes train one model.
    lacks: parts of what is declared that it does without: "nesterov" and "dampening" (of sgd), "clip_value"
    (of clipping), "clip_norm of rmsprop".
    """

    dtypes: FrozenSet[str] = frozenset({"float32"})
    precisions: FrozenSet[str] = frozenset({"fp32"})
    optimizers: FrozenSet[str] = frozenset({"sgd"})
    recurrence: bool = False
    carried_state: bool = False
    recomputation: bool = False
    ragged_batches: bool = False
    accumulation: bool = False
    clipping: bool = False
    steps_per_call: bool = False
    random: bool = False
    deterministic: bool = False
    distributed: bool = False
    lacks: FrozenSet[str] = frozenset()
    tolerances: Mapping[str, Tolerance] = field(
        default_factory=lambda: {"float32": Tolerance(1e-5, 1e-6), "float64": Tolerance(1e-9, 1e-12)}
    )


@dataclass
class Report:
    """What one call of a program left on the device; it stays as it is through later calls.

    Tensors are 0-d unless said otherwise. `objective` is what was minimised: `loss` plus the terms' penalties.
    `weight` is the loss's denominator and `samples` the number of valid samples, so that reports combine exactly.
    `measures`, `penalties`: as in `StepOutput`, in the step's order. `output`: of evaluation, `[T, B, ...]`, else None.
    `optimizer_steps`: how many optimiser steps the call took.
    """

    objective: "torch.Tensor"
    loss: "torch.Tensor"
    weight: "torch.Tensor"
    samples: "torch.Tensor"
    correct: Optional["torch.Tensor"] = None
    measures: Sequence["torch.Tensor"] = ()
    penalties: Sequence["torch.Tensor"] = ()
    output: Optional["torch.Tensor"] = None
    optimizer_steps: int = 0


class Program(ABC):
    """A compiled step with its own weights on one device. Use it as a context manager; `close` may be called twice.

    summary: one line about what was compiled, which a run prints when it starts; empty for nothing to say.
    """

    summary: str = ""

    @abstractmethod
    def loader(
        self, dataset: Any, order: Sequence[int], *, training: bool, start: int = 0, seed: int = 0
    ) -> Iterator[Any]:
        """Yield this device's batches of `dataset[i] for i in order`, from batch `start` on. Raises DataError for
        unfit samples.

        In training each batch feeds one `train_step` (all its micro-batches); in evaluation every sample appears once.
        `seed` fixes what the dataset draws at random for a batch, whatever the worker and wherever the epoch was
        resumed.
        """

    @abstractmethod
    def batches(self, samples: int, *, training: bool) -> int:
        """How many batches `loader` makes of that many samples."""

    @abstractmethod
    def train_step(self, batch: Any) -> Report:
        """Forward, backward and optimiser update on one batch of `loader(training=True)`."""

    @abstractmethod
    def eval_step(self, batch: Any) -> Report:
        """Forward alone, in evaluation mode, on one batch of `loader(training=False)`."""

    @abstractmethod
    def set_lr(self, lr: float) -> None:
        """Set the learning rate of the steps that follow."""

    @abstractmethod
    def set_control(self, name: str, value: float) -> None:
        """Set one of the step's controls. Raises KeyError for a name that no term declared."""

    @abstractmethod
    def state_dict(self) -> Dict[str, Any]:
        """A copy of all that resuming needs, tensors and plain values: "model", "optimizer", "rng" and "controls"."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`. Raises CheckpointError where names, shapes or kinds differ."""

    @abstractmethod
    def sync(self) -> None:
        """Copy the device's weights and buffers to the user's model, by name."""

    @abstractmethod
    def close(self) -> None:
        """Give the device back. Calling it again does nothing; any other call after it raises RuntimeError."""

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Backend(ABC):
    """One kind of device. Published as an entry point of group "snn.backends": `name = "package.module:Class"`.

    A subclass sets `name`, `api` (an integer it was written for), `Options` (a frozen dataclass), `capabilities` and
    `priority` (which ready backend `auto` prefers: the reference is 0, fused CPU kernels 10, accelerators 20 or more).
    Its module must import without the hardware's library; `probe` looks for that.
    `reason` says why a run has it; the registry says so of what it loads by name.
    `collectives`, for one that declares `distributed`: the backend of torch.distributed for tensors on the device.
    """

    name: ClassVar[str]
    api: ClassVar[int]
    Options: ClassVar[Type[Any]]
    capabilities: ClassVar[Capabilities]
    priority: ClassVar[int]
    collectives: str = "gloo"
    reason: str = "given as an object"

    def __init__(self, options: Optional[Any] = None) -> None:
        self.options = self.Options() if options is None else options

    @abstractmethod
    def probe(self) -> Health:
        """Say whether the device can be used. Never raises; an unavailable device comes with a remedy."""

    @abstractmethod
    def compile(self, step: "Step", optimizer: "Optimizer", batch: "BatchSpec", train: "TrainSpec") -> Program:
        """Compile a deep copy of `step`. Raises Unsupported, before device time is spent, for what is not declared."""

    def lint(
        self,
        step: "Step",
        optimizer: "Optimizer",
        batch: "BatchSpec",
        train: "TrainSpec",
        samples: Optional[int] = None,
    ) -> "Sequence[Finding]":
        """Say what `compile` would refuse, and what this device would do otherwise than the reference.

        Runs on the host: it needs neither the device nor its library. samples: how many the training data has.
        A backend with rules of its own adds them to these.
        """
        from snn_core.linting import lint_step

        return lint_step(self, step, optimizer, batch, train, samples)
