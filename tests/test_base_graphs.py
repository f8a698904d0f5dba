"""Base-(k+1) graphs reach the exact mean, in the number of rounds of the paper, for every n."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ifog import schedules, weights
from ifog.errors import ArgumentError

LENGTHS = {  # (k, n): simple base, base
    (1, 3): (3, 3),
    (1, 5): (5, 5),
    (1, 6): (5, 4),
    (1, 7): (5, 5),
    (1, 12): (7, 5),
    (1, 25): (9, 9),
    (1, 33): (11, 11),
    (1, 100): (13, 11),
    (2, 5): (3, 3),
    (2, 10): (5, 4),
    (2, 25): (6, 6),
    (2, 100): (9, 8),
    (3, 25): (5, 5),
    (3, 100): (7, 6),
    (4, 25): (2, 2),
    (4, 100): (3, 3),
}


@pytest.mark.parametrize(("k", "n"), LENGTHS)
def test_lengths_are_those_of_the_published_code(k, n):
    found = [schedules.base_graph(n, degree=k, simple=simple).period for simple in (True, False)]
    assert tuple(found) == LENGTHS[k, n]


@pytest.mark.parametrize("m", range(1, 8))
def test_powers_of_two_take_as_many_rounds_as_they_have_digits(m):
    assert schedules.base_graph(2**m).period == m


def test_six_ranks_with_two_neighbours_take_two_rounds():
    assert schedules.base_graph(6, degree=2).period == 2


@pytest.mark.parametrize("simple", [True, False])
@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_a_period_is_the_exact_mean_and_every_round_keeps_it(k, simple):
    for n in (*range(1, 49), 65, 100, 128):
        schedule, product = schedules.base_graph(n, degree=k, simple=simple), np.eye(n)
        for step in range(schedule.period):
            W = weights.matrix(schedule.links(step))
            assert weights.is_doubly_stochastic(W)
            assert np.array_equal(W, W.T)
            assert np.count_nonzero(W - np.diag(np.diag(W)), axis=1).max() <= k
            product = W @ product
        assert np.abs(product - 1 / n).max() < 1e-15
        assert schedule.period <= max(1, 2 * math.log(n, k + 1) + 2)


def test_few_ranks_average_at_once():
    schedule = schedules.base_graph(4, degree=5)
    assert schedule.period == 1
    assert np.allclose(weights.matrix(schedule(0)), 0.25, atol=1e-15)


@pytest.mark.parametrize("degree", [0, -1, 1.5, True])
def test_no_neighbour_is_too_few(degree):
    with pytest.raises(ArgumentError, match="degree is"):
        schedules.base_graph(4, degree=degree)
