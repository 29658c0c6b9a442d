"""Prints a lowered step as the source of two Numba kernels, forward and backward over all time steps.

Arrays are flat: a sequence `[T, B, ...]` holds value j of step t at t * width + j, where width is all values of a step.
A kernel takes the lanes [start, stop) of the width in pieces of `piece`, and each piece through all steps at once, so
that states, coefficients and the gradients' sums stay in the cache. Training keeps the states of every `span`-th step;
backward takes the steps in such spans, computes each span's kept values again and then goes through it backwards.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from snn_core.lower import Graph, Lowered, Node, Split

__all__ = ["Layout", "backward_source", "forward_source"]


@dataclass(frozen=True)
class Layout:
    """What a kernel is made for beside the step itself.

    static: x has no time.   vectors: the coefficients that differ between lanes; the others are single numbers.
    recorded: the states that are recorded at every step.   learnt: the coefficients whose gradient is wanted, and "x".
    stored: how x, the output and their cotangents lie in memory: "float" as everything else, "bfloat16" or "float16".
    """

    static: bool
    vectors: tuple[str, ...]
    recorded: tuple[str, ...]
    learnt: tuple[str, ...] = ()
    stored: str = "float"

    def learning(self, learnt: tuple[str, ...]) -> "Layout":
        """The same, with gradients of `learnt`."""
        return replace(self, learnt=learnt)

    @property
    def halved(self) -> tuple[str, ...]:
        """The arrays in half precision, by name; the sum of the gradients of an x without time is none of them."""
        names = ("x", "out", "dout") if self.static else ("x", "out", "dout", "dx")
        return () if self.stored == "float" else names

    def read(self, text: str) -> str:
        """The expression that takes an element of x or a cotangent out of memory."""
        return text if self.stored == "float" else f"from_{self.stored}({text})"

    def written(self, text: str) -> str:
        """The expression that an element of the output or of the input's gradient gets."""
        return text if self.stored == "float" else f"to_{self.stored}({text})"


