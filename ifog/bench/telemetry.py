"""What watching costs: a loop of 1 MB averages with events on, against the same loop with none.

Both loops run on the same ranks, in turn, so that a machine whose speed drifts treats them alike.
Processor time decides, that of the ranks and of all processes between them and the notebook: the
wall clock of a machine that does other things too cannot show one percent.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import psutil

from ifog.cluster import Cluster

__all__ = ["Estimate", "TelemetryReport", "estimate", "run"]

_BYTES = 1_000_000
_ROUNDS = 5000
_SECONDS = 420.0
_AIM = 1.02
_CELL = (
    "from ifog.bench.rounds import alternate\n"
    "_costs = [(*a, *b) for a, b in alternate({numel}, {rounds}, {pairs}, {takers}, {seconds})]"
)


class Estimate(NamedTuple):
    """How many times more the loop with events takes: the median over pairs, its standard error."""

    ratio: float
    error: float


def estimate(pairs: Sequence[tuple[float, float]]) -> Estimate:
    """Of (without, with): the median of with/without.

    The error is that of the median of normal numbers, with a spread that outliers do not touch.
    """
    logs = [math.log(b / a) for a, b in pairs]
    middle = statistics.median(logs)
    spread = 1.4826 * statistics.median(abs(log - middle) for log in logs)
    return Estimate(
        math.exp(middle), math.exp(middle) * spread * math.sqrt(math.pi / 2 / len(logs))
    )


class TelemetryReport(NamedTuple):
    """The result.

    Attributes:
        ranks: how many took part.
        bytes: of the tensor.
        rounds: of a loop.
        pairs: of loops, one without and one with events.
        silent_us: microseconds of a round without events; the median.
        watched_us: the same with events.
        wall_ratio: of the wall seconds of the slowest rank, with events to without.
        wall_error: its standard error.
        processor_ratio: of the processor seconds of all processes together.
        processor_error: its standard error.
    """

    ranks: int
    bytes: int
    rounds: int
    pairs: int
    silent_us: float
    watched_us: float
    wall_ratio: float
    wall_error: float
    processor_ratio: float
    processor_error: float

    def lines(self) -> list[str]:
        """The result in words."""
        low, high = (self.processor_ratio + k * self.processor_error for k in (-2, 2))
        verdict = "met" if high <= _AIM else "missed" if low > _AIM else "not decided"
        return [
            f"{self.ranks} ranks, ring, named tensor of {self.bytes / 1e6:.3g} MB, "
            f"{self.pairs} pairs of loops of {self.rounds} rounds in turn",
            f"a round without events {self.silent_us:.0f} us, with events {self.watched_us:.0f} us",
            f"processor time of all processes: {self.processor_ratio:.4f} +- "
            f"{self.processor_error:.4f} times that without events",
            f"wall time: {self.wall_ratio:.4f} +- {self.wall_error:.4f} times "
            "(medians of the pairs and their standard errors)",
            f"aim: at most {_AIM} times the processor time, two standard errors included: "
            f"{verdict}",
        ]


def run(ranks: int, *, pairs: int, rounds: int = _ROUNDS) -> TelemetryReport:
    """Measure on a cluster of ``ranks`` real ranks, the dashboard closed.

    Args:
        ranks: how many.
        pairs: how many loops of each kind, at least 2; fewer where that takes over 7 minutes.
        rounds: of a loop.
    """
    here = psutil.Process()
    others = {child.pid for child in here.children(recursive=True)}  # of whatever else runs here
    with Cluster(ranks) as cluster:
        engines = set(cluster.pull("__import__('os').getpid()").values())
        below = {child.pid for child in here.children(recursive=True)}
        takers = [os.getpid(), *(below - engines - others)]
        code = _CELL.format(
            numel=_BYTES // 8, rounds=rounds, pairs=pairs, takers=takers, seconds=_SECONDS
        )
        cluster.run(code).raise_for_error()
        by_rank = list(cluster.pull("_costs").values())
    return _report(ranks, rounds, by_rank)


def _report(
    ranks: int, rounds: int, by_rank: Sequence[Sequence[Sequence[float]]]
) -> TelemetryReport:
    """Of each rank's rows: wall and processor seconds without events, then with events."""
    pairs = list(zip(*by_rank, strict=True))
    # A loop has ended when its slowest rank has.
    walls = [(max(row[0] for row in pair), max(row[2] for row in pair)) for pair in pairs]
    used = [(sum(row[1] for row in pair), sum(row[3] for row in pair)) for pair in pairs]
    silent, watched = (statistics.median(each) / rounds * 1e6 for each in zip(*walls, strict=True))
    return TelemetryReport(
        ranks, _BYTES, rounds, len(pairs), silent, watched, *estimate(walls), *estimate(used)
    )
