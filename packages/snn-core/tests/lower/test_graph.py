"""Graphs: simplification, extraction and the cheapest cut, by hand."""

import torch

from snn_core.lower import Graph, Node, interpret
from snn_core.lower.builder import Builder
from snn_core.lower.cut import smallest_cut


def test_equal_expressions_are_computed_once() -> None:
    builder = Builder(torch.float32)
    a, b = builder.input("a"), builder.input("b")
    assert builder.emit("add", a, b) == builder.emit("add", b, a)
    assert builder.emit("sub", a, b) != builder.emit("sub", b, a)


def test_constants_are_rounded_and_folded_in_the_graphs_own_precision() -> None:
    builder = Builder(torch.float32)
    product = builder.emit("mul", builder.constant(0.1), builder.constant(0.1))
    assert builder.nodes[product].value == float(torch.tensor(0.1) * torch.tensor(0.1))


def test_idle_operations_are_dropped() -> None:
    builder = Builder(torch.float32)
    a, zero, one = builder.input("a"), builder.constant(0), builder.constant(1)
    assert builder.emit("add", a, zero) == a
    assert builder.emit("mul", one, a) == a
    assert builder.emit("fma", a, builder.emit("sub", a, a), a) == a
    assert builder.emit("where", builder.truth(True), a, zero) == a


def test_the_order_of_a_sum_is_kept() -> None:
    builder = Builder(torch.float32)
    a, b, c = (builder.input(name) for name in "abc")
    left = builder.emit("add", builder.emit("add", a, b), c)
    right = builder.emit("add", a, builder.emit("add", b, c))
    graph = builder.graph({"left": left, "right": right})
    big = {"a": torch.tensor(1e8), "b": torch.tensor(-1e8), "c": torch.tensor(1.0)}
    result = interpret(graph, big, torch.float32)
    assert float(result["left"]) == 1.0
    assert float(result["right"]) == 0.0


def test_both_forms_of_the_spike_become_one_comparison() -> None:
    builder = Builder(torch.float32)
    u = builder.input("u")
    sign = builder.emit("sign", u)
    above = builder.emit("maximum", sign, builder.constant(0))
    reached = builder.emit("sign", builder.emit("add", sign, builder.constant(1)))
    graph = builder.graph({"above": above, "reached": reached})
    assert {node.op for node in graph.nodes} == {"input", "constant", "ge", "gt", "where"}
    result = interpret(graph, {"u": torch.tensor([-1.0, -0.0, 0.0, 1e-30, 2.0])}, torch.float32)
    assert result["above"].tolist() == [0, 0, 0, 1, 1]
    assert result["reached"].tolist() == [0, 1, 1, 1, 1]


def test_extraction_leaves_dead_code_behind_and_turns_given_nodes_into_inputs() -> None:
    nodes = (Node("input", name="a"), Node("neg", (0,)), Node("exp", (1,)), Node("abs", (0,)))
    part = Graph(nodes, {"y": 2}).extract({"y": 2}, {1: "minus"})
    assert part.inputs == ("minus",)
    assert [node.op for node in part.nodes] == ["input", "exp"]


def test_the_cut_takes_the_one_value_through_which_all_goes() -> None:
    # a and b meet in 2; 3 and 4 are made of it
    nodes = (
        Node("input", name="a"),
        Node("input", name="b"),
        Node("add", (0, 1)),
        Node("exp", (2,)),
        Node("abs", (2,)),
    )
    price = dict.fromkeys(range(5), 4)
    assert smallest_cut(Graph(nodes, {}), [3, 4], price) == [2]


def test_the_cut_prefers_what_is_nearest_to_the_ends() -> None:
    nodes = (Node("input", name="a"), Node("exp", (0,)), Node("neg", (1,)))
    assert smallest_cut(Graph(nodes, {}), [2], dict.fromkeys(range(3), 4)) == [2]


def test_the_cut_counts_bytes_not_values() -> None:
    nodes = (Node("input", name="a"), Node("gt", (0, 0), "bool"), Node("lt", (0, 0), "bool"))
    assert smallest_cut(Graph(nodes, {}), [1, 2], {0: 4, 1: 1, 2: 1}) == [1, 2]
    assert smallest_cut(Graph(nodes, {}), [1, 2], {0: 1, 1: 1, 2: 1}) == [0]


def test_what_costs_nothing_is_never_kept() -> None:
    nodes = (Node("input", name="c.beta"), Node("neg", (0,)), Node("input", name="a"), Node("mul", (1, 2)))
    assert smallest_cut(Graph(nodes, {}), [1, 3], {2: 4, 3: 4}) == [3]
