"""Who waits for whom, as a graph: how far from the cause each rank is, and the shortest cycle."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import pairwise

__all__ = ["Needs", "columns", "cycle", "steps"]

Needs = Mapping[int, Collection[int]]  # rank -> the ranks it waits for


def columns(causes: Iterable[int], needs: Needs) -> list[list[int]]:
    """The causes, the ranks that wait for one of them, those that wait for these, and so on.

    A column is in the order of what its ranks wait for in the column before, so that arrows
    between neighbouring columns cross as little as they must.

    Args:
        causes: where waits end.
        needs: the ranks that each waiting rank waits for.
    """
    found = [sorted(set(causes))]
    placed = set(found[0])
    while True:
        row = {rank: index for index, rank in enumerate(found[-1])}
        reached = {
            rank: [row[peer] for peer in peers if peer in row]
            for rank, peers in needs.items()
            if rank not in placed and any(peer in row for peer in peers)
        }
        if not reached:
            return found
        found.append(sorted(reached, key=lambda r: (sum(reached[r]) / len(reached[r]), r)))
        placed |= reached.keys()


def steps(layers: list[list[int]], needs: Needs) -> list[tuple[int, int]]:
    """The waits from each column to the one before it, as (who waits, for whom)."""
    return [
        (rank, peer)
        for near, far in pairwise(layers)
        for rank in far
        for peer in near
        if peer in needs.get(rank, ())
    ]


def cycle(needs: Needs) -> tuple[int, ...]:
    """The shortest way from a rank over the ranks waited for back to it, or ().

    Of equally short ones the one with the smallest rank, with which it begins.
    """
    found: tuple[int, ...] = ()
    for start in sorted(needs):
        way = _way_back(start, needs, len(found))
        if way:
            found = way
    return found


def _way_back(start: int, needs: Needs, shorter_than: int) -> tuple[int, ...]:
    ways: list[tuple[int, ...]] = [(start,)]
    seen = {start}
    while ways and not 0 < shorter_than <= len(ways[0]):
        longer = []
        for way in ways:
            for peer in sorted(needs.get(way[-1], ())):
                if peer == start:
                    return way
                if peer in needs and peer not in seen:
                    seen.add(peer)
                    longer.append((*way, peer))
        ways = longer
    return ()
