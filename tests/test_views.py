"""The newer views: each number beside one that was worked out by hand or by a dense W @ x."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from runs import cell, graph_event, one_peer_matrix, ring_matrix, tracking

from ifog.folds import Throughput, fold_throughput, view_throughput
from ifog.invariants import Invariants, fold_invariants, view_invariants
from ifog.lanes import Lanes, fold_lanes, view_lanes
from ifog.modes import Modes, fold_modes, view_modes
from ifog.shipments import Shipments, fold_shipments, view_shipments
from ifog.telemetry import (
    CellEnd,
    CellStart,
    LogEvent,
    OpEvent,
    WaitEvent,
    read_jsonl,
)
from ifog.traffic import Traffic, fold_traffic, view_traffic
from ifog.training import Training, fold_training, view_training

FOLDS = [
    (Training, fold_training, view_training),
    (Shipments, fold_shipments, view_shipments),
    (Lanes, fold_lanes, view_lanes),
    (Modes, fold_modes, view_modes),
    (Invariants, fold_invariants, view_invariants),
]
EPS = 2.0**-52


def starts(n, t=100.0, seq=1):
    return [CellStart(rank, t, seq, n, tuple(range(n))) for rank in range(n)]


def ends(n, t, seq=1):
    return [CellEnd(rank, t, seq, "ok", 1, 0, 0.0, 0, None) for rank in range(n)]


def op(rank, k, t0, t1, *, wait=0.0, late=-1, nbytes=0, dst=(), src=(), weights=(), arrived=()):
    name = "neighbor_allreduce"
    return OpEvent(rank, k, k, name, "x", t0, t1, wait, late, nbytes, dst, src, weights, arrived)


@pytest.mark.parametrize(("initial", "fold", "view"), FOLDS)
def test_how_events_are_cut_into_batches_does_not_matter(initial, fold, view):
    events = [graph_event(ring_matrix(8), "ring"), *tracking(8, 30)]
    whole, cut = fold(initial(), events), initial()
    for first in range(0, len(events), 37):
        cut = fold(cut, events[first : first + 37])
    assert json.dumps(view(whole, 200.0), allow_nan=False) == json.dumps(view(cut, 200.0))


@pytest.mark.parametrize(("initial", "fold", "view"), FOLDS)
def test_before_the_first_event_a_view_is_empty_and_says_so(initial, fold, view):
    assert view(fold(initial(), []), 0.0)["empty"]
    assert view(initial(), 0.0)["say"]


def test_a_recorded_run_of_real_ranks_is_seen_by_every_view():
    # Real ranks averaged 1000 float64 over a ring of 4: 8 links, each 8 kB a round.
    events = list(read_jsonl(Path(__file__).parent / "data" / "ring4.jsonl"))
    rounds = max(e.step for e in events if isinstance(e, OpEvent) and e.name == "x") + 1
    links = view_shipments(fold_shipments(Shipments(), events), 0.0)["edges"]
    assert {(u, v): sent for u, v, sent, *_ in links if sent} == {
        (u, (u + hop) % 4): 8000 * rounds for u in range(4) for hop in (1, 3)
    }
    lanes = view_lanes(fold_lanes(Lanes(), events), 0.0)
    assert [sum(op[7] for op in ops) for ops in lanes["ops"]] == [16000 * rounds] * 4
    assert view_modes(fold_modes(Modes(), events), 0.0)["gap"] == "0.667"
    rows = view_invariants(fold_invariants(Invariants(), events), 0.0)["rows"]
    lamps = {row["name"]: row["lamp"] for row in rows}
    assert {*lamps.values()} == {"ok", "void"}  # void: laws of one's own
    assert lamps["mean of x is kept"] == "ok"


# Training


def logs(k, values, name="loss", done=None):
    t = 100.0 + k
    return [
        LogEvent(rank, t, k, k + 1 if done is None else done, ((name, value),))
        for rank, value in enumerate(values)
    ]


def test_training_shows_band_mean_and_the_worst_rank():
    events = [*starts(4), *logs(0, [4, 4, 4, 4]), *logs(1, [1, 2, 3, 6]), *logs(2, [1, 1, 1, 5])]
    (loss,) = view_training(fold_training(Training(), events), 0.0)["figures"]
    assert loss["title"] == "loss, own data"
    assert loss["rounds"] == [1, 2, 3]
    assert loss["low"] == [4, 1, 1]
    assert loss["mean"] == [4, 3, 2]
    assert loss["high"] == [4, 6, 5]
    assert loss["worst"] == [3, [4, 6, 5]]
    assert loss["say"] == "Loss 1.00 to 5.00 over ranks, mean 2.00; worst rank 3."


def test_of_an_accuracy_the_worst_is_the_lowest_and_test_data_are_said():
    events = [*starts(3), *logs(0, [0.9, 0.5, 0.9], "test_accuracy")]
    (figure,) = view_training(fold_training(Training(), events), 0.0)["figures"]
    assert figure["title"] == "test accuracy"
    assert figure["worst"][0] == 1


def test_a_nan_ends_the_line_and_says_where():
    events = [*starts(2)]
    for k in range(5):
        events += logs(k, [1.0, math.nan if k >= 3 else 2.0])
    (figure,) = view_training(fold_training(Training(), events), 0.0)["figures"]
    assert figure["rounds"] == [1, 2, 3]
    assert figure["broken"] == [4, 1]
    assert "not a number on rank 1 in round 4" in figure["say"]


def test_without_rounds_between_them_calls_are_counted():
    events = [*starts(1), *logs(0, [3.0], done=0), *logs(1, [2.0], done=0)]
    (figure,) = view_training(fold_training(Training(), events), 0.0)["figures"]
    assert (figure["axis"], figure["rounds"]) == ("call", [0, 1])


def test_only_calls_that_all_logging_ranks_made_are_shown():
    events = [*starts(3), *logs(0, [1.0, 2.0]), *logs(1, [5.0])]
    view = view_training(fold_training(Training(), events), 0.0)
    assert view["figures"][0]["mean"] == [1.5]


def test_a_cell_that_logs_nothing_leaves_the_curves():
    events = [*starts(1), *logs(0, [1.0]), *ends(1, 101.0), *starts(1, 102.0, 2)]
    state = fold_training(Training(), events)
    assert not view_training(state, 0.0)["empty"]
    fold_training(state, [LogEvent(0, 103.0, 0, 1, (("other", 1.0),))])
    assert [f["title"] for f in view_training(state, 0.0)["figures"]] == ["other, own data"]


def test_long_training_keeps_its_ends_and_few_points():
    state = fold_training(Training(), starts(1))
    for k in range(5000):
        fold_training(state, logs(k, [float(k)]))
    (figure,) = view_training(state, 0.0)["figures"]
    assert len(figure["mean"]) <= 240
    assert figure["mean"][0] == 0
    assert figure["rounds"] == [int(mean) + 1 for mean in figure["mean"]]


def test_samples_become_samples_a_second():
    events = list(tracking(4, 50, round_time=0.02))  # 4 ranks, 32 samples in 20 ms each
    view = view_throughput(fold_throughput(Throughput(), events), 101.0)
    assert view["figures"][2][1] == "samples/s"
    value = float(view["figures"][2][0].replace("\N{NARROW NO-BREAK SPACE}", ""))
    assert value == pytest.approx(4 * 32 / 0.02, rel=0.01)


# Traffic


def test_links_carry_what_their_senders_sent_in_the_cell_and_in_total():
    x = np.arange(4.0)[:, None]
    events = [graph_event(ring_matrix(4), "ring"), *cell(ring_matrix(4), x, 5)]
    events += list(cell(ring_matrix(4), x, 2, seq=2, t=200.0))
    view = view_shipments(fold_shipments(Shipments(), events), 0.0)
    assert len(view["edges"]) == 8
    # One float64 a message: 2 of them in the second cell, 7 in total.
    assert {tuple(edge[2:]) for edge in view["edges"]} == {(16, 2, 56, 7, 1)}
    assert view["words"][0] == ["all 8 declared links used", "16\N{NO-BREAK SPACE}B each"]


def test_links_never_used_and_links_not_declared_are_named():
    odd = ring_matrix(4)
    odd[2, 0], odd[2, 1] = odd[2, 1], 0.0  # rank 2 hears 0 instead of 1
    events = [graph_event(ring_matrix(4), "ring"), *cell(odd, np.ones((4, 1)), 3)]
    view = view_shipments(fold_shipments(Shipments(), events), 0.0)
    assert view["words"][0][-2:] == [
        "1 declared, never used: 1\N{RIGHTWARDS ARROW}2",
        "1 used, not in the graph: 0\N{RIGHTWARDS ARROW}2",
    ]
    kinds = {(u, v): (nbytes, declared) for u, v, nbytes, _, _, _, declared in view["edges"]}
    assert kinds[1, 2] == (0, 1)
    assert kinds[0, 2] == (24, 0)


def test_what_goes_to_all_is_no_link():
    events = [*starts(2), OpEvent(0, 0, 0, "allreduce", "", 100, 101, 0, -1, 800, (1,), (1,), ())]
    events += [op(0, 0, 101, 102, nbytes=8, dst=(1,))]
    view = view_shipments(fold_shipments(Shipments(), events), 0.0)
    assert [edge[:3] for edge in view["edges"]] == [[0, 1, 8]]
    assert "800\N{NO-BREAK SPACE}B more to all ranks at once" in view["words"][0]


def test_many_links_are_binned_and_none_that_carried_is_lost():
    n = 256
    events = [*starts(n), *(op(u, 0, 100, 101, nbytes=1, dst=((u + 1) % n,)) for u in range(n - 1))]
    events += [op(n - 1, 0, 100, 101, nbytes=10**9, dst=(0,))]
    view = view_shipments(fold_shipments(Shipments(), events), 0.0)
    levels = np.array([int(digit, 16) for digit in view["levels"][0]]).reshape(128, 128)
    assert levels[127, 0] == 15
    assert all(levels[b, b] == 1 for b in range(128))
    assert (levels > 0).sum() == 2 * 128


# Timeline


def two_ranks():
    """Rank 1 computes 40 ms and rank 0 10 ms; rank 0 waits 30 ms; both move bytes for 5 ms."""
    return [
        *starts(2),
        op(1, 0, 100.040, 100.045, dst=(0,), src=(0,), nbytes=80, arrived=(100.010,)),
        op(0, 0, 100.010, 100.045, wait=0.030, late=1, dst=(1,), src=(1,), arrived=(100.041,)),
        *ends(2, 100.05),
    ]


def test_an_operation_is_computing_waiting_and_moving():
    view = view_lanes(fold_lanes(Lanes(), two_ranks()), 0.0)
    assert view["span"] == 50_000
    assert view["names"] == ["neighbor_allreduce('x')"]
    ((first,), (second,)) = view["ops"]
    assert first == [0, 10_000, 30_000, 5_000, 1, 0, 0, 0, 0]
    assert second == [0, 40_000, 0, 5_000, -1, 0, 0, 80, 0]


def test_arrows_lead_from_send_to_receive_and_tell_which_ended_a_wait():
    view = view_lanes(fold_lanes(Lanes(), two_ranks()), 0.0)
    assert sorted(view["arrows"]) == [[0, 10_000, 1, 10_000, 0], [1, 40_000, 0, 41_000, 1]]


def test_the_live_window_holds_a_few_rounds_and_changes_by_powers_of_two():
    events = [event for event in tracking(4, 40, round_time=0.1) if not isinstance(event, CellEnd)]
    state = fold_lanes(Lanes(), events)
    assert state.span == pytest.approx(0.48)  # 0.06 doubled thrice holds 4.8 rounds, nearest 6.5
    view = view_lanes(state, state.ranks.last)
    assert view["live"]
    assert view["span"] == 480_000


def test_a_long_run_is_merged_without_losing_time():
    state = fold_lanes(Lanes(), list(tracking(8, 600)))
    view = view_lanes(state, 0.0)
    assert view["merged"]
    for runs in view["runs"]:
        assert sum(length for _, length, _, _ in runs) == pytest.approx(view["span"], rel=0.01)
        assert all(whom >= 0 for _, _, kind, whom in runs if kind == 2)


def test_a_window_of_a_merged_run_shows_each_operation():
    state = fold_lanes(Lanes(), list(tracking(8, 600)))
    view = view_lanes(state, 0.0, (1.0, 1.1))
    assert not view["merged"]
    assert view["from"] == 1_000_000
    assert 80 <= sum(map(len, view["ops"])) <= 100


def test_the_line_of_an_operation_is_told_where_a_wait_told_it_and_nowhere_else():
    def op(rank, step, op, name):
        t = 100.0 + step / 100
        return OpEvent(rank, step, step, op, name, t, t + 0.005, 0.0, -1, 8, (1,), (1,), ())

    def wait(rank, step, op, name, line):
        return WaitEvent(rank, 100.0, op, name, step, (1,), 99.5, line=line)

    events = [
        *starts(2),
        wait(0, 1, "neighbor_allreduce", "x", 7),
        wait(0, 1, "barrier", "", 9),
        wait(0, 0, "neighbor_allreduce", "y", 3),
        wait(0, 1, "neighbor_allreduce", "y", 4),
    ]
    for step in range(2):
        for kind in ("neighbor_allreduce x", "barrier ", "neighbor_allreduce y"):
            events += [op(rank, step, *kind.split(" ")) for rank in (0, 1)]
    view = view_lanes(fold_lanes(Lanes(), events), 101.0, (0.0, 1.0))
    lines = [[(view["names"][o[6]], o[5], o[8]) for o in ops] for ops in view["ops"]]
    x, barrier, y = "neighbor_allreduce('x')", "barrier", "neighbor_allreduce('y')"
    # A name is at one line, unless waits say otherwise; what has no name is known by itself alone.
    assert lines[0] == [
        (x, 0, 7),
        (barrier, 0, 0),
        (y, 0, 3),
        (x, 1, 7),
        (barrier, 1, 9),
        (y, 1, 4),
    ]
    assert [line for *_, line in lines[1]] == [7, 0, 0, 7, 0, 0]


def test_an_edge_tells_the_last_round_in_which_it_carried_something():
    n, rounds = 4, 150
    events = [graph_event(ring_matrix(n), "ring")]
    # Rank 0 and 1 talk in round 1 alone, more than 64 rounds ago; then 1 and 2 to the last but one.
    pairs = [(0, 1)] + [(1, 2)] * (rounds - 2) + [(2, 3)]

    def matrix(step):
        W = np.eye(n)
        for u, v in (pairs[step], pairs[step][::-1]):
            W[u, u], W[u, v] = 0.5, 0.5
        return W

    events += cell(matrix, np.arange(float(n))[:, None], rounds)
    view = view_traffic(fold_traffic(Traffic(), events), 200.0)
    lasts = {(u, v): last for (u, v, *_), last in zip(view["edges"], view["last"], strict=True)}
    assert lasts[0, 1] == lasts[1, 0] == 1
    assert lasts[1, 2] == lasts[2, 1] == rounds - 1
    assert lasts[2, 3] == lasts[3, 2] == rounds
    assert lasts[0, 3] == lasts[3, 0] == 0


def test_where_no_graph_is_declared_no_link_is_a_surprise():
    W = ring_matrix(4)
    state = fold_shipments(Shipments(), cell(W, np.arange(4.0)[:, None], 3))
    view = view_shipments(state, 200.0)
    assert view["words"][0] == ["no graph declared, 8 links used"]
    assert [edge[-1] for edge in view["edges"]] == [1] * 8


def test_a_wait_that_goes_on_and_a_rank_that_raised_are_marked():
    error = {"ename": "ValueError", "evalue": "", "line": 3, "peer": None}
    events = [*starts(2), WaitEvent(0, 101.5, "barrier", "", 0, (1,), 100.2)]
    state = fold_lanes(Lanes(), events)
    # The window is doubled from 60 ms until the wait fits; the cell began 1.5 s ago.
    # Until it waits a rank computes, and so does rank 1 all the time.
    assert sorted(view_lanes(state, 101.5)["open"]) == [
        [0, 0, 200_000, -1, ""],
        [0, 200_000, 1_500_000, 1, "barrier, round 0"],
        [1, 0, 1_500_000, -1, ""],
    ]
    freed = {**error, "peer": 1, "wait": list(events[-1])}
    fold_lanes(state, [CellEnd(1, 102.0, 1, "error", 0, 0, 0.0, 0, error)])
    fold_lanes(state, [CellEnd(0, 102.1, 1, "error", 0, 0, 0.0, 0, freed)])
    view = view_lanes(state, 103.0)
    assert view["marks"] == [[1, 2_000_000, "raised"]]
    assert view["open"] == [
        [0, 200_000, 2_100_000, 1, "barrier, round 0, line 3"],
        [0, 0, 200_000, -1, ""],
        [1, 0, 2_000_000, -1, ""],
    ]
    assert view["release"] == 2_100_000


# Spectrum


def test_the_declared_graph_is_shown_before_the_first_round():
    view = view_modes(fold_modes(Modes(), [graph_event(ring_matrix(4), "ring")]), 0.0)
    # A ring of 4 with weights 1/3: 1/3 + 2/3 cos(pi k / 2).
    assert [[round(re, 4), m] for re, _, m in view["points"]] == [[1, 1], [-0.3333, 1], [0.3333, 2]]
    assert view["gap"] == "0.667"
    assert view["messages"] == 8


def test_a_schedule_is_shown_as_the_product_over_its_period():
    events = cell(lambda k: one_peer_matrix(8, k), np.arange(8.0)[:, None], 12)
    view = view_modes(fold_modes(Modes(), events), 0.0)
    assert view["period"] == 3
    assert view["head"] == "finite time: exact after 3 rounds"
    assert view["points"] == [[1, 0, 1], [0, 0, 7]]


def test_links_that_never_repeat_have_no_spectrum():
    generator = np.random.default_rng(0)

    def matrix(_):
        W = generator.random((4, 4))
        return W / W.sum(axis=1, keepdims=True)

    view = view_modes(fold_modes(Modes(), cell(matrix, np.ones((4, 1)), 80)), 0.0)
    assert view["empty"]
    assert view["why"][0] == "No period found"


def test_above_512_ranks_the_second_eigenvalue_is_iterated():
    n = 600
    W = np.eye(n) / 2 + np.roll(np.eye(n), 1, axis=0) / 4 + np.roll(np.eye(n), 97, axis=0) / 4
    angles = 2 * np.pi * np.arange(1, n) / n
    exact = np.abs(0.5 + 0.25 * np.exp(-1j * angles) + 0.25 * np.exp(-97j * angles)).max()
    view = view_modes(fold_modes(Modes(), [graph_event(W, "custom")]), 0.0)
    assert view["points"] == []
    assert view["rate"] == pytest.approx(exact, abs=2e-3)
