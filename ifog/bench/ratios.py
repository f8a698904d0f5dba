"""Medians and ratios of contestants whose rounds alternated.

Ratios are taken round by round, so that a machine whose speed drifts treats both alike, and told
with their quartiles: what lies between them is not known better.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

from ifog.numbers import SPACE

__all__ = [
    "Compared",
    "Ratio",
    "TargetRow",
    "compared",
    "label",
    "medians",
    "quartiles",
    "ratio",
    "table",
    "target",
    "target_lines",
]

Aim = Literal["at least", "at most"]
_UNITS = ((1 << 20, "MB"), (1 << 10, "KB"), (1, "B"))


class Ratio(TypedDict):
    """A median with the quartiles around it."""

    median: float
    low: float
    high: float


class Compared(TypedDict):
    """Contestants: medians in microseconds, and times over those of one, round by round."""

    rounds: int
    us: dict[str, float]
    ratio: dict[str, Ratio]


class TargetRow(TypedDict):
    """A target beside what was measured; ``measured`` and ``met`` are None where nothing was."""

    work: str
    against: str
    aim: str
    measured: Ratio | None
    met: bool | None


def ratio(above: Sequence[float], below: Sequence[float]) -> Ratio:
    """How many times ``below`` goes into ``above``, round by round."""
    return quartiles([a / b for a, b in zip(above, below, strict=True)])


def quartiles(found: Sequence[float]) -> Ratio:
    """The median of what was found in each round, and the quartiles."""
    low, middle, high = (
        statistics.quantiles(found, n=4, method="inclusive") if len(found) > 1 else list(found) * 3
    )
    return Ratio(median=middle, low=low, high=high)


def medians(times: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """{contestant: microseconds} of {contestant: seconds of each round}."""
    return {name: statistics.median(found) * 1e6 for name, found in times.items()}


def compared(times: Mapping[str, Sequence[float]], base: str) -> Compared:
    """Contestants' seconds of each round beside those of ``base``."""
    ratios = {name: ratio(taken, times[base]) for name, taken in times.items()}
    return Compared(rounds=len(times[base]), us=medians(times), ratio=ratios)


def target(
    work: str, against: str, aim: Aim, bound: float, measured: Ratio | None = None
) -> TargetRow:
    """The row of a table of targets."""
    met = None
    if measured is not None:
        median = measured["median"]
        met = median >= bound if aim == "at least" else median <= bound
    return TargetRow(work=work, against=against, aim=f"{aim} {bound:g}", measured=measured, met=met)


def target_lines(rows: Sequence[TargetRow]) -> list[str]:
    """The table of targets, in words."""
    body = [["target", "against", "aim", "measured", "quartiles", ""]]
    for row in rows:
        found = row["measured"]
        median = "not measured" if found is None else f"{found['median']:.2f}"
        between = "" if found is None else f"{found['low']:.2f} to {found['high']:.2f}"
        verdict = {True: "met", False: "missed", None: ""}[row["met"]]
        body.append([row["work"], row["against"], row["aim"], median, between, verdict])
    return table(body, left=3)


def table(rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Columns of equal width, the first ``left`` of them flush left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def label(nbytes: int) -> str:
    """4 B, 64 KB, 16 MB: in powers of 1024, as messages are measured."""
    unit, name = next((unit, name) for unit, name in _UNITS if nbytes >= unit)
    return f"{nbytes / unit:.3g}{SPACE}{name}"
