"""What one slow rank costs the others: who waits for it, and who does not."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict

from ifog.bench.contestants import DDP, PUSH_SUM, PUT
from ifog.bench.ratios import Ratio, TargetRow, table, target

__all__ = ["Run", "described", "lines", "targets"]

SLOW = "rank 0 slow"


class Run(TypedDict):
    """One contestant, with or without a slow rank.

    ``steps`` are those of each rank, ``rate`` the steps a second of all together, ``ratio`` that
    over DDP's; ``curve`` has loss and distance of the averaged model at equal times.
    """

    label: str
    name: str
    steps: list[int]
    seconds: float
    computing: list[float]
    rate: float
    ratio: float
    accuracy: float
    curve: list[dict[str, float]]


def described(found: Mapping[str, Mapping[str, Any]]) -> list[Run]:
    """The runs from what the ranks measured."""
    runs = []
    for label, ways in found.items():
        rates = {name: sum(way["steps"]) / way["seconds"] for name, way in ways.items()}
        for name, way in ways.items():
            runs.append(
                Run(
                    label=label,
                    name=name,
                    steps=way["steps"],
                    seconds=way["seconds"],
                    computing=way["computing"],
                    rate=rates[name],
                    ratio=rates[name] / rates[DDP],
                    accuracy=way["accuracy"],
                    curve=way["curve"],
                )
            )
    return runs


def lines(runs: Sequence[Run]) -> list[str]:
    """The runs as a table."""
    rows = [["", "", "steps/s", "x DDP", "steps of the ranks", "ms of computing", "loss", "right"]]
    for run in runs:
        steps = " ".join(str(count) for count in run["steps"])
        computing = statistics.median(run["computing"]) * 1e3
        rows.append(
            [
                run["label"],
                run["name"],
                f"{run['rate']:.4g}",
                f"{run['ratio']:.2f}",
                steps,
                f"{computing:.3g}",
                f"{run['curve'][-1]['loss']:.3f}",
                f"{100 * run['accuracy']:.1f} %",
            ]
        )
    head = "digits dealt out at random; a slow rank takes 3 times as long for each gradient"
    return ["", head, *table(rows, left=2)] if runs else []


def targets(runs: Sequence[Run]) -> Iterator[TargetRow]:
    """Steps a second of all ranks together, with a slow one."""
    for run in runs:
        if run["label"] == SLOW and run["name"] in (PUT, PUSH_SUM):
            found = Ratio(median=run["ratio"], low=run["ratio"], high=run["ratio"])
            yield target(f"{run['name']}, {SLOW}, steps/s", DDP, "at least", 2.5, found)