_BINARY = {"add": "+", "sub": "-", "mul": "*", "div": "/", "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">"}
_BINARY |= {"ge": ">=", "and": "&", "or": "|", "pow": "**"}
_CALLS = {"abs": "abs", "sqrt": "math.sqrt", "floor": "np.floor", "ceil": "np.ceil", "trunc": "np.trunc"}
_CALLS |= {"round": "np.rint", "expm1": "math.expm1", "log": "math.log", "log1p": "math.log1p", "sin": "math.sin"}
_CALLS |= {"cos": "math.cos", "atan": "math.atan", "erf": "math.erf", "fma": "fma"}


_INTRINSICS = ["exp32", "exp64", "flush_denormals", "fma", "restore_denormals", "tanh32", "tanh64"]
_INTRINSICS += ["from_bfloat16", "from_float16", "to_bfloat16", "to_float16"]


class _Source:
    """Lines of a module, and the constants that its functions use."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.type = "np.float32" if dtype == torch.float32 else "np.float64"
        self.bits = "32" if dtype == torch.float32 else "64"
        self.constants: dict[str, str] = {}
        self.lines: list[str] = []

    def line(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    def constant(self, value: float) -> str:
        text = f"{self.type}({value!r})" if value == value and abs(value) != float("inf") else f"{self.type}('{value}')"
        return self.constants.setdefault(text, f"K{len(self.constants)}")

    def body(self, depth: int, graph: Graph, inputs: Mapping[str, str], prefix: str) -> dict[str, str]:
        """Write a graph's operations; return the expression of each output."""
        names: list[str] = []
        for index, node in enumerate(graph.nodes):
            if node.op == "input":
                names.append(inputs[str(node.name)])
            elif node.op == "constant":
                names.append(str(bool(node.value)) if node.kind == "bool" else self.constant(float(node.value or 0.0)))
            else:
                names.append(f"{prefix}{index}")
                text = self._expression(graph, node, [names[arg] for arg in node.args])
                self.line(depth, f"{prefix}{index} = {text}")
        return {name: names[index] for name, index in graph.outputs.items()}

    def _expression(self, graph: Graph, node: Node, args: Sequence[str]) -> str:
        if node.op in _BINARY:
            return f"{args[0]} {_BINARY[node.op]} {args[1]}"
        if node.op in _CALLS:
            return f"{_CALLS[node.op]}({', '.join(args)})"
        if node.op in ("minimum", "maximum"):
            return self._extreme("<" if node.op == "minimum" else ">", graph, node, args)
        if node.op == "rsqrt":
            return f"{self.constant(1.0)} / math.sqrt({args[0]})"
        if node.op in ("exp", "tanh"):
            return f"{node.op}{self.bits}({args[0]})"
        if node.op == "where":
            return f"{args[1]} if {args[0]} else {args[2]}"
        if node.op == "sign":
            one, less, zero = self.constant(1.0), self.constant(-1.0), self.constant(0.0)
            return (
                f"{one} if {args[0]} > {zero} else ({less} if {args[0]} < {zero} else {zero})"  # 0 of NaN, as in torch
            )
        return f"{'not ' if node.op == 'not' else '-'}{args[0]}"

    @staticmethod
    def _extreme(sign: str, graph: Graph, node: Node, args: Sequence[str]) -> str:
        # a NaN on either side is the result, as in torch
        a, b = args
        if graph.nodes[node.args[0]].op == "constant":
            a, b = b, a
        elif graph.nodes[node.args[1]].op != "constant":
            return f"{b} if ({b} {sign} {a}) | ({b} != {b}) else {a}"
        return f"{b} if {b} {sign} {a} else {a}"

    def text(self) -> str:
        head = ["import math", "", "import numpy as np"]
        head += [f"from snn_backend_cpu.intrinsics import {', '.join(_INTRINSICS)}", ""]
        head += [f"{name} = {value}" for value, name in self.constants.items()]
        return "\n".join([*head, "", "", *self.lines, ""])


class _Rows:
    """Hands out pieces of arrays. Slices, because Numba then knows that no index of a lane is negative."""

    def __init__(self, source: _Source, depth: int, start: str) -> None:
        self._source, self._depth, self._start = source, depth, start

    def of(self, *arrays: str) -> list[str]:
        for array in arrays:
            self._source.line(self._depth, f"{array}_ = {array}[{self._start} : {self._start} + count]")
        return [f"{array}_" for array in arrays]


def _coefficients(source: _Source, lowered: Lowered, layout: Layout) -> dict[str, str]:
    """Read the single numbers once; return the expression of each coefficient in the lane loop."""
    expressions = {}
    for number, name in enumerate(lowered.coefficients):
        if name in layout.vectors:
            expressions[f"c.{name}"] = f"c{number}_[i]"
        else:
            source.line(1, f"c{number}_ = c{number}[0]")
            expressions[f"c.{name}"] = f"c{number}_"
    return expressions


def _pieces(source: _Source, lowered: Lowered, layout: Layout, lane_arrays: Sequence[str]) -> None:
    """Begin the loop over pieces, with the arrays that have one value for each lane."""
    source.line(1, "for low in range(start, stop, piece):")
    source.line(2, "count = min(low + piece, stop) - low")
    vectors = [f"c{number}" for number, name in enumerate(lowered.coefficients) if name in layout.vectors]
    _Rows(source, 2, "low").of(*(["x"] if layout.static else []), *vectors, *lane_arrays)


def forward_source(lowered: Lowered, layout: Layout, keep: bool) -> tuple[str, tuple[str, ...]]:
    """The kernel `forward`, and the names of its array arguments in order.

    Arrays: x, out, s0.. (states: in at the start, out at the end), r.. (recorded), k.. (states kept every `span`
    steps, where `keep`), c.. (coefficients).
    """
    source = _Source(lowered.dtype)
    states = [f"s{i}" for i in range(len(lowered.states))]
    recorded = [f"r{lowered.states.index(name)}" for name in layout.recorded]
    kept = [f"k{i}" for i in range(len(states))] if keep else []
    arrays = ["x", "out", *states, *recorded, *kept, *(f"c{i}" for i in range(len(lowered.coefficients)))]
    source.line(0, f"def kernel(steps, width, start, stop, piece, span, {', '.join(arrays)}):")
    source.line(1, "mode = flush_denormals()")
    coefficients = _coefficients(source, lowered, layout)
    _pieces(source, lowered, layout, states)
    source.line(2, "for t in range(steps):")
    if kept:
        source.line(3, "if t % span == 0 and t > 0:")
        source.line(4, "base = (t // span - 1) * width + low")
        for array, row in zip(states, _Rows(source, 4, "base").of(*kept), strict=True):
            source.line(4, "for i in range(count):")
            source.line(5, f"{row}[i] = {array}_[i]")
    source.line(3, "at = t * width + low")
    _Rows(source, 3, "at").of(*([] if layout.static else ["x"]), "out", *recorded)
    source.line(3, "for i in range(count):")
    inputs = {"x": layout.read("x_[i]"), **coefficients}
    inputs |= {f"state.{name}": f"{array}_[i]" for array, name in zip(states, lowered.states, strict=True)}
    results = _step(source, 4, lowered.forward, inputs, "v")
    source.line(4, f"out_[i] = {layout.written(results['out'])}")
    for array, name in zip(states, lowered.states, strict=True):
        source.line(4, f"{array}_[i] = {results[f'state.{name}']}")
    for array, name in zip(recorded, layout.recorded, strict=True):
        source.line(4, f"{array}_[i] = {results[f'state.{name}']}")
    source.line(1, "restore_denormals(mode)")
    return source.text(), tuple(arrays)


def _step(source: _Source, depth: int, graph: Graph, inputs: Mapping[str, str], prefix: str) -> dict[str, str]:
    """Read what the graph needs into locals, then compute it."""
    local = {}
    for number, name in enumerate(graph.inputs):
        text = inputs[name]
        if "[" in text:
            source.line(depth, f"{prefix}i{number} = {text}")
            text = f"{prefix}i{number}"
        local[name] = text
    return source.body(depth, graph, local, prefix)


def backward_source(lowered: Lowered, split: Split, layout: Layout) -> tuple[str, tuple[str, ...]]:
    """The kernel `backward`, and the names of its array arguments in order.

    Arrays: x, dout, s.. (states at the start), k.. (states kept by forward), c.. (coefficients), dr.. (cotangents of
    the recorded), dx (where wanted), ds.. (cotangents of the states: of the last in, of the first out), dc.. (sums of
    the gradients by learnt coefficients, one for each lane), h.. (scratch of a piece: states), q.. (scratch of a span
    of a piece: kept values).
    """
    source = _Source(lowered.dtype)
    states = range(len(lowered.states))
    learnt = [i for i, name in enumerate(lowered.coefficients) if name in layout.learnt]
    dx = ["dx"] if "x" in layout.learnt else []
    recorded = [f"dr{lowered.states.index(name)}" for name in layout.recorded]
    carried, sums = [f"ds{i}" for i in states], [f"dc{i}" for i in learnt]
    arrays = ["x", "dout", *(f"s{i}" for i in states), *(f"k{i}" for i in states)]
    arrays += [*(f"c{i}" for i in range(len(lowered.coefficients))), *recorded, *dx, *carried, *sums]
    arrays += [*(f"h{i}" for i in states), *(f"q{i}" for i in range(len(split.kept)))]
    source.line(0, f"def kernel(steps, width, start, stop, piece, span, {', '.join(arrays)}):")
    source.line(1, "mode = flush_denormals()")
    coefficients = _coefficients(source, lowered, layout)
    source.line(1, "spans = (steps + span - 1) // span")
    _pieces(source, lowered, layout, [*carried, *sums, *(dx if layout.static else [])])
    source.line(2, "for back in range(spans):")
    source.line(3, "part = spans - 1 - back")
    source.line(3, "first = part * span")
    source.line(3, "last = min(first + span, steps)")
    _recompute(source, lowered, split, layout, coefficients)
    source.line(3, "for ago in range(last - first):")
    source.line(4, "t = last - 1 - ago")
    source.line(4, "at = t * width + low")
    source.line(4, "here = (t - first) * piece")
    graph = split.backward
    _Rows(source, 4, "at").of("dout", *recorded, *([] if layout.static else dx))
    _Rows(source, 4, "at").of(*(["x"] if "x" in graph.inputs and not layout.static else []))
    _Rows(source, 4, "here").of(*(f"q{place}" for place in range(len(split.kept))))
    source.line(4, "for i in range(count):")
    inputs = {"x": layout.read("x_[i]"), "grad.out": layout.read("dout_[i]"), **coefficients}
    for place, kind in enumerate(split.kept):
        inputs[f"kept.{place}"] = f"q{place}_[i]" + ("" if kind == "float" else " != 0")
    for i, name in enumerate(lowered.states):
        inputs[f"grad.state.{name}"] = f"ds{i}_[i]" + (f" + dr{i}_[i]" if name in layout.recorded else "")
    results = _step(source, 5, graph, inputs, "g")
    for array in dx:
        # a sum over all steps is kept in full
        text = f"+= {results['grad.x']}" if layout.static else f"= {layout.written(results['grad.x'])}"
        source.line(5, f"{array}_[i] {text}")
    for array, name in zip(carried, lowered.states, strict=True):
        source.line(5, f"{array}_[i] = {results[f'grad.state.{name}']}")
    for array, i in zip(sums, learnt, strict=True):
        source.line(5, f"{array}_[i] += {results[f'grad.c.{lowered.coefficients[i]}']}")
    source.line(1, "restore_denormals(mode)")
    return source.text(), tuple(arrays)


def _recompute(
    source: _Source, lowered: Lowered, split: Split, layout: Layout, coefficients: Mapping[str, str]
) -> None:
    """A span forward again, keeping what backward needs of each step."""
    if not split.kept:
        return
    graph = split.forward.extract({name: index for name, index in split.forward.outputs.items() if name != "out"})
    states = range(len(lowered.states))
    own = _Rows(source, 3, "0").of(*(f"h{i}" for i in states))
    for condition, start, array in (("if part == 0:", "low", "s"), ("else:", "(part - 1) * width + low", "k")):
        source.line(3, condition)
        source.line(4, f"base = {start}")
        for row, kept in zip(own, _Rows(source, 4, "base").of(*(f"{array}{i}" for i in states)), strict=True):
            source.line(4, "for i in range(count):")
            source.line(5, f"{row}[i] = {kept}[i]")
    source.line(3, "for t in range(first, last):")
    source.line(4, "at = t * width + low")
    source.line(4, "here = (t - first) * piece")
    _Rows(source, 4, "at").of(*(["x"] if "x" in graph.inputs and not layout.static else []))
    keeping = _Rows(source, 4, "here").of(*(f"q{place}" for place in range(len(split.kept))))
    source.line(4, "for i in range(count):")
    inputs = {"x": layout.read("x_[i]"), **coefficients}
    inputs |= {f"state.{name}": f"{row}[i]" for row, name in zip(own, lowered.states, strict=True)}
    results = _step(source, 5, graph, inputs, "v")
    for place, (row, kind) in enumerate(zip(keeping, split.kept, strict=True)):
        kept = results[f"kept.{place}"]
        source.line(5, f"{row}[i] = {kept if kind == 'float' else f'np.uint8(1) if {kept} else np.uint8(0)'}")
    for row, name in zip(own, lowered.states, strict=True):
        source.line(5, f"{row}[i] = {results[f'state.{name}']}")
