from __future__ import annotations

import json

import numpy as np
import pytest
from runs import cell, graph_event, ring_matrix

from ifog.ranks import Ranks, fate, rank_state, track
from ifog.telemetry import CellEnd, CellStart, DeathEvent, OpEvent, WaitEvent, decode, encode
from ifog.traffic import Traffic, fold_traffic, view_traffic
from ifog.waitgraph import columns, cycle, steps
from ifog.waits import Waits, fold_waits, view_waits

BEGIN = 100.0
STOP = 103.5


def begin(n, seq=1, t=BEGIN):
    return [CellStart(rank, t, seq, n, tuple(range(n))) for rank in range(n)]


def wait(rank, *peers, since=101.0, t=103.0, op="neighbor_allreduce", name="x", step=11, line=4):
    return WaitEvent(rank, t, op, name, step, peers, since, False, line)


def done(rank, t, *, op="neighbor_allreduce", name="x", step=11, t0=101.0):
    return OpEvent(rank, 0, step, op, name, t0, t, t - t0, -1, 8, (), (), ())


def end(rank, status="ok", t=STOP, **error):
    fields = {"ename": "E", "evalue": "", "line": 3, "where": "", "peer": None, "traceback": ""}
    return CellEnd(rank, t, 1, status, 11, 0, 0.0, 0, fields | error if error else None)


def released(rank, peer, t=STOP, **more):
    return end(rank, "error", t, ename="PeerFailedError", peer=peer, **more)


def raised(rank, ename="ValueError", t=STOP):
    return end(rank, "error", t, ename=ename, wait=None)


def view(events, now=103.4):
    return view_waits(fold_waits(Waits(), events), now)


def drawn(picture):
    return [[node["rank"] for node in column["nodes"]] for column in picture["columns"]]


def looks(picture):
    return {node["rank"]: node["look"] for col in picture["columns"] for node in col["nodes"]}


# The mock-ups: who waits for whom, as drawn there.
STRAGGLER = {1: 5, 6: 5, 7: 5, 2: 1, 3: 1, 0: 7, 4: 3}
RAISED = {4: 3, 5: 3, 7: 3, 6: 5, 0: 7, 1: 7, 2: 1}


def waits(table):
    return [wait(rank, peer) for rank, peer in table.items()]


def test_columns_are_distances_and_stand_in_the_order_of_what_they_wait_for():
    layers = columns([5], {rank: (peer,) for rank, peer in STRAGGLER.items()})
    assert layers == [[5], [1, 6, 7], [2, 3, 0], [4]]


def crossings(layers, arrows):
    row = {rank: index for layer in layers for index, rank in enumerate(layer)}
    column = {rank: index for index, layer in enumerate(layers) for rank in layer}
    pairs = [(a, b) for a in arrows for b in arrows if column[a[0]] == column[b[0]]]
    return sum(row[a] < row[c] and row[b] > row[d] for (a, b), (c, d) in pairs)


@pytest.mark.parametrize("n", [8, 16, 64])
def test_arrows_do_not_cross_where_everybody_waits_for_one(n):
    random = np.random.default_rng(n)
    needs = {rank: (int(random.integers(rank)),) for rank in range(1, n)}
    layers = columns([0], needs)
    arrows = steps(layers, needs)
    assert len(arrows) == n - 1
    assert crossings(layers, arrows) == 0


def test_a_rank_that_waits_for_several_stands_by_the_nearest():
    needs = {1: (0,), 2: (1, 0), 3: (2,)}
    layers = columns([0], needs)
    assert layers == [[0], [1, 2], [3]]
    assert steps(layers, needs) == [(1, 0), (2, 0), (3, 2)]


@pytest.mark.parametrize(
    ("needs", "ring"),
    [
        ({}, ()),
        ({1: (0,), 2: (1,)}, ()),
        ({1: (4,), 4: (6,), 6: (1,), 0: (1,)}, (1, 4, 6)),
        ({0: (1, 3), 1: (2,), 2: (0,), 3: (0,)}, (0, 3)),
        ({2: (2,)}, (2,)),
        ({rank: ((rank + 1) % 64,) for rank in range(64)}, tuple(range(64))),
    ],
)
def test_the_shortest_cycle_is_found_and_begins_at_its_smallest_rank(needs, ring):
    assert cycle(needs) == ring


@pytest.mark.parametrize("events", [[], begin(4)])
def test_nothing_is_shown_before_a_wait_passes_a_second(events):
    assert view(events)["empty"]
    short = [*begin(4), wait(0, 1, since=102.6, t=103.0)]
    assert view(short, now=103.4)["empty"]
    assert not view(short, now=103.7)["empty"]


