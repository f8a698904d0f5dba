"""From logged figures to curves over rounds: the mean of the ranks, their band, the worst of them.

Ranks may log different numbers of times and only some of them may log at all; a call of ``log``
counts once all ranks that log this figure have made it. A cell that logs starts new curves; a cell
that does not leaves the old ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ifog.batches import belonging
from ifog.folds import thinned
from ifog.glances import Watched
from ifog.numbers import number
from ifog.ranks import Ranks
from ifog.telemetry import CellStart, Event, LogEvent, WatchEvent

__all__ = ["Figure", "Training", "fold_training", "view_training"]

_KEPT = 1500  # calls kept of a figure; beyond that every second one is dropped
_SHOWN = 160  # points sent to the browser, which has some 200 pixels for them
_FIGURES = 6  # small multiples drawn at most
_OUTLIER = 0.25  # of the band: how far from the mean the worst rank must be to be drawn
_VISIBLE = 0.05  # of the whole curve: a band that is thinner hides its mean behind any other line
_END = 20  # part of the calls over which ranks are compared
_HIGHER_IS_BETTER = ("acc", "score", "auc", "f1", "precision", "recall", "r2", "psnr", "reward")


class Told(NamedTuple):
    """What is drawn of one call: over the ranks, and ``values`` [ranks]."""

    low: float
    mean: float
    high: float
    seconds: float
    values: np.ndarray


@dataclass
class Figure:
    """One figure: by call, the finished rounds, seconds, and every rank's value."""

    name: str
    rounds: dict[int, int] = field(default_factory=dict)
    times: dict[int, float] = field(default_factory=dict)
    values: dict[int, dict[int, float]] = field(default_factory=dict)
    ranks: set[int] = field(default_factory=set)
    broken: tuple[int, int, int] | None = (
        None  # call, round and rank of the first that is no number
    )
    stride: int = 1
    told: dict[int, Told] = field(default_factory=dict)  # calls that all ``ranks`` have made

    def put(self, step: int, rank: int, done: int, t: float, value: float) -> None:
        """Add a rank's value of the call ``step``, made ``t`` seconds after the cell began."""
        if rank not in self.ranks:
            self.ranks.add(rank)
            self.told.clear()
        if not math.isfinite(value) and (self.broken is None or (done, rank) < self.broken[1:]):
            self.broken = (step, done, rank)
        if step % self.stride:
            return
        self.rounds[step] = min(self.rounds.get(step, done), done)
        self.times[step] = max(self.times.get(step, t), t)
        self.values.setdefault(step, {})[rank] = value
        if len(self.values) > _KEPT:
            self.stride *= 2
            for old in [k for k in self.values if k % self.stride]:
                del self.values[old], self.rounds[old], self.times[old]


@dataclass
class Training:
    """The figures of the newest cell that logged any, in the order of their first call."""

    ranks: Ranks = field(default_factory=Ranks)
    watched: Watched = field(default_factory=Watched)
    figures: dict[str, Figure] = field(default_factory=dict)
    distance: Figure | None = None
    cell: int | None = None
    news: int = 0  # counts what was taken in
    shown: tuple[int, dict[str, Any]] | None = None  # the last view, and ``news`` then


def fold_training(state: Training, events: Iterable[Event]) -> Training:
    """Follow what is logged, and the distances of the first watched tensor."""
    seq = state.ranks.seq
    for event in belonging(state.ranks, events):
        if isinstance(event, LogEvent):
            _log(state, event)
        elif isinstance(event, WatchEvent):
            _glance(state, event)
        elif isinstance(event, CellStart) and state.ranks.seq != seq:
            seq = state.ranks.seq
            state.watched.clear()
            state.distance = None
            state.news += 1
    return state


def _log(state: Training, event: LogEvent) -> None:
    state.news += 1
    if state.cell != state.ranks.seq:
        state.cell = state.ranks.seq
        state.figures.clear()
    for name, value in event.values:
        if name != "samples":
            figure = state.figures.setdefault(name, Figure(name))
            t = event.t - state.ranks.started
            figure.put(event.step, event.rank, event.round, t, value)


def _glance(state: Training, event: WatchEvent) -> None:
    glance = state.watched.put(event, state.ranks.members)
    if glance is None or glance.name != state.watched.first:
        return
    state.news += 1
    if state.distance is None:
        state.distance = Figure(f"{glance.name}, distance to the mean")
    t = event.t - state.ranks.started
    for rank, value in zip(state.watched.members, glance.distances, strict=True):
        state.distance.put(glance.step, rank, glance.step, t, float(value))


def view_training(state: Training, now: float) -> dict[str, Any]:  # noqa: ARG001 - a view's form
    """A small multiple a figure: band, mean and worst rank over rounds."""
    if state.shown is None or state.shown[0] != state.news:
        state.shown = (state.news, _all(state))
    return state.shown[1]


