"""A step's vector-Jacobian product, taken so that what Python does in it is still watched."""

from typing import Any, List, Optional, Sequence

import torch
from torch import Tensor

__all__ = ["gradients"]


class _Seed(torch.autograd.Function):
    """A number whose gradient with respect to each value is that value's cotangent.

    `autograd.grad(values, ..., cotangents)` would say the same, and import a library for symbolic shapes to do so.
    """

    @staticmethod
    def forward(ctx: Any, cotangents: List[Tensor], *values: Tensor) -> Tensor:
        ctx.cotangents = cotangents
        return values[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, _: Tensor) -> Any:
        return (None, *ctx.cotangents)


def gradients(
    results: Sequence[Tensor], cotangents: Sequence[Tensor], inputs: Sequence[Tensor]
) -> Sequence[Optional[Tensor]]:
    """The gradient of each input; None for one that the results do not depend on."""
    seed = _Seed.apply(list(cotangents), *results)
    # `torch.autograd.grad` would take a mode for torch's functions off what it calls, a user's backward among it
    run = torch.autograd.Variable._execution_engine.run_backward
    return run((seed,), (torch.ones_like(seed),), False, False, tuple(inputs), True, accumulate_grad=False)
