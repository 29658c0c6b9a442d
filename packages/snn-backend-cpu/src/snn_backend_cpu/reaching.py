"""Whether there is a gradient at all: what a loss does not depend on gets None from autograd, and not a gradient of 0.

An optimizer leaves a parameter without gradient alone, while weight decay and momentum move one whose gradient is 0.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from snn_core.neurons.base import Neuron

__all__ = ["Reach", "reach_of"]

_SHAPE = (2, 3)


@dataclass(frozen=True)
class Reach:
    """To which inputs of a step the gradient of each of its results comes.

    by_result: for "out" and each "state.NAME" after the step, names of "x", "c.NAME", and "state.NAME" before it.
    """

    by_result: Mapping[str, frozenset[str]]
    _known: dict[Any, frozenset[str]] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def through_connection(self) -> "Reach":
        """The same with what was sent before, "state.spk", as a part of what a step gets in x."""
        found = {
            result: inputs | {"state.spk"} if "x" in inputs else inputs for result, inputs in self.by_result.items()
        }
        return Reach({**found, "state.spk": found["out"]})

    def over(self, steps: int, every: Iterable[str], last: Iterable[str]) -> frozenset[str]:
        """The inputs of all steps that get a gradient, a "state.NAME" being that before the first step.

        every: the results that have one at each step.   last: those that have one after the last step.
        """
        key = steps, tuple(every), tuple(last)
        if key not in self._known:
            self._known[key] = self._over(*key)
        return self._known[key]

    def _over(self, steps: int, every: Iterable[str], last: Iterable[str]) -> frozenset[str]:
        every = frozenset(every)
        after, inputs, states = every.union(last), frozenset[str](), frozenset[str]()
        for _ in range(steps):
            reached = frozenset[str]().union(*(self.by_result[result] for result in after))
            states = frozenset(name for name in reached if name.startswith("state."))
            inputs |= reached - states
            if after == every | states:  # the steps before are alike
                break
            after = every | states
        return inputs | states


def reach_of(neuron: Neuron, dtype: torch.dtype) -> Reach:
    """Ask autograd itself, at one small shape, of a neuron whose step can be lowered."""
    names = ("x", *(f"state.{name}" for name in neuron.states), *(f"c.{name}" for name in neuron.coefficients()))
    with torch.enable_grad():
        values = [torch.full(_SHAPE, 0.5, dtype=dtype, requires_grad=True) for _ in names]
        given = dict(zip(names, values, strict=True))
        state = tuple(given[f"state.{name}"] for name in neuron.states)
        c = {name[2:]: value for name, value in given.items() if name.startswith("c.")}
        out, after = neuron.dynamics(given["x"], state, c)
        results = {"out": out, **{f"state.{name}": s for name, s in zip(neuron.states, after, strict=True)}}
        return Reach({name: _reached(result, given) for name, result in results.items()})


def _reached(result: Tensor, given: Mapping[str, Tensor]) -> frozenset[str]:
    if not result.requires_grad:
        return frozenset()
    grads = torch.autograd.grad(result.sum(), list(given.values()), retain_graph=True, allow_unused=True)
    return frozenset(name for name, grad in zip(given, grads, strict=True) if grad is not None)