def test_a_healthy_run_is_one_line_with_what_was_done():
    picture = view(cell(ring_matrix(4), np.arange(4.0)[:, None], 20), now=100.2)
    assert picture["empty"]
    assert picture["key"] == "80 operations, 0 events lost"


def test_a_straggler_is_the_grey_cause_and_who_waits_stands_by_distance():
    picture = view(begin(8) + waits(STRAGGLER))
    assert picture["kind"] == "straggler"
    assert picture["sentence"].startswith("Rank 5 still computes, 3.40")
    assert picture["sentence"].endswith("7 ranks wait for it.")
    assert drawn(picture) == [[5], [1, 6, 7], [2, 3, 0], [4]]
    names = [column["name"] for column in picture["columns"]]
    assert names == ["cause", "waits for it", "through one", "through two"]
    assert looks(picture) == {5: "computing"} | dict.fromkeys(STRAGGLER, "waiting")
    red = {(rank, peer) for rank, peer, red in picture["arrows"] if red}
    assert red == {(1, 5), (6, 5), (7, 5)}
    assert picture["say"].endswith("1,6-7 wait for 5; 2-3 for 1; 0 for 7; 4 for 3.")


def test_a_rank_that_finished_the_cell_is_hollow_and_who_expects_it_says_where():
    picture = view([*begin(8), end(2, t=102.0), *waits({3: 2, 4: 2, 6: 2})])
    assert picture["kind"] == "absent"
    assert "has finished this cell" in picture["sentence"]
    assert looks(picture) == {2: "hollow", 3: "waiting", 4: "waiting", 6: "waiting"}
    labels = {node["label"] for node in picture["columns"][1]["nodes"]}
    assert labels == {"neighbor_allreduce('x'), line 4"}


def test_a_rank_outside_the_cell_is_hollow_too():
    two = [CellStart(rank, BEGIN, 1, 4, (0, 1)) for rank in (0, 1)]
    picture = view([*two, wait(0, 3), wait(1, 3)])
    assert looks(picture) == {3: "hollow", 0: "waiting", 1: "waiting"}
    assert "not in this cell" in picture["sentence"]


def test_a_cycle_is_a_ring_with_operation_and_line_of_each_edge_the_odd_one_bold():
    recv = {"op": "recv", "name": ""}
    picture = view(
        [*begin(7), wait(1, 4, line=7, **recv), wait(4, 6, line=7, **recv),
         wait(6, 1, line=9, **recv), wait(0, 1)]
    )  # fmt: skip
    assert picture["kind"] == "cycle"
    assert picture["columns"] == picture["arrows"] == []
    ring = picture["ring"]
    assert [node["rank"] for node in ring["nodes"]] == [1, 4, 6]
    assert ring["lines"] == [
        ["1 → 4", "recv, cell line 7", False],
        ["4 → 6", "recv, cell line 7", False],
        ["6 → 1", "recv, cell line 9", True],
    ]
    assert ring["others"] == "1 more rank waits for these"
    assert "1 for 4, 4 for 6, 6 for 1" in picture["say"]


def test_of_a_large_cycle_twelve_edges_are_listed():
    events = [wait(rank, (rank + 1) % 53) for rank in range(53)]
    ring = view(begin(53) + events)["ring"]
    assert len(ring["nodes"]) == 53
    assert len(ring["lines"]) == 12
    assert ring["more"] == 41


def test_above_twelve_ranks_a_column_says_how_many_more():
    picture = view(begin(54) + [wait(rank, 0) for rank in range(1, 54)])
    waiting = picture["columns"][1]
    assert len(waiting["nodes"]) == 12
    assert len(waiting["more"]) == 41
    assert len(picture["arrows"]) == 12


def test_ranks_beyond_the_last_column_are_listed_there_and_none_is_lost():
    events = [wait(rank, rank - 1) for rank in range(1, 40)]
    picture = view(begin(40) + events)
    assert drawn(picture) == [[rank] for rank in range(8)]
    assert picture["columns"][-1]["more"] == list(range(8, 40))


def test_a_raise_is_kept_as_it_was_at_the_moment_of_release_until_the_next_start():
    events = begin(8) + waits(RAISED) + [raised(3), *(released(r, 3) for r in RAISED)]
    for now in (103.6, 500.0):
        picture = view(events, now)
        assert picture["key"] == "at the moment of release"
        assert picture["sentence"].startswith("Rank 3 raised ValueError; 7 ranks were waiting")
        assert drawn(picture) == [[3], [4, 5, 7], [6, 0, 1], [2]]
        assert looks(picture)[3] == "gone"
    assert view([*events, *begin(8, seq=2, t=600.0)], 600.1)["empty"]


