"""Batch norm whose statistics are the whole batch's, not those of one process's share."""

import functools
from typing import Any, List

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from snn_core.distributed.mean import Whole
from snn_core.errors import Unsupported

__all__ = ["join_statistics"]


def join_statistics(model: nn.Module, whole: Whole) -> List[str]:
    """Let each batch norm of a training tree take its statistics of all processes' samples; return their names.

    nn.SyncBatchNorm does so itself, and is left alone. Raises Unsupported for a batch norm with a forward of its own.
    """
    joined = []
    for name, module in model.named_modules():
        if not isinstance(module, _BatchNorm) or isinstance(module, nn.SyncBatchNorm):
            continue
        if type(module).forward is not _BatchNorm.forward:
            raise Unsupported(
                f"layer {name!r}, {type(module).__name__}, is a batch norm with a forward of its own, whose statistics "
                "would be those of each process's share; use torch's own batch norm, or train in one process"
            )
        # on the instance: the layer keeps its class, its tensors and its hooks
        module.forward = functools.partial(_forward, module, whole)  # type: ignore[method-assign]
        joined.append(name)
    return joined


def _forward(module: Any, whole: Whole, x: Tensor) -> Tensor:
    """What torch's batch norm computes in training, of all processes' samples. x: `[N, C, ...]`."""
    module._check_input_dim(x)
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    over = [0, *range(2, x.dim())]
    shape = [1, -1] + [1] * (x.dim() - 2)
    sums = whole.sum(torch.cat((wide.sum(over), wide.new_full((1,), float(x.numel() // x.shape[1])))))
    count, mean = sums[-1].detach(), sums[:-1] / sums[-1].detach()
    centred = wide - mean.view(shape)
    # from the differences, in a second message: sums of squares would cancel
    variance = whole.sum(centred.square().sum(over)) / count
    out = centred * (variance + module.eps).rsqrt().view(shape)
    if module.affine:
        out = out * module.weight.view(shape) + module.bias.view(shape)
    if module.track_running_stats:
        _track(module, mean.detach(), variance.detach() * count / (count - 1))
    return out.to(x.dtype)


@torch.no_grad()
def _track(module: Any, mean: Tensor, variance: Tensor) -> None:
    module.num_batches_tracked.add_(1)
    factor = 1.0 / float(module.num_batches_tracked) if module.momentum is None else module.momentum
    for running, value in ((module.running_mean, mean), (module.running_var, variance)):
        running.lerp_(value.to(running.dtype), factor)
