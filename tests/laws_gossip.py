"""Averages of two: a pair is matched by itself, whatever the other ranks do."""

from __future__ import annotations

import torch
from spmd import near, raises, stack

import ifog
from ifog import errors


def partner():
    """The other of 0-1, 2-3, ...; None for the last rank of an odd number."""
    other = ifog.rank() ^ 1
    return other if other < ifog.size() else None


def law_gossip_averages_the_two():
    r, other = ifog.rank(), partner()
    if other is None:
        return
    x = stack((4, 3))
    assert near(ifog.pair_gossip(x[r], other), (x[r] + x[other]) / 2)
    got = ifog.pair_gossip(x[r], other, 0.25, 2.0, "named")
    assert near(got, 0.25 * x[r] + 2.0 * x[other])
    got = ifog.pair_gossip_nonblocking(x[r].T, other, self_weight=1, pair_weight=0).wait()
    assert torch.equal(got, x[r].T)


def law_gossip_of_equal_tiny_doubles_is_exact_and_keeps_every_dtype():
    r, other = ifog.rank(), partner()
    if other is None:
        return
    x = torch.full((3,), 2.0**-256, dtype=torch.float64)
    assert torch.equal(ifog.pair_gossip(x, other), x)
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        got = ifog.pair_gossip(torch.tensor([float(r), 1.0]).to(dtype), other)
        assert got.dtype is dtype
        assert got.tolist() == [(r + other) / 2, 1.0]


def law_pairs_gossip_as_often_as_they_like():
    r, n = ifog.rank(), ifog.size()
    values = [float(i) for i in range(n)]
    x = torch.tensor([values[r]])
    # A chain, walked down twice and its first half again: ranks take part unequally often.
    for low in [*range(n - 1), *range(n - 1), *range((n - 1) // 2)]:
        pair = (low, low + 1)
        values[low] = values[low + 1] = sum(values[i] for i in pair) / 2
        if r in pair:
            x = ifog.pair_gossip(x, sum(pair) - r)
    assert x.item() == values[r]
    assert ifog.allreduce(torch.ones(1)).item() == 1.0


def law_a_rank_may_gossip_with_several_at_once():
    r, n = ifog.rank(), ifog.size()
    x = stack((20_000,))
    others = [j for j in range(n) if j != r]
    handles = {j: ifog.pair_gossip_nonblocking(x[r], j, name="all") for j in others}
    for j in reversed(others):
        assert near(handles[j].wait(), (x[r] + x[j]) / 2)


def law_gossip_with_different_shapes_is_refused_by_both():
    r, other = ifog.rank(), partner()
    if other is None:
        return
    x = torch.ones(3 + r)
    raises(errors.MismatchError, lambda: ifog.pair_gossip(x, other, name="g"), f"rank {other}")
    assert ifog.pair_gossip(torch.ones(1), other, name="g").item() == 1.0


def law_gossip_refuses_what_is_no_partner():
    r, n, x = ifog.rank(), ifog.size(), torch.ones(2)
    bad = errors.ArgumentError
    raises(bad, lambda: ifog.pair_gossip(x, r), f"rank {r}")
    raises(bad, lambda: ifog.pair_gossip(x, n), f"rank {n}")
    other = (r + 1) % n
    if n > 1:
        raises(bad, lambda: ifog.pair_gossip(x, other, 0.5), "pair_weight", "together")
        raises(bad, lambda: ifog.pair_gossip(x, other, pair_weight=0.5), "self_weight")
        raises(bad, lambda: ifog.pair_gossip(x.long(), other), "float")


def law_partners_in_a_ring_are_refused_where_all_compare():
    r, n, x = ifog.rank(), ifog.size(), torch.ones(2)
    if n == 1:
        return
    if n > 2:
        raises(
            errors.TopologyMismatchError,
            lambda: ifog.pair_gossip(x, (r + 1) % n, name="g", enable_topo_check=True),
            "rank 0 sends to rank 1",
        )
    if n % 2 == 0:
        got = ifog.pair_gossip(x * r, partner(), name="g", enable_topo_check=True)
        assert got.tolist() == [(r + partner()) / 2] * 2