def test_a_release_says_itself_whom_a_rank_waited_for_however_briefly():
    last = (0, 101.05, "neighbor_allreduce", "x", 2, (1,), 101.0, False, None)
    events = [*begin(2), raised(1, t=101.1), released(0, 1, t=101.1, wait=last, line=6)]
    picture = view(events, 110.0)
    assert drawn(picture) == [[1], [0]]
    assert picture["columns"][1]["nodes"][0]["label"] == "neighbor_allreduce('x'), line 6"


def test_an_error_of_ones_own_in_a_wait_is_no_release():
    mismatch = raised(0, "MismatchError", t=103.0)
    events = [*begin(2), wait(0, 1), mismatch, released(1, 0)]
    assert looks(view(events, 110.0)) == {0: "gone", 1: "waiting"}


@pytest.mark.parametrize("trip", [lambda e: e, lambda e: decode(json.loads(json.dumps(encode(e))))])
def test_a_dead_rank_is_told_by_its_event_also_from_a_file(trip):
    table = {0: 6, 2: 6, 7: 6, 1: 0, 3: 2, 4: 2, 5: 4}
    ends = [released(rank, 6, wait=tuple(wait(rank, peer))) for rank, peer in table.items()]
    events = [*begin(8), *waits(table), DeathEvent(6, STOP, "signal 9"), *ends]
    picture = view(list(map(trip, events)), 200.0)
    assert picture["kind"] == "dead"
    assert picture["sentence"].startswith("The process of rank 6 is gone (signal 9); 7 ranks were")
    assert drawn(picture) == [[6], [0, 2, 7], [1, 3, 4], [5]]
    assert looks(picture)[6] == "gone"


def test_a_death_that_the_others_survived_in_the_cell_shows_nothing():
    events = [*begin(3), DeathEvent(2, 101.0, ""), wait(0, 1, since=102.0, t=102.3)]
    assert view(events, 102.4)["empty"]
    assert view([*events, done(0, 102.5), end(0), end(1)], 110.0)["empty"]


def test_an_interrupt_of_a_healthy_cell_shows_nothing_and_of_a_stall_the_straggler():
    ends = [end(rank, "interrupted", ename="KeyboardInterrupt") for rank in range(2)]
    assert view([*begin(2), wait(0, 1, since=103.2, t=103.4), *ends], 110.0)["empty"]
    picture = view([*begin(2), wait(0, 1), *ends], 110.0)
    assert drawn(picture) == [[1], [0]]
    assert "Rank 1 still computed" in picture["sentence"]


def test_a_stall_that_ends_by_itself_stays_for_five_seconds():
    events = [*begin(2), wait(0, 1, t=103.0), done(1, 103.9, t0=103.8), done(0, 104.0)]
    for rest in ([], [end(0, t=104.1), end(1, t=104.1)]):
        picture = view(events + rest, 108.9)
        assert drawn(picture) == [[1], [0]]
        assert picture["sentence"].startswith(
            "1 rank waited for rank 1, until it went on after 3.00"
        )
        assert not any(red for _, _, red in picture["arrows"])
        assert picture["moves"]
        assert view(events + rest, 109.1)["empty"]


def test_the_way_events_are_cut_into_batches_does_not_matter():
    events = begin(8) + waits(RAISED) + [done(6, 103.2), raised(3), released(4, 3)]
    state = Waits()
    for event in events:
        fold_waits(state, [event])
    assert view_waits(state, 104.0) == view(events, 104.0)


def test_a_waiting_rank_without_news_while_others_report_does_not_answer():
    others = [wait(rank, 3, t=104.0 + k) for k in range(3) for rank in (0, 1)]
    picture = view([*begin(4), wait(3, 2, t=101.5), *others, wait(2, 3, t=105.0)], 106.0)
    assert picture["kind"] == "silent"
    assert "Rank 3 does not answer" in picture["sentence"]
    assert looks(picture)[3] == "silent"


def test_an_operation_that_ends_during_the_wait_for_another_leaves_the_wait():
    ranks = Ranks()
    first = wait(0, 1, name="a", t=101.2)
    for event in [*begin(2), first, done(0, 101.5, name="b", t0=100.9)]:
        track(ranks, event)
    assert rank_state(ranks, 0, 102.5) == "stalled"
    track(ranks, first._replace(t=101.8))
    assert ranks.waits[0].t == 101.8
    track(ranks, done(0, 103.0, name="a"))
    assert ranks.waits == {}


