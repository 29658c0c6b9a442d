"""What several processes that train one model together must agree on."""

from typing import Any, Optional

import torch
from torch import Tensor

__all__ = ["GlobalMean"]


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
        from torch.distributed.nn.functional import all_reduce

        # one message for both; the number of samples has no gradient
        both = torch.cat(((mean * samples).reshape(-1), samples.to(mean.dtype).reshape(1)))
        both = all_reduce(both, group=self.group) if self.group is not None else all_reduce(both)
        return (both[:-1] / both[-1]).reshape(mean.shape)
