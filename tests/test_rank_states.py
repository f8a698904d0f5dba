"""What every rank does, and the line above the panels that says so."""

from __future__ import annotations

import numpy as np
import pytest
from runs import cell, graph_event, ring_matrix

from ifog.folds import Ranks, Status, fold_status, rank_state, track, view_status
from ifog.telemetry import CellEnd, CellStart, GraphEvent, LostEvent, OpEvent, WaitEvent


def numbered(n):
    """x_i = i."""
    return np.arange(float(n))[:, None]


def op(rank, t0, t1, wait=0.0, step=0):
    row = (0.5, 0.5)
    return OpEvent(
        rank, 0, step, "neighbor_allreduce", "x", t0, t1, wait, -1, 8, (1 - rank,), (1 - rank,), row
    )


def started(*events):
    ranks = Ranks()
    for event in [CellStart(0, 10.0, 1, 2, (0, 1)), CellStart(1, 10.0, 1, 2, (0, 1)), *events]:
        track(ranks, event)
    return ranks


@pytest.mark.parametrize(
    ("events", "time", "state"),
    [
        ([], 10.1, "computing"),
        ([op(0, 10.0, 11.0)], 11.0, "transferring"),
        ([op(0, 10.0, 11.0, wait=0.9)], 11.0, "waiting"),
        ([op(0, 10.0, 11.0, wait=0.9)], 12.0, "computing"),
        ([WaitEvent(0, 10.4, "neighbor_allreduce", "x", 0, (1,), 10.1)], 10.5, "waiting"),
        ([WaitEvent(0, 11.4, "neighbor_allreduce", "x", 0, (1,), 10.1)], 11.5, "stalled"),
        ([CellEnd(0, 11.0, 1, "ok", 0, 0, 0.0, 0, None)], 11.0, "finished"),
        ([CellEnd(0, 11.0, 1, "error", 0, 0, 0.0, 0, {"ename": "E", "peer": None})], 11.0, "dead"),
        ([CellEnd(0, 11.0, 1, "error", 0, 0, 0.0, 0, {"ename": "E", "peer": 1})], 11.0, "finished"),
        ([CellEnd(1, 11.0, 1, "error", 0, 0, 0.0, 0, {"ename": "E", "peer": 0})], 11.0, "dead"),
    ],
)
def test_state_of_a_rank(events, time, state):
    assert rank_state(started(*events), 0, time) == state


def test_an_operation_ends_the_wait_before_it():
    wait = WaitEvent(0, 11.0, "neighbor_allreduce", "x", 0, (1,), 10.1)
    assert rank_state(started(wait, op(0, 10.0, 11.2)), 0, 11.2) == "transferring"
    assert rank_state(started(op(0, 10.0, 11.2), wait), 0, 11.2) == "transferring"


def test_ranks_outside_the_cell_are_absent_and_the_round_is_that_of_the_slowest():
    ranks = Ranks()
    track(ranks, GraphEvent(0, 0.0, 4, "ring", ()))
    for rank in (0, 1):
        track(ranks, CellStart(rank, 10.0, 1, 4, (0, 1)))
    for step in range(3):
        track(ranks, op(0, 10.0 + step, 10.5 + step, step=step))
    track(ranks, op(1, 10.0, 10.5))
    assert [rank_state(ranks, rank, 12.5) for rank in (2, 3)] == ["absent", "absent"]
    assert ranks.round == 1
    assert ranks.live


def test_status_goes_from_idle_to_live_to_ended():
    events = [graph_event(ring_matrix(4), "ring"), *cell(ring_matrix(4), numbered(4), 9)]
    state = fold_status(Status(), events[:1])
    assert view_status(state, 0.0)["pill"] == "idle"
    state = fold_status(state, events[1:20])
    assert view_status(state, 100.5)["pill"] == "live"
    state = fold_status(state, events[20:])
    view = view_status(state, 1000.0)
    assert (view["pill"], view["round"], view["n"]) == ("ended", 9, 4)
    assert view["elapsed"] == pytest.approx(0.09)


def test_lost_events_are_reported_with_their_share():
    end = CellEnd(0, 11.0, 1, "ok", 0, 0, 0.0, 4, None)
    state = fold_status(Status(), [CellStart(0, 10.0, 1, 1, (0,)), end])
    assert view_status(state, 11.0)["lost"] == "4 events lost, 70\N{NO-BREAK SPACE}%"


def test_late_events_of_an_earlier_cell_are_left_out():
    old = list(cell(ring_matrix(2), numbered(2), 3, seq=1, t=100.0))
    new = [CellStart(0, 200.0, 2, 2, (0, 1))]
    late = [event for event in old if event.rank == 1 and isinstance(event, OpEvent)]
    state = fold_status(Status(), [*old, *new, *late])
    assert state.ranks.round == 0
    assert state.ranks.live


def test_lost_events_are_shown_as_soon_as_they_are_told_and_counted_once():
    start = [CellStart(0, 1.0, 1, 1, (0,)), LostEvent(0, 1.5, 30)]
    state = fold_status(Status(), start)
    assert view_status(state, 1.6)["lost"].startswith("30 events lost")
    fold_status(state, [CellEnd(0, 2.0, 1, "ok", 0, 0, 0.0, 30, None)])
    assert state.ranks.lost == 30
