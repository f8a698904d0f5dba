"""Events on hand as bytes: what is packed comes back, and nothing is made before it is read."""

from __future__ import annotations

import math

import pytest

from ifog.event_bytes import Deferred, pack, unpack
from ifog.telemetry import CellEnd, CellStart, EventLog, GraphEvent, OpEvent, WaitEvent


def operation(step: int, **changes) -> OpEvent:
    event = OpEvent(
        rank=2,
        seq=3 * step,
        step=step,
        op="neighbor_allreduce",
        name="x",
        t0=1.5 + step,
        t1=1.75 + step,
        wait=0.125,
        late=1,
        nbytes=800,
        dst=(1, 3),
        src=(1, 3),
        weights=(0.5, 0.25, 0.25),
        arrived=(1.6 + step, 1.7 + step),
    )
    return event._replace(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"arrived": (), "src": (), "weights": ()},
        {"wait": math.inf, "t1": math.nan},
        {"seq": 1 << 40, "nbytes": 1 << 50, "late": -1},
        {"name": "", "op": "win_put", "dst": ()},
    ],
)
def test_a_packed_operation_comes_back_as_it_was(changes):
    events = [operation(6), operation(7, **changes), operation(8)]
    again = unpack(pack([tuple(event) for event in events]))
    assert [type(event) for event in again] == [OpEvent] * 3
    assert repr(again) == repr(events)  # which, unlike ==, finds nan in the place of nan


def test_operations_of_one_form_share_it_and_those_of_another_do_not():
    events = [operation(step, weights=(0.5 + step % 2, 0.5, 0.0)) for step in range(100)]
    forms, *columns = pack([tuple(event) for event in events])
    assert len(forms) == 2
    assert all(len(column) < 100 * 8 * 6 for column in columns)  # of whole and of real numbers
    assert unpack((forms, *columns)) == events


FORM = (2, "barrier", "", 0, (), (), ())


@pytest.mark.parametrize(
    "columns",
    [
        (),
        None,
        ("x", b"", b""),
        ((FORM,), b"short", b""),
        ((FORM,), bytes(40), bytes(16)),  # one event, but two of its three times
        ((), bytes(40), bytes(24)),  # no such form
        ((FORM[1:],), bytes(40), bytes(24)),
    ],
)
def test_columns_that_are_no_operations_are_told(columns):
    with pytest.raises(ValueError, match="not operations"):
        unpack(columns)


def waits(first: int, count: int) -> list[WaitEvent]:
    return [
        WaitEvent(0, float(k), "barrier", "", k, (1,), 0.0) for k in range(first, first + count)
    ]


def test_events_that_nobody_reads_are_never_made():
    log, made = EventLog(capacity=5), []

    def make(first):
        made.append(first)
        return waits(first, 3)

    for first in (0, 3, 6):
        log.write(Deferred(3, lambda first=first: make(first)))
    assert made == []
    cursor, events = log.since(7)
    assert (cursor, [event.step for event in events]) == (9, [7, 8])
    assert made == [6]
    assert [event.step for event in log.since(0)[1]] == [4, 5, 6, 7, 8]  # the last five
    assert made == [6, 3]
    assert log.since(9) == (9, [])
    assert log.missed(0) == 4


def test_who_reads_late_still_hears_of_cells_and_graphs():
    log = EventLog(capacity=5)
    start, end = CellStart(0, 1.0, 7, 1, (0,)), CellEnd(0, 2.0, 6, "ok", 0, 0, 0.0, 0, None)
    graph = GraphEvent(0, 1.5, 2, "ring", ((0, 1, 0.5),))
    log.write([end, start, *waits(0, 2)])
    log.write(Deferred(3, lambda: [graph, *waits(2, 2)]), [graph])
    early, _ = log.since(0)
    for first in range(4, 40, 3):
        log.write(Deferred(3, lambda first=first: waits(first, 3)), [])
    cursor, events = log.since(0)
    assert cursor == log.since(cursor)[0] == 43
    assert events[:3] == [end, start, graph]
    assert [event.step for event in events[3:]] == [35, 36, 37, 38, 39]
    assert [event.step for event in log.since(early)[1]] == [35, 36, 37, 38, 39]
    assert log.since(cursor) == (cursor, [])


def test_events_that_turn_out_unreadable_count_as_missed_and_the_others_come():
    log = EventLog()

    def broken():
        raise ValueError("not events")

    log.write(waits(0, 2))
    log.write(Deferred(4, broken))
    log.write(waits(6, 1))
    cursor, events = log.since(0)
    assert (cursor, [event.step for event in events]) == (7, [0, 1, 6])
