"""The generators give the matrices written in the literature, and bad graphs are refused."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest

from ifog import topology
from ifog.errors import ArgumentError

SIZES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 12, 16, 17]
GENERATORS = [
    topology.ring,
    topology.star,
    topology.grid2d,
    topology.exponential,
    topology.symmetric_exponential,
    topology.complete,
    topology.path,
    topology.torus2d,
    topology.tree,
    topology.barbell,
]


def sending_row(graph, rank):
    """What ``rank`` sends to 0, 1, ...: a row of the table in which rows are senders."""
    return [graph.get_edge_data(rank, v, {"weight": 0.0})["weight"] for v in range(len(graph))]


THIRD = 1 / 3
ROWS = {
    "exponential 4": (topology.exponential(4), 0, [THIRD, THIRD, THIRD, 0]),
    "exponential 4, rotated": (topology.exponential(4), 3, [THIRD, THIRD, 0, THIRD]),
    "exponential 5": (topology.exponential(5), 0, [0.25, 0.25, 0.25, 0, 0.25]),
    "exponential 8": (topology.exponential(8), 0, [0.25, 0.25, 0.25, 0, 0.25, 0, 0, 0]),
    "base 3, 6": (topology.exponential(6, base=3), 0, [THIRD, THIRD, 0, THIRD, 0, 0]),
    "base 4, 6": (topology.exponential(6, base=4), 0, [THIRD, THIRD, 0, 0, THIRD, 0]),
    "base 4, 4": (topology.exponential(4, base=4), 0, [0.5, 0.5, 0, 0]),
    "symmetric 8": (
        topology.symmetric_exponential(8),
        0,
        [0.25, 0.25, 0, 0, 0.25, 0, 0, 0.25],
    ),
    "symmetric 12": (
        topology.symmetric_exponential(12),
        0,
        [0.2, 0.2, 0, 0, 0.2, 0, 0, 0, 0.2, 0, 0, 0.2],
    ),
    "symmetric 4": (topology.symmetric_exponential(4), 0, [THIRD, THIRD, 0, THIRD]),
    "ring 4": (topology.ring(4), 0, [THIRD, THIRD, 0, THIRD]),
    "ring 4, left": (topology.ring(4, style="left"), 0, [0.5, 0, 0, 0.5]),
    "ring 4, right": (topology.ring(4, style="right"), 0, [0.5, 0.5, 0, 0]),
    "ring 1": (topology.ring(1), 0, [1]),
    "star 4, centre": (topology.star(4), 0, [0.25, 0.25, 0.25, 0.25]),
    "star 4, leaf": (topology.star(4), 1, [0.25, 0.75, 0, 0]),
    "star 4 around 2": (topology.star(4, center=2), 0, [0.75, 0, 0.25, 0]),
    "grid 3, end": (topology.grid2d(3), 0, [2 / 3, THIRD, 0]),
    "grid 3, middle": (topology.grid2d(3), 1, [THIRD, THIRD, THIRD]),
    "grid 4": (topology.grid2d(4), 0, [THIRD, THIRD, THIRD, 0]),
    "grid 6, corner": (topology.grid2d(6), 0, [5 / 12, 0.25, 0, THIRD, 0, 0]),
    "grid 6, middle": (topology.grid2d(6), 1, [0.25, 0.25, 0.25, 0, 0.25, 0]),
    "grid 8": (topology.grid2d(8), 0, [5 / 12, 0.25, 0, 0, THIRD, 0, 0, 0]),
    "complete 3": (topology.complete(3), 1, [THIRD, THIRD, THIRD]),
    "path 4, end": (topology.path(4), 0, [2 / 3, THIRD, 0, 0]),
    "path 4, middle": (topology.path(4), 1, [THIRD, THIRD, THIRD, 0]),
    "torus 9": (topology.torus2d(9), 4, [0, 0.2, 0, 0.2, 0.2, 0.2, 0, 0.2, 0]),
    "torus 2 x 2": (topology.torus2d(4), 0, [THIRD, THIRD, THIRD, 0]),
    "hypercube 8": (topology.hypercube(8), 5, [0, 0.25, 0, 0, 0.25, 0.25, 0, 0.25]),
    "tree 6, root": (topology.tree(6), 0, [5 / 12, 0.25, THIRD, 0, 0, 0]),
    "tree 5 of 3": (topology.tree(5, branching=3), 1, [0.25, 5 / 12, 0, 0, THIRD]),
    "barbell 5, bridge": (topology.barbell(5, bridge=1), 2, [0, THIRD, THIRD, THIRD, 0]),
    "barbell 5": (topology.barbell(5), 2, [0.25, 0.25, 0.25, 0.25, 0]),
}


@pytest.mark.parametrize("case", ROWS)
def test_rows_are_those_of_the_reference_tables(case):
    graph, rank, expected = ROWS[case]
    assert sending_row(graph, rank) == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("style", ["both", "left", "right"])
def test_two_ranks_in_a_ring_average_evenly_in_every_style(style):
    assert sending_row(topology.ring(2, style=style), 0) == [0.5, 0.5]


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("generate", GENERATORS)
def test_every_generator_is_doubly_stochastic_and_well_formed(generate, n):
    graph = generate(n)
    rows = np.array([sending_row(graph, rank) for rank in range(n)])
    assert list(graph) == list(range(n))
    assert graph.graph["label"]
    assert np.allclose(rows.sum(axis=0), 1, atol=1e-14)
    assert np.allclose(rows.sum(axis=1), 1, atol=1e-14)
    assert (rows >= 0).all()
    for rank in range(n):
        assert list(graph.predecessors(rank)) == sorted(graph.predecessors(rank))
        assert list(graph.successors(rank)) == sorted(graph.successors(rank))
    topology.check(graph, n)


def test_a_weight_belongs_to_the_receiver_of_its_edge():
    W = np.array([[0.5, 0.5], [0.0, 1.0]])
    graph = topology.from_matrix(W)
    assert set(graph.edges) == {(0, 0), (1, 0), (1, 1)}
    x = np.array([1.0, 3.0])
    received = [sum(d["weight"] * x[u] for u, _, d in graph.in_edges(v, data=True)) for v in (0, 1)]
    assert received == list(W @ x)


def test_a_grid_takes_a_given_shape():
    graph = topology.grid2d(6, shape=(3, 2))
    assert set(graph.successors(0)) == {0, 1, 2}
    assert set(topology.torus2d(12, shape=(4, 3)).successors(0)) == {0, 1, 2, 3, 9}
    line = topology.grid2d(4, shape=(1, 4))
    assert set(line.successors(1)) == {0, 1, 2}


def test_named_knows_its_names_and_lists_them():
    assert topology.named("Ring", 5).graph["label"] == "ring"
    assert topology.named("grid", 6).edges == topology.grid2d(6).edges
    with pytest.raises(ArgumentError, match=r"Choose from: .*ring"):
        topology.named("one_ring_to_rule_them_all", 5)


def test_named_suggests_the_nearest_name_and_explains_schedules():
    assert topology.named("symmetric-exponential", 4).number_of_edges() == 12
    with pytest.raises(ArgumentError, match="did you mean 'exponential'"):
        topology.named("exponentail", 4)
    for label in ("one_peer", "inner-outer ring"):
        with pytest.raises(ArgumentError, match="is a schedule"):
            topology.named(label, 4)


@pytest.mark.parametrize("generate", GENERATORS)
@pytest.mark.parametrize("n", [0, -3, 2.0, True])
def test_generators_refuse_sizes_that_are_no_number_of_ranks(generate, n):
    with pytest.raises(ArgumentError, match="at least 1 rank"):
        generate(n)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: topology.ring(4, style="up"), "'both', 'left' or 'right'"),
        (lambda: topology.star(4, center=4), "ranks are 0..3"),
        (lambda: topology.grid2d(6, shape=(2, 2)), "holds 4 ranks, not 6"),
        (lambda: topology.grid2d(6, shape=(-2, -3)), "product is n"),
        (lambda: topology.torus2d(6, shape=(2, 2)), "holds 4 ranks, not 6"),
        (lambda: topology.hypercube(12), r"2\^m ranks, for example 8 or 16"),
        (lambda: topology.tree(4, branching=0), "branching is 0"),
        (lambda: topology.barbell(4, bridge=3), "must be in 0..2"),
        (lambda: topology.exponential(4, base=1), "smallest base is 2"),
        (lambda: topology.symmetric_exponential(4, base=0), "smallest base is 2"),
        (lambda: topology.from_matrix([[1, 0]]), r"shape is \(1, 2\)"),
        (lambda: topology.from_matrix(np.zeros((0, 0))), "n >= 1"),
        (lambda: topology.from_matrix([[1, math.nan], [0, 1]]), r"W\[0, 1\] is nan"),
        (lambda: topology.from_matrix([["a"]]), "not a matrix of real numbers"),
        (lambda: topology.from_matrix([[1, 2], [3]]), "not a matrix of real numbers"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()


def relabelled(mapping):
    return nx.relabel_nodes(topology.ring(3), mapping)


def with_weight(weight):
    graph = topology.ring(3)
    graph.edges[0, 1]["weight"] = weight
    return graph


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (nx.cycle_graph(3), "this is a Graph"),
        (nx.MultiDiGraph([(0, 1), (1, 2)]), "this is a MultiDiGraph"),
        ("ring", "this is a str"),
        (None, "this is a NoneType"),
        (topology.ring(4), "has 4 nodes, but there are 3 ranks"),
        (relabelled({0: 3}), "a node 3; nodes must be the ranks 0..2"),
        (relabelled({0: "zero"}), "a node 'zero'"),
        (with_weight(math.inf), "edge 0 -> 1 is inf"),
        (with_weight("heavy"), "edge 0 -> 1 is 'heavy'"),
        (with_weight(None), "edge 0 -> 1 is None"),
    ],
)
def test_check_refuses_what_cannot_be_a_topology(graph, message):
    with pytest.raises(ArgumentError, match=message):
        topology.check(graph, 3)


def test_check_accepts_links_without_weights():
    topology.check(nx.DiGraph([(0, 1), (1, 2), (2, 0)]), 3)


def test_graphs_are_equivalent_when_links_and_weights_agree():
    assert topology.equivalent(topology.exponential(4), topology.exponential(4, base=2))
    assert topology.equivalent(topology.ring(4), topology.symmetric_exponential(4))
    assert not topology.equivalent(topology.ring(4), topology.ring(5))
    assert not topology.equivalent(topology.ring(4, style="left"), topology.ring(4, style="right"))
    assert not topology.equivalent(topology.ring(4), None)
    assert not topology.equivalent(None, topology.ring(4))
    assert not topology.equivalent(topology.star(4), topology.star(4, center=2))
    assert topology.equivalent(nx.DiGraph([(0, 1), (1, 0)]), nx.DiGraph([(1, 0), (0, 1)]))
    assert topology.equivalent(nx.DiGraph([(0, 1)]), topology.from_matrix([[0.0, 0.0], [1.0, 0.0]]))


def test_equal_links_with_other_weights_are_not_equivalent():
    heavier = topology.ring(4)
    heavier.edges[0, 1]["weight"] += 1e-15
    assert not topology.equivalent(topology.ring(4), heavier)


@pytest.mark.parametrize(
    ("graph", "regular"),
    [
        (topology.exponential(6), True),
        (topology.ring(5, style="left"), True),
        (topology.complete(4), True),
        (topology.ring(1), True),
        (topology.star(4), False),
        (topology.grid2d(6), False),
        (topology.grid2d(4), True),
        (nx.DiGraph([(0, 1), (1, 2), (2, 0)]), True),
        (nx.DiGraph([(0, 1), (1, 2), (2, 0), (0, 0)]), False),
    ],
)
def test_regular_graphs_have_equal_degrees(graph, regular):
    assert topology.is_regular(graph) is regular


def test_powers_are_told_exactly():
    for base in (2, 3, 4, 10):
        powers = {base**exponent for exponent in range(40)}
        around = {power + step for power in powers for step in (-1, 0, 1)} - {0}
        assert {value for value in around if topology.is_power(value, base)} == powers


@pytest.mark.parametrize(("value", "base"), [(0, 2), (-4, 2), (4, 1), (4, 0), (4, 2.0)])
def test_powers_of_nothing_are_refused(value, base):
    with pytest.raises(ArgumentError, match="is_power"):
        topology.is_power(value, base)
