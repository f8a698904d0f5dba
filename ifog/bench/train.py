"""A fair race of ways to train with several ranks, DDP on gloo among them, on real sockets.

On one machine, or between hosts that are network namespaces of it, whose links have a known rate.
Three parts: how fast a step is, on models that compute much and little for what they send; who
learns real data how well; and, on one machine, what a slow rank costs the others.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple

from ifog.bench import learning, race, straggler
from ifog.bench.jobs import measure, require_room
from ifog.bench.namespaces import EmulatedHosts
from ifog.bench.race import Setting
from ifog.bench.ratios import TargetRow, target_lines
from ifog.errors import ArgumentError
from ifog.mpiexec import cores

__all__ = ["HOROVOD", "TrainReport", "run"]

HOROVOD = (
    "Horovod does not race: its last release, 0.28.1, does not build against this torch (it asks "
    "for C++14, torch's headers for C++17); it reduces over the same gloo as DDP"
)
_LEAST_HOSTS = 2
_RANK_BYTES = 375e6  # of a rank for each rank there is, with the largest model: as it was found
_QUICK_BYTES = 100e6
_LONG = 1.0  # seconds of an exchange from which on a block has fewer steps
_SECONDS = 560.0  # of a job, at most
_PAIRS = {"IFOG_RANKS_PER_MACHINE": "2"}  # so that there is something to be hierarchical about
_Measure = Callable[..., Any]


class TrainReport(NamedTuple):
    """The result; ``hosts`` is 0 where all ranks were processes of one machine."""

    hosts: int
    slots: int
    mbit: float | None
    cores: int
    races: list[race.Race]
    lessons: list[learning.Lesson]
    runs: list[straggler.Run]
    notes: list[str]
    targets: list[TargetRow]

    def lines(self) -> list[str]:
        """The result in words."""
        where = f"{self.slots} ranks on one machine"
        if self.hosts:
            rate = "without a limit" if self.mbit is None else f"of {self.mbit:g} Mbit/s"
            where = f"{self.hosts} emulated hosts with {self.slots} ranks each, links {rate}"
        return [
            f"{where}; {self.cores} cores; all contestants in turn in one job, medians",
            *(line for each in self.races for line in race.lines(each)),
            *learning.lines(self.lessons),
            *straggler.lines(self.runs),
            "",
            *self.notes,
            "",
            *target_lines(self.targets),
        ]


def run(
    ranks: int = 4,
    *,
    hosts: int = 0,
    slots: int = 1,
    mbit: float | None = None,
    rounds: int | None = None,
    quick: bool = False,
) -> TrainReport:
    """Let all contestants train in turn.

    Args:
        ranks: how many, on this machine.
        hosts: run on so many emulated hosts instead; needs root.
        slots: ranks on each host.
        mbit: the rate of each host's link, each way.
        rounds: of each contestant at most, by default 9, or 3 if quick.
        quick: a small model, few steps.

    Raises:
        ArgumentError: too few ranks or hosts, or too many for this machine's memory.
        NotAvailableError: hosts cannot be emulated by this user or on this machine; says why.
        ClusterError: a job failed or took too long.
    """
    setting = Setting(hosts, slots if hosts else ranks, mbit)
    if hosts and hosts < _LEAST_HOSTS:
        raise ArgumentError(f"bench train needs at least {_LEAST_HOSTS} hosts; got {hosts}")
    require_room("train", setting.ranks, _QUICK_BYTES if quick else _RANK_BYTES * setting.ranks)
    place = EmulatedHosts(hosts, mbit=mbit) if hosts else nullcontext()
    with place as emulated:
        job: _Measure = partial(
            measure,
            "train",
            setting.ranks,
            seconds=_SECONDS,
            hosts=emulated,
            variables={} if hosts or ranks % 2 or ranks < 4 else _PAIRS,
        )
        found = job(_program("race"), specification=_race(setting, rounds, quick))
        races = [race.described(each, setting) for each in found]
        lessons = learning.described(
            job(_program("learning"), specification=_learning(setting, quick))
        )
        runs = []
        if not hosts:
            lasting = {"seconds": 0.5 if quick else 6.0, "rounds": 1 if quick else 3}
            runs = straggler.described(job(_program("straggler"), specification=lasting))
    aims = [*race.targets(races, setting), *learning.targets(lessons), *straggler.targets(runs)]
    return TrainReport(hosts, setting.slots, mbit, cores(), races, lessons, runs, [HOROVOD], aims)


def _program(part: str) -> tuple[str, ...]:
    return "-m", f"ifog.bench.{part}_rounds"


def _race(setting: Setting, rounds: int | None, quick: bool) -> dict[str, Any]:
    exchange = 0.0 if setting.mbit is None else 100e6 * 8 / (setting.mbit * 1e6)
    return {
        "workloads": ["small"] if quick else ["dense", "convolutions"],
        "halves": True,
        "steps": 2 if quick or exchange > _LONG else 4,
        "rounds": rounds or (3 if quick else 9),
        "seconds": 5.0 if quick else 300.0,
    }


def _learning(setting: Setting, quick: bool) -> dict[str, Any]:
    thorough = not (quick or setting.hosts)
    return {
        "skews": ["none", "label"] if thorough else ["none"],
        "seeds": [0, 1, 2] if thorough else [0],
        "epochs": 2 if quick else 20,
    }
