"""One whole training step as a plain callable, for anyone's timing."""

from typing import Any, Callable, Optional, Sequence, Tuple, Union

from torch import Tensor, nn

from snn_core import registry
from snn_core.backend import Backend, Report
from snn_core.data.checks import check_batch
from snn_core.optimizers import Adam, Optimizer
from snn_core.specs import BatchSpec, TensorSpec, TrainSpec
from snn_core.step import Step
from snn_core.terms import Term

__all__ = ["step_function"]

_ADAM = Adam()


def step_function(
    model: nn.Module,
    *,
    loss: Any,
    optimizer: Optimizer = _ADAM,
    backend: Union[str, Backend] = "eager",
    batch: Tuple[Tensor, Tensor],
    time_axis: Optional[int] = None,
    precision: str = "fp32",
    terms: Sequence[Term] = (),
) -> Callable[[], Report]:
    """Compile `model` and return a callable that runs one training step (forward, backward, update) on `batch` at
    each call.

    batch: x `[B, ...]`, or `[B, T, ...]` with time_axis=1, and target `[B, ...]`. The report stays on the device: to
    time a
    step on an accelerator, read a value or synchronise. The user's model keeps its weights.
    """
    x, target = batch
    chosen = registry.load(backend) if isinstance(backend, str) else backend
    dtypes = [str(t.dtype).split(".")[-1] for t in batch]
    spec = BatchSpec(
        len(x),
        TensorSpec(tuple(x.shape[1:]), dtypes[0], time_axis),
        TensorSpec(tuple(target.shape[1:]), dtypes[1]),
    )
    check_batch(x, target, spec)
    program = chosen.compile(Step(model, loss, terms), optimizer, spec, TrainSpec(precision=precision))
    prepared = next(iter(program.loader(list(zip(x, target)), range(len(x)), training=True)))
    return lambda: program.train_step(prepared)
