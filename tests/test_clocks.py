"""Offsets of clocks are found from delays, as exactly as the delays allow."""

from __future__ import annotations

import math
import random

import pytest

from ifog.clocks import offsets


def connected(n, generator):
    """The edges of a random strongly connected graph: a ring and some more."""
    edges = {(u, (u + 1) % n) for u in range(n)}
    return edges | {
        (u, v) for u in range(n) for v in range(n) if u != v and generator.random() < 0.2
    }


@pytest.mark.parametrize("seed", range(8))
def test_offsets_are_found_within_their_uncertainty_and_leave_no_message_back_in_time(seed):
    generator = random.Random(seed)
    n = generator.randint(2, 9)
    true = [0.0, *(generator.uniform(-5, 5) for _ in range(n - 1))]
    slowest = 80e-6
    delays = {
        (u, v): generator.uniform(5e-6, slowest) + true[v] - true[u]
        for u, v in connected(n, generator)
    }
    found, contradictory = offsets(range(n), delays, 0)
    assert not contradictory
    assert found[0] == (0.0, 0.0)
    for rank in range(n):
        assert abs(found[rank].seconds - true[rank]) <= found[rank].uncertainty + 1e-9
        # A message there and back, along a path of at most n - 1 edges each.
        assert found[rank].uncertainty <= (n - 1) * slowest
    for (u, v), delay in delays.items():
        assert delay - found[v].seconds + found[u].seconds >= -1e-8


def test_equal_delays_both_ways_give_the_exact_offset():
    found, _ = offsets([0, 1], {(0, 1): 3.7 + 1e-4, (1, 0): 1e-4 - 3.7}, 0)
    assert found[1].seconds == pytest.approx(3.7, abs=1e-9)
    assert found[1].uncertainty == pytest.approx(1e-4, abs=1e-9)


def test_messages_one_way_correct_only_what_cannot_be():
    found, contradictory = offsets([0, 1, 2, 3], {(0, 1): 0.5, (0, 2): -0.5}, 0)
    assert not contradictory
    assert [found[rank].seconds for rank in range(4)] == [0.0, 0.0, -0.5, 0.0]
    assert all(math.isinf(found[rank].uncertainty) for rank in (1, 2, 3))


def test_delays_that_contradict_each_other_are_told_and_the_least_is_added():
    found, contradictory = offsets([0, 1], {(0, 1): 1.0 - 1e-3, (1, 0): -1.0 - 1e-3}, 0)
    assert contradictory
    assert found[1].seconds == pytest.approx(1.0, abs=1e-9)
    assert found[1].uncertainty <= 1.1e-3