def test_a_table_has_a_row_for_every_rank_the_cause_first():
    rows = view(begin(8) + waits(STRAGGLER))["rows"]
    assert [row[0] for row in rows] == ["5", "0", "1", "2", "3", "4", "6", "7"]
    assert rows[2][1:4] == ["waiting", "5", "neighbor_allreduce('x'), line 4"]


@pytest.mark.parametrize("n", [1, 2, 3, 16, 64, 256])
def test_pictures_of_any_size_are_json_and_lose_no_rank(n):
    events = begin(n) + [wait(rank, rank // 2) for rank in range(1, n)]
    picture = view(events)
    json.dumps(picture, allow_nan=False)
    if n == 1:
        assert picture["empty"]
        return
    shown = [rank for column in drawn(picture) for rank in column]
    more = [rank for column in picture["columns"] for rank in column["more"]]
    assert sorted(shown + more) == list(range(n))


# The graph's marks


def graph(events, now):
    start = [graph_event(ring_matrix(4), "ring"), *begin(4)]
    return view_traffic(fold_traffic(Traffic(), [*start, *events]), now)


def test_the_graph_marks_messages_that_are_expected_and_not_sent():
    assert graph([wait(0, 3, t=101.8), wait(2, 3, t=101.8)], 101.9)["missing"] == []
    assert sorted(graph([wait(0, 3), wait(2, 3), wait(1, 2)], 103.4)["missing"]) == [(3, 0), (3, 2)]


def test_the_graph_keeps_who_waited_when_a_rank_raised():
    ends = [raised(3), released(0, 3), released(2, 3), end(1, t=102.0)]
    picture = graph([wait(0, 3), wait(2, 3), *ends], 200.0)
    assert picture["states"] == ["waiting", "finished", "waiting", "dead"]
    assert picture["fates"] == {"3": "raised ValueError"}
    assert sorted(picture["missing"]) == [(3, 0), (3, 2)]


def test_a_dead_rank_stays_dead_in_later_cells_until_it_starts_one():
    ranks = Ranks()
    later = [CellStart(rank, 200.0, 2, 4, (0, 1, 2)) for rank in range(3)]
    for event in [*begin(4), DeathEvent(3, 101.0, "signal 9"), *later]:
        track(ranks, event)
    assert rank_state(ranks, 3, 200.1) == "dead"
    assert fate(ranks, 3) == "died, signal 9"
    assert ranks.members == (0, 1, 2)
    track(ranks, CellStart(3, 300.0, 3, 4, (0, 1, 2, 3)))
    assert rank_state(ranks, 3, 300.1) == "computing"
    assert fate(ranks, 3) == ""


def test_a_cell_is_over_when_all_that_live_are_through():
    ranks = Ranks()
    for event in [*begin(2), DeathEvent(1, 101.0, "")]:
        track(ranks, event)
    assert ranks.live
    track(ranks, end(0))
    assert not ranks.live


# Real ranks


def picture_of(cluster, code, **options):
    cursor, _ = cluster.events.since(0)
    cluster.run(code, timeout=20, **options)
    _, events = cluster.events.since(cursor)
    return view(events, now=max(e.t for e in events if isinstance(e, CellEnd)) + 60.0)


@pytest.mark.mpi
def test_real_ranks_in_different_operations_are_a_ring(cluster):
    code = "x = torch.ones(2)\nif bf.rank() == 2:\n    bf.barrier()\nbf.allreduce(x, name='x')"
    picture = picture_of(cluster, code)
    assert picture["kind"] == "diverged"
    assert picture["key"] == "at the moment of release"
    lines = {where: edge for edge, where, _ in picture["ring"]["lines"]}
    assert lines["barrier, cell line 3"].startswith("2 ")
    assert lines["allreduce('x'), cell line 4"].endswith(" 2")


@pytest.mark.mpi
def test_a_real_rank_that_is_killed_is_the_cause_and_who_waited_is_kept(cluster):
    code = "import os, signal\nif bf.rank() == 3: os.kill(os.getpid(), 9)\nbf.barrier()"
    picture = picture_of(cluster, code)
    assert picture["kind"] == "dead"
    assert drawn(picture) == [[3], [0, 1, 2]]
    assert looks(picture)[3] == "gone"
