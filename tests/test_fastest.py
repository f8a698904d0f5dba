"""Fastest mixing weights: the optimum of the convex program, with and without a solver."""

from __future__ import annotations

import importlib.util
import math
import sys

import networkx as nx
import numpy as np
import pytest

from ifog import topology, weights
from ifog.errors import ArgumentError, NotAvailableError

HAS_CVXPY = importlib.util.find_spec("cvxpy") is not None
OPTIMA = {  # Metropolis, optimum (semidefinite program; path and star have closed forms)
    "ring": (topology.ring(8), 0.804738, 0.744521),
    "path": (topology.path(8), 0.949253, math.cos(math.pi / 8)),
    "star": (topology.from_adjacency(topology.star(8).adj), 0.875, 6 / 7),
    "grid 9": (topology.grid2d(9), 0.767423, 0.692551),
    "grid 16": (topology.grid2d(16), 0.868641, 0.824389),
    "barbell": (topology.barbell(8), 0.929150, 0.891806),
}


def rate(graph):
    return weights.spectral_rate(weights.matrix(graph))


@pytest.mark.parametrize("label", OPTIMA)
def test_the_walk_comes_within_half_a_per_cent_of_the_optimum(label):
    graph, metropolis, optimum = OPTIMA[label]
    assert rate(graph) == pytest.approx(metropolis, abs=1e-6)
    fastest = weights.fastest_mixing(graph, solver="subgradient")
    W = weights.matrix(fastest)
    assert weights.is_doubly_stochastic(W)
    assert np.array_equal(W, W.T)
    assert set(fastest.edges) <= {*graph.edges, *((v, v) for v in graph)}
    assert optimum - 1e-6 <= rate(fastest) <= optimum * 1.005


@pytest.mark.skipif(not HAS_CVXPY, reason="needs cvxpy: pip install 'ifog[convex]'")
@pytest.mark.parametrize("label", OPTIMA)
def test_the_program_finds_the_optimum(label):
    graph, _, optimum = OPTIMA[label]
    W = weights.matrix(weights.fastest_mixing(graph, solver="convex"))
    assert weights.is_doubly_stochastic(W)
    assert weights.spectral_rate(W) == pytest.approx(optimum, abs=2e-6)


def test_a_missing_solver_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cvxpy", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)
    with pytest.raises(NotAvailableError, match="cvxpy"):
        weights.fastest_mixing(topology.ring(8), solver="convex")
    # Without one it is the walk that is taken.
    assert rate(weights.fastest_mixing(topology.ring(8))) < 0.75


def test_what_cannot_be_weighted_is_refused():
    with pytest.raises(ArgumentError, match="both directions"):
        weights.fastest_mixing(topology.exponential(8), solver="subgradient")
    with pytest.raises(ArgumentError, match="'convex' or 'subgradient'"):
        weights.fastest_mixing(topology.ring(8), solver="magic")
    alone = weights.fastest_mixing(nx.DiGraph([(0, 0)]), solver="subgradient")
    assert weights.matrix(alone).tolist() == [[1.0]]
