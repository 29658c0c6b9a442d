"""Losses on the membrane of the model's last neuron, recorded as the trace "mem"."""

from dataclasses import dataclass
from typing import ClassVar, Tuple

import torch
from torch import Tensor

from snn_core._check import is_number
from snn_core.errors import ConfigError
from snn_core.losses.base import Traces
from snn_core.losses.labels import LabelLoss, cross_entropy
from snn_core.losses.readout import is_class, trace

__all__ = ["MaxMembraneCrossEntropy", "MembraneCrossEntropy", "MembraneMSE"]


@dataclass(frozen=True)
class MaxMembraneCrossEntropy(LabelLoss):
    """Cross entropy of the highest membrane: CE(max_t m[t], y). Labels `[B]`. Cramer et al. 2022; snnTorch's
    ce_max_membrane_loss.

    Steps that tie for the maximum share the gradient. Accuracy: the highest maximum.
    """

    needs: ClassVar[Tuple[str, ...]] = ("mem",)

    def per_sample(self, output: Tensor, target: Tensor, traces: Traces) -> Tensor:
        return cross_entropy(self.scores(output, traces).log_softmax(-1), target)

    def scores(self, output: Tensor, traces: Traces) -> Tensor:
        return trace(traces, "mem").amax(0)


@dataclass(frozen=True)
class MembraneCrossEntropy(LabelLoss):
    """Cross entropy of the membrane at every step: (1/T) sum_t CE(m[t], y). Labels `[B]`. Eshraghian et al. 2023.

    Accuracy: the highest mean membrane, which is also the class of the highest mean log-probability.
    """

    needs: ClassVar[Tuple[str, ...]] = ("mem",)

    def per_sample(self, output: Tensor, target: Tensor, traces: Traces) -> Tensor:
        return cross_entropy(trace(traces, "mem").log_softmax(-1).mean(0), target)

    def scores(self, output: Tensor, traces: Traces) -> Tensor:
        return trace(traces, "mem").mean(0)


@dataclass(frozen=True)
class MembraneMSE(LabelLoss):
    """Squared error of the membrane at every step: (1/T) sum_t mean_c (m[t] - goal)^2. snnTorch's mse_membrane_loss.

    target: labels `[B]`, for which the goal is `on_target` at the label and `off_target` elsewhere; or the goal itself
    as floating-point values, `[B, C]` for all steps or `[T, B, C]` for each (`[B]` will do for one output). on_target
    must be above off_target, else ConfigError. Accuracy, with labels: the highest mean membrane.
    """

    on_target: float = 1.0
    off_target: float = 0.0
    needs: ClassVar[Tuple[str, ...]] = ("mem",)
    takes_values: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        on, off = self.on_target, self.off_target
        if not (is_number(on) and is_number(off) and off < on):
            raise ConfigError(
                f"MembraneMSE has on_target {on!r} and off_target {off!r}; "
                "they must be finite, and on_target above off_target"
            )

    def batch_axis(self, target: Tensor) -> int:
        return 1 if target.dim() == 3 else 0

    def per_sample(self, output: Tensor, target: Tensor, traces: Traces) -> Tensor:
        mem = trace(traces, "mem")
        if self.labelled(target):
            at_rest = torch.full_like(mem[0], self.off_target)
            goal = at_rest.masked_fill(is_class(target, at_rest), self.on_target)
        else:
            goal = target.to(mem.dtype).unsqueeze(-1) if target.dim() == 1 else target.to(mem.dtype)
        return (mem - goal).square().mean((0, 2))

    def scores(self, output: Tensor, traces: Traces) -> Tensor:
        return trace(traces, "mem").mean(0)
