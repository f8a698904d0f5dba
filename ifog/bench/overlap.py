"""Whether communication hides behind computation: after it, and started before it.

On one host communication is work of the processors, which are computing: no gain is to be expected
where every core has a rank that computes, and the report says what was found, gain or not.
"""

from __future__ import annotations

from typing import NamedTuple

from ifog.bench.jobs import measure, require_room
from ifog.bench.ratios import Ratio, label, medians, ratio, table
from ifog.mpiexec import cores
from ifog.numbers import counted

__all__ = ["ALONE", "ASKED", "BESIDE", "COMPUTE", "SEQUENTIAL", "OverlapReport", "run"]

COMPUTE = "computation alone"
ALONE = "communication alone"
SEQUENTIAL = "computation, then communication"
BESIDE = "communication started before, waited for after"
ASKED = "the same, asking 8 times whether it is done"
_IDEAL = "floor: the longer of the two alone"
_PROGRAM = ("-m", "ifog.bench.overlap_rounds")
_TENSORS = 10


class OverlapReport(NamedTuple):
    """The result: medians in microseconds, and how many times faster than one after the other."""

    ranks: int
    cores: int
    bytes: int
    products: int
    rounds: int
    us: dict[str, float]
    gain: dict[str, Ratio]

    def lines(self) -> list[str]:
        """The result in words."""
        rows = [["", "microseconds", "gain", "quartiles"]]
        for name, us in self.us.items():
            gain = self.gain.get(name)
            told = ("", "") if gain is None else _told(gain)
            rows.append([name, f"{us:.4g}", *told])
        return [
            f"{counted(self.ranks)}, {self.cores} cores, ring, {label(self.bytes)} beside "
            f"{self.products} matrix products, {self.rounds} rounds in turn",
            *table(rows),
            f"overlap gains {self.gain[BESIDE]['median']:.2f}, {self.gain[ASKED]['median']:.2f} "
            f"where one asks; {self.gain[_IDEAL]['median']:.2f} would be all there is (1: nothing)",
        ]


def run(
    ranks: int, *, rounds: int | None = None, quick: bool = False, nbytes: int = 16 << 20
) -> OverlapReport:
    """Let computation and communication run after and beside each other on ``ranks`` real ranks.

    Args:
        ranks: how many, at least 2.
        rounds: of each contestant at most, by default 40, or 10 if quick.
        quick: fewer rounds.
        nbytes: of the tensor that is averaged.

    Raises:
        ArgumentError: too few ranks, or too many for this machine's memory.
        ClusterError: the job failed or took too long.
    """
    require_room("overlap", ranks, _TENSORS * nbytes)
    specification = {
        "bytes": nbytes,
        "rounds": rounds or (10 if quick else 40),
        "seconds": 15.0 if quick else 60.0,
    }
    found = measure(
        "overlap", ranks, _PROGRAM, seconds=100.0 if quick else 240.0, specification=specification
    )
    times = found["times"]
    times[_IDEAL] = [max(pair) for pair in zip(times[COMPUTE], times[ALONE], strict=True)]
    gain = {name: ratio(times[SEQUENTIAL], times[name]) for name in (BESIDE, ASKED, _IDEAL)}
    return OverlapReport(
        ranks, cores(), nbytes, found["products"], len(times[BESIDE]), medians(times), gain
    )


def _told(gain: Ratio) -> tuple[str, str]:
    return f"{gain['median']:.2f}", f"{gain['low']:.2f} to {gain['high']:.2f}"
