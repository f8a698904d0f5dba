"""The schedules follow the published lists, repeat when they say, and average as theory says."""

from __future__ import annotations

import itertools
import pickle

import cloudpickle
import networkx as nx
import numpy as np
import pytest

from ifog import schedules, topology, weights
from ifog.errors import ArgumentError


def lists(schedule, rank, steps):
    """The (send, receive) lists of ``rank``, step by step."""
    return list(itertools.islice(schedules.send_recv(schedule, rank), steps))


LISTS = {
    ("exponential", 4, 0): [([1], [3]), ([2], [2]), ([1], [3])],
    ("exponential", 4, 1): [([2], [0]), ([3], [3])],
    ("exponential", 8, 0): [([1], [7]), ([2], [6]), ([4], [4]), ([1], [7])],
    ("exponential", 6, 0): [([1], [5]), ([2], [4]), ([4], [2])],
    ("exponential", 16, 0): [([1], [15]), ([2], [14]), ([4], [12]), ([8], [8])],
    ("ring", 4, 0): [([1], [3]), ([3], [1])],
    ("ring", 4, 1): [([2], [0]), ([0], [2])],
    ("star", 4, 0): [([1], [1, 2, 3]), ([2], [1, 2, 3]), ([3], [1, 2, 3])],
    ("star", 4, 1): [([0], [0]), ([0], []), ([0], [])],
    ("star", 4, 2): [([0], []), ([0], [0]), ([0], [])],
    ("grid", 4, 0): [([1], []), ([2], [1, 2])],
    ("grid", 4, 1): [([3], [0, 3]), ([0], [])],
    ("grid", 4, 2): [([3], []), ([0], [0, 3])],
    ("grid", 4, 3): [([1], [1, 2]), ([2], [])],
    ("grid", 6, 0): [
        ([1], []),
        ([3], [3]),
        ([1], [1]),
        ([3], [3]),
        ([1], []),
        ([3], [1, 3]),
    ],
    ("grid", 6, 1): [
        ([2], [0]),
        ([4], [2, 4]),
        ([0], [0]),
        ([2], [2]),
        ([4], [0, 4]),
        ([0], [2]),
    ],
    ("grid", 16, 0): [([1], []), ([4], []), ([1], [1, 4]), ([4], []), ([1], [])],
}


@pytest.mark.parametrize(("label", "n", "rank"), LISTS)
def test_one_peer_lists_are_those_of_the_reference(label, n, rank):
    expected = LISTS[label, n, rank]
    schedule = schedules.one_peer(topology.named(label, n))
    assert lists(schedule, rank, len(expected)) == expected


@pytest.mark.parametrize("label", ["exponential", "star", "grid", "complete"])
def test_lists_do_not_depend_on_self_loops(label):
    graph = topology.named(label, 6)
    bare = graph.copy()
    bare.remove_edges_from([(v, v) for v in range(6)])
    for rank in range(6):
        with_loops, without = schedules.one_peer(graph), schedules.one_peer(bare)
        assert lists(with_loops, rank, 12) == lists(without, rank, 12)
        used = {to for step, _ in lists(without, rank, without.period) for to in step}
        assert used == set(bare.successors(rank))


def test_lists_hold_plain_integers_also_for_graphs_of_arrays():
    base = nx.relabel_nodes(topology.ring(4), {v: np.int64(v) for v in range(4)})
    for to, sources in lists(schedules.one_peer(base), 0, 4) + lists(lambda _: base, 0, 2):
        assert {type(rank) for rank in to + sources} == {int}
    assert lists(schedules.one_peer(1), 0, 2) == [([], []), ([], [])]


@pytest.mark.parametrize("label", ["exponential", "star", "grid", "ring", "complete"])
def test_one_peer_does_not_depend_on_self_loops(label):
    graph = topology.named(label, 6)
    bare = graph.copy()
    bare.remove_edges_from([(v, v) for v in range(6)])
    with_loops, without = schedules.one_peer(graph), schedules.one_peer(bare)
    assert with_loops.period == without.period
    for step in range(with_loops.period):
        assert set(with_loops(step).edges) == set(without(step).edges)


@pytest.mark.parametrize("n", [2, 4, 8, 16])
def test_one_peer_exponential_is_exact_in_any_order_for_powers_of_two(n):
    schedule = schedules.one_peer(n)
    assert 2**schedule.period == n
    factors = [weights.matrix(schedule(step)) for step in range(schedule.period)]
    for order in itertools.permutations(factors):
        product = np.linalg.multi_dot([*order, np.eye(n)])
        assert np.abs(product - 1 / n).max() < 1e-15
    assert schedules.spectral_rate(schedule) == 0


@pytest.mark.parametrize(("n", "expected"), [(6, 0.2165), (7, 0.1250), (10, 0.1924), (12, 0.2091)])
def test_one_peer_exponential_contracts_as_computed_for_other_sizes(n, expected):
    schedule = schedules.one_peer(n)
    product = schedules.period_matrix(schedule)
    assert np.linalg.norm(product - 1 / n, ord=2) == pytest.approx(expected, abs=5e-5)
    assert schedules.spectral_rate(schedule) ** schedule.period == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(("n", "rounds"), [(8, 3), (16, 4), (32, 5)])
