"""What one slow rank costs the others: who waits for it, and who does not."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict

from ifog.bench.contestants import DDP, PUSH_SUM, PUT
from ifog.bench.ratios import Ratio, TargetRow, quartiles, table, target

__all__ = ["ALIKE", "SLOW", "Run", "described", "lines", "targets"]

ALIKE, SLOW = "all alike", "rank 0 slow"


class Run(TypedDict):
    """One contestant, with or without a slow rank.

    ``steps`` are those of each rank in the last round, ``computing`` the milliseconds of a gradient
    on each, ``rate`` the median of the steps a second of all ranks together, ``ratio`` that over
    DDP's, round by round; ``loss`` and ``accuracy`` are medians of the averaged model's at the end,
    ``curve`` its loss and the models' distance from it at equal times of the last round.
    """

    label: str
    name: str
    steps: list[int]
    seconds: float
    computing: list[float]
    rate: float
    ratio: Ratio
    loss: float
    accuracy: float
    curve: list[dict[str, float]]


def described(found: Sequence[Mapping[str, Mapping[str, Any]]]) -> list[Run]:
    """The runs from what the ranks measured in each round."""
    return [
        _run(label, name, [(each[label][name], each[label][DDP]) for each in found])
        for label in found[0]
        for name in found[0][label]
    ]


def _run(label: str, name: str, rounds: Sequence[tuple[Mapping[str, Any], ...]]) -> Run:
    mine = [own for own, _ in rounds]
    last = mine[-1]
    return Run(
        label=label,
        name=name,
        steps=last["steps"],
        seconds=last["seconds"],
        computing=[1e3 * seconds for seconds in last["computing"]],
        rate=statistics.median(map(_rate, mine)),
        ratio=quartiles([_rate(own) / _rate(theirs) for own, theirs in rounds]),
        loss=statistics.median(own["curve"][-1]["loss"] for own in mine),
        accuracy=statistics.median(100 * own["accuracy"] for own in mine),
        curve=last["curve"],
    )


def _rate(way: Mapping[str, Any]) -> float:
    return float(sum(way["steps"]) / way["seconds"])


def lines(runs: Sequence[Run]) -> list[str]:
    """The runs as a table."""
    rows = [
        [
            "",
            "",
            "steps/s",
            "x DDP",
            "quartiles",
            "steps of the ranks",
            "ms a gradient",
            "loss",
            "right",
        ]
    ]
    for run in runs:
        found = run["ratio"]
        rows.append(
            [
                run["label"],
                run["name"],
                f"{run['rate']:.4g}",
                f"{found['median']:.2f}",
                f"{found['low']:.2f} to {found['high']:.2f}",
                " ".join(str(count) for count in run["steps"]),
                f"{statistics.median(run['computing']):.3g}",
                f"{run['loss']:.3f}",
                f"{run['accuracy']:.1f} %",
            ]
        )
    head = (
        "digits dealt out at random, one machine, steps a second of all ranks together; a slow "
        "rank takes 3 times as long for each gradient"
    )
    return ["", head, *table(rows, left=2)] if runs else []


def targets(runs: Sequence[Run]) -> Iterator[TargetRow]:
    """Steps a second of all ranks together, with a slow one."""
    for run in runs:
        if run["label"] == SLOW and run["name"] in (PUT, PUSH_SUM):
            yield target(f"{run['name']}, {SLOW}, steps/s", DDP, "at least", 2.5, run["ratio"])
