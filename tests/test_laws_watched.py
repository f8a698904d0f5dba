"""The lamps of the watch view: which laws hold, and where one broke."""

from __future__ import annotations

import math

import numpy as np
from runs import cell, ring_matrix, star_matrix, tracking

from ifog.invariants import Invariants, fold_invariants, view_invariants
from ifog.telemetry import CellEnd, CellStart, LawEvent

EPS = 2.0**-52


def starts(n, t=100.0, seq=1):
    return [CellStart(rank, t, seq, n, tuple(range(n))) for rank in range(n)]


def lamps(events):
    view = view_invariants(fold_invariants(Invariants(), events), 0.0)
    return {row["name"]: (row["lamp"], row["line"]) for row in view["rows"]}, view


def test_all_laws_hold_in_a_healthy_run():
    rows, view = lamps(tracking(8, 40))
    assert {lamp for lamp, _ in rows.values()} == {"ok"}
    assert view["key"] == "4 of 4"


def test_tracking_that_broke_names_the_round_and_the_rank_and_stays_broken():
    rows, view = lamps(tracking(8, 60, wrong=(37, 2)))
    assert rows["tracking 1ᵀy = 1ᵀg"] == ("broken", "broke at round 37 on rank 2")
    assert view["key"] == "1 broken"
    assert view["rows"][0]["lamp"] == "broken"


def test_a_matrix_that_is_not_column_stochastic_moves_the_mean():
    # Column 0 of a star of 4 sums to 1/4 + 3/2.
    rows, _ = lamps(cell(star_matrix(4), np.arange(4.0)[:, None], 5))
    assert rows["columns of W sum to 1"] == ("broken", "broke at round 0, column 0: 1.75")
    assert rows["mean of x is kept"][0] == "broken"
    assert rows["rows of W sum to 1"][0] == "ok"


def test_a_row_that_does_not_sum_to_1_names_its_rank():
    W = ring_matrix(4)
    W[2, 1] += 0.1
    rows, _ = lamps(cell(W, np.ones((4, 1)), 3))
    assert rows["rows of W sum to 1"] == ("broken", "broke at round 0 on rank 2: 1.10")


def test_push_sum_needs_no_rows_that_sum_to_1_if_its_mass_is_checked():
    W, p = star_matrix(4).T, np.ones((4, 1))
    events = list(cell(W, p.copy(), 3))
    last = events.index(next(e for e in events if isinstance(e, CellEnd)))
    for k in range(3):
        parts = [
            LawEvent(r, 100, "push-sum mass", -1, k, EPS, (p[r, 0],), (1.0,)) for r in range(4)
        ]
        events[last:last] = parts
        p = W @ p
    rows, _ = lamps(events)
    assert rows["push-sum mass"][0] == "ok"
    assert rows["rows of W sum to 1"][0] == "void"


def test_the_mean_may_move_where_every_rank_takes_steps():
    rows, _ = lamps(tracking(4, 20))
    assert "mean of x is kept" not in rows
    events = list(cell(ring_matrix(4), np.arange(4.0)[:, None], 6))
    moved = [
        e._replace(sample=(e.sample[0] + e.step,)) if hasattr(e, "sample") else e for e in events
    ]
    rows, _ = lamps(moved)
    assert rows["mean of x is kept"] == ("void", "steps between the rounds move it")


def test_one_rank_that_changes_a_mixed_tensor_is_named():
    events = list(cell(ring_matrix(8), np.arange(8.0)[:, None], 6))
    moved = [
        e._replace(sample=(e.sample[0] + 1,))
        if hasattr(e, "sample") and e.rank == 5 and e.step == 4
        else e
        for e in events
    ]
    rows, _ = lamps(moved)
    assert rows["mean of x is kept"] == ("broken", "broke at round 4 on rank 5")


def test_a_nan_names_round_rank_and_tensor():
    events = list(cell(ring_matrix(4), np.arange(4.0)[:, None], 6))
    moved = [
        e._replace(norm=math.nan) if hasattr(e, "norm") and e.rank == 1 and e.step == 3 else e
        for e in events
    ]
    rows, _ = lamps(moved)
    assert rows["no NaN or infinity"] == ("broken", "broke at round 3 on rank 1: x")


def test_a_copy_that_differs_from_its_owners_names_who_holds_it():
    def copies(step, *entries):
        return [
            LawEvent(rank, 100.0, "equal copies", 1, step, EPS, (entry,), ())
            for rank, entry in enumerate(entries)
        ]

    good, bad = copies(1, 0.5, 0.5, 0.5), copies(2, 0.25, 0.25, 0.5)
    rows, _ = lamps([*starts(3), *good])
    assert rows["equal copies"] == ("ok", "all ranks hold the same")
    rows, _ = lamps([*starts(3), *good, *bad])  # rank 1 owns it and agrees with rank 0
    assert rows["equal copies"][1] == "broke at round 2 on rank 2, of what rank 1 has"


def test_lamps_are_lit_anew_by_the_next_cell():
    state = fold_invariants(Invariants(), tracking(8, 60, wrong=(37, 2)))
    fold_invariants(state, tracking(8, 20, seq=2, t=300.0))
    assert view_invariants(state, 0.0)["broken"] == 0
