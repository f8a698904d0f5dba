"""Modelled time: who waits for whom follows from computing, latency and bytes."""

from __future__ import annotations

import numpy as np
import pytest

from ifog import schedules, topology
from ifog.costs import Link
from ifog.durations import Clocks, CostModel
from ifog.errors import ArgumentError


def by_hand(start, links, nbytes, model):
    """(ends, waits) of a round, agent by agent."""
    sends = [int((links.source == u).sum()) for u in range(links.n)]
    ends, waits = [], []
    for v in range(links.n):
        heard = links.source[links.target == v]
        arrive = [
            start[u] + sends[u] * (model.link.latency + nbytes / model.link.rate) for u in heard
        ]
        ends.append(max([start[v], *arrive]))
        waits.append(max([0.0, *(start[u] - start[v] for u in heard)]))
    return ends, waits


@pytest.mark.parametrize(
    "graph",
    [topology.ring.links(6), topology.star.links(5), schedules.random_pair(5).links(0)],
    ids=lambda links: links.label,
)
def test_a_round_ends_when_the_last_message_is_there(graph):
    model = CostModel(link=Link(0.25, 100.0))
    clocks = Clocks(model, graph.n, 0)
    clocks.now = start = np.random.default_rng(0).random(graph.n) * 3
    times = clocks.exchange(graph, 50)
    loops = graph.source == graph.target
    away = type(graph)(
        graph.n, graph.source[~loops], graph.target[~loops], graph.weight[~loops], ""
    )
    ends, waits = by_hand(start, away, 50, model)
    assert times.end == pytest.approx(ends)
    assert times.wait == pytest.approx(waits)
    for v in range(graph.n):
        if waits[v] > 0:
            heard = away.source[away.target == v]
            assert times.late[v] == heard[np.argmax(start[heard])]
        else:
            assert times.late[v] == -1
    assert clocks.messages == len(away.source)
    assert clocks.nbytes == 50 * len(away.source)


def test_a_straggler_holds_up_its_neighbours_then_theirs():
    clocks = Clocks(CostModel(compute=1.0, link=Link(0.0, 1e9), slow={0: 5.0}), 9, 0)
    links, late = topology.path.links(9), []
    for step in range(4):
        clocks.compute(step)
        times = clocks.exchange(links, 0)
        late.append(set(np.flatnonzero(times.wait > 0)))
    assert late == [{1}, {1, 2}, {1, 2, 3}, {1, 2, 3, 4}]
    assert clocks.now[0] == 20.0


def test_compute_times_vary_with_the_seed_about_their_median():
    one, again, other = (Clocks(CostModel(compute=2.0, spread=0.5), 4000, s) for s in (1, 1, 2))
    for clocks in (one, again, other):
        clocks.compute(7)
    assert np.array_equal(one.now, again.now)
    assert not np.array_equal(one.now, other.now)
    logs = np.log(one.now / 2.0)
    assert np.median(logs) == pytest.approx(0, abs=0.05)
    assert logs.std() == pytest.approx(0.5, abs=0.05)


def test_an_average_over_everybody_is_a_ring_of_all():
    clocks = Clocks(CostModel(link=Link(1.0, 10.0)), 8, 0)
    clocks.now = np.arange(8.0)
    clocks.reduce(20)
    assert clocks.now.tolist() == [7 + 14 * (1.0 + 0.25)] * 8
    assert (clocks.messages, clocks.nbytes) == (14 * 8, 280)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"compute": -1}, "compute is -1"),
        ({"link": Link(0.0, 0.0)}, r"rate is 0\.0"),
        ({"link": Link(float("nan"), 1.0)}, "latency is nan"),
    ],
)
def test_costs_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ArgumentError, match=message):
        CostModel(**arguments)
    with pytest.raises(ArgumentError, match="slow names agent 9"):
        Clocks(CostModel(slow={9: 2}), 4, 0)
