"""Events in runs of one rank: none is lost or moved, and several readers see the same present."""

import random

import pytest
from runs import graph_event, ring_matrix, tracking

from ifog.batches import Batch, Once, alike, belonging, in_runs
from ifog.ranks import Ranks
from ifog.telemetry import CellStart, EventLog, OpEvent


def events_of(n=4, rounds=12):
    return [graph_event(ring_matrix(n), "ring"), *tracking(n, rounds)]


def flat(items):
    return [event for item in items for event in (item if type(item) is list else [item])]


def test_runs_hold_every_event_in_its_order_and_are_of_one_rank():
    events = events_of()
    random.Random(1).shuffle(events)
    found = in_runs(events)
    assert flat(found) == events
    runs = [item for item in found if type(item) is list]
    assert all(len({event.rank for event in run}) == 1 for run in runs)
    assert all(type(event) is OpEvent for run in runs for event in run)


def test_neighbours_of_one_rank_are_one_run_and_what_stands_between_them_parts_them():
    first, second, other = [e for e in events_of() if type(e) is OpEvent and e.rank == 0][:3]
    start = CellStart(0, 1.0, 1, 1, (0,))
    moved = other._replace(rank=1)
    assert in_runs([first, second, moved]) == [[first, second], [moved]]
    assert in_runs([first, start, second]) == [[first], start, [second]]


def test_the_runs_of_a_batch_are_found_once():
    batch = Batch(events_of())
    assert in_runs(batch) is in_runs(batch)
    assert flat(in_runs(batch)) == events_of()


def test_operations_of_an_earlier_cell_do_not_belong_to_the_newest():
    old = [event for event in events_of() if type(event) is OpEvent and event.rank == 1]
    starts = [CellStart(rank, 10.0, seq, 2, (0, 1)) for rank, seq in ((0, 1), (1, 1), (0, 2))]
    assert flat(belonging(Ranks(), [*starts, *old])) == starts  # rank 1 has not begun cell 2
    begun = CellStart(1, 11.0, 2, 2, (0, 1))
    assert flat(belonging(Ranks(), [*starts, begun, *old])) == [*starts, begun, *old]


def test_parts_of_a_run_add_up_to_its_bytes():
    run = [e._replace(nbytes=k) for k, e in enumerate(events_of()) if type(e) is OpEvent]
    run = [event._replace(rank=0, dst=(1,) if k % 5 else (2,)) for k, event in enumerate(run)]
    sums = dict.fromkeys([(1,), (2,)], (0, 0))
    for event, nbytes, many in alike(run):
        had = sums[event.dst]
        sums[event.dst] = (had[0] + nbytes, had[1] + many)
    for dst, (nbytes, many) in sums.items():
        mine = [event.nbytes for event in run if event.dst == dst]
        assert (nbytes, many) == (sum(mine), len(mine))


@pytest.mark.parametrize("place", [0, 3, 10, 17, 20])
def test_every_reader_of_one_present_ends_at_the_same_place(place):
    log, events = EventLog(), events_of()
    log.write(events[:20])
    present = Once(log, 10)
    log.write(events[20:40])  # what comes now belongs to the next present
    assert present.since(place) == (20, events[place:20])
    assert present.since(20) == (20, [])
