"""What watching costs: a loop of 1 MB averages with events on, against the same loop with none.

Both loops run on the same ranks, in turn, in short blocks, so that a machine whose speed drifts
treats them alike; the ratio is taken pair by pair. A block is long against the time between two
batches of events, so that each kind pays for its own.
"""

from __future__ import annotations

import math
import statistics
from typing import NamedTuple

from ifog.cluster import Cluster

__all__ = ["TelemetryReport", "run"]

_BYTES = 1_000_000
_CELL = "from ifog.bench.rounds import alternate; _seconds = alternate({numel}, {rounds}, {pairs})"


class TelemetryReport(NamedTuple):
    """The result: microseconds a round without and with events, and the ratio with/without.

    ``ratio`` is the geometric mean over the pairs (an arithmetic mean of noisy ratios lies above 1
    even where nothing differs), ``uncertainty`` its standard error: a bound is shown or broken only
    where it lies outside ``ratio`` plus or minus twice that.
    """

    ranks: int
    bytes: int
    pairs: int
    silent_us: float
    watched_us: float
    ratio: float
    uncertainty: float

    def lines(self) -> list[str]:
        """The result in words."""
        return [
            f"{self.ranks} ranks, ring, named tensor of {self.bytes / 1e6:.3g} MB, "
            f"{self.pairs} pairs of blocks in turn",
            f"a round without events {self.silent_us:.0f} us, with events {self.watched_us:.0f} us",
            f"ratio {self.ratio:.3f} +- {self.uncertainty:.3f} (geometric mean of the pairs and "
            "its standard error; the aim is at most 1.02)",
        ]


def run(ranks: int, *, rounds: int = 600, pairs: int = 40) -> TelemetryReport:
    """Measure on a cluster of ``ranks`` real ranks, the dashboard closed."""
    with Cluster(ranks) as cluster:
        cell = _CELL.format(numel=_BYTES // 8, rounds=rounds, pairs=pairs)
        cluster.run(cell).raise_for_error()
        by_rank = cluster.pull("_seconds").values()
    # A block has ended when its slowest rank has.
    slowest = [tuple(max(times) for times in zip(*pair, strict=True)) for pair in zip(*by_rank)]  # noqa: B905
    silent, watched = zip(*slowest, strict=True)
    logs = [math.log(b / a) for a, b in slowest]
    ratio = math.exp(statistics.mean(logs))
    return TelemetryReport(
        ranks,
        _BYTES,
        pairs,
        statistics.median(silent) / rounds * 1e6,
        statistics.median(watched) / rounds * 1e6,
        ratio,
        ratio * statistics.stdev(logs) / len(logs) ** 0.5,
    )
