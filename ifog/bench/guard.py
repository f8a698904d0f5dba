"""What the guard costs: operations with the checks that keep cells from hanging, and without.

The checks are those that all peers live and take part, that no operation of that name is under way,
and the entry in the table of what this rank waits for. An operation without messages shows their
microseconds; a small neighbour average shows what share of a real one they are. Both kinds run in
turn, in short blocks, so that a machine whose speed drifts treats them alike.
"""

from __future__ import annotations

import math
import statistics
from typing import NamedTuple

from ifog.cluster import Cluster

__all__ = ["GuardReport", "run"]

_EMPTY_ROUNDS = 2000
_ROUNDS = 200
_CELL = (
    "from ifog.bench.guard_rounds import empty, mixing\n"
    "_empty = empty({empty}, {pairs})\n_mixing = mixing({rounds}, {pairs})"
)
Pairs = list[tuple[float, float]]


class GuardReport(NamedTuple):
    """The result.

    Attributes:
        ranks: how many took part.
        pairs: of blocks, one with and one without the checks.
        cost_us: processor microseconds that the checks add to an operation, the mean over pairs
            and ranks.
        cost_error_us: its standard error.
        without_us: microseconds of a neighbour average of 1 kB without the checks; the median.
        with_us: the same with them.
        ratio: with/without of that average, the geometric mean over the pairs.
        ratio_error: its standard error.
    """

    ranks: int
    pairs: int
    cost_us: float
    cost_error_us: float
    without_us: float
    with_us: float
    ratio: float
    ratio_error: float

    def lines(self) -> list[str]:
        """The result in words."""
        return [
            f"{self.ranks} ranks, ring, {self.pairs} pairs of blocks in turn",
            f"the checks add {self.cost_us:.2f} +- {self.cost_error_us:.2f} us to an operation",
            f"a neighbour average of 1 kB takes {self.without_us:.0f} us without them, "
            f"{self.with_us:.0f} us with them",
            f"ratio {self.ratio:.3f} +- {self.ratio_error:.3f} (geometric mean of the pairs and "
            "its standard error)",
        ]


def run(ranks: int, *, pairs: int) -> GuardReport:
    """Measure on ``ranks`` fresh ranks.

    Args:
        ranks: how many; at least 2 have anybody to wait for.
        pairs: how many blocks of each kind, at least 2.
    """
    with Cluster(ranks) as cluster:
        code = _CELL.format(empty=_EMPTY_ROUNDS, rounds=_ROUNDS, pairs=pairs)
        cluster.run(code).raise_for_error()
        empty: list[Pairs] = list(cluster.pull("_empty").values())
        mixing: list[Pairs] = list(cluster.pull("_mixing").values())
    # Ranks measure the same blocks, so what counts as one sample is their mean.
    added = [statistics.mean(b - a for a, b in pair) for pair in zip(*empty, strict=True)]
    slowest = [(max(a for a, _ in p), max(b for _, b in p)) for p in zip(*mixing, strict=True)]
    logs = [math.log(b / a) for a, b in slowest]
    ratio = math.exp(statistics.mean(logs))
    return GuardReport(
        ranks,
        pairs,
        statistics.mean(added) * 1e6,
        statistics.stdev(added) / len(added) ** 0.5 * 1e6,
        statistics.median(a for a, _ in slowest) * 1e6,
        statistics.median(b for _, b in slowest) * 1e6,
        ratio,
        ratio * statistics.stdev(logs) / len(logs) ** 0.5,
    )
