"""From operations to lanes over time: who computed, moved bytes or waited, and for whom.

Each operation of a rank gives three stretches: computing since its last operation, waiting for the
last peer to come, and moving bytes. A message goes from where its sender's operation began to where
it arrived. While a cell runs the last rounds are shown, after it all of it; where that is more than
a screen can tell apart, stretches are merged into what fills most of a column.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from ifog.batches import Run, belonging
from ifog.folds import LANES, evenly
from ifog.numbers import count, duration, percent
from ifog.ranks import Ranks, fate, is_mixing, operate
from ifog.telemetry import CellStart, Event, OpEvent, WaitEvent

__all__ = ["Lanes", "fold_lanes", "view_lanes"]

_KEPT = 120_000  # operations kept, of all ranks together
_EXACT = 1500  # operations drawn one by one, of all ranks together
_COLUMNS = 800  # into which longer runs are merged
_SPANS = (0.06, 10.0)  # seconds of the live window, at least and at most
_ROUNDS = 6.5  # in the live window
_FAINT = 16  # ranks from which on only messages that ended a wait are told
_LINES = 4000  # operations whose line is remembered
_CROWD = 520  # messages from which on only those that ended a wait are told
_MICRO = 1e6

COMPUTE, TRANSFER, WAIT = 0, 1, 2


class Row(NamedTuple):
    """An operation, when its rank's last one had ended, when it had the rank to itself, the wait.

    ``wait`` is the seconds since ``begin`` in which a peer was not there yet.
    """

    before: float
    begin: float
    wait: float
    op: OpEvent


@dataclass
class Lanes:
    """Every rank's operations of the newest cell; ``span`` is the width of the live window."""

    ranks: Ranks = field(default_factory=lambda: Ranks(averages=False))
    rows: dict[int, list[Row]] = field(default_factory=dict)
    kept: int = 0
    since: float = -math.inf  # operations before were dropped
    lines: dict[Any, int] = field(default_factory=dict)  # of the user's cell, as waits tell
    span: float = _SPANS[0]
    decide: int = 4  # the round at which the span is chosen anew


def fold_lanes(state: Lanes, events: Iterable[Event]) -> Lanes:
    """Keep the operations of the newest cell."""
    ranks, seq = state.ranks, state.ranks.seq
    for event in belonging(ranks, events):
        if type(event) is list:
            _keep(state, event)
            operate(ranks, event)
        elif isinstance(event, WaitEvent):
            _note_line(state, event)
        elif isinstance(event, CellStart) and ranks.seq != seq:
            seq = ranks.seq
            state.rows.clear()
            state.lines.clear()
            state.kept, state.since = 0, -math.inf
            state.decide = 4
    return state


def _keep(state: Lanes, run: Run) -> None:
    """Add a rank's operations, before its ``Ranks`` know of them."""
    since = state.ranks.busy_until.get(run[0].rank, run[0].t0)
    rows = state.rows.setdefault(run[0].rank, [])
    for event in run:
        t0, t1, wait = event[5], event[6], event[7]
        begin = t0 if t0 > since else since
        if wait > t1 - begin:
            wait = max(t1 - begin, 0.0)
        rows.append(Row(since, begin, wait, event))
        state.kept += 1
        if state.kept > _KEPT:
            _drop(state)
        if event[2] == state.decide and is_mixing(event[3]):
            _choose_span(state, event)
        since = max(since, t1)


def _note_line(state: Lanes, event: WaitEvent) -> None:
    """Remember where in the cell an operation stands.

    Only ranks that wait long look for the line, because looking costs more than a round. A tensor's
    name stands for one line, so the others of that name are there too, unless waits disagree.
    """
    if event.line is None:
        return
    state.lines[event.rank, event.op, event.name, event.step] = event.line
    if event.name:
        known = state.lines.setdefault((event.op, event.name), event.line)
        if known != event.line:
            state.lines[event.op, event.name] = 0
    if len(state.lines) > _LINES:
        del state.lines[next(iter(state.lines))]


def _line(state: Lanes, rank: int, op: str, name: str, step: int) -> int:
    """The line of the cell, 0 where it is not known."""
    lines = state.lines
    return lines.get((rank, op, name, step)) or lines.get((op, name), 0)


def _drop(state: Lanes) -> None:
    """Forget the older half."""
    for rows in state.rows.values():
        half = len(rows) // 2
        if half:
            state.since = max(state.since, rows[half - 1].op.t1)
            del rows[:half]
    state.kept = sum(map(len, state.rows.values()))


def _choose_span(state: Lanes, event: OpEvent) -> None:
    # Rarely, and by powers of two only: a scale that twitches cannot be read.
    wanted = _ROUNDS * (event.t1 - state.ranks.started) / (event.step + 1)
    low, high = _SPANS
    doublings = round(math.log2(max(wanted, low) / low))
    state.span = min(low * 2**doublings, high)
    state.decide *= 4


