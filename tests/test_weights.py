"""Mixing matrices contract as theory says, and each rank's share adds up to them."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest

from ifog import topology, weights
from ifog.errors import ArgumentError

DIRECTED = nx.DiGraph([(0, 1), (1, 2), (2, 0), (2, 1), (3, 0), (0, 3), (1, 1)])


def gap(graph):
    return 1 - weights.spectral_rate(weights.matrix(graph))


@pytest.mark.parametrize("n", [2, 4, 6, 8, 10, 12, 16, 32, 64])
def test_exponential_gap_is_exact_for_even_n(n):
    assert gap(topology.exponential(n)) == pytest.approx(
        2 / (1 + math.ceil(math.log2(n))), abs=1e-12
    )


@pytest.mark.parametrize(("n", "expected"), [(9, 0.558213), (17, 0.452379)])
def test_exponential_gap_is_larger_for_odd_n(n, expected):
    assert gap(topology.exponential(n)) == pytest.approx(expected, abs=1e-6)
    assert expected > 2 / (1 + math.ceil(math.log2(n)))


@pytest.mark.parametrize("n", [3, 4, 5, 8, 16, 32, 64])
def test_ring_gap_is_two_thirds_of_one_minus_cosine(n):
    expected = min(2 / 3 * (1 - math.cos(2 * math.pi / n)), 1)
    assert gap(topology.ring(n)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("n", [2, 3, 5, 8, 16, 33])
def test_path_gap_is_that_of_a_ring_twice_as_long(n):
    expected = 2 / 3 * (1 - math.cos(math.pi / n)) if n > 2 else 1
    assert gap(topology.path(n)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("shape", [(3, 3), (4, 4), (3, 8), (5, 6)])
def test_torus_gap_is_that_of_its_longer_side(shape):
    expected = 2 / 5 * (1 - math.cos(2 * math.pi / max(shape)))
    graph = topology.torus2d(shape[0] * shape[1], shape=shape)
    assert gap(graph) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("m", [1, 2, 3, 4, 6])
def test_hypercube_gap_is_two_over_its_degree_plus_one(m):
    assert gap(topology.hypercube(2**m)) == pytest.approx(2 / (m + 1), abs=1e-12)


@pytest.mark.parametrize("n", [2, 4, 5, 8, 16, 64])
def test_star_gap_is_one_over_n(n):
    expected = 1 if n == 2 else 1 / n
    assert gap(topology.star(n)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("n", "rho"),
    [(4, 0.3333), (8, 0.8536), (9, 0.767423), (12, 0.8636), (16, 0.868641), (64, 0.9677)],
)
def test_grid_rate_is_that_of_the_tables(n, rho):
    assert 1 - gap(topology.grid2d(n)) == pytest.approx(rho, abs=5e-5)


RATES = {  # n: ring, grid, exponential, star
    4: (0.3333, 0.3333, 0.3333, 0.75),
    8: (0.8047, 0.8536, 0.5, 0.875),
    12: (0.9107, 0.8636, 0.6, 0.9167),
    16: (0.9493, 0.8686, 0.6, 0.9375),
    32: (0.9872, 0.9658, 0.6667, 0.9688),
    64: (0.9968, 0.9677, 0.7143, 0.9844),
}


@pytest.mark.parametrize("n", RATES)
def test_rates_are_those_of_the_table_of_the_reference(n):
    graphs = (topology.ring, topology.grid2d, topology.exponential, topology.star)
    rates = [weights.spectral_rate(weights.matrix(generate(n))) for generate in graphs]
    assert rates == pytest.approx(RATES[n], abs=6e-5)


@pytest.mark.parametrize("n", [1, 2, 5, 8])
def test_complete_graph_averages_in_one_round(n):
    W = weights.matrix(topology.complete(n))
    assert weights.spectral_rate(W) == 0
    assert weights.contraction(W) == 0
    assert weights.effective_neighbors(W) == pytest.approx(n)


@pytest.mark.parametrize(
    ("graph", "rounds"),
    [
        (topology.ring(8), 63),
        (topology.ring(16), 261),
        (topology.ring(32), 1053),
        (topology.exponential(8), 19),
        (topology.exponential(16), 23),
        (topology.exponential(32), 28),
    ],
)
def test_rounds_to_one_part_in_a_million(graph, rounds):
    W, x = weights.matrix(graph), np.arange(len(graph), dtype=float)
    start = np.linalg.norm(x - x.mean())
    taken = 0
    while np.linalg.norm(x - x.mean()) >= 1e-6 * start:
        x = W @ x
        taken += 1
    assert taken == rounds


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize(
    "graph",
    [topology.star(5), topology.grid2d(6), topology.exponential(7), topology.ring(1), DIRECTED],
)
def test_the_shares_of_all_ranks_are_one_round_of_the_matrix(graph, weighted):
    n = len(graph)
    x = np.random.default_rng(3).standard_normal(n)
    shares = [weights.of_rank(graph, rank, weighted=weighted) for rank in range(n)]
    mixed = [
        shares[v].self_weight * x[v]
        + sum(factor * shares[u].dst[v] * x[u] for u, factor in shares[v].src.items())
        for v in range(n)
    ]
    W = nx.to_numpy_array(graph, nodelist=range(n)).T
    if not weighted:
        W = (W != 0) | np.eye(n, dtype=bool)
        W = W / W.sum(axis=1, keepdims=True)
    assert np.allclose(mixed, W @ x, atol=1e-14)


def test_a_share_lists_neighbours_ascending_and_not_the_rank_itself():
    graph = nx.DiGraph([(3, 0), (1, 0), (0, 2), (0, 1), (0, 0)])
    share = weights.of_rank(graph, 0, weighted=False)
    assert list(share.src) == [1, 3]
    assert list(share.dst) == [1, 2]
    assert share.self_weight == share.src[1] == pytest.approx(1 / 3)
    assert weights.of_rank(graph, 1, weighted=True).self_weight == 0


def test_a_rank_outside_the_graph_has_no_share():
    with pytest.raises(ArgumentError, match="rank 4 is not in the topology"):
        weights.of_rank(topology.ring(4), 4, weighted=True)


def test_receive_and_send_weights_are_the_rows_and_columns_of_the_matrix():
    # W[v, u], so that 0 hears 1 with 0.25 and tells 2 what counts 0.125 there.
    W = np.array([[0.75, 0.25, 0.0], [0.0, 0.5, 0.5], [0.125, 0.0, 0.0]])
    graph = topology.from_matrix(W)
    assert weights.recv_weights(graph, 0) == (0.75, {1: 0.25})
    assert weights.send_weights(graph, 0) == (0.75, {2: 0.125})
    assert weights.recv_weights(graph, 2) == (0.0, {0: 0.125})
    assert weights.send_weights(graph, 2) == (0.0, {1: 0.5})


def test_receive_and_send_weights_keep_the_order_of_the_graph():
    graph = nx.DiGraph([(3, 0), (1, 0), (0, 2), (0, 1), (0, 0)])
    assert list(weights.recv_weights(graph, 0)[1].items()) == [(3, 1.0), (1, 1.0)]
    assert list(weights.send_weights(graph, 0)[1].items()) == [(2, 1.0), (1, 1.0)]
    assert {type(w) for w in weights.recv_weights(topology.grid2d(6), 1)[1].values()} == {float}
    for ask in (weights.recv_weights, weights.send_weights):
        with pytest.raises(ArgumentError, match="rank 4"):
            ask(topology.ring(4), 4)


def test_uniform_weights_average_over_senders_and_self():
    W = weights.matrix(weights.uniform(topology.star(4)))
    assert np.allclose(W[0], [0.25, 0.25, 0.25, 0.25])
    assert np.allclose(W[1], [0.5, 0.5, 0, 0])
    assert not weights.is_doubly_stochastic(W)


def test_metropolis_weights_are_doubly_stochastic_on_irregular_graphs():
    links = nx.DiGraph(nx.barbell_graph(4, 0))
    W = weights.matrix(weights.metropolis(links))
    assert weights.is_doubly_stochastic(W)
    assert np.array_equal(W, W.T)
    assert weights.spectral_rate(W) == pytest.approx(0.929150, abs=1e-6)


def test_metropolis_weights_of_the_grid_are_those_of_the_generator():
    graph = topology.grid2d(12)
    assert np.allclose(weights.matrix(weights.metropolis(graph)), weights.matrix(graph))


@pytest.mark.parametrize("counts", [[1, 1, 1, 1, 1], [2, 2, 1, 4, 3], [100, 1, 1, 7, 1]])
def test_metropolis_with_counts_keeps_the_mean_over_what_the_nodes_stand_for(counts):
    for graph in (topology.ring(5), topology.star(5), topology.complete(5)):
        W = weights.matrix(weights.metropolis(graph, counts=counts))
        assert np.allclose(W.sum(axis=1), 1, atol=1e-15)
        assert np.allclose(np.array(counts) @ W, counts, rtol=1e-14)
        assert (W >= 0).all()
        assert weights.spectral_rate(W) < 1
    even = weights.matrix(weights.metropolis(topology.star(5), counts=[3] * 5))
    assert np.allclose(even, weights.matrix(weights.metropolis(topology.star(5))), atol=1e-15)
    for wrong in ([1, 2], [1, 1, 1, 1, 0]):
        with pytest.raises(ArgumentError, match="counts"):
            weights.metropolis(topology.ring(5), counts=wrong)


@pytest.mark.parametrize(
    "graph", [topology.ring(7), topology.star(6), topology.grid2d(12), topology.barbell(9)]
)
def test_max_degree_weights_are_the_identity_less_the_laplacian(graph):
    laplacian = nx.laplacian_matrix(
        nx.Graph((u, v) for u, v in graph.edges if u != v), nodelist=range(len(graph))
    ).toarray()
    W = weights.matrix(weights.max_degree(graph))
    assert np.allclose(W, np.eye(len(W)) - laplacian / (1 + laplacian.diagonal().max()))
    assert weights.is_doubly_stochastic(W)


def test_row_and_column_weights_are_even_over_senders_and_receivers():
    n, links = 4, nx.to_numpy_array(DIRECTED).T != 0
    links |= np.eye(n, dtype=bool)
    pull, push = (
        weights.matrix(scaled(DIRECTED))
        for scaled in (weights.row_stochastic, weights.column_stochastic)
    )
    assert np.allclose(pull, links / links.sum(axis=1, keepdims=True))
    assert np.allclose(push, links / links.sum(axis=0, keepdims=True))


def test_scaling_keeps_the_ratios_of_the_weights():
    W = np.array([[1.0, 3.0, 0.0], [2.0, 0.0, 0.0], [0.0, 5.0, 5.0]])
    pull = weights.matrix(weights.row_stochastic(topology.from_matrix(W)))
    # Rank 1 hears rank 0 with 2 and gets a self loop of the same weight.
    assert np.allclose(pull, [[0.25, 0.75, 0], [0.5, 0.5, 0], [0, 0.5, 0.5]])
    ring = topology.ring(5)
    assert topology.equivalent(weights.row_stochastic(ring), ring)


def test_weights_of_arrays_are_arrays():
    made = topology.ring.links(6)
    for scaled in (weights.row_stochastic, weights.column_stochastic, weights.max_degree):
        assert np.allclose(weights.matrix(scaled(made)), weights.matrix(topology.ring(6)))
        assert scaled(made).label == "ring"


def test_weights_that_sum_to_nothing_are_refused():
    graph = topology.from_matrix([[1.0, -1.0], [0.0, 1.0]])
    with pytest.raises(ArgumentError, match="weights of rank 0 sum to 0"):
        weights.row_stochastic(graph)
    with pytest.raises(ArgumentError, match="both directions"):
        weights.max_degree(topology.exponential(8))


def test_row_stochastic_gossip_goes_to_the_stationary_mean_and_push_sum_to_the_mean():
    graph = nx.DiGraph([*((u, (u + 1) % 8) for u in range(8)), (0, 3), (2, 6), (5, 1), (0, 5)])
    graph.add_edge(0, 2)
    x = np.arange(8.0)
    pull = weights.matrix(weights.row_stochastic(graph))
    assert np.allclose(np.linalg.matrix_power(pull, 2000) @ x, 3.781818, atol=1e-6)
    push = weights.matrix(weights.column_stochastic(graph))
    u = np.linalg.matrix_power(push, 200) @ np.stack([x, np.ones(8)], axis=1)
    assert u.sum(axis=0) == pytest.approx([28, 8], abs=1e-12)
    assert u[:, 0] / u[:, 1] == pytest.approx([3.5] * 8, abs=1e-12)
    assert np.abs(u[:, 0] - 3.5).max() == pytest.approx(0.89, abs=5e-3)


def test_metropolis_needs_both_directions():
    with pytest.raises(ArgumentError, match="both directions"):
        weights.metropolis(topology.exponential(8))


def test_effective_neighbours_of_normal_matrices_follow_the_eigenvalues():
    for graph in (topology.ring(16), topology.exponential(16), topology.star(5)):
        W = weights.matrix(graph)
        squares = np.abs(np.linalg.eigvals(W)) ** 2
        expected = 1 / 0.1 / np.mean(squares / (1 - 0.9 * squares))
        assert weights.effective_neighbors(W) == pytest.approx(expected)
    assert weights.effective_neighbors(weights.matrix(topology.ring(9)), decay=0) == pytest.approx(
        3
    )
    with pytest.raises(ArgumentError, match="decay"):
        weights.effective_neighbors(np.eye(2), decay=1)


def test_contraction_bounds_one_round_and_is_at_least_the_rate():
    W = weights.matrix(weights.uniform(topology.exponential(6)))
    x = np.random.default_rng(0).standard_normal(6)
    before, after = np.linalg.norm(x - x.mean()), np.linalg.norm(W @ x - x.mean())
    assert after <= weights.contraction(W) * before * (1 + 1e-12)
    assert weights.contraction(W) >= weights.spectral_rate(W) - 1e-12


def test_a_disconnected_graph_does_not_mix():
    assert weights.spectral_rate(np.eye(3)) == pytest.approx(1)
