"""Schedules drawn at random shrink the error in the mean as their theory says."""

from __future__ import annotations

import numpy as np
import pytest

from ifog import schedules, weights
from ifog.errors import ArgumentError
from ifog.random_schedules import _distinct_rows, _pairing

MAKERS = {
    "directed": lambda n, seed: schedules.equi_dynamic(n, seed=seed),
    "undirected": lambda n, seed: schedules.equi_dynamic(n, directed=False, seed=seed),
    "epidemic": lambda n, seed: schedules.epidemic(n, seed=seed),
    "random pair": lambda n, seed: schedules.random_pair(n, seed=seed),
}


def second_moment(schedule, n, draws):
    """||E W^T W - J|| over draws, on vectors whose mean is 0."""
    square = sum(W.T @ W for W in (weights.matrix(schedule.links(k)) for k in range(draws))) / draws
    off = np.eye(n) - 1 / n
    return np.linalg.norm(off @ square @ off, 2)


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
@pytest.mark.parametrize("n", [1, 2, 3, 8, 17])
def test_rounds_depend_on_seed_and_step_alone(make, n):
    rounds = [weights.matrix(make(n, 5)(step)) for step in range(30)]
    assert all(np.array_equal(W, weights.matrix(make(n, 5).links(k))) for k, W in enumerate(rounds))
    if n > 3:
        assert any(
            not np.array_equal(W, weights.matrix(make(n, 6)(k))) for k, W in enumerate(rounds)
        )
    for W in rounds:
        assert (W >= 0).all()
        assert np.allclose(W.sum(axis=1), 1, atol=1e-15)


@pytest.mark.parametrize("n", [2, 3, 8, 17, 64])
def test_directed_equi_dynamic_contracts_exactly_in_the_mean_over_its_distances(n):
    moments = []
    for u in range(1, n):
        W = np.eye(n) / 2 + np.roll(np.eye(n), u, axis=0) / 2
        moments.append(W.T @ W)
    expected = np.linalg.norm(np.mean(moments, axis=0) - 1 / n, 2)
    assert expected == pytest.approx((n - 2) / (2 * (n - 1)), abs=1e-12)
    drawn = {
        tuple(np.flatnonzero(weights.matrix(schedules.equi_dynamic(n).links(k))[0]))
        for k in range(60 * n)
    }
    assert drawn == {(0, k) for k in range(1, n)}  # every distance comes


@pytest.mark.parametrize("n", [8, 16])
def test_drawn_schedules_contract_as_expected(n):
    expected = (n - 2) / (2 * (n - 1))
    for make in (schedules.equi_dynamic(n, seed=1), schedules.random_pair(n, seed=1)):
        assert second_moment(make, n, 4000) == pytest.approx(expected, abs=0.02)
        assert schedules.spectral_rate(make, draws=4000) ** 2 == pytest.approx(expected, abs=0.02)


def scan(n, u):
    """Pairs as the paper's loop finds them."""
    free, first = [True] * n, []
    for i in range(n):
        j = (i + u) % n
        if free[i] and free[j]:
            first.append(i)
            free[i] = free[j] = False
    return first


def test_pairing_in_runs_is_the_loop_over_ranks():
    for n in range(2, 40):
        for u in range(1, n):
            assert _pairing(n, u).tolist() == scan(n, u)


@pytest.mark.parametrize(("n", "share"), [(8, 0.93), (17, 0.88), (64, 0.89)])
def test_undirected_equi_dynamic_pairs_most_ranks(n, share):
    matched = [2 * len(scan(n, u)) / n for u in range(1, n)]
    assert np.mean(matched) == pytest.approx(share, abs=0.006)
    moments = []
    for u in range(1, n):
        first = np.array(scan(n, u))
        for start in range(n):
            one, other, W = (first + start) % n, (first + start + u) % n, np.eye(n)
            W[one, one] = W[other, other] = W[one, other] = W[other, one] = 0.5
            moments.append(W.T @ W)
    expected = np.linalg.norm(np.mean(moments, axis=0) - 1 / n, 2)
    schedule = schedules.equi_dynamic(n, directed=False, seed=3)
    assert second_moment(schedule, n, 3000) == pytest.approx(expected, abs=0.04)
    for step in range(20):
        W = weights.matrix(schedule.links(step))
        assert np.array_equal(W, W.T)
        assert weights.is_doubly_stochastic(W)


@pytest.mark.parametrize(
    ("n", "fan_out", "expected"), [(16, 1, 0.6018), (16, 4, 0.1816), (64, 6, 0.1505)]
)
def test_epidemic_rounds_shrink_the_error_about_the_old_mean(n, fan_out, expected):
    closed = (1 - (1 - fan_out / (n - 1)) ** n) / fan_out - 1 / (n - 1)
    assert closed == pytest.approx(expected, abs=5e-5)
    schedule, x = schedules.epidemic(n, fan_out=fan_out, seed=2), np.arange(n) - (n - 1) / 2
    ratios = []
    for step in range(4000):
        made = schedule.links(step)
        assert np.bincount(made.without_loops()[0], minlength=n).tolist() == [fan_out] * n
        y = np.bincount(made.target, made.weight * x[made.source], n)
        ratios.append((y @ y) / (x @ x))
    assert np.mean(ratios) == pytest.approx(expected, abs=4 * np.std(ratios) / np.sqrt(4000))


def test_epidemic_is_doubly_stochastic_in_the_mean_only():
    schedule = schedules.epidemic(8, fan_out=2, seed=0)
    rounds = [weights.matrix(schedule.links(step)) for step in range(3000)]
    assert not any(weights.is_doubly_stochastic(W) for W in rounds[:10])
    assert np.allclose(np.mean(rounds, axis=0).sum(axis=0), 1, atol=0.03)


@pytest.mark.parametrize(("count", "below"), [(1, 5), (2, 9), (5, 9), (9, 9), (3, 40)])
def test_rows_hold_different_numbers_each_as_often(count, below):
    rows = _distinct_rows(4000, count, below, np.random.default_rng(0))
    assert all(len(set(row)) == count for row in rows.tolist())
    often = np.bincount(rows.ravel(), minlength=below) / 4000
    assert np.allclose(often, count / below, atol=0.04)


def test_random_pairs_leave_one_out_where_ranks_are_odd():
    out = set()
    for step in range(60):
        W = weights.matrix(schedules.random_pair(5).links(step))
        alone = np.flatnonzero(np.diag(W) == 1)
        assert len(alone) == 1
        out |= set(alone.tolist())
    assert out == set(range(5))


@pytest.mark.parametrize("m", range(6))
def test_hypercube_matching_is_exact_in_any_order(m):
    n = 2**m
    schedule = schedules.hypercube_matching(n)
    rounds = [weights.matrix(schedule(step)) for step in range(schedule.period)]
    for W in rounds:
        assert np.array_equal(W, W.T)
        assert n == 1 or set(np.unique(W)) <= {0, 0.5}
    for order in (rounds, rounds[::-1]):
        product = np.eye(n)
        for W in order:
            product = W @ product
        assert np.array_equal(product, np.full((n, n), 1 / n))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: schedules.equi_dynamic(4, eta=1.0), "eta is 1.0"),
        (lambda: schedules.epidemic(4, fan_out=4), "only 3 others"),
        (lambda: schedules.epidemic(4, fan_out=0), "fan_out is 0"),
        (lambda: schedules.hypercube_matching(6), r"2\^m ranks, for example 4 or 8"),
    ],
)
def test_schedules_that_cannot_be_are_refused(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()