def view_lanes(state: Lanes, now: float, window: Sequence[float] | None = None) -> dict[str, Any]:
    """Lanes of the live window, of the whole cell, or of ``window``: seconds since its begin."""
    ranks = state.ranks
    if not (state.kept or ranks.waits or ranks.freed):
        return {"n": ranks.n, "empty": True, "say": "No operations yet."}
    end = ranks.clock(now) if ranks.live else ranks.last
    whole = (ranks.started, max(end, ranks.started + 1e-6))
    first = max(whole[0], state.since)
    if window is not None:
        left, right = (ranks.started + float(edge) for edge in window)
    elif ranks.live:
        left, right = max(end - _live_span(state, end), first), end
    else:
        left, right = first, whole[1]
    lanes = evenly(ranks.members)
    shown = {rank: _inside(state.rows.get(rank, ()), left, right) for rank in lanes}
    view = {
        "n": ranks.n,
        "empty": False,
        "ranks": list(lanes),
        "live": ranks.live and window is None,
        "running": ranks.live,
        "cell": ranks.seq,
        "from": _micro(left - ranks.started),
        "span": max(_micro(right - left), 1),
        "whole": [_micro(first - ranks.started), _micro(whole[1] - ranks.started)],
        "cut": math.isfinite(state.since),
        "key": _key(state, left, right, window is not None),
        "open": _open(ranks, left, end),
        "marks": _marks(ranks, left),
        "release": _release(ranks, left),
        "say": _say(state, shown, right - left),
    }
    if sum(map(len, shown.values())) > _EXACT:
        runs = [_merged(shown[rank], left, right) for rank in lanes]
        return view | {"merged": True, "runs": runs, "ops": [], "names": [], "arrows": []}
    names: dict[tuple[str, str], int] = {}
    ops = [_told(state, shown[rank], left, names) for rank in lanes]
    arrows = _arrows(state, shown, left)
    return view | {
        "merged": False,
        "runs": [],
        "ops": ops,
        "names": [_label(op, name) for op, name in names],
        "arrows": arrows,
    }


def _live_span(state: Lanes, end: float) -> float:
    """Seconds of the live window: wider, by powers of two, while a wait began before it."""
    span = state.span
    since = min((wait.since for wait in state.ranks.waits.values()), default=end)
    while span < _SPANS[1] and end - since > 0.8 * span:
        span *= 2
    return min(span, _SPANS[1])


def _micro(seconds: float) -> int:
    return round(seconds * _MICRO)


def _inside(rows: Sequence[Row], left: float, right: float) -> Sequence[Row]:
    first = bisect_left(rows, left, key=lambda row: row.op.t1)
    last = bisect_left(rows, right, lo=first, key=lambda row: row.before)
    return rows[first:last]


def _label(op: str, name: str) -> str:
    return f"{op}({name!r})" if name else op


def _told(
    state: Lanes, rows: Sequence[Row], left: float, names: dict[tuple[str, str], int]
) -> list[list[int]]:
    """[start, computing, waiting, transferring, for whom, round, name, bytes, line of the cell].

    Times are in microseconds; the line is 0 where it is not known.
    """
    # Each time the picture is drawn for each operation in it, so it is written for speed.
    told = []
    for before, begin, wait, op in rows:
        rank, _, step, kind, name, _, end, _, late, nbytes, _, _, _, _ = op
        place = names.get((kind, name))
        if place is None:
            place = names[kind, name] = len(names)
        moving = end - begin - wait
        told.append(
            [
                round((before - left) * _MICRO),
                round((begin - before) * _MICRO),
                round(wait * _MICRO),
                round(moving * _MICRO) if moving > 0 else 0,
                late,
                step,
                place,
                nbytes,
                _line(state, rank, kind, name, step) if state.lines else 0,
            ]
        )
    return told


def _arrows(state: Lanes, shown: dict[int, Sequence[Row]], left: float) -> list[list[int]]:
    """[sender, when, receiver, when, whether it ended a wait] of the messages shown."""
    every = len(shown) < _FAINT
    begun: dict[tuple[str, str], dict[tuple[int, int], float]] = {}  # by rank and step
    for rank in shown:
        rows = state.rows.get(rank, [])
        first = bisect_left(rows, left - state.span, key=lambda row: row.op.t1)
        for _, _, _, op in rows[first : first + 2 * _EXACT]:
            what = (op[3], op[4])
            if what not in begun:
                begun[what] = {}
            begun[what][rank, op[2]] = op[5]
    arrows: list[list[int]] = []
    for _, _, _, op in chain.from_iterable(shown.values()):
        rank, _, step, kind, name, _, end, wait, late, _, _, sources, _, arrived = op
        starts = begun.get((kind, name), {})
        for source, there in zip(sources, arrived, strict=False):
            strong = source == late and wait > 0
            sent = starts.get((source, step))
            if sent is None or not (strong or every):
                continue
            at = max(min(there, end), sent)
            when = (round((sent - left) * _MICRO), round((at - left) * _MICRO))
            arrows.append([source, when[0], rank, when[1], int(strong)])
    # Among so many the faint ones could not be told apart.
    return arrows if len(arrows) <= _CROWD else [arrow for arrow in arrows if arrow[4]]


