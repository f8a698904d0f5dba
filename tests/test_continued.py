"""Runs that go over several cells: one curve, one count of rounds, the newest cell's factor."""

from __future__ import annotations

import math

import numpy as np
import pytest
from runs import cell, one_peer_matrix, ring_matrix

from ifog.consensus import Consensus, fold_consensus, view_consensus


def numbered(n):
    return np.arange(float(n))[:, None]


def test_a_cell_that_begins_where_the_last_ended_goes_on():
    x = numbered(8)
    first = list(cell(ring_matrix(8), x, 10, seq=1, t=100.0))
    second = list(cell(ring_matrix(8), x, 10, seq=2, t=200.0))
    state = fold_consensus(Consensus(), first + second)
    assert state.curves["x"].rounds == list(range(21))
    assert state.predictions["x"].done == 20


def test_a_cell_with_other_values_starts_a_new_run():
    first = list(cell(ring_matrix(8), numbered(8), 10, seq=1, t=100.0))
    second = list(cell(lambda k: one_peer_matrix(8, k), numbered(8), 5, seq=2, t=200.0))
    state = fold_consensus(Consensus(), first + second)
    assert state.curves["x"].rounds == list(range(6))
    assert state.predictions["x"].exact_after == 3


def test_a_run_that_goes_on_says_where_its_newest_cell_begins():
    x = numbered(8)
    first = list(cell(ring_matrix(8), x, 10, seq=3, t=100.0))
    second = list(cell(ring_matrix(8), x, 20, seq=5, t=200.0))
    state = fold_consensus(Consensus(), first)
    assert view_consensus(state, 0.0)["begun"] is None
    view = view_consensus(fold_consensus(state, second), 0.0)
    assert view["begun"] == [10, "cell 5"]
    assert view["round"] == 30
    assert "after 30 rounds (20 in cell 5)" in view["say"]


def test_the_measured_factor_is_that_of_the_newest_cell():
    x = numbered(8)
    quick = np.full((8, 8), 0.5 / 8) + np.eye(8) / 2  # halves the error in every round
    first = list(cell(quick, x, 12, seq=1, t=100.0))
    second = list(cell(ring_matrix(8), x, 4, seq=2, t=200.0))
    view = view_consensus(fold_consensus(Consensus(), first + second), 0.0)
    W, errors = ring_matrix(8), []
    y = np.linalg.matrix_power(quick, 12) @ numbered(8)
    for _ in range(5):
        errors.append(np.linalg.norm(y - y.mean()))
        y = W @ y
    expected = (errors[4] / errors[0]) ** (1 / 4)
    assert not math.isclose(expected, 0.5, rel_tol=0.1)
    measured = float(view["say"].split("factor ")[1].split(",")[0])
    assert measured == pytest.approx(expected, abs=1e-3)
