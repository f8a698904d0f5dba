"""Whether the cost of an operation has changed: this version against another checkout.

Both versions run the same program in jobs that alternate, so that a machine whose speed drifts
treats them alike; ratios are taken job by job.
"""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import NamedTuple

from ifog.bench.jobs import HERE, measure, require_room
from ifog.errors import ArgumentError

__all__ = ["VersionsReport", "run"]

_PROGRAM = str(Path(__file__).with_name("version_rounds.py"))
_SECONDS = 300.0
_BUFFERS = 500e6


class VersionsReport(NamedTuple):
    """The result: microseconds of a call, and of this version / the other.

    ``ratio`` is the geometric mean over the pairs of jobs, ``spread`` the factor by which a single
    pair lies off it (one standard deviation).
    """

    ranks: int
    pairs: int
    against: str
    us: dict[str, float]
    ratio: dict[str, float]
    spread: dict[str, float]

    def lines(self) -> list[str]:
        """The result in words."""
        width = max(map(len, self.us))
        lines = [
            f"{self.ranks} ranks, float32; microseconds of a call, time / time in {self.against}, "
            f"{self.pairs} pairs"
        ]
        for case, us in self.us.items():
            line = f"{case:{width}} {us:9.0f}"
            if case in self.ratio:
                line += f"  {self.ratio[case]:5.2f} (x/: {self.spread[case]:.2f})"
            lines.append(line)
        return lines


def run(ranks: int, *, against: str, pairs: int = 3) -> VersionsReport:
    """Time every operation on ``ranks`` real ranks, with both versions.

    Args:
        ranks: how many.
        against: another checkout of ifog, for example one made by ``git worktree add``.
        pairs: jobs of each version, in turn.

    Raises:
        ArgumentError: ``against`` is no checkout.
        ClusterError: a job failed.
    """
    if not (Path(against) / "ifog" / "__init__.py").is_file():
        raise ArgumentError(f"bench ops: there is no ifog in {against!r}; give a checkout's folder")
    require_room("ops", ranks, _BUFFERS, least=1)
    mine: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    for pair in range(pairs):
        turns = [(mine, HERE), (theirs, against)]
        for results, folder in turns[:: 1 if pair % 2 else -1]:
            results.append(_job(ranks, folder))
    us = {case: statistics.median(times[case] for times in mine) for case in mine[0]}
    logs = {
        case: [math.log(a[case] / b[case]) for a, b in zip(mine, theirs, strict=True)]
        for case in us
        if case in theirs[0]
    }
    ratio = {case: math.exp(statistics.mean(found)) for case, found in logs.items()}
    spread = {
        case: math.exp(statistics.stdev(found)) if len(found) > 1 else math.nan
        for case, found in logs.items()
    }
    return VersionsReport(ranks, pairs, against, us, ratio, spread)


def _job(ranks: int, folder: str) -> dict[str, float]:
    """{case: microseconds} with the ifog of ``folder``: the median of a job's blocks."""
    times = measure("ops", ranks, [_PROGRAM], seconds=_SECONDS, folder=folder)
    return {case: statistics.median(found) for case, found in times.items()}
