"""Schedules that know of machines: the published lists and formulas, periods, and means."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from ifog import schedules, weights
from ifog.errors import ArgumentError


def lists(schedule, rank, steps):
    """The (send, receive) lists of ``rank``, step by step."""
    return list(itertools.islice(schedules.send_recv(schedule, rank), steps))


MACHINE_LISTS = {
    (8, 2, 0): [([1], [3]), ([2], [2]), ([1], [3])],
    (8, 2, 1): [([2], [0]), ([3], [3]), ([2], [0])],
    (6, 2, 0): [([1], [2]), ([2], [1]), ([1], [2])],
    (6, 2, 1): [([2], [0]), ([0], [2]), ([2], [0])],
    (4, 2, 0): [([1], [1]), ([1], [1]), ([1], [1])],
    (16, 2, 0): [([1], [7]), ([2], [6]), ([4], [4]), ([1], [7])],
}
RING_LISTS = {
    (6, 3, 0): [([3], [3]), ([2], [2]), ([1], [1]), ([3], [3])],
    (6, 3, 1): [([2], [2]), ([4], [4]), ([0], [0]), ([2], [2])],
    (6, 3, 2): [([1], [1]), ([0], [0]), ([5], [5]), ([1], [1])],
    (8, 4, 0): [([4], [4]), ([2], [3]), ([1], [3]), ([1], [2]), ([4], [4])],
    (8, 4, 1): [([2], [3]), ([5], [5]), ([3], [0]), ([2], [0]), ([2], [3])],
    (8, 4, 2): [([3], [1]), ([3], [0]), ([6], [6]), ([0], [1]), ([3], [1])],
    (8, 4, 3): [([1], [2]), ([0], [2]), ([0], [1]), ([7], [7]), ([1], [2])],
    (12, 3, 0): [([3], [9]), ([2], [2]), ([1], [1]), ([3], [9])],
}
EXPONENTIAL_LISTS = {
    (8, 4, 0): [([4], [4]), ([3], [2]), ([1], [3]), ([2], [1]), ([4], [4])],
    (8, 4, 1): [([2], [3]), ([5], [5]), ([3], [0]), ([0], [2]), ([2], [3])],
    (8, 4, 2): [([3], [1]), ([0], [3]), ([6], [6]), ([1], [0])],
    (8, 4, 3): [([1], [2]), ([2], [0]), ([0], [1]), ([7], [7])],
    (12, 4, 0): [([4], [8]), ([3], [2]), ([1], [3]), ([2], [1])],
    (12, 4, 1): [([2], [3]), ([9], [5]), ([3], [0]), ([0], [2])],
    (6, 3, 0): [([3], [3]), ([2], [2]), ([1], [1]), ([3], [3])],
    (20, 5, 0): [
        ([5], [15]),
        ([3], [3]),
        ([1], [4]),
        ([2], [2]),
        ([1], [3]),
        ([10], [10]),
        ([2], [4]),
        ([3], [3]),
    ],
}
MACHINES = [
    (schedules.exponential_machines, MACHINE_LISTS),
    (schedules.inner_outer_ring, RING_LISTS),
    (schedules.inner_outer_exponential, EXPONENTIAL_LISTS),
]
INNER_OUTER = [schedules.inner_outer_ring, schedules.inner_outer_exponential]
LAYOUTS = [
    *[(6, 3), (8, 4), (12, 4), (20, 5), (12, 3)],
    *[(16, 8), (24, 6), (64, 8), (21, 7), (18, 6)],
]


@pytest.mark.parametrize(
    ("make", "size", "local_size", "rank", "expected"),
    [(make, *case, expected) for make, table in MACHINES for case, expected in table.items()],
)
def test_schedules_of_machines_follow_the_lists_of_the_reference(
    make, size, local_size, rank, expected
):
    assert lists(make(size, local_size), rank, len(expected)) == expected


def formula(make, size, local_size, step):
    """{(u, v)} of a step, as the reference writes it."""
    c, machines, g = local_size, size // local_size, step % local_size
    most = int(np.log2(machines - 1))
    if make is schedules.exponential_machines:
        return {(m, (m + 2 ** (step % (most + 1))) % machines) for m in range(machines)}
    ring = make is schedules.inner_outer_ring
    outer = 1 if ring else 2 ** (step % (most + 1))
    inner = 1 if ring else 2 ** (step % (int(np.log2(c - 2)) + 1))
    edges = set()
    for rank in range(size):
        m, index = divmod(rank, c)
        ahead = (g - index) % c
        if ahead == 0:
            edges.add((rank, (m + outer) % machines * c + index))
        else:
            distance = inner + 1 if inner >= ahead else inner
            edges.add((rank, m * c + (index + distance) % c))
    return edges


@pytest.mark.parametrize(("size", "local_size"), LAYOUTS)
@pytest.mark.parametrize("make", [*INNER_OUTER, schedules.exponential_machines])
def test_schedules_of_machines_follow_the_formula_of_the_reference(make, size, local_size):
    schedule = make(size, local_size)
    for step in range(2 * schedule.period + 1):
        graph = schedule(step)
        assert {(u, v) for u, v in graph.edges if u != v} == formula(make, size, local_size, step)


@pytest.mark.parametrize(("size", "local_size"), LAYOUTS)
@pytest.mark.parametrize("make", [*INNER_OUTER, schedules.exponential_machines])
def test_what_one_sends_another_receives(make, size, local_size):
    schedule = make(size, local_size)
    nodes = size // local_size if make is schedules.exponential_machines else size
    steps = range(schedule.period + 1)
    told = [lists(schedule, rank, len(steps)) for rank in range(nodes)]
    for step in steps:
        sent = {(u, v) for u in range(nodes) for v in told[u][step][0]}
        heard = {(u, v) for v in range(nodes) for u in told[v][step][1]}
        assert sent == heard
        assert len(sent) == nodes
        assert all(len(told[r][step][0]) == len(told[r][step][1]) == 1 for r in range(nodes))


@pytest.mark.parametrize(("size", "local_size"), LAYOUTS)
@pytest.mark.parametrize("make", INNER_OUTER)
def test_one_index_of_each_machine_goes_outside_in_turn(make, size, local_size):
    schedule = make(size, local_size)
    for step in range(2 * local_size):
        for rank in range(size):
            (to,) = lists(schedule, rank, step + 1)[step][0]
            outside = rank // local_size != to // local_size
            assert outside == (rank % local_size == step % local_size)
            assert not outside or rank % local_size == to % local_size


@pytest.mark.parametrize(
    ("make", "size", "local_size", "period"),
    [
        (schedules.inner_outer_ring, 6, 3, 3),
        (schedules.inner_outer_ring, 24, 6, 6),
        (schedules.inner_outer_exponential, 6, 3, 3),
        (schedules.inner_outer_exponential, 8, 4, 4),
        (schedules.inner_outer_exponential, 12, 4, 4),
        (schedules.inner_outer_exponential, 20, 5, 10),
        (schedules.inner_outer_exponential, 24, 6, 6),
        (schedules.inner_outer_exponential, 15, 3, 3),
        (schedules.inner_outer_exponential, 36, 6, 6),
        (schedules.inner_outer_exponential, 64, 8, 24),
        (schedules.inner_outer_exponential, 27, 3, 12),
        (schedules.exponential_machines, 6, 2, 2),
        (schedules.exponential_machines, 16, 2, 3),
        (schedules.exponential_machines, 4, 2, 1),
    ],
)
def test_the_period_is_the_true_one(make, size, local_size, period):
    schedule = make(size, local_size)
    assert schedule.period == period
    # Not the schedule's own steps, which repeat by construction, but those of the formula.
    sent = [formula(make, size, local_size, step) for step in range(2 * period)]
    repeats = [p for p in range(1, period + 1) if sent[:period] == sent[p : p + period]]
    assert repeats == [period]


@pytest.mark.parametrize(("size", "local_size"), LAYOUTS)
@pytest.mark.parametrize("make", [*INNER_OUTER, schedules.exponential_machines])
def test_schedules_of_machines_weigh_by_halves(make, size, local_size):
    schedule = make(size, local_size)
    for step in range(min(schedule.period, 8)):
        W = weights.matrix(schedule(step))
        assert set(W[W > 0]) == {0.5}
        assert weights.is_doubly_stochastic(W)
        assert schedule(step).graph["label"] == schedule.label


@pytest.mark.parametrize(("size", "local_size"), [(6, 3), (20, 5), (16, 8)])
@pytest.mark.parametrize("make", INNER_OUTER)
def test_schedules_of_machines_bring_everyone_to_the_mean(make, size, local_size):
    schedule, x = make(size, local_size), np.arange(size, dtype=float)
    for step in range(60 * schedule.period):
        x = weights.matrix(schedule(step)) @ x
    assert np.abs(x - (size - 1) / 2).max() < 1e-9


def test_machines_average_exactly_in_a_period_when_their_number_is_a_power_of_two():
    schedule = schedules.exponential_machines(32, 4)
    assert np.abs(schedules.period_matrix(schedule) - 1 / 8).max() < 1e-15


@pytest.mark.parametrize("make", INNER_OUTER)
def test_on_a_single_machine_the_rank_outside_sits_out(make):
    schedule = make(4, 4)
    for step in range(4):
        assert lists(schedule, step, step + 1)[step] == ([], [])
        W = weights.matrix(schedule(step))
        assert W[step, step] == 1
        assert weights.is_doubly_stochastic(W)


def test_an_index_may_only_ever_use_one_distance_between_machines():
    # The known limitation: 4 local indices, 4 distances.
    schedule = schedules.inner_outer_exponential(64, 4)
    outside = [to[0] // 4 for to, _ in lists(schedule, 1, 40) if to[0] // 4 != 0]
    assert set(outside) == {2}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: schedules.inner_outer_ring(6, 2), "at least 3"),
        (lambda: schedules.inner_outer_exponential(6, 2), "at least 3"),
        (lambda: schedules.inner_outer_exponential(6, 1), "at least 3"),
        (lambda: schedules.inner_outer_ring(7, 3), "multiple of local_size"),
        (lambda: schedules.inner_outer_exponential(7, 3), "multiple of local_size"),
        (lambda: schedules.exponential_machines(7, 3), "multiple of local_size"),
        (lambda: schedules.exponential_machines(4, 4), "one machine"),
        (lambda: schedules.exponential_machines(4, 0), "local_size is 0"),
        (lambda: schedules.inner_outer_ring(6.0, 3), r"size is 6\.0"),
        (lambda: schedules.send_recv(schedules.one_peer(4), 4), "rank 4"),
        (lambda: schedules.named("inner-outer ring", 6), "needs local_size"),
        (lambda: schedules.named("inner-outer star", 6, local_size=3), "inner-outer ring"),
    ],
)
def test_layouts_that_do_not_fit_are_refused(call, message):
    with pytest.raises(ArgumentError, match=message):
        call()
