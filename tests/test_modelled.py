"""A simulated run tells the folds what real ranks would have told them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ifog import problems, schedules, simulate, topology, weights
from ifog.algorithms import dgd, gradient_tracking, push_sum
from ifog.consensus import Consensus, fold_consensus, view_consensus
from ifog.costs import Link
from ifog.folds import Status, Throughput, fold_status, fold_throughput, view_throughput
from ifog.modelled import MOST_AGENTS
from ifog.telemetry import (
    CellEnd,
    CellStart,
    GraphEvent,
    OpEvent,
    WatchEvent,
    decode,
    encode,
)


def gossip(schedule, n, steps, **arguments):
    x = torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    still = problems.Quadratics(torch.zeros_like(x), torch.zeros_like(x), torch.arange(n))
    return simulate.run(dgd(0.1), still, schedule, start=x, steps=steps, **arguments), x


def test_every_agent_tells_its_rounds_in_order():
    graph = topology.star(5)
    trace, x = gossip(graph, 5, 4)
    cursor, events = trace.since(0)
    assert trace.modelled
    assert cursor == len(events)
    assert trace.since(cursor) == (cursor, [])
    assert trace.since(3)[1] == events[3:]
    kinds = [type(event) for event in events]
    assert kinds[:6] == [*[CellStart] * 5, GraphEvent]
    assert kinds[-5:] == [CellEnd] * 5
    assert [event for event in events if decode(encode(event)) != event] == []
    W = weights.matrix(graph)
    for r in range(5):
        rounds = [e for e in events if isinstance(e, OpEvent) and e.rank == r]
        assert [e.step for e in rounds] == [0, 1, 2, 3]
        for e in rounds:
            row = np.zeros(5)
            row[r], row[list(e.src)] = e.weights[0], e.weights[1:]
            assert row == pytest.approx(W[r])
            assert set(e.dst) == {v for v in range(5) if v != r and W[v, r]}
            assert e.nbytes == 3 * 8 * len(e.dst)
            assert e.t0 <= e.t0 + e.wait <= e.t1
        glances = [e for e in events if isinstance(e, WatchEvent) and e.rank == r]
        assert [e.step for e in glances] == [0, 1, 2, 3, 4]
        assert glances[0].sample == tuple(x[r].tolist())
        assert glances[0].norm == pytest.approx(float(x[r].norm()))
        assert glances[-1].sample == tuple(trace.x[r].tolist())
    assert events[5].edges == tuple(
        (int(u), int(v), float(W[v, u])) for u, v in zip(*_links(graph), strict=True)
    )


def _links(graph):
    links = schedules.constant(graph).links(0)
    return links.source, links.target


@pytest.mark.parametrize(
    ("schedule", "key"),
    [("ring", "0.805"), ("one-peer", "exact after 3 rounds"), ("exponential", "0.500")],
)
def test_the_consensus_panel_sees_prediction_and_measurement(schedule, key):
    trace, _ = gossip(schedule, 8, 40)
    view = view_consensus(fold_consensus(Consensus(), trace.since(0)[1]), 0.0)
    assert key in str(view)
    state = fold_consensus(Consensus(), trace.since(0)[1])
    (curve,) = state.curves.values()
    assert curve.rounds == list(range(41))
    expected = trace.consensus[0] * math.sqrt(8)
    assert curve.errors == pytest.approx(expected.tolist(), rel=1e-9, abs=1e-14)


def test_time_and_waits_reach_the_panels():
    cost = simulate.CostModel(compute=1e-3, link=Link(1e-4, 1e9), slow={2: 3.0})
    trace, _ = gossip("ring", 8, 50, cost=cost)
    _, events = trace.since(0)
    state = fold_throughput(Throughput(), events)
    view = view_throughput(state, max(e.t for e in events if isinstance(e, CellEnd)))
    assert view["culprit"] == "rank 2 computes longest"
    assert view["busiest"] == 2
    ends = [e for e in events if isinstance(e, CellEnd)]
    assert sum(e.nbytes for e in ends) == trace.nbytes[-1]
    assert max(e.t for e in ends) - events[0].t == pytest.approx(trace.seconds[-1], abs=1e-6)
    assert ends[2].wait == min(e.wait for e in ends)
    assert fold_status(Status(), events).ranks.round == 50
    assert fold_status(Status(), events).label == "ring"


def test_of_long_runs_and_many_agents_some_rounds_are_told():
    for n, steps in ((64, 3_000), (2_000, 200)):
        trace, _ = gossip(topology.random_regular.links(n), n, steps)
        _, events = trace.since(0)
        assert len(events) < 200_000
        rounds = sorted({e.step for e in events if isinstance(e, OpEvent)})
        assert len(rounds) > 20
        gaps = set(np.diff(rounds))
        assert len(gaps) == 1
        assert gaps.pop() & (next(iter(set(np.diff(rounds)))) - 1) == 0  # a power of two
        glances = sorted({e.step for e in events if isinstance(e, WatchEvent)})
        assert set(rounds) - set(glances) <= {max(rounds)}


def test_more_agents_than_a_dashboard_holds_send_no_events():
    n = MOST_AGENTS + 2
    x = torch.zeros(n, 1)
    still = problems.Quadratics(torch.zeros(n, 1), torch.zeros(n, 1), torch.arange(n))
    trace = simulate.run(dgd(0.1), still, topology.ring.links(n), start=x, steps=2)
    assert trace.since(0) == (0, [])


def test_algorithms_with_several_rounds_a_step_or_none_are_told_too():
    problem = problems.quadratics(6)
    trace = simulate.run(push_sum(), problem, "ring", start=problem.b.clone(), steps=5)
    assert sum(isinstance(e, OpEvent) for e in trace.since(0)[1]) == 30
    tracked = simulate.run(gradient_tracking(0.1), problem, "ring", steps=5)
    # x and the tracker travel in one message.
    sent = [e.nbytes for e in tracked.since(0)[1] if isinstance(e, OpEvent)]
    assert set(sent) == {2 * 8 * 2}