def _merged(rows: Sequence[Row], left: float, right: float) -> list[list[int]]:
    """[start, length, kind, for whom] in microseconds: what fills most of each column."""
    if not rows:
        return []
    table = np.array([(r.before, r.begin, r.begin + r.wait, r.op.t1, r.op.late) for r in rows])
    before, begin, come, end, late = table.T
    edges = np.linspace(left, right, _COLUMNS + 1)
    spent = np.array(
        [_filled(edges, a, b) for a, b in ((before, begin), (come, end), (begin, come))]
    )
    kind = np.where(spent.sum(axis=0) > 0, spent.argmax(axis=0), -1)
    middle = np.clip(np.searchsorted(end, (edges[:-1] + edges[1:]) / 2), 0, len(rows) - 1)
    whom = np.where(kind == WAIT, late[middle].astype(int), -1)
    starts = np.flatnonzero(np.r_[True, (np.diff(kind) != 0) | (np.diff(whom) != 0)])
    ends = np.r_[starts[1:], _COLUMNS]
    return [
        [_micro(edges[a] - left), _micro(edges[b] - edges[a]), int(kind[a]), int(whom[a])]
        for a, b in zip(starts, ends, strict=True)
        if kind[a] >= 0
    ]


def _filled(edges: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """How much of each column is inside of one of the stretches, which do not overlap."""
    at = np.ravel(np.column_stack([starts, ends]))
    length = ends - starts
    total = np.cumsum(length)
    so_far = np.ravel(np.column_stack([total - length, total]))
    return np.diff(np.interp(edges, np.maximum.accumulate(at), so_far))


def _key(state: Lanes, left: float, right: float, zoomed: bool) -> str:
    n = len(state.ranks.members)
    some = f"{count(LANES)} of {count(n)} ranks, " if n > LANES else ""
    return some + _length(state, left, right, zoomed)


def _length(state: Lanes, left: float, right: float, zoomed: bool) -> str:
    if state.ranks.live and not zoomed:
        return f"last {duration(right - left)}"
    cut = ", its beginning is dropped" if math.isfinite(state.since) and not zoomed else ""
    return f"{duration(right - left)}{cut}"


def _open(ranks: Ranks, left: float, end: float) -> list[list[Any]]:
    """[rank, since, until, for whom, in what] of what no operation has ended; for -1: it computes.

    A wait tells its operation, its round and its line of the cell, as far as these are known.
    """
    found = []
    for rank in ranks.members:
        wait = ranks.waits.get(rank) or ranks.freed.get(rank)
        stop = ranks.ends[rank].t if rank in ranks.ends else end
        busy = ranks.busy_until.get(rank, stop)
        if wait is not None:
            told = f"{_label(wait.op, wait.name)}, round {wait.step}"
            told += "" if wait.line is None else f", line {wait.line}"
            found.append((rank, wait.since, stop, next(iter(wait.peers), -1), told))
        found.append((rank, busy, stop if wait is None else wait.since, -1, ""))
    return [
        [rank, _micro(since - left), _micro(until - left), whom, told]
        for rank, since, until, whom, told in found
        if until > max(since, left)
    ]


def _marks(ranks: Ranks, left: float) -> list[list[Any]]:
    """[rank, when, word] of the ranks that raised or died."""
    marks: list[list[Any]] = []
    for rank in ranks.members:
        word = fate(ranks, rank).split(",")[0].split(" ")[0]
        if word:
            t = ranks.gone[rank].t if rank in ranks.gone else ranks.ends[rank].t
            marks.append([rank, _micro(t - left), word])
    return marks


def _release(ranks: Ranks, left: float) -> int | None:
    """When the others of a failed cell were set free."""
    times = [ranks.ends[rank].t for rank in ranks.freed]
    return _micro(min(times) - left) if times and not ranks.live else None


def _say(state: Lanes, shown: dict[int, Sequence[Row]], span: float) -> str:
    """Per rank: how busy it was, how long it waited, mostly for whom."""
    told = []
    for rank in list(shown)[:16]:
        waits: dict[int, float] = {}
        for row in shown[rank]:
            waits[row.op.late] = waits.get(row.op.late, 0.0) + row.wait
        waited = sum(waits.values())
        whom = max(waits, key=lambda peer: waits[peer], default=-1)
        mostly = f", mostly for {whom}" if waited > 0 and whom >= 0 else ""
        busy = percent(max(1 - waited / max(span, 1e-9), 0.0))
        told.append(f"rank {rank} busy {busy}, waited {duration(waited)}{mostly}")
    more = f"; {len(shown) - 16} more ranks" if len(shown) > 16 else ""
    return f"{'; '.join(told)}{more}." if told else f"{state.ranks.n} ranks."
