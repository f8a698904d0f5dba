"""Who learns the digits how well: accuracy after equal epochs, and the time to a good one."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypedDict

from ifog.bench.contestants import ATC_ONE_PEER, AWC_ONE_PEER, DDP, MOMENTUM
from ifog.bench.ratios import TargetRow, quartiles, table, target
from ifog.numbers import number, size

__all__ = ["Lesson", "described", "lines", "targets"]

GOAL = 0.95  # of the test images
_SPLITS = {"none": "dealt out at random", "label": "sorted by digit"}


class Lesson(TypedDict):
    """What one contestant made of the digits, dealt out in one way; an entry for each seed.

    ``accuracy`` is that of the averaged model after the last epoch, in percent, ``worst`` the one
    of the worst rank's own model, ``distance`` how far the models are from their mean, over its
    norm, ``seconds`` when the averaged model first got 95 percent right (None: never), ``sent``
    bytes of a rank or host, and ``curve`` the accuracies after each epoch.
    """

    skew: str
    name: str
    accuracy: list[float]
    worst: list[float]
    distance: list[float]
    seconds: list[float | None]
    sent: list[float]
    curve: list[list[float]]


def described(found: Sequence[Mapping[str, Any]]) -> list[Lesson]:
    """The lessons from what the ranks measured."""
    made: dict[tuple[str, str], Lesson] = {}
    for case in found:
        for name, way in case["ways"].items():
            epochs = way["epochs"]
            lesson = made.setdefault((case["skew"], name), _empty(case["skew"], name))
            lesson["accuracy"].append(100 * epochs[-1]["accuracy"])
            lesson["worst"].append(100 * epochs[-1]["worst"])
            lesson["distance"].append(epochs[-1]["distance"])
            good = (epoch["seconds"] for epoch in epochs if epoch["accuracy"] >= GOAL)
            lesson["seconds"].append(next(good, None))
            lesson["sent"].append(way["sent"])
            lesson["curve"].append([100 * epoch["accuracy"] for epoch in epochs])
    return list(made.values())


def _empty(skew: str, name: str) -> Lesson:
    return Lesson(
        skew=skew, name=name, accuracy=[], worst=[], distance=[], seconds=[], sent=[], curve=[]
    )


def lines(lessons: Sequence[Lesson]) -> list[str]:
    """The lessons as a table for each way of dealing out the images."""
    shown = []
    for skew in dict.fromkeys(lesson["skew"] for lesson in lessons):
        rows = [["", "accuracy", "spread", "worst rank", "distance", "to 95 %", "sent"]]
        group = [lesson for lesson in lessons if lesson["skew"] == skew]
        for lesson in group:
            accuracy = lesson["accuracy"]
            rows.append(
                [
                    lesson["name"],
                    f"{statistics.mean(accuracy):.1f} %",
                    f"{min(accuracy):.1f} to {max(accuracy):.1f}",
                    f"{statistics.mean(lesson['worst']):.1f} %",
                    number(statistics.mean(lesson["distance"]), 2),
                    _time(lesson["seconds"]),
                    size(statistics.mean(lesson["sent"])),
                ]
            )
        seeds = len(group[0]["accuracy"])
        head = (
            f"digits, {_SPLITS[skew]}: a small convolutional network, "
            f"{len(group[0]['curve'][0])} epochs, mean over {seeds} seed{'s' * (seeds > 1)}"
        )
        shown += ["", head, *table(rows)]
    return shown


def _time(seconds: Sequence[float | None]) -> str:
    known = [value for value in seconds if value is not None]
    if len(known) < len(seconds):
        return "never" if not known else f"{len(known)} of {len(seconds)}"
    return f"{statistics.median(known):.2f} s"


def targets(lessons: Sequence[Lesson]) -> Iterator[TargetRow]:
    """How far below DDP's accuracy, in points."""
    by = {(lesson["skew"], lesson["name"]): lesson["accuracy"] for lesson in lessons}
    aims = (("none", AWC_ONE_PEER, 0.5), ("none", ATC_ONE_PEER, 0.5), ("label", MOMENTUM, 1.0))
    for skew, name, bound in aims:
        if (skew, name) in by:
            lost = [
                theirs - mine for theirs, mine in zip(by[skew, DDP], by[skew, name], strict=True)
            ]
            work = f"{name}, digits {_SPLITS[skew]}, points lost"
            yield target(work, DDP, "at most", bound, quartiles(lost))
