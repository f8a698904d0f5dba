"""How fast a training step is: DDP and ifog's ways, beside what computing and sending alone take.

The regime, communication over computation, decides who can win: it is told with each ratio.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypedDict

from ifog.bench.contestants import (
    ALONE,
    ATC_ONE_PEER,
    AWC_HALF,
    AWC_MACHINES,
    AWC_ONE_PEER,
    DDP,
    DDP_HALF,
    EXCHANGE,
)
from ifog.bench.ratios import Ratio, TargetRow, ratio, table, target
from ifog.numbers import duration, number, size

__all__ = ["HALVES", "Race", "Setting", "described", "lines", "targets"]

HALVES = (DDP_HALF, AWC_HALF)
_WORD = 4  # bytes of a parameter


class Setting(NamedTuple):
    """Where a race takes place.

    Attributes:
        hosts: how many emulated ones; 0 for this machine alone.
        slots: ranks on each host.
        mbit: the rate of their links, or None.
    """

    hosts: int
    slots: int
    mbit: float | None

    @property
    def ranks(self) -> int:
        """How many ranks there are on all hosts."""
        return max(1, self.hosts) * self.slots


class Race(TypedDict):
    """One workload.

    ``seconds`` of a step are medians; ``ratio`` is DDP's time over each one's, of equal precision,
    round by round; ``sent`` are bytes a step, of a host on several ones, else of a rank; ``regime``
    is the time of one exchange alone over that of computing alone.
    """

    title: str
    parameters: int
    batch: int
    ranks: int
    rounds: int
    seconds: dict[str, float]
    samples: dict[str, float]
    ratio: dict[str, Ratio]
    sent: dict[str, float]
    regime: float


def described(found: Mapping[str, Any], setting: Setting) -> Race:
    """One workload from what the ranks measured."""
    times: Mapping[str, Sequence[float]] = found["times"]
    seconds = {name: statistics.median(taken) for name, taken in times.items()}
    racing = [name for name in times if name not in (ALONE, EXCHANGE)]
    sent = dict(found["sent"])
    if not setting.hosts:  # gloo's bytes are not counted there
        ring = 2 * (setting.ranks - 1) / setting.ranks * _WORD * found["parameters"]
        sent |= {DDP: ring, DDP_HALF: ring / 2}
    images = found["batch"] * setting.ranks
    return Race(
        title=found["title"],
        parameters=found["parameters"],
        batch=found["batch"],
        ranks=setting.ranks,
        rounds=len(times[DDP]),
        seconds=seconds,
        samples={name: images / seconds[name] for name in racing},
        ratio={
            name: ratio(times[DDP_HALF if name in HALVES else DDP], times[name]) for name in racing
        },
        sent={name: sent[name] for name in racing},
        regime=seconds[EXCHANGE] / seconds[ALONE],
    )


def lines(race: Race) -> list[str]:
    """The race as a table."""
    alone, exchange = race["seconds"][ALONE], race["seconds"][EXCHANGE]
    rows = [["", "ms a step", "images/s", "x DDP", "quartiles", "comm/comp", "sent a step"]]
    for name, found in race["ratio"].items():
        regime = race["regime"] / (2 if name in HALVES else 1)
        rows.append(
            [
                name,
                f"{race['seconds'][name] * 1e3:.4g}",
                f"{race['samples'][name]:.4g}",
                f"{found['median']:.2f}",
                f"{found['low']:.2f} to {found['high']:.2f}",
                f"{regime:.2g}",
                size(race["sent"][name]),
            ]
        )
    head = (
        f"{race['title']}: {size(_WORD * race['parameters'])}, batch {race['batch']} a rank, "
        f"{race['rounds']} rounds; computing alone {duration(alone)}, one exchange alone "
        f"{duration(exchange)}: communication / computation {number(race['regime'], 2)}"
    )
    return ["", head, *table(rows)]


def targets(races: Sequence[Race], setting: Setting) -> Iterator[TargetRow]:
    """What was aimed at in this setting, beside what came out."""
    aims = {(4, 1): (AWC_ONE_PEER, 1.5), (8, 1): (AWC_ONE_PEER, 1.7)}
    winner, bound = aims.get((setting.hosts, setting.slots), (AWC_MACHINES, 1.3))
    for race in races:
        if race["regime"] < 1.0:
            for name in (AWC_ONE_PEER, ATC_ONE_PEER):
                work = f"{name}, {race['title']}, computing longer"
                yield target(work, DDP, "at least", 0.95, race["ratio"][name])
        elif setting.hosts and winner in race["ratio"]:
            work = f"{winner}, {race['title']}, sending longer"
            yield target(work, DDP, "at least", bound, race["ratio"][winner])
