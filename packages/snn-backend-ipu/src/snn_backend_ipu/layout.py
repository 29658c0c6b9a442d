"""How samples are shared out: micro-batches, replicas, accumulation, iterations and processes."""

from dataclasses import dataclass
from typing import List, Sequence

from snn_backend_ipu import calls
from snn_backend_ipu.options import IpuOptions
from snn_core.errors import ConfigError
from snn_core.specs import BatchSpec, TrainSpec

__all__ = ["Layout", "layout", "processes"]


@dataclass(frozen=True)
class Layout:
    """The factors of poptorch's combined batch, which cuts dimension 0 of every input.

    size: samples of a micro-batch.   iterations: poptorch's deviceIterations.   replicas: of this process.
    accumulation: micro-batches in a row on each replica.   processes, process: under poprun.
    """

    size: int
    iterations: int
    replicas: int
    accumulation: int
    processes: int = 1
    process: int = 0

    @property
    def micro_batches(self) -> int:
        """Micro-batches in one call of this process."""
        return self.iterations * self.replicas * self.accumulation

    @property
    def combined(self) -> int:
        """Samples in one call of this process: poptorch's combined batch size."""
        return self.size * self.micro_batches

    @property
    def samples(self) -> int:
        """Samples in one call of all processes together."""
        return self.combined * self.processes

    def own(self, order: Sequence[int]) -> List[int]:
        """This process's part of an order of whole calls: its micro-batches of each optimiser step."""
        step = self.size * self.replicas * self.accumulation
        starts = range(self.process * step, len(order), step * self.processes)
        return [index for start in starts for index in order[start : start + step]]


def layout(batch: BatchSpec, train: TrainSpec, options: IpuOptions, training: bool) -> Layout:
    """The layout of a training call, or of an evaluating one. Raises ConfigError where it does not add up."""
    count, process, replicas = processes(options)
    if not training:
        # each process evaluates all samples by itself, so that none has to wait for the others' results
        return _rebatched(Layout(batch.size, options.iterations, replicas // count, 1), options, training)
    if train.accumulation % replicas:
        raise ConfigError(
            f"accumulation is {train.accumulation} and there are {replicas} replicas, among which an optimiser step's "
            f"micro-batches are shared out, so accumulation must be a multiple of {replicas}. "
            + _explained(batch, train)
        )
    each = train.accumulation // replicas
    needed = 2 * options.ipus - 1
    if options.ipus > 1 and each < needed:
        raise ConfigError(
            f"accumulation is {train.accumulation}, {each} for each of the replicas ({replicas}), and a pipeline of "
            f"{options.ipus} stages needs {needed} or more on each (2 x stages - 1): raise accumulation to "
            f"{needed * replicas}. " + _explained(batch, train)
        )
    return _rebatched(
        Layout(batch.size, train.steps_per_call, replicas // count, each, count, process), options, training
    )


def _rebatched(cut: Layout, options: IpuOptions, training: bool) -> Layout:
    """The same. Raises ConfigError where poptorch's loader would put single samples together: it asserts several."""
    if options.loader == "async_rebatched" and cut.combined == 1:
        does, factor = ("trains", "accumulation") if training else ("evaluates", "evaluation_iterations")
        raise ConfigError(
            f"loader is 'async_rebatched', which puts batches of several samples together, and one call {does} 1 "
            f"sample; set loader='async', or raise {factor} or batch_size"
        )
    return cut


def _explained(batch: BatchSpec, train: TrainSpec) -> str:
    total = batch.size * train.accumulation * train.steps_per_call
    return (
        f"The combined batch is batch_size {batch.size} x accumulation {train.accumulation} x steps_per_call "
        f"{train.steps_per_call} = {total} samples in a call"
    )


def processes(options: IpuOptions) -> "tuple[int, int, int]":
    """How many processes there are, which this is, and how many replicas all have together.

    Raises ConfigError for the option popdist where poprun did not start this process.
    """
    if not options.popdist:
        return 1, 0, options.replicas
    if not calls.call("popdist.isPopdistEnvSet"):
        raise ConfigError(
            "popdist is True, but poprun did not start this process; run it as "
            "`poprun --num-instances 2 --num-replicas 4 snn train ...`, or set popdist=False"
        )
    names = ("popdist.getNumInstances", "popdist.getInstanceIndex", "popdist.getNumTotalReplicas")
    count, process, replicas = (int(calls.call(name)) for name in names)
    return count, process, replicas
