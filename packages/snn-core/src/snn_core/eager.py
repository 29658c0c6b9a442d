"""The reference backend: the step in plain torch, operation by operation. Every other backend is compared with it."""

import contextlib
import copy
from dataclasses import dataclass
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor, nn

from snn_core.backend import API_VERSION, Backend, Capabilities, Health, Program, Report
from snn_core.batching import BatchReader
from snn_core.capabilities import require_declared
from snn_core.distributed import Alone, Replica, join, replica
from snn_core.errors import CheckpointError, ConfigError
from snn_core.optimizers import Optimizer
from snn_core.pieces import Prepare
from snn_core.portable import readable_by
from snn_core.random_stream import RandomStream, derived_seed
from snn_core.recording import CarriedStates
from snn_core.specs import BatchSpec, TrainSpec
from snn_core.step import Step, StepOutput
from snn_core.uncompiled import uncompiled

__all__ = ["EagerBackend", "EagerOptions", "EagerProgram"]

Batch = Tuple[Tensor, Tensor]

_OPTIMIZERS = {
    "sgd": torch.optim.SGD,
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "rmsprop": torch.optim.RMSprop,
}
# one pass over the weights instead of a dozen; torch has it for the CPU since 2.4
_FUSED = ("sgd", "adam", "adamw") if hasattr(torch, "_fused_sgd_") else ()
_AUTOCAST = {"fp32": None, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class EagerOptions:
    """device: a torch device, such as "cpu" or "cuda:0".   num_workers: processes that read the dataset, 0 for none."""

    device: str = "cpu"
    num_workers: int = 0

    def __post_init__(self) -> None:
        if self.num_workers < 0:
            raise ConfigError(f"num_workers is {self.num_workers}; it must be 0 or more")
        try:
            torch.device(self.device)
        except RuntimeError as exc:
            raise ConfigError(
                f"device is {self.device!r}; it must be a torch device such as 'cpu' or 'cuda:0'"
            ) from exc


class EagerBackend(Backend):
    """Plain torch on any torch device: slow, complete, and the meaning that the others must keep."""

    name = "eager"
    api = API_VERSION
    Options = EagerOptions
    priority = 0
    capabilities = Capabilities(
        dtypes=frozenset({"float32", "float64"}),
        precisions=frozenset(_AUTOCAST),
        optimizers=frozenset(_OPTIMIZERS),
        recurrence=True,
        carried_state=True,
        recomputation=True,
        ragged_batches=True,
        accumulation=True,
        clipping=True,
        random=True,
        deterministic=True,
        distributed=True,
    )

    @property
    def collectives(self) -> str:  # type: ignore[override]
        return _collectives(torch.device(self.options.device))

    def probe(self) -> Health:
        device = torch.device(self.options.device)
        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError, NotImplementedError) as exc:
            reason = str(exc).splitlines()[0]
            return Health("unavailable", f"torch cannot use {device}: {reason}", "choose another device, such as 'cpu'")
        threads = f", {torch.get_num_threads()} threads" if device.type == "cpu" else ""
        return Health("ready", f"torch {torch.__version__} on {device}{threads}")

    def compile(self, step: Step, optimizer: Optimizer, batch: BatchSpec, train: TrainSpec) -> "EagerProgram":
        require_declared(self, step, optimizer, batch, train)
        return EagerProgram(step, optimizer, batch, train, self.options)


