"""A report says what theory says of the graph, in words, numbers and a picture."""

from __future__ import annotations

import math
import re

import networkx as nx
import numpy as np
import pytest

from ifog import schedules, topology, weights
from ifog.errors import ArgumentError

D8 = nx.DiGraph(
    [*((u, (u + 1) % 8) for u in range(8)), (0, 3), (2, 6), (5, 1), (0, 5), (0, 2)]
    + [(v, v) for v in range(8)]
)


def test_a_report_of_a_ring_is_its_theory():
    report = topology.report(topology.ring(16))
    rho = 1 / 3 + 2 / 3 * math.cos(math.pi / 8)
    assert report.rho == pytest.approx(rho)
    assert report.gap == pytest.approx(1 - rho)
    assert report.half_life == pytest.approx(math.log(0.5) / math.log(rho))
    assert (report.stochastic, report.symmetric, report.exact_after) == ("doubly", True, None)
    assert (report.degree, report.diameter, report.messages, report.busiest) == (2, 8, 32, 2)
    assert report.effective_neighbors == pytest.approx(6.60, abs=5e-3)
    expected = [1 / 3 + 2 / 3 * math.cos(2 * math.pi * k / 16) for k in range(16)]
    assert sorted(report.eigenvalues.real) == pytest.approx(sorted(expected))


@pytest.mark.parametrize(
    ("graph", "diameter"),
    [
        (topology.path(9), 8),
        (topology.star(9), 2),
        (topology.grid2d(12), 5),
        (topology.hypercube(16), 4),
        (topology.exponential(16), 4),
        (topology.complete(5), 1),
        (topology.ring(1), 0),
        (D8, nx.diameter(D8)),
        (nx.DiGraph([(0, 1), (1, 2)]), None),
        (schedules.one_peer(16), 4),
        (schedules.hypercube_matching(16), 4),
    ],
)
def test_the_diameter_is_the_rounds_until_all_can_know_of_all(graph, diameter):
    assert topology.report(graph).diameter == diameter


@pytest.mark.parametrize(
    ("graph", "kind"),
    [
        (topology.ring(5), "doubly"),
        (weights.row_stochastic(D8), "row"),
        (weights.column_stochastic(D8), "column"),
        (D8, "not"),
        (schedules.epidemic(8), "row"),
        (schedules.random_pair(8), "doubly"),
    ],
)
def test_sums_of_rows_and_columns_are_told(graph, kind):
    assert topology.report(graph).stochastic == kind


@pytest.mark.parametrize(
    ("name", "n", "rounds"),
    [("one-peer", 8, 3), ("base", 25, 9), ("base_3", 6, 2), ("complete", 5, 1)],
)
def test_finite_time_is_told(name, n, rounds):
    report = topology.report(name, n)
    assert report.exact_after == rounds
    assert report.rho == 0
    assert f"exact after {rounds} round" in repr(report)
    assert report.effective_neighbors == pytest.approx(n)


def test_a_random_schedule_contracts_in_the_mean():
    report = topology.report("random pair", 16)
    assert report.period is None
    assert report.rho == pytest.approx(math.sqrt(14 / 30), abs=0.05)
    assert report.messages == 16
    assert "a new graph each round" in repr(report)


@pytest.mark.parametrize("label", ["exponential", "equi_static"])
def test_the_rate_of_many_ranks_is_found_by_iteration(label):
    n = 1000
    exact = weights.spectral_rate(weights.matrix(topology.named(label, n)))
    assert topology.report(topology.named_links(label, n)).rho == pytest.approx(exact, abs=2e-3)


def test_of_many_ranks_only_what_is_cheap_is_told():
    report = topology.report("one-peer", 4096)
    assert (report.rho, report.diameter, report.eigenvalues) == (None, None, None)
    assert (report.messages, report.degree, report.period) == (4096, 1, 12)
    assert "not computed" in repr(report)


def test_a_summary_is_one_line():
    assert topology.report("ring", 4).summary() == "ring: 4 ranks, 8 edges, spectral rate 0.333"
    assert topology.report("one_peer", 4).summary() == (
        "one-peer exponential: 4 ranks, 4 messages a round, exact after 2 rounds"
    )


def test_anything_callable_is_a_schedule():
    report = topology.report(lambda step: topology.ring(4 if step < 1000 else 5))
    assert report.period is None
    assert report.rho == pytest.approx(1 / 3)


def test_the_picture_has_a_dot_for_every_eigenvalue_and_says_the_numbers():
    html = topology.report(topology.star(8))._repr_html_()
    assert html.count("<table>") == 1
    # 1, six times 7/8 and once 0, and the two circles.
    assert html.count("<circle") == 5
    assert "&times;6" in html
    assert 'role="img"' in html
    assert "8 ranks, gap 0.125: disagreement halves every 5.19 rounds" in html
    assert 'data-jp-theme-light="false"' in html
    assert set(re.findall(r"var\((--ifog-[\w-]+)", html)) <= set(
        re.findall(r"(--ifog-[\w-]+):", html)
    )


def test_names_in_a_picture_are_text():
    graph = topology.from_matrix(np.eye(2), label="<b>bold</b>")
    assert "<b>" not in topology.report(graph)._repr_html_()
    assert "never agrees" in repr(topology.report(graph))


def test_random_schedules_and_many_ranks_have_no_disc():
    for what in ("random_pair", "one_peer"):
        assert "<svg" not in topology.report(what, 4096 if what == "one_peer" else 8)._repr_html_()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: topology.report("ring"), r"of how many ranks\? Say report\('ring', 16\)"),
        (lambda: topology.report("rign", 4), "did you mean 'ring'"),
        (lambda: topology.report(nx.Graph([(0, 1)])), "this is a Graph"),
        (lambda: topology.report(7), "this is a int"),
    ],
)
def test_what_is_no_graph_is_refused(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()
