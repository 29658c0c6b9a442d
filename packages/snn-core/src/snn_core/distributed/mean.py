"""Sums and means over all processes' samples, with their gradients."""

from collections import deque
from typing import Any, Deque, Optional

import torch
from torch import Tensor, distributed

__all__ = ["GlobalMean", "Whole", "summed"]

_sent: Deque[Tensor] = deque(maxlen=256)
"""The last messages, kept alive: in torch 2.0 a thread of gloo that is the last to let go of one waits for the
interpreter, which `destroy_process_group` holds while it waits for that thread.
"""


class GlobalMean:
    """The mean over all processes' samples of what each has the mean of, with its gradient.

    `GlobalMean()(mean, samples)`: mean of any shape, over `samples` (0-d) of this process -> the same shape, equal in
    every process. A process's gradient is that of the whole batch's mean, times the number of processes: what a mean
    of gradients over the processes, as `DistributedDataParallel` takes it, makes the gradient of the whole batch.
    group: a `torch.distributed` process group, None for all processes.
    Raises RuntimeError where no process group has been initialised.
    """

    def __init__(self, group: Optional[Any] = None) -> None:
        self.group = group

    def __call__(self, mean: Tensor, samples: Tensor) -> Tensor:
        # one message for both; the number of samples has no gradient
        both = torch.cat(((mean * samples).reshape(-1), samples.to(mean.dtype).reshape(1)))
        both = _Sum.apply(both, self.group)
        return (both[:-1] / both[-1]).reshape(mean.shape)


class Whole:
    """What is summed over the processes' shares of one batch. `present`: whether this process has a sample of it; one
    without takes part with a sample that counts nothing.
    """

    def __init__(self, group: Any) -> None:
        self.present = True
        self._group, self._mean = group, GlobalMean(group)

    def total(self, value: Tensor) -> Tensor:
        """As `summed`, over the processes that have a sample."""
        return summed(value * float(self.present), self._group)

    def mean(self, mean: Tensor, samples: Tensor) -> Tensor:
        """As GlobalMean: what `Step.reduce` takes."""
        return self._mean(mean, samples * float(self.present))


class _Sum(torch.autograd.Function):
    """The sum over the processes; what each of them makes of it flows back to all."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return summed(value, group)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return summed(grads[0], ctx.group), None


def summed(value: Tensor, group: Any) -> Tensor:
    """The sum of `value`, of any shape, over the processes of `group`, without a gradient; equal in every process."""
    message = value.detach().clone(memory_format=torch.contiguous_format)
    distributed.all_reduce(message, group=group)
    _sent.append(message)
    return message.detach()
