"""How far apart the clocks of ranks are, from the messages they exchanged.

No message arrives before it was sent. With a_r the seconds by which rank r's clock is ahead and
d_uv the least that any message seemed to take from u to v, each by its own clock, that says::

    a_v - a_u <= d_uv

so a_v lies between minus the shortest path from v to the reference and the shortest path from the
reference to v. The midpoints of these intervals satisfy all the inequalities again, as each of the
two ends does: after the correction every message goes forward in time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import NamedTuple

__all__ = ["Offset", "offsets"]

_LEAST_SLACK = 1e-6  # seconds

Delays = Mapping[tuple[int, int], float]


class Offset(NamedTuple):
    """By how many ``seconds`` a clock is ahead of the reference's, give or take ``uncertainty``.

    ``uncertainty`` is infinite where messages bound the offset from one side at most.
    """

    seconds: float
    uncertainty: float


def offsets(ranks: Iterable[int], delays: Delays, reference: int) -> tuple[dict[int, Offset], bool]:
    """The offset of each rank's clock.

    A clock that is bounded from one side only is taken to be right if that is possible. Delays that
    contradict each other, because a clock drifted or stepped, are all lengthened by the least power
    of two times 1 us with which they do not; the uncertainty grows with them.

    Args:
        ranks: all ranks.
        delays: {(u, v): d_uv} in seconds.
        reference: the rank whose offset is 0.

    Returns:
        {rank: offset}, and whether the delays contradicted each other.
    """
    slack, known = 0.0, list(ranks)
    while True:
        longer = {pair: delay + slack for pair, delay in delays.items()}
        upper = _shortest(longer, reference, len(known))
        lower = _shortest({(v, u): d for (u, v), d in longer.items()}, reference, len(known))
        if upper is not None and lower is not None:
            break
        slack = max(_LEAST_SLACK, 2 * slack)
    found = {
        rank: _between(-lower.get(rank, math.inf), upper.get(rank, math.inf)) for rank in known
    }
    return found, slack > 0.0


def _between(low: float, high: float) -> Offset:
    if math.isfinite(low) and math.isfinite(high):
        return Offset((low + high) / 2, (high - low) / 2)
    return Offset(min(max(0.0, low), high), math.inf)


def _shortest(lengths: Delays, source: int, nodes: int) -> dict[int, float] | None:
    """Distances from ``source`` (Bellman-Ford), or None if a cycle has a negative length."""
    distance = {source: 0.0}
    for _ in range(nodes + 1):
        changed = False
        for (u, v), length in lengths.items():
            through = distance.get(u, math.inf) + length
            # Differences below a nanosecond are the rounding of sums, not shorter paths.
            if through < distance.get(v, math.inf) - 1e-9:
                distance[v] = through
                changed = True
        if not changed:
            return distance
    return None
