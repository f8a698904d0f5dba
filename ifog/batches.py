"""Events on their way to the folds: operations of one rank come in runs, which are taken as one.

Nearly all events are operations, and they arrive in messages of one rank each. What a fold must ask
of an event, whose it is and whether it counts, it therefore asks once a run. Several folds that
read the same events share a ``Batch``, whose runs are found once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from ifog.ranks import Ranks, admits, is_at_work, track
from ifog.telemetry import Event, OpEvent

__all__ = ["Batch", "Once", "Run", "alike", "belonging", "in_runs"]

Run = list[OpEvent]  # at least one, all of one rank


class Batch(list[Event]):
    """Events in their order; ``runs`` is what ``in_runs`` has found, once it was asked."""

    __slots__ = ("runs",)

    def __init__(self, events: Iterable[Event]) -> None:
        super().__init__(events)
        self.runs: list[Run | Event] | None = None


class Once:
    """A source as it is at one moment, for several readers: what is new is read once for all.

    Args:
        source: an event source that goes on meanwhile.
        cursor: from where on most of them read.
    """

    def __init__(self, source: Any, cursor: int) -> None:
        self._source = source
        self._begin = cursor
        self.cursor, events = source.since(cursor)
        self._events = Batch(events)

    def since(self, cursor: int) -> tuple[int, list[Event]]:
        """The cursor of the moment, or a later one, and the events from ``cursor`` to it."""
        if cursor == self._begin:
            return self.cursor, self._events
        if cursor >= self.cursor:
            return cursor, []
        newest, events = self._source.since(cursor)
        return self.cursor, events[: len(events) - (newest - self.cursor)]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


def in_runs(events: Iterable[Event]) -> list[Run | Event]:
    """The events in their order, neighbours that are operations of one rank as a list of them."""
    if not isinstance(events, Batch):
        return _runs(events)
    if events.runs is None:
        events.runs = _runs(events)
    return events.runs


def _runs(events: Iterable[Event]) -> list[Run | Event]:
    found: list[Run | Event] = []
    run: Run = []
    rank = None
    for event in events:
        if type(event) is not OpEvent:
            rank = None
            found.append(event)
        elif event[0] == rank:
            run.append(event)
        else:
            run, rank = [event], event[0]
            found.append(run)
    return found


def belonging(ranks: Ranks, events: Iterable[Event]) -> Iterator[Run | Event]:
    """The events that belong to the newest cell, which ``ranks`` follows.

    All but operations have been told to ``ranks`` when they are given out; a fold that asks for
    what operations cost tells them itself, by ``operate``.
    """
    for item in in_runs(events):
        if type(item) is not list:
            if track(ranks, item):  # type: ignore[arg-type]  # an event, since it is no run
                yield item
        elif is_at_work(ranks, item[0][0]) or admits(ranks, item[0]):
            yield item


def alike(run: Run) -> Iterator[tuple[OpEvent, int, int]]:
    """Parts of a run that are the same operation to the same ranks: one of it, bytes, how many."""
    first, nbytes, many = run[0], 0, 0
    for event in run:
        if event[10] != first[10] or event[3] != first[3]:
            yield first, nbytes, many
            first, nbytes, many = event, 0, 0
        nbytes += event[9]
        many += 1
    yield first, nbytes, many