def test_one_peer_exponential_rounds_to_one_part_in_a_million(n, rounds):
    x = np.arange(n, dtype=float)
    schedule, start, taken = schedules.one_peer(n), np.linalg.norm(x - x.mean()), 0
    while np.linalg.norm(x - x.mean()) >= 1e-6 * start:
        x = weights.matrix(schedule(taken)) @ x
        taken += 1
    assert taken == rounds


@pytest.mark.parametrize("n", [2, 3, 5, 6, 8, 16])
def test_one_peer_exponential_weighs_by_halves(n):
    for step in range(5):
        graph = schedules.one_peer(n)(step)
        assert set(nx.get_edge_attributes(graph, "weight").values()) == {0.5}
        assert weights.is_doubly_stochastic(weights.matrix(graph))


def test_receivers_of_many_average_over_all_of_them():
    graph = schedules.one_peer(topology.star(4))(0)
    assert weights.matrix(graph)[0] == pytest.approx([0.25] * 4)
    assert weights.matrix(graph)[2] == pytest.approx([0, 0, 1, 0])


@pytest.mark.parametrize("label", ["exponential", "star", "grid", "complete"])
def test_a_schedule_repeats_with_its_period_and_shares_graphs(label):
    schedule = schedules.one_peer(topology.named(label, 5))
    assert schedule(schedule.period + 1) is schedule(1 % schedule.period)
    assert schedule.label.startswith("one-peer")
    assert schedule(0).graph["label"] == schedule.label


def test_a_single_rank_keeps_its_value():
    schedule = schedules.one_peer(1)
    assert schedule.period == 1
    assert weights.matrix(schedule(7)).tolist() == [[1.0]]
    assert schedules.spectral_rate(schedule) == 0


def test_a_constant_schedule_has_the_rate_of_its_graph():
    graph = topology.ring(8)
    schedule = schedules.constant(graph)
    assert schedule(3) is graph
    assert schedule.label == "ring"
    assert schedules.spectral_rate(schedule) == pytest.approx(1 / 3 + 2 / 3 * np.cos(np.pi / 4))


def test_later_steps_multiply_from_the_left():
    first, second = np.array([[1.0, 0.0], [0.5, 0.5]]), np.array([[0.5, 0.5], [0.0, 1.0]])
    graphs = [topology.from_matrix(first), topology.from_matrix(second)]
    schedule = schedules.Periodic(2, "pair", graphs.__getitem__)
    assert np.array_equal(schedules.period_matrix(schedule), second @ first)


def test_schedules_are_found_by_name():
    assert schedules.named("one-peer", 8).label == "one-peer exponential"
    assert schedules.named("one_peer exponential", 8).period == 3
    assert schedules.named("One-Peer Ring", 4).period == 2
    assert schedules.named("symmetric exponential", 8).period == 1
    assert schedules.named("base", 6).label == "base-2"
    assert schedules.named("Base-3", 6).period == 2
    assert schedules.named("matcha", 6).label == "matcha ring"
    assert schedules.named("matcha grid", 6).label == "matcha grid"
    assert schedules.named("one_peer_torus", 9).label == "one-peer torus"
    assert schedules.named("inner-outer ring", 6, local_size=3).label == "inner-outer ring"
    assert schedules.named("inner outer exponential", 20, local_size=5).period == 10
    with pytest.raises(ArgumentError, match="did you mean 'ring'"):
        schedules.named("one-peer rign", 4)
    with pytest.raises(ArgumentError, match="did you mean 'epidemic'"):
        schedules.named("epidemc", 4)
    with pytest.raises(ArgumentError, match="the number is 1"):
        schedules.named("base-1", 4)


@pytest.mark.parametrize("label", schedules.names())
def test_every_name_is_a_schedule_of_row_stochastic_rounds(label):
    schedule = schedules.named(label, 8)
    for step in range(3):
        W = weights.matrix(schedule(step))
        assert np.allclose(W.sum(axis=1), 1, atol=1e-12)
        assert np.array_equal(W, weights.matrix(schedules.links_of(schedule, step)))


def test_the_mean_graph_of_a_schedule_has_all_its_links():
    mean = weights.matrix(schedules.mean_graph(schedules.one_peer(8)))
    rounds = [weights.matrix(schedules.one_peer(8)(step)) for step in range(3)]
    assert np.allclose(mean, np.mean(rounds, axis=0), atol=1e-15)
    drawn = schedules.random_pair(4)
    rounds = [weights.matrix(drawn(step)) for step in range(64)]
    assert np.allclose(weights.matrix(schedules.mean_graph(drawn)), np.mean(rounds, axis=0))


def test_schedules_can_be_sent_to_other_processes():
    for label in ("one_peer", "one_peer_grid", "base", "matcha", "epidemic", "ring"):
        schedule = schedules.named(label, 8)
        again = pickle.loads(cloudpickle.dumps(schedule))
        assert again.label == schedule.label
        assert np.array_equal(weights.matrix(again(5)), weights.matrix(schedule(5)))
