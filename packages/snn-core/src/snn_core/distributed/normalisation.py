"""Batch norm whose statistics are the whole batch's, not those of one process's share."""

import functools
from typing import Any, List, Optional

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from snn_core.distributed.mean import Whole
from snn_core.errors import ShapeError, Unsupported

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


class _Normalise(torch.autograd.Function):
    """Batch norm in training, of all processes' samples. -> the result, and the statistics, which have no gradient.

    Written out since autograd would keep half a dozen tensors of the input's size. Ioffe & Szegedy 2015, algorithm 1.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Optional[Tensor], bias: Optional[Tensor], whole: Whole, eps: float) -> Any:
        over = [0, *range(2, x.dim())]
        sums = whole.total(torch.cat((x.sum(over), x.new_full((1,), float(x.numel() // x.shape[1])))))
        count, joint = sums[-1], sums[:-1] / sums[-1]
        # about the joint mean, in a second message: sums of squares would cancel. Not torch.var_mean, which takes seven
        # times as long on a CPU
        variance = whole.total((x - joint.view([1, -1] + [1] * (x.dim() - 2))).square_().sum(over)) / count
        ctx.save_for_backward(x, weight, joint, (variance + eps).rsqrt(), count)
        ctx.whole, ctx.present, ctx.over = whole, whole.present, over
        ctx.mark_non_differentiable(joint, variance, count)
        return nn.functional.batch_norm(x, joint, variance, weight, bias, False, 0.0, eps), joint, variance, count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        x, weight, mean, scale, count = ctx.saved_tensors
        shape = [1, -1] + [1] * (x.dim() - 2)
        grad = grads[0]
        normal = (x - mean.view(shape)) * scale.view(shape)
        by_bias, by_weight = grad.sum(ctx.over), (grad * normal).sum(ctx.over)
        ctx.whole.present = ctx.present
        along, across = (ctx.whole.total(torch.stack((by_bias, by_weight))) / count).unbind()
        grad_x = grad - along.view(shape) - normal.mul_(across.view(shape))
        factor = (scale if weight is None else scale * weight) * float(ctx.present)
        grad_x.mul_(factor.view(shape))
        return grad_x, None if weight is None else by_weight, None if weight is None else by_bias, None, None


def _forward(module: Any, whole: Whole, x: Tensor) -> Tensor:
    """What torch's batch norm computes in training, of all processes' samples. x: `[N, C, ...]`."""
    module._check_input_dim(x)
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    out, mean, variance, count = _Normalise.apply(wide, module.weight, module.bias, whole, module.eps)
    if not count > 1:  # the same in every process
        raise ShapeError(
            f"batch norm in training needs more than one value for each channel, and all processes together have one "
            f"(input {tuple(x.shape)}); give a larger batch, or normalise each sample: nn.GroupNorm"
        )
    if module.track_running_stats:
        _track(module, mean, variance * count / (count - 1))
    return out.to(x.dtype)


@torch.no_grad()
def _track(module: Any, mean: Tensor, variance: Tensor) -> None:
    module.num_batches_tracked.add_(1)
    factor = 1.0 / float(module.num_batches_tracked) if module.momentum is None else module.momentum
    for running, value in ((module.running_mean, mean), (module.running_var, variance)):
        running.lerp_(value.to(running.dtype), factor)
