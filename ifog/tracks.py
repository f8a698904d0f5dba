"""How a rank's events are laid out in a trace: one line of Chrome's trace event format each.

A rank is a process, numbered rank + 1 because Perfetto takes process 0 for the idle one. Its first
track shows the cells; operations follow, on as many tracks as overlap at a time, then one track
for each tensor with activities. Times are multiples of 0.1 us from the timeline's start, and a
slice inside another one begins later and ends earlier, so that no reader's rounding crosses them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from json import dumps
from typing import Any, NamedTuple

from ifog.telemetry import CellEnd, CellStart, Event, OpEvent, WaitEvent

__all__ = ["Activity", "Layout"]

_TICKS = 10_000_000  # a second, in the tenths of a microsecond in which time is counted here
_STRIDE = 10_000  # track numbers of a rank; Perfetto wants them distinct across processes
_CELLS, _OPERATIONS, _ACTIVITIES = 0, 1, 5000  # the first track of each kind


class Activity(NamedTuple):
    """The beginning ("B") or end ("E") of an activity on a tensor."""

    phase: str
    t: float
    tensor: str
    activity: str


@lru_cache(maxsize=4096)
def _quoted(text: str) -> str:
    return dumps(text, ensure_ascii=False)


@lru_cache(maxsize=4096)
def _ranks(ranks: tuple[int, ...]) -> str:
    return dumps([int(rank) for rank in ranks])


@lru_cache(maxsize=4096)
def _printable(text: str) -> str:
    """The text as a JSON string without escapes of control characters, which Perfetto rejects."""
    return dumps("".join(c if c.isprintable() else " " for c in text), ensure_ascii=False)


class Layout:
    """Turns the events of one rank, in the order in which they came, into lines.

    Args:
        rank: whose events they are.
        base: the time that is written as 0, in seconds since 1970.
        cell: the number of the cell in which the timeline began.
    """

    def __init__(self, rank: int, base: float, cell: int = 0) -> None:
        self._pid = rank + 1
        self._base = base
        self._ends: list[int] = []
        self._activities: dict[str, int] = {}
        self._open: dict[int, int] = {}
        self.cell = cell

    def lines(self, event: Event | Activity) -> list[str]:
        """The lines of an event; none for those that are no part of a trace."""
        if isinstance(event, OpEvent):
            return self._operation(event)
        if isinstance(event, Activity):
            return self._activity(event)
        if isinstance(event, CellStart):
            self.cell = event.seq
            return [*self._name(_CELLS, "cells"), self._begin(_CELLS, event.t, f"cell {event.seq}")]
        if isinstance(event, CellEnd):
            # Rounds between two cells count on from the first one's: they are told by its number.
            self.cell = -event.seq
            return self._end(_CELLS, event.t, f'"args": {{"status": "{event.status}"}}')
        return [self._stuck(event)] if isinstance(event, WaitEvent) else []

    def metadata(self, kind: str, arguments: dict[str, Any], track: int = 0) -> str:
        """A line that says something about the rank or one of its tracks."""
        head = f'{{"ph": "M", "pid": {self._pid}, "tid": {self._tid(track)}, "name": "{kind}"'
        return f'{head}, "args": {dumps(arguments, ensure_ascii=False)}}}'

    def close(self, t: float) -> list[str]:
        """The ends of all that is still open at ``t``."""
        tracks = [track for track, depth in self._open.items() for _ in range(depth)]
        return [line for track in tracks for line in self._end(track, t, '"args": {}')]

    def _tid(self, track: int) -> int:
        return self._pid * _STRIDE + min(track, _STRIDE - 1)

    def _ticks(self, t: float) -> int:
        return max(0, round((t - self._base) * _TICKS))

    def _line(self, phase: str, track: int, ticks: int, rest: str) -> str:
        head = f'{{"ph": "{phase}", "pid": {self._pid}, "tid": {self._tid(track)}'
        return f'{head}, "ts": {ticks / 10}, {rest}}}'

    def _name(self, track: int, name: str) -> list[str]:
        return [
            self.metadata("thread_name", {"name": name}, track),
            self.metadata("thread_sort_index", {"sort_index": track}, track),
        ]

    def _begin(self, track: int, t: float, name: str) -> str:
        self._open[track] = self._open.get(track, 0) + 1
        return self._line("B", track, self._ticks(t), f'"name": {_printable(name)}')

    def _end(self, track: int, t: float, rest: str) -> list[str]:
        if not self._open.get(track):
            return []
        self._open[track] -= 1
        return [self._line("E", track, self._ticks(t), rest)]

    def _activity(self, row: Activity) -> list[str]:
        known = row.tensor in self._activities
        track = self._activities.setdefault(row.tensor, _ACTIVITIES + len(self._activities))
        if row.phase == "E":
            return self._end(track, row.t, '"args": {}')
        named = [] if known else self._name(track, row.tensor)
        return [*named, self._begin(track, row.t, row.activity)]

    def _place(self, start: int, end: int) -> tuple[int, bool]:
        """The track for an operation, and whether it is new; they come in the order of their ends.

        So an operation fits wherever the last one ended before it began.
        """
        for i, last in enumerate(self._ends):
            if last < start:
                self._ends[i] = end
                return _OPERATIONS + i, False
        self._ends.append(end)
        return len(self._ends) - 1 + _OPERATIONS, True

    def _operation(self, event: OpEvent) -> list[str]:
        start = self._ticks(event.t0)
        end = max(self._ticks(event.t1), start + 3)
        track, new = self._place(start, end)
        lines = self._name(track, f"operations {track}") if new else []
        title = _printable(f"{event.op} {event.name}".rstrip())
        arguments = _arguments(event, self.cell, self._ticks)
        rest = f'"dur": {(end - start) / 10}, "cat": "op", "name": {title}, "args": {arguments}'
        lines.append(self._line("X", track, start, rest))
        if event.late >= 0 and event.wait > 0.0:
            lines.append(self._wait(event, track, start, end))
        return lines

    def _wait(self, event: OpEvent, track: int, start: int, end: int) -> str:
        length = round(event.wait * _TICKS)
        over = self._ticks(max(event.arrived)) if event.arrived else start + length
        # Strictly inside its operation, whose beginning is where its arrows start.
        first = min(max(over - length, start + 1), end - 2)
        over = min(max(over, first + 1), end - 1)
        name = f'"name": "wait for rank {event.late}"'
        return self._line("X", track, first, f'"dur": {(over - first) / 10}, "cat": "wait", {name}')

    def _stuck(self, event: WaitEvent) -> str:
        peers = ", ".join(map(str, event.peers))
        title = _printable(f"waiting for rank {peers} in {event.op} {event.name}".rstrip())
        waited = (self._ticks(event.t) - self._ticks(event.since)) / 10
        arguments = dumps({"round": event.step, "peers": event.peers, "waited": waited})
        rest = f'"s": "t", "cat": "wait", "name": {title}, "args": {arguments}'
        return self._line("i", _OPERATIONS, self._ticks(event.t), rest)


def _arguments(event: OpEvent, cell: int, ticks: Callable[[float], int]) -> str:
    # By hand: with json this would be most of what a timeline costs.
    start = ticks(event.t0)
    weights = ", ".join([repr(float(w)) if math.isfinite(w) else f'"{w}"' for w in event.weights])
    arrived = ", ".join([repr((ticks(t) - start) / 10) for t in event.arrived])
    return (
        f'{{"op": "{event.op}", "tensor": {_quoted(event.name)}, "round": {event.step}, '
        f'"cell": {cell}, "seq": {event.seq}, "bytes": {event.nbytes}, '
        f'"dst": {_ranks(event.dst)}, "src": {_ranks(event.src)}, "weights": [{weights}], '
        f'"wait": {event.wait * 1e6:.1f}, "late": {event.late}, "arrived": [{arrived}]}}'
    )
