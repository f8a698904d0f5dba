"""One fold over a run that can be read at any place: bookmarks make going back cheap."""

from __future__ import annotations

import pickle
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from ifog.tape import Tape

__all__ = ["Folding"]

_MARKS = 64  # bookmarks in a run, which is folded again from the last one before a place
_LEAST = 2000  # events between two of them

State = TypeVar("State")


class Folding(Generic[State]):
    """The state of a fold, after any number of a run's events.

    Bookmarks are bytes in memory, because a fold may change its state in place.

    Args:
        initial: makes the state before the first event.
        fold: the state after some more events.
    """

    def __init__(
        self, initial: Callable[[], State], fold: Callable[[State, Sequence[Any]], State]
    ) -> None:
        self._initial, self._fold = initial, fold
        self.clear()

    def clear(self) -> None:
        """Back to before the first event of a run that is not known yet."""
        self.state, self.place = self._initial(), 0
        self._scout, self._ahead = self._initial(), 0
        self._marks: list[tuple[int, bytes]] = []

    def take(self, cursor: int, events: Sequence[Any]) -> None:
        """Fold what is new of a run that goes on; ``cursor`` is the place after it."""
        self.state, self.place = self._fold(self.state, events), cursor

    def go(self, tape: Tape, place: int) -> None:
        """Be at ``place`` of a run that is over."""
        begin, kept = self._mark(place)
        if place < self.place or begin > self.place:
            self.state = self._initial() if kept is None else pickle.loads(kept)  # our own bytes
            self.place = begin
        while self.place < place:
            stop = min(place, self._next(tape, self.place))
            self.state = self._fold(self.state, tape.events(self.place, stop))
            self.place = stop

    def prepare(self, tape: Tape) -> bool:
        """Place the next bookmark; whether there are more to place."""
        stop = self._next(tape, self._ahead)
        if stop >= len(tape):
            return False
        self._scout = self._fold(self._scout, tape.events(self._ahead, stop))
        self._ahead = stop
        try:
            kept = pickle.dumps(self._scout, pickle.HIGHEST_PROTOCOL)
        except (pickle.PicklingError, AttributeError, TypeError):
            return False  # going back folds from the beginning then
        self._marks.append((stop, kept))
        return True

    def _mark(self, place: int) -> tuple[int, bytes | None]:
        index = bisect_right(self._marks, place, key=lambda mark: mark[0])
        return self._marks[index - 1] if index else (0, None)

    @staticmethod
    def _next(tape: Tape, place: int) -> int:
        apart = max(len(tape) // _MARKS, _LEAST)
        return (place // apart + 1) * apart