def _all(state: Training) -> dict[str, Any]:
    if not state.figures:
        return {"n": state.ranks.n, "empty": True, "say": "No metrics."}
    figures = list(state.figures.values())
    distance = state.distance if state.cell == state.ranks.seq else None
    shown = [view for figure in figures if (view := _view(figure)) is not None]
    if distance is not None and (view := _view(distance, log=True)) is not None:
        shown.insert(_FIGURES - 1, view)
    if not shown:
        return {"n": state.ranks.n, "empty": True, "say": "No metrics."}
    ranks = len(set().union(*(figure.ranks for figure in figures)))
    return {
        "n": state.ranks.n,
        "empty": False,
        "key": f"band: all {ranks} ranks" if ranks > 1 else "",
        "cell": state.cell,
        "figures": shown[:_FIGURES],
        "more": [view["title"] for view in shown[_FIGURES:]],
        "say": " ".join(view["say"] for view in shown[:_FIGURES]),
    }


def _complete(figure: Figure) -> list[int]:
    """The calls that every rank made, ascending, up to the first that gave no number."""
    end = math.inf if figure.broken is None else figure.broken[0]
    many = len(figure.ranks)
    return sorted(k for k, row in figure.values.items() if k < end and len(row) == many)


def _tell(figure: Figure, steps: Sequence[int]) -> list[Told]:
    """What is drawn of the calls; that of most has been told before, and does not change."""
    told = figure.told
    fresh = [k for k in steps if k not in told]
    if fresh:
        ranks = sorted(figure.ranks)
        table = np.array([[figure.values[k][r] for r in ranks] for k in fresh])  # [calls, ranks]
        edges = (table.min(axis=1), table.mean(axis=1), table.max(axis=1))
        rows = zip(*map(_plain, edges), table, strict=True)
        for k, (low, mean, high, row) in zip(fresh, rows, strict=True):
            told[k] = Told(low, mean, high, round(figure.times[k], 3), row)
    if len(told) > 4 * _SHOWN:
        figure.told = {k: told[k] for k in steps}
    return [told[k] for k in steps]


def _view(figure: Figure, *, log: bool = False) -> dict[str, Any] | None:
    steps = _complete(figure)
    if not steps and figure.broken is None:
        return None
    steps = [steps[i] for i in thinned(len(steps), _SHOWN)]
    ranks = sorted(figure.ranks)
    told = _tell(figure, steps)
    table = np.array([point.values for point in told]).reshape(-1, len(ranks))
    by_call = len(steps) > 1 and figure.rounds[steps[0]] == figure.rounds[steps[-1]]
    worst = _worst(figure.name, table)
    broken = figure.broken
    return {
        "title": _title(figure.name, own=not log),
        "log": log,
        "axis": "call" if by_call else "round",
        "rounds": steps if by_call else [figure.rounds[k] for k in steps],
        "seconds": [point.seconds for point in told],
        "low": [point.low for point in told],
        "mean": [point.mean for point in told],
        "high": [point.high for point in told],
        "worst": None if worst is None else [ranks[worst], _plain(table[:, worst])],
        "many": len(ranks),
        "value": number(float(table[-1].mean())) if steps else "",
        "broken": None if broken is None else [broken[0] if by_call else broken[1], broken[2]],
        "say": _say(figure, ranks, table, worst),
    }


def _title(name: str, *, own: bool) -> str:
    words = name.replace("_", " ")
    return f"{words}, own data" if own and not words.startswith("test") else words


def _worst(name: str, table: np.ndarray) -> int | None:
    """The column of the rank that ends worst, if it stands out."""
    if not len(table) or table.shape[1] < 2:
        return None
    end = table[-max(len(table) // _END, 1) :].mean(axis=0)  # one step alone is too noisy
    worst = int(np.argmin(end) if is_better_high(name) else np.argmax(end))
    band, all_of_it = float(end.max() - end.min()), float(table.max() - table.min())
    far = abs(end[worst] - end.mean()) > _OUTLIER * band and band > _VISIBLE * all_of_it
    return worst if far else None


def is_better_high(name: str) -> bool:
    """Whether more of a figure is better, as far as its name tells."""
    return any(part in name.lower() for part in _HIGHER_IS_BETTER)


def _plain(values: Sequence[float] | np.ndarray) -> list[float]:
    return [float(f"{value:.5g}") for value in values]


def _say(figure: Figure, ranks: list[int], table: np.ndarray, worst: int | None) -> str:
    name = figure.name.replace("_", " ").capitalize()
    if figure.broken is not None:
        return f"{name}: not a number on rank {figure.broken[2]} in round {figure.broken[1]}."
    last = table[-1]
    if len(ranks) == 1:
        return f"{name} {number(float(last[0]))}."
    tail = "" if worst is None else f"; worst rank {ranks[worst]}"
    low, high, mean = (number(float(x)) for x in (last.min(), last.max(), last.mean()))
    return f"{name} {low} to {high} over ranks, mean {mean}{tail}."
