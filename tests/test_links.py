"""Graphs as arrays are the graphs they stand for, and cost what their links cost."""

from __future__ import annotations

import inspect

import networkx as nx
import numpy as np
import pytest

from ifog import adjacency, links, topology, weights
from ifog.errors import ArgumentError


def dense(made):
    W = np.zeros((made.n, made.n))
    for u, v, w in zip(made.source, made.target, made.weight, strict=True):
        W[v, u] += w
    return W


@pytest.mark.parametrize("label", topology.names())
@pytest.mark.parametrize("n", [1, 2, 4, 8, 16])
def test_arrays_and_digraphs_are_the_same_graph(label, n):
    made, graph = topology.named_links(label, n), topology.named(label, n)
    assert len(set(zip(made.source, made.target, strict=True))) == len(made.source)
    assert np.array_equal(dense(made), nx.to_numpy_array(graph, nodelist=range(n)).T)
    assert graph.graph["label"] == made.label
    again = links.as_links(graph)
    assert np.array_equal(dense(again), dense(made))


def test_generators_tell_their_arguments_and_what_they_are():
    assert list(inspect.signature(topology.ring).parameters) == ["n", "style"]
    assert inspect.signature(topology.ring).return_annotation == "Topology"
    assert "cycle" in (inspect.getdoc(topology.ring) or "")
    assert topology.ring.links(3, style="left").label == "ring (left)"


def test_rows_are_those_of_the_matrix():
    random = np.random.default_rng(2)
    W = random.standard_normal((40, 40)) * (random.random((40, 40)) < 0.2)
    first, source, weight = links.as_links(adjacency.from_matrix(W)).rows()
    for v in range(40):
        mine = slice(first[v], first[v + 1])
        assert source[mine].tolist() == np.flatnonzero(W[v]).tolist()
        assert weight[mine].tolist() == W[v, source[mine]].tolist()


@pytest.mark.parametrize("below", [3, 70_000, 5_000_000])
def test_ordering_by_digits_is_stable(below):
    keys = np.random.default_rng(0).integers(below, size=20_000)
    order = links.stable_order(keys, below)
    assert np.array_equal(order, np.argsort(keys, kind="stable"))


@pytest.mark.parametrize("n", [1, 2, 7, 60])
def test_connectedness_is_that_of_networkx(n):
    for seed in range(20):
        random = np.random.default_rng(seed)
        one, other = random.integers(n, size=(2, random.integers(2 * n)))
        graph = nx.empty_graph(n)
        graph.add_edges_from(zip(one.tolist(), other.tolist(), strict=True))
        assert links.is_connected(n, one, other) == nx.is_connected(graph)


def test_links_that_go_one_way_are_named():
    graph = nx.DiGraph([(0, 1), (1, 0), (2, 1)])
    with pytest.raises(ArgumentError, match="2 sends to 1, but 1 does not send to 2"):
        links.linked_pairs("x", graph)
    low, high = links.linked_pairs("x", topology.ring(4))
    assert list(zip(low, high, strict=True)) == [(0, 1), (0, 3), (1, 2), (2, 3)]


def test_offsets_of_a_circulant_that_are_equal_add_up():
    made = links.circulant(4, [1, 5, 0], "x", [0.25, 0.25, 0.5])
    assert np.array_equal(dense(made), (np.eye(4) + np.roll(np.eye(4), 1, axis=0)) / 2)


def test_one_s_own_links_get_metropolis_or_even_weights():
    both_ways = {0: [1, 2, 3], 1: [0], 2: [0], 3: [0]}
    W = weights.matrix(topology.from_adjacency(both_ways))
    assert W[0] == pytest.approx([0.25] * 4)
    assert W[1] == pytest.approx([0.25, 0.75, 0, 0])
    one_way = np.array([[1, 7, 0], [0, 0, 1], [1, 1, 0]])  # [u, v]: u sends to v
    W = weights.matrix(topology.from_adjacency(one_way, label="mine"))
    assert np.allclose(W, [[0.5, 0, 0.5], [1 / 3, 1 / 3, 1 / 3], [0, 0.5, 0.5]])
    assert topology.from_adjacency({0: []}).edges[0, 0]["weight"] == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({0: [1]}, "there is a rank 1, but 1 keys"),
        ({0: ["a"], 1: []}, "rank 'a'"),
        ({}, "at least 1 rank"),
        ([[0, 1]], r"shape is \(1, 2\)"),
        ([[0, np.nan], [0, 0]], r"links\[0, 1\] is nan"),
    ],
)
def test_links_of_nobody_are_refused(given, message):
    with pytest.raises(ArgumentError, match=message):
        topology.from_adjacency(given)


def test_a_million_nodes_are_no_work():
    made = topology.torus2d.links(1_000_000)
    assert np.bincount(made.target).tolist() == [5] * 1_000_000
    first, *_ = made.rows()
    assert np.array_equal(np.diff(first), np.full(1_000_000, 5))
