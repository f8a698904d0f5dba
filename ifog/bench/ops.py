"""What an operation costs, and whether that has changed: this version against another checkout.

Both versions run the same program in jobs that alternate, so that a machine whose speed drifts
treats them alike; ratios are taken job by job.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import psutil

from ifog.errors import ArgumentError, ClusterError
from ifog.mpiexec import environment, flags, mpiexec

__all__ = ["OpsReport", "run"]

_PROGRAM = Path(__file__).with_name("op_rounds.py")
_HERE = Path(__file__).resolve().parent.parent.parent
_SECONDS = 300.0


class OpsReport(NamedTuple):
    """The result: microseconds of a call, and of this version / the other where there is one.

    ``ratio`` is the geometric mean over the pairs of jobs, ``spread`` the factor by which a single
    pair lies off it (one standard deviation).
    """

    ranks: int
    pairs: int
    against: str | None
    us: dict[str, float]
    ratio: dict[str, float]
    spread: dict[str, float]

    def lines(self) -> list[str]:
        """The result in words."""
        width = max(map(len, self.us))
        told = f", time / time in {self.against}, {self.pairs} pairs" if self.against else ""
        lines = [f"{self.ranks} ranks, float32; microseconds of a call{told}"]
        for case, us in self.us.items():
            line = f"{case:{width}} {us:9.0f}"
            if case in self.ratio:
                line += f"  {self.ratio[case]:5.2f} (x/: {self.spread[case]:.2f})"
            lines.append(line)
        return lines


def run(ranks: int, *, pairs: int = 3, against: str | None = None) -> OpsReport:
    """Time every operation on ``ranks`` real ranks.

    Args:
        ranks: how many.
        pairs: jobs of each version, in turn.
        against: another checkout of ifog, for example one made by ``git worktree add``.

    Raises:
        ArgumentError: ``against`` is no checkout.
        ClusterError: a job failed.
    """
    if against is not None and not (Path(against) / "ifog" / "__init__.py").is_file():
        raise ArgumentError(f"bench ops: there is no ifog in {against!r}; give a checkout's folder")
    mine: list[dict[str, float]] = []
    theirs: list[dict[str, float]] = []
    for pair in range(pairs):
        turns = [(mine, str(_HERE))] + ([(theirs, against)] if against else [])
        for results, folder in turns[:: 1 if pair % 2 else -1]:
            results.append(_job(ranks, folder))
    us = {case: statistics.median(times[case] for times in mine) for case in mine[0]}
    common = [case for case in us if theirs and case in theirs[0]]
    logs = {
        case: [math.log(a[case] / b[case]) for a, b in zip(mine, theirs, strict=True)]
        for case in common
    }
    ratio = {case: math.exp(statistics.mean(found)) for case, found in logs.items()}
    spread = {
        case: math.exp(statistics.stdev(found)) if len(found) > 1 else math.nan
        for case, found in logs.items()
    }
    return OpsReport(ranks, pairs, against, us, ratio, spread)


def _job(ranks: int, folder: str) -> dict[str, float]:
    """{case: microseconds} with the ifog of ``folder``: the median of a job's blocks."""
    with tempfile.TemporaryDirectory(prefix="ifog-") as private:
        out = Path(private) / "times.json"
        job = subprocess.Popen(
            [
                *(mpiexec(), "-n", str(ranks), *flags(private, private)),
                *(sys.executable, str(_PROGRAM), str(out)),
            ],
            env={**os.environ, **environment(ranks), "PYTHONPATH": str(Path(folder).resolve())},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        try:
            log = job.communicate(timeout=_SECONDS)[0]
        except BaseException as error:
            for process in [*psutil.Process(job.pid).children(recursive=True), job]:
                process.kill()
            job.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise ClusterError(f"bench ops: a job took over {_SECONDS:.0f} s") from None
            raise
        if not out.is_file():
            raise ClusterError(f"bench ops: a job failed:\n{log[-3000:]}")
        times = json.loads(out.read_text())
    return {case: statistics.median(found) for case, found in times.items()}
