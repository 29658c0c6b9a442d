"""A step that is trained in one process or in several: the same weights either way."""

import contextlib
import copy
from typing import Any, ContextManager, Iterable, List, NamedTuple, Sequence, Tuple, Union

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from snn_core.distributed.mean import Whole, summed
from snn_core.distributed.normalisation import join_statistics
from snn_core.distributed.processes import Processes
from snn_core.distributed.shares import shares_of
from snn_core.errors import ConfigError
from snn_core.neurons.base import Temporal
from snn_core.specs import BatchSpec, TrainSpec
from snn_core.step import Step, StepOutput, zeros_of

__all__ = ["Alone", "Part", "Replica", "replica"]


class Part(NamedTuple):
    """A process's part of a training batch. samples: how many it has of each micro-batch; where that is 0, x and target
    hold one that counts nothing.
    """

    x: Tensor
    target: Tensor
    samples: Tuple[int, ...]


class MicroBatch(NamedTuple):
    """What one forward takes, at the boundary; `samples` of it count."""

    x: Tensor
    target: Tensor
    samples: int


class Alone:
    """One process: its batch is the whole batch."""

    def __init__(self, step: Step, batch: BatchSpec) -> None:
        self.module: nn.Module = step
        self._size = batch.size

    def parts(self, batch: Any) -> List[MicroBatch]:
        """The micro-batches of what the loader yielded."""
        x, target = batch
        return [MicroBatch(*pair, len(pair[0])) for pair in zip(x.split(self._size), target.split(self._size))]

    def forward(self, samples: int, last: bool) -> ContextManager[object]:
        """Around the forward and backward of a micro-batch. last: whether an optimiser step follows."""
        return contextlib.nullcontext()

    def joint(self, out: StepOutput, samples: int) -> Tuple[Tensor, StepOutput]:
        """What to differentiate, and what the whole batch's values are."""
        return out.objective, out

    def settle(self) -> None:
        """After an optimiser step: make equal in all processes what gradients do not."""


class Replica:
    """One process of several: a copy of the step that sees its share of each micro-batch and learns from the whole.

    Gradients are averaged by DistributedDataParallel. A loss is a weighted mean over samples, so a process's counts by
    its share of the weights; measures become the whole batch's before their penalty, batch norm's statistics too.
    """

    def __init__(self, step: Step, batch: BatchSpec, train: TrainSpec, processes: Processes) -> None:
        if batch.size < processes.count:
            raise ConfigError(
                f"batch_size is {batch.size}, fewer samples than the {processes.count} processes, which share each "
                f"batch; set it to {processes.count} or more, or start fewer processes"
            )
        self._batch, self._processes = batch, processes
        self._whole = Whole(processes.data)
        unused = _leaves_parameters_out(step, batch)
        self._broadcast(step.buffers())
        joined = join_statistics(step, self._whole)
        step.reduce = self._whole.mean
        self._buffers = _other_buffers(step, joined)
        # buffers are equal already, or `settle` makes them so, and DDP cannot send truth values over an older gloo
        names = [name for name, _ in step.named_buffers()]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(step, names)
        self.module: nn.Module = DistributedDataParallel(
            step,
            process_group=processes.data,
            find_unused_parameters=unused,
            gradient_as_bucket_view=True,
        )
        if train.deterministic:
            self._pack_gradients(step)

    def _pack_gradients(self, step: Step) -> None:
        """Let DDP see a backward, after which it packs gradients in the order in which they come.

        Else a resumed run would pack those of its first step otherwise than one never interrupted, and more than two
        processes add up what is packed elsewhere in another order.
        """
        device = next(step.parameters()).device
        kept = [(buffer, buffer.clone()) for buffer in step.buffers()]
        zeros = (zeros_of(spec, 2).to(device) for spec in (self._batch.x, self._batch.target))
        controls = {name: torch.tensor(value, device=device) for name, value in step.controls.items()}
        devices = [device] if device.type == "cuda" else []
        with torch.enable_grad(), torch.random.fork_rng(devices=devices):
            self.module(*zeros, controls, None, ()).objective.backward()
        step.zero_grad(set_to_none=True)
        for buffer, value in kept:
            buffer.copy_(value)

    def share(self, indices: Sequence[int]) -> Tuple[List[int], Tuple[int, ...]]:
        """This process's samples of a batch, and how many it has of each micro-batch."""
        return shares_of(indices, self._batch.size, self._processes.rank, self._processes.count)

    def parts(self, batch: Any) -> List[MicroBatch]:
        """The micro-batches of the part that the loader yielded."""
        sizes = [max(1, count) for count in batch.samples]
        return [MicroBatch(*part) for part in zip(batch.x.split(sizes), batch.target.split(sizes), batch.samples)]

    @contextlib.contextmanager
    def forward(self, samples: int, last: bool) -> Any:
        self._whole.present = samples > 0
        with contextlib.nullcontext() if last else self.module.no_sync():  # type: ignore[operator]
            yield

    def joint(self, out: StepOutput, samples: int) -> Tuple[Tensor, StepOutput]:
        present = float(samples > 0)
        correct = torch.zeros_like(out.loss) if out.correct is None else out.correct
        values = torch.stack([v.detach().double() for v in (out.loss * out.weight, out.weight, out.samples, correct)])
        values = summed(values * present, self._processes.data)
        total, weight, count, right = (v.to(out.loss.dtype) for v in values.unbind())
        safe = torch.where(weight > 0, weight, torch.ones_like(weight))
        objective, loss = out.loss * (out.weight * present * self._processes.count / safe), total / safe
        joined = loss
        for penalty in out.penalties:
            objective, joined = objective + penalty, joined + penalty
        return objective, out._replace(
            objective=joined,
            loss=loss,
            weight=weight,
            samples=count,
            correct=None if out.correct is None else right,
        )

    def settle(self) -> None:
        self._broadcast(self._buffers)

    def _broadcast(self, buffers: Iterable[Tensor]) -> None:
        for buffer in buffers:
            flat = buffer.view(torch.uint8) if buffer.dtype == torch.bool else buffer
            distributed.broadcast(flat, 0, group=self._processes.data)


def replica(step: Step, batch: BatchSpec, train: TrainSpec, processes: Processes) -> Union[Alone, Replica]:
    """Make a training tree ready for one process or several; nobody may copy it afterwards.

    Raises ConfigError for a batch with fewer samples than processes, Unsupported for a layer whose statistics cannot be
    the whole batch's.
    """
    return Alone(step, batch) if processes.count == 1 else Replica(step, batch, train, processes)


def _leaves_parameters_out(step: Step, batch: BatchSpec) -> bool:
    """Whether some trainable parameter gets no gradient, as one that the forward does not use: DDP has to know."""
    probe = copy.deepcopy(step).cpu()
    controls = {name: torch.tensor(value) for name, value in probe.controls.items()}
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        probe(zeros_of(batch.x, 2), zeros_of(batch.target, 2), controls).objective.backward()
    return any(p.requires_grad and p.grad is None for p in probe.parameters())


def _other_buffers(step: Step, joined: Sequence[str]) -> List[Tensor]:
    """Buffers that a user's layer may write from its share. Neurons never do; batch norm's are joint already."""
    modules = dict(step.named_modules())
    known = {id(b) for name in joined for b in modules[name].buffers(recurse=False)}
    known |= {id(b) for m in modules.values() if isinstance(m, Temporal) for b in m.buffers()}
    return [buffer for buffer in step.buffers() if id(buffer) not in known]