class EagerProgram(Program):
    """A step with weights of its own, run in plain torch. prepare: of `Step.validate`, for a backend made of this."""

    def __init__(
        self,
        step: Step,
        optimizer: Optimizer,
        batch: BatchSpec,
        train: TrainSpec,
        options: EagerOptions,
        prepare: Optional[Prepare] = None,
    ) -> None:
        self._source = step
        self._output_shape = step.validate(batch, train.chunk, train.recompute_every, prepare)
        self._device = torch.device(options.device)
        self._processes = join(_collectives(self._device))
        self._training = copy.deepcopy(step).to(self._device).train()
        self._training.recompute_every = train.recompute_every
        # one set of weights, two module trees: the mode of a tree never changes
        shared = {id(t): t for t in (*self._training.parameters(), *self._training.buffers())}
        self._evaluation = copy.deepcopy(self._training, shared).eval()
        self._parameters = [p for p in self._training.parameters() if p.requires_grad]
        self._optimizer = _build_optimizer(optimizer, self._parameters)
        self._controls = {k: torch.tensor(v, device=self._device) for k, v in self._training.controls.items()}
        self._batch, self._train, self._workers = batch, train, options.num_workers
        self._random, self._evaluation_random = self._stream(), self._stream()
        # last: from here on nobody may copy the training tree
        self._replica: Union[Alone, Replica] = replica(self._training, batch, train, self._processes)
        self._closed = False

    def _stream(self) -> RandomStream:
        return RandomStream(self._device, self._train.seed, self._processes.rank, self._processes.count)

    def loader(
        self, dataset: Any, order: Sequence[int], *, training: bool, start: int = 0, seed: int = 0
    ) -> Iterator[Any]:
        self._require_open()
        if self._processes.count > 1:  # two processes' samples must not draw alike
            seed = derived_seed(seed, self._processes.rank)
        reader = BatchReader(dataset, self._batch, self._check_target, seed)
        plan = (order, self._samples_per_batch(training), self._drops_last(training), start, self._workers)
        if not training:
            self._evaluation_random = self._stream()
        elif isinstance(self._replica, Replica):
            return reader.parts(*plan, self._replica.share)
        return reader.batches(*plan)

    def _check_target(self, target: Tensor) -> None:
        time_first = target if self._batch.target.time_axis is None else target.transpose(0, 1)
        shape = (self._output_shape[0], len(target), *self._output_shape[2:])
        self._training.loss.check_target(time_first, shape)

    def batches(self, samples: int, *, training: bool) -> int:
        self._require_open()
        size = self._samples_per_batch(training)
        return samples // size if self._drops_last(training) else -(-samples // size)

    def _samples_per_batch(self, training: bool) -> int:
        if training:
            return self._batch.size * self._train.accumulation
        # several processes evaluate what each is asked to: no more at once than in training
        return -(-self._batch.size // self._processes.count)

    def _drops_last(self, training: bool) -> bool:
        return training and self._train.drop_last

    def train_step(self, batch: Any) -> Report:
        self._require_open()
        parts = self._replica.parts(batch)
        micro_batches = [self._chunks(*self._place(part.x, part.target)) for part in parts]
        samples = [part.samples for part in parts]
        carried: List[CarriedStates] = [() for _ in parts]
        outputs: List[List[StepOutput]] = []
        with self._random.active(), self._algorithms():
            for chunk in zip(*micro_batches):
                outputs.append(self._optimizer_step(chunk, samples, carried))
        return _report(outputs, steps=len(outputs))

    def _optimizer_step(
        self, chunk: Sequence[Batch], samples: Sequence[int], carried: List[CarriedStates]
    ) -> List[StepOutput]:
        """Average the gradients of the micro-batches, and take one step. carried: their states, which it replaces."""
        self._optimizer.zero_grad(set_to_none=True)
        outs = []
        for index, (x, target) in enumerate(chunk):
            with self._replica.forward(samples[index], last=index == len(chunk) - 1):
                out = self._forward(self._replica.module, x, target, carried[index])
                objective, joint = self._replica.joint(out, samples[index])
                (objective / len(chunk)).backward()
            carried[index] = _detached(out.states) if self._train.chunk is not None else ()
            outs.append(_detached_output(joint))
        self._clip()
        self._optimizer.step()
        self._replica.settle()
        return outs

    def eval_step(self, batch: Batch) -> Report:
        self._require_open()
        x, target = self._place(*batch)
        with torch.no_grad(), self._evaluation_random.active(), self._algorithms():
            out = self._forward(self._evaluation, x, target, ())
        return _report([[out]], steps=0, output=out.output)

    def _place(self, x: Tensor, target: Tensor) -> Batch:
        """Move a batch to the device and put time first where there is time."""
        pair = []
        for tensor, spec in ((x, self._batch.x), (target, self._batch.target)):
            tensor = tensor.to(self._device, non_blocking=True)
            pair.append(tensor if spec.time_axis is None else tensor.transpose(0, 1))
        return pair[0], pair[1]

    def _chunks(self, x: Tensor, target: Tensor) -> List[Batch]:
        """Cut a placed micro-batch along time for truncated back-propagation; one piece without it."""
        size = self._train.chunk
        if size is None:
            return [(x, target)]
        pieces = x.split(size)
        targets = target.split(size) if self._batch.target.time_axis is not None else (target,) * len(pieces)
        return list(zip(pieces, targets))

    def _forward(self, step: nn.Module, x: Tensor, target: Tensor, states: CarriedStates) -> StepOutput:
        dtype = _AUTOCAST[self._train.precision]
        cast = contextlib.nullcontext() if dtype is None else torch.autocast(self._device.type, dtype=dtype)
        with cast:
            return step(x, target, self._controls, None, states)

    def _clip(self) -> None:
        if self._train.clip_value is not None:
            nn.utils.clip_grad_value_(self._parameters, self._train.clip_value)
        if self._train.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._train.clip_norm)

    @contextlib.contextmanager
    def _algorithms(self) -> Iterator[None]:
        """Deterministic algorithms alone while a deterministic program runs; then the process's own choice again."""
        before = torch.are_deterministic_algorithms_enabled()
        if not self._train.deterministic or before:
            yield
            return
        torch.use_deterministic_algorithms(True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(False)

    def set_lr(self, lr: float) -> None:
        self._require_open()
        for group in self._optimizer.param_groups:
            group["lr"] = lr

    def set_control(self, name: str, value: float) -> None:
        self._require_open()
        self._controls[name].fill_(value)

    def state_dict(self) -> Dict[str, Any]:
        self._require_open()
        # copies: later steps must not change a state that somebody keeps
        return {
            "model": copy.deepcopy(self._training.model.state_dict()),
            "optimizer": copy.deepcopy(self._optimizer.state_dict()),
            "rng": self._random.state(),
            "controls": {name: float(value) for name, value in self._controls.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._require_open()
        try:
            ours = readable_by("torch", state)
            self._training.model.load_state_dict(state["model"])
            if ours:
                self._optimizer.load_state_dict(state["optimizer"])
                self._random.restore(state["rng"])
            for name, value in state["controls"].items():
                self.set_control(name, value)
        except (KeyError, RuntimeError, ValueError) as exc:
            raise CheckpointError(
                f"the saved state does not fit this model and optimizer: {exc}; build the model and "
                "the optimizer as in the saved run"
            ) from exc

    def sync(self) -> None:
        self._require_open()
        source = self._source.source
        if source is not None:
            source.load_state_dict(self._training.model.state_dict())

    def close(self) -> None:
        self._closed = True

    def _require_open(self) -> None:
        if self._closed:
            raise RuntimeError("this program is closed; compile a new one")


def _collectives(device: torch.device) -> str:
    return "nccl" if device.type == "cuda" else "gloo"


def _build_optimizer(spec: Optimizer, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
    if not parameters:
        raise ConfigError(
            "the model has no trainable parameters; add a layer with weights, or set requires_grad=True on one"
        )
    settings = dict(vars(spec))
    if spec.name in _FUSED and all(p.device.type in ("cpu", "cuda") for p in parameters):
        settings["fused"] = True
    return uncompiled(_OPTIMIZERS[spec.name])(parameters, **settings)


def _detached(states: CarriedStates) -> CarriedStates:
    return tuple(tuple(tuple(t.detach() for t in state) for state in calls) for calls in states)


def _detached_output(out: StepOutput) -> StepOutput:
    # a report must not keep the graph alive
    return out._replace(
        objective=out.objective.detach(),
        loss=out.loss.detach(),
        measures=tuple(m.detach() for m in out.measures),
        penalties=tuple(p.detach() for p in out.penalties),
        output=out.output.detach(),
        states=(),
    )


def _report(outputs: List[List[StepOutput]], steps: int, output: Optional[Tensor] = None) -> Report:
    """Combine micro-batches and chunks: losses by weight, measures by samples, the rest by a plain mean."""
    outs = [out for chunk in outputs for out in chunk]
    weight = torch.stack([out.weight for out in outs]).sum()
    samples = torch.stack([out.samples for out in outs]).sum()

    def mean(values: List[Tensor], by: Optional[List[Tensor]] = None) -> Tensor:
        stacked = torch.stack(values)
        if by is None:
            return stacked.mean()
        weights = torch.stack(by)
        total = weights.sum()
        # class weights of 0 may leave nothing that counts: then the values are 0, and 0 / 0 would make them NaN
        return (stacked * weights).sum() / torch.where(total > 0, total, torch.ones_like(total))

    correct = [out.correct for out in outs if out.correct is not None]
    return Report(
        objective=mean([out.objective for out in outs]),
        loss=mean([out.loss for out in outs], [out.weight for out in outs]),
        weight=weight,
        samples=samples,
        correct=torch.stack(correct).sum() if correct else None,
        measures=[mean([o.measures[i] for o in outs], [o.samples for o in outs]) for i in range(len(outs[0].measures))],
        penalties=[mean([o.penalties[i] for o in outs]) for i in range(len(outs[0].penalties))],
        output=output,
        optimizer_steps=steps,
    )
