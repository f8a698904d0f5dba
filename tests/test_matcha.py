"""MATCHA: matchings that cover the graph, the probabilities and the rate of its theory."""

from __future__ import annotations

import itertools

import networkx as nx
import numpy as np
import pytest

from ifog import schedules, topology, weights
from ifog.errors import ArgumentError
from ifog.matcha import matcha_plan

GRAPHS = [topology.ring(8), topology.grid2d(16), topology.star(6), topology.barbell(9)]


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.graph["label"])
def test_matchings_take_the_graph_apart(graph):
    plan = matcha_plan(graph)
    pairs = [list(zip(*(ends.tolist() for ends in pair), strict=True)) for pair in plan.matchings]
    for pair in pairs:
        ends = [end for ends in pair for end in ends]
        assert len(ends) == len(set(ends))
    links = sorted(link for pair in pairs for link in pair)
    assert links == sorted((u, v) for u, v in graph.edges if u < v)
    largest = max(len(set(graph[v]) - {v}) for v in graph)
    assert len(plan.matchings) <= largest + 1  # Vizing


@pytest.mark.parametrize(
    ("graph", "budget", "alpha", "rate"),
    [
        # With all matchings in use W = I - alpha L, best with 2/(l2 + ln); the other figures are
        # those of the design's line search.
        (topology.ring(8), 1.0, 0.4361, 0.5543),
        (topology.ring(8), 0.5, 0.605, 0.7841),
        (topology.grid2d(16), 1.0, 0.268, 0.7106),
        (topology.grid2d(16), 0.5, 0.422, 0.814),
    ],
)
def test_weight_and_rate_are_those_of_the_theory(graph, budget, alpha, rate):
    plan = matcha_plan(graph, budget=budget)
    assert plan.alpha == pytest.approx(alpha, abs=3e-3)
    assert plan.rate == pytest.approx(rate, abs=3e-3)
    assert plan.probabilities.sum() == pytest.approx(budget * len(plan.matchings))
    assert ((plan.probabilities >= 0) & (plan.probabilities <= 1)).all()


def test_a_full_budget_has_the_best_constant_weight():
    eigenvalues = np.sort(2 - 2 * np.cos(2 * np.pi * np.arange(8) / 8))
    plan = matcha_plan(topology.ring(8), budget=1.0)
    assert plan.connectivity == pytest.approx(eigenvalues[1])
    assert plan.alpha == pytest.approx(2 / (eigenvalues[1] + eigenvalues[-1]), rel=1e-6)
    assert plan.rate == pytest.approx((1 - plan.alpha * eigenvalues[1]) ** 2)


@pytest.mark.parametrize(("graph", "budget"), [(topology.ring(8), 0.5), (topology.barbell(8), 0.4)])
def test_the_rate_is_that_of_all_rounds_that_may_be_drawn(graph, budget):
    plan, n = matcha_plan(graph, budget=budget), len(graph)
    square = np.zeros((n, n))
    for used in itertools.product((0, 1), repeat=len(plan.matchings)):
        W, chance = np.eye(n), 1.0
        for (one, other), p, take in zip(plan.matchings, plan.probabilities, used, strict=True):
            chance *= p if take else 1 - p
            for u, v in zip(one, other, strict=True):
                e = np.eye(n)[u] - np.eye(n)[v]
                W -= take * plan.alpha * np.outer(e, e)
        square += chance * W @ W
    assert np.linalg.norm(square - 1 / n, 2) == pytest.approx(plan.rate, abs=1e-9)


def test_matchings_are_drawn_as_often_as_planned():
    plan = matcha_plan(topology.barbell(8), budget=0.4)
    often = np.zeros(len(plan.matchings))
    for step in range(3000):
        links = plan.links(2, step)
        there = set(zip(links.source.tolist(), links.target.tolist(), strict=True))
        often += [(int(one[0]), int(other[0])) in there for one, other in plan.matchings]
    assert often / 3000 == pytest.approx(plan.probabilities, abs=4 * 0.5 / np.sqrt(3000))


def test_the_vital_links_get_the_larger_probabilities():
    plan = matcha_plan(topology.barbell(8), budget=0.3)
    bridge = [any(pair == (3, 4) for pair in zip(*m, strict=True)) for m in plan.matchings]
    assert plan.probabilities[np.argmax(bridge)] == plan.probabilities.max() > 0.5


def test_rounds_depend_on_seed_and_step_alone():
    one, other = (schedules.matcha(topology.grid2d(9), seed=seed) for seed in (1, 2))
    again = schedules.matcha(topology.grid2d(9), seed=1)
    drawn = [sorted(one(step).edges) for step in range(20)]
    assert drawn == [sorted(again(step).edges) for step in range(20)]
    assert drawn != [sorted(other(step).edges) for step in range(20)]
    assert len({tuple(edges) for edges in drawn}) > 3
    for step in range(20):
        W = weights.matrix(one(step))
        assert np.array_equal(W, W.T)
        assert np.allclose(W.sum(axis=0), 1, atol=1e-14)


def test_directed_graphs_and_empty_budgets_are_refused():
    with pytest.raises(ArgumentError, match="does not send to"):
        schedules.matcha(topology.exponential(8))
    for budget in (0, 1.5):
        with pytest.raises(ArgumentError, match="budget"):
            schedules.matcha(topology.ring(8), budget=budget)
    assert set(schedules.matcha(topology.ring(1))(3).edges) == {(0, 0)}
    assert nx.number_of_edges(schedules.matcha(topology.complete(2), budget=1)(0)) == 4
