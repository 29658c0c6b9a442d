"""One filter over time for all neurons, by three kernels that loop over its taps: they serve every length of filter."""

import textwrap
from typing import Any

import torch
from torch import Tensor

from snn_backend_cpu.kernels import Kernel, compiled
from snn_backend_cpu.threads import memory, run

__all__ = ["BACK_TO_INPUTS", "BACK_TO_WEIGHTS", "FORWARD", "filtered"]


def filtered(inputs: Tensor, weight: Tensor) -> Tensor:
    """h[t] = sum over i of w[i] x[t + i]. inputs: `[T + order - 1, B, ...]`; weight: `[order]`; h: `[T, B, ...]`.

    Each product and each sum is rounded, from the first tap to the last, as in torch. float32 or float64, of one type.
    """
    result: Tensor = _Filtered.apply(inputs.contiguous(), weight.contiguous())
    return result


def _kernel(arrays: str, body: str) -> str:
    """The source of a kernel that does `body` for the `count` lanes from `low` on."""
    return f"""from snn_backend_cpu.intrinsics import flush_denormals, restore_denormals


def kernel(steps, width, start, stop, piece, span, {arrays}):
    mode = flush_denormals()
    for low in range(start, stop, piece):
        count = min(low + piece, stop) - low
{textwrap.indent(body, " " * 8)}
    restore_denormals(mode)
"""


# From the tap k up to `end`, with one row of x for each, `stride` apart. Four at once: what they are added to is then
# read and written once, not four times.
_SUM = """
    x_ = x[at : at + count]
    for i in range(count):
        sum_[i] = w[k] * x_[i]
    k, at = k + 1, at + stride
    while k + 3 < end:
        x0_ = x[at : at + count]
        x1_ = x[at + stride : at + stride + count]
        x2_ = x[at + 2 * stride : at + 2 * stride + count]
        x3_ = x[at + 3 * stride : at + 3 * stride + count]
        w0, w1, w2, w3 = w[k], w[k + 1], w[k + 2], w[k + 3]
        for i in range(count):
            sum_[i] = sum_[i] + w0 * x0_[i] + w1 * x1_[i] + w2 * x2_[i] + w3 * x3_[i]
        k, at = k + 4, at + 4 * stride
    while k < end:
        x_ = x[at : at + count]
        for i in range(count):
            sum_[i] = sum_[i] + w[k] * x_[i]
        k, at = k + 1, at + stride
"""

FORWARD = _kernel(
    "x, w, h",
    f"""
for t in range(steps):
    k, end, at, stride = 0, w.size, t * width + low, width
    sum_ = h[at : at + count]
{_SUM}""",
)

# a row of the inputs was heard by the steps s, s - 1, ... as far as there are
BACK_TO_INPUTS = _kernel(
    "x, w, dx",
    f"""
for s in range(steps + w.size - 1):
    k, end = max(0, s - steps + 1), min(w.size, s + 1)
    at, stride = (s - k) * width + low, -width
    sum_ = dx[s * width + low : s * width + low + count]
{_SUM}""",
)

# for each lane alone, so that the sum over lanes does not depend on the threads
BACK_TO_WEIGHTS = _kernel(
    "x, dh, dw",
    """
for t in range(steps):
    dh_ = dh[t * width + low : t * width + low + count]
    for k in range(dw.size // width):
        at = (t + k) * width + low
        x_ = x[at : at + count]
        dw_ = dw[k * width + low : k * width + low + count]
        for i in range(count):
            dw_[i] += dh_[i] * x_[i]
""",
)


class _Filtered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inputs: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.set_materialize_grads(False)
        h = inputs.new_empty((len(inputs) - len(weight) + 1, *inputs.shape[1:]))
        _run(FORWARD, len(weight), h, inputs, weight, h)
        return h

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dh: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        if dh is None:  # its layer's output depends on nothing here
            return None, None
        inputs, weight = ctx.saved_tensors
        dh = dh.contiguous()
        dinputs = dweight = None
        if ctx.needs_input_grad[0]:
            dinputs = torch.empty_like(inputs)
            _run(BACK_TO_INPUTS, len(weight), dh, dh, weight, dinputs)
        if ctx.needs_input_grad[1]:
            lanes = inputs.new_zeros((len(weight), *inputs.shape[1:]))
            _run(BACK_TO_WEIGHTS, len(weight), dh, inputs, dh, lanes)
            dweight = lanes.flatten(1).sum(1)
        return dinputs, dweight


def _run(source: str, order: int, sequence: Tensor, *arrays: Tensor) -> None:
    """Run a kernel over the steps and lanes of a sequence, in pieces whose last `order` rows stay in the cache."""
    kernel: Kernel = compiled(source, (str(sequence.dtype).replace("torch.", ""),) * len(arrays))
    run(kernel, len(sequence), sequence[0].numel(), order, [*map(memory, arrays)])
