"""The kernels of one lowered step, each made when it is first needed."""

import math
from collections.abc import Sequence

from snn_backend_cpu.kernels import Kernel, compiled
from snn_backend_cpu.printing import Layout, backward_source, forward_source
from snn_backend_cpu.reaching import Reach
from snn_backend_cpu.threads import Array, Scratch, run
from snn_core.lower import Lowered

__all__ = ["SPAN", "StepKernels", "span_of"]

SPAN = 16
"""Steps between two kept states in training, at least."""


def span_of(steps: int) -> int:
    """Steps between two kept states: from 256 steps on their root, so that what is kept grows no faster."""
    return max(SPAN, math.isqrt(max(steps, 1) - 1) + 1)


class StepKernels:
    """Runs a lowered step over time, forward and backward, on flat arrays whose order `printing` tells.

    reach: which gradients a step has.
    """

    def __init__(self, lowered: Lowered, reach: Reach) -> None:
        self.lowered, self.reach = lowered, reach
        self._kind = str(lowered.dtype).replace("torch.", "")
        self._forward: dict[tuple[Layout, bool], Kernel] = {}
        self._backward: dict[Layout, tuple[Kernel, Scratch]] = {}

    def forward(self, layout: Layout, steps: int, width: int, arrays: Sequence[Array], span: int = 0) -> None:
        """Run `steps` steps of `width` lanes. span: keep the states of every `span`-th step; 0 keeps none."""
        key = (layout, span > 0)
        if key not in self._forward:
            source, names = forward_source(self.lowered, layout, span > 0)
            self._forward[key] = compiled(source, self._kinds(layout, names))
        run(self._forward[key], steps, width, max(span, 1), arrays)

    def backward(self, layout: Layout, steps: int, width: int, arrays: Sequence[Array], span: int) -> None:
        """Go back over `steps` steps, of which forward kept the states of every `span`-th."""
        if layout not in self._backward:
            split = self.lowered.split(layout.learnt)
            source, names = backward_source(self.lowered, split, layout)
            scratch: list[tuple[bool, str]] = [(False, self._kind)] * len(self.lowered.states)
            scratch += [(True, self._kind if kind == "float" else "uint8") for kind in split.kept]
            shared = self._kinds(layout, names[: len(names) - len(scratch)])
            self._backward[layout] = compiled(source, (*shared, *(kind for _, kind in scratch))), scratch
        kernel, own = self._backward[layout]
        run(kernel, steps, width, span, arrays, own)

    def _kinds(self, layout: Layout, names: Sequence[str]) -> tuple[str, ...]:
        return tuple("int16" if name in layout.halved else self._kind for name in names)
