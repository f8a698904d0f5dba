"""Random graphs mix, repeat with their seed, and have the statistics of their models."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest

from ifog import topology, weights
from ifog.errors import ArgumentError

RANDOM = [
    topology.erdos_renyi,
    topology.random_regular,
    topology.small_world,
    topology.geometric,
]


@pytest.mark.parametrize("make", [*RANDOM, topology.equi_static])
def test_the_seed_decides_and_nothing_else(make):
    np.random.seed(1)  # noqa: NPY002 - the global state must not matter
    first, state = make(30, seed=3), np.random.get_state()[1].tolist()  # noqa: NPY002
    assert topology.equivalent(first, make(30, seed=3))
    assert not topology.equivalent(first, make(30, seed=4))
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002


@pytest.mark.parametrize("make", RANDOM)
@pytest.mark.parametrize("n", [2, 3, 5, 8, 33, 100])
def test_random_graphs_hang_together_and_keep_the_mean(make, n):
    for seed in range(3):
        graph = make(n, seed=seed)
        W = weights.matrix(graph)
        assert weights.is_doubly_stochastic(W)
        assert np.array_equal(W, W.T)
        assert nx.is_strongly_connected(graph)


@pytest.mark.parametrize(("n", "degree"), [(10, 3), (10, 6), (11, 8), (9, 2), (50, 8), (6, 5)])
def test_regular_graphs_are_regular_and_simple(n, degree):
    for seed in range(5):
        made = topology.random_regular.links(n, degree=degree, seed=seed)
        source, target = made.without_loops()
        assert np.bincount(source, minlength=n).tolist() == [degree] * n
        assert len(set(zip(source, target, strict=True))) == n * degree
        assert made.weight == pytest.approx(1 / (degree + 1))


def test_regular_graphs_have_the_gap_of_random_ones():
    # Friedman: the second eigenvalue of the adjacency matrix tends to 2 sqrt(d - 1).
    for degree in (3, 8):
        rates = [
            weights.spectral_rate(
                weights.matrix(topology.random_regular(400, degree=degree, seed=seed))
            )
            for seed in range(3)
        ]
        assert rates == pytest.approx(
            [(1 + 2 * math.sqrt(degree - 1)) / (degree + 1)] * 3, abs=0.04
        )


def test_all_cubic_graphs_of_six_ranks_are_drawn():
    # Up to numbering there are two: K33 and the prism, with 10 and 60 numberings.
    prisms = sum(
        any(nx.triangles(topology.random_regular(6, degree=3, seed=s).to_undirected()).values())
        for s in range(300)
    )
    assert 0.75 < prisms / 300 < 0.95


@pytest.mark.parametrize("p", [0.05, 0.4, 0.9])
def test_any_two_ranks_are_linked_with_the_probability_asked_for(p):
    n, pairs = 150, 150 * 149 / 2
    counts = [
        len(topology.erdos_renyi.links(n, p=p, seed=s).without_loops()[0]) / 2 for s in range(30)
    ]
    assert abs(np.mean(counts) - p * pairs) < 4 * math.sqrt(p * (1 - p) * pairs / 30)
    often = np.zeros((n, n))
    for seed in range(30):
        made = topology.erdos_renyi.links(n, p=p, seed=seed)
        often[made.without_loops()] += 1 / 30
    assert abs(often[:20, :20].sum() / 380 - p) < 0.05  # no corner is preferred
    assert abs(often[-20:, -20:].sum() / 380 - p) < 0.05


def test_small_worlds_lie_between_the_ring_and_chance():
    lattice = topology.small_world.links(60, degree=6, p=0)
    source, target = lattice.without_loops()
    assert set((target - source) % 60) == {1, 2, 3, 57, 58, 59}
    moved = topology.small_world.links(400, degree=6, p=0.2, seed=1)
    source, target = moved.without_loops()
    assert len(source) == 400 * 6  # no link is lost
    far = np.minimum((target - source) % 400, (source - target) % 400) > 3
    assert abs(far.mean() - 0.2) < 0.04
    slow, fast = (
        weights.spectral_rate(weights.matrix(topology.small_world(200, p=p))) for p in (0, 0.3)
    )
    assert 1 - fast > 10 * (1 - slow)


@pytest.mark.parametrize("radius", [0.19, 0.4, 1.0, 3.0])
def test_ranks_within_the_radius_are_linked_and_no_others(radius):
    n = 120
    made = topology.geometric.links(n, radius=radius, seed=5)
    places = np.random.default_rng((5, 0)).random((n, 2))
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    there = np.zeros((n, n), dtype=bool)
    there[made.without_loops()] = True
    assert np.array_equal(there, (apart <= radius) & ~np.eye(n, dtype=bool))


EQUI = {16: (0.71, 0.53, 0.38), 64: (0.92, 0.70, 0.49), 256: (0.96, 0.80, 0.57)}
UNDIRECTED = {16: (0.64, 0.46, 0.30)}


@pytest.mark.parametrize(
    ("directed", "n", "expected"),
    [*((True, *row) for row in EQUI.items()), *((False, *row) for row in UNDIRECTED.items())],
)
def test_equi_static_mixes_as_measured_whatever_its_size(directed, n, expected):
    for offsets, norm in zip((4, 8, 16), expected, strict=True):
        norms = []
        for seed in range(30):
            W = weights.matrix(
                topology.equi_static(n, offsets=offsets, directed=directed, seed=seed)
            )
            assert weights.is_doubly_stochastic(W)
            assert directed or np.allclose(W, W.T, atol=0)
            norms.append(np.linalg.norm(W - 1 / n, 2))
        assert np.mean(norms) == pytest.approx(norm, abs=0.06)


def test_equi_static_is_the_mean_of_shifts():
    n, u = 7, np.random.default_rng(4).integers(1, 7, size=3)
    shifts = [np.roll(np.eye(n), k, axis=0) for k in u]
    expected = sum((n - 1) / n * shift + np.eye(n) / n for shift in shifts) / 3
    for directed, W in ((True, expected), (False, (expected + expected.T) / 2)):
        made = weights.matrix(topology.equi_static(n, offsets=3, directed=directed, seed=4))
        assert np.allclose(made, W, atol=1e-15)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: topology.random_regular(5, degree=3), "no connected graph of 5 ranks"),
        (lambda: topology.random_regular(4, degree=1), "no connected graph"),
        (lambda: topology.random_regular(4, degree=4), r"take 2\.\.3"),
        (lambda: topology.erdos_renyi(20, p=0.0), "fell apart"),
        (lambda: topology.erdos_renyi(20, p=1.5), "between 0 and 1"),
        (lambda: topology.small_world(20, degree=3), "must be even"),
        (lambda: topology.geometric(20, radius=0.0), "must be positive"),
        (lambda: topology.geometric(50, radius=0.01), "fell apart"),
        (lambda: topology.equi_static(4, offsets=0), "at least one distance"),
    ],
)
def test_graphs_that_cannot_be_are_refused(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()
