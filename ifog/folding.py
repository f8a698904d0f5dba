"""One fold over a run that can be read at any place: bookmarks make going back cheap."""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

from ifog.tape import Tape

__all__ = ["Folding", "copied"]

_MARKS = 64  # bookmarks in a run, which is folded again from the last one before a place
_LEAST = 2000  # events between two of them
_FIXED = (int, float, complex, str, bytes, tuple, frozenset, type(None))

State = TypeVar("State")


def copied(value: Any, seen: dict[int, Any] | None = None) -> Any:
    """A copy that shares only what a fold never changes: numbers, text, and all in tuples.

    Events are tuples, so a state that keeps a hundred thousand of them is copied in a moment.
    """
    if isinstance(value, _FIXED):
        return value
    seen = {} if seen is None else seen
    if id(value) in seen:
        return seen[id(value)]
    fresh = seen[id(value)] = copy.copy(value)
    if isinstance(value, list | deque):
        if not all(issubclass(kind, _FIXED) for kind in set(map(type, value))):
            fresh.clear()
            fresh.extend(copied(item, seen) for item in value)
    elif isinstance(value, dict):
        fresh.update({key: copied(item, seen) for key, item in value.items()})
    elif not isinstance(value, set | np.ndarray):
        for name in (*getattr(value, "__dict__", ()), *getattr(type(value), "__slots__", ())):
            object.__setattr__(fresh, name, copied(getattr(value, name), seen))
    return fresh


class Folding(Generic[State]):
    """The state of a fold, after any number of a run's events.

    Args:
        initial: makes the state before the first event.
        fold: the state after some more events; it may change the state in place.
    """

    def __init__(
        self, initial: Callable[[], State], fold: Callable[[State, Sequence[Any]], State]
    ) -> None:
        self._initial, self._fold = initial, fold
        self.clear()

    def clear(self) -> None:
        """Back to before the first event of a run that is not known yet."""
        self.state, self.place = self._initial(), 0
        self._marks: list[tuple[int, State]] = []

    def take(self, cursor: int, events: Sequence[Any]) -> None:
        """Fold what is new of a run that goes on; ``cursor`` is the place after it."""
        self.state, self.place = self._fold(self.state, events), cursor

    def go(self, tape: Tape, place: int) -> None:
        """Be at ``place`` of a run that is over."""
        index = bisect_right(self._marks, place, key=lambda mark: mark[0])
        begin, kept = self._marks[index - 1] if index else (0, None)
        if place < self.place or begin > self.place:
            self.state = self._initial() if kept is None else copied(kept)
            self.place = begin
        if self.place < place:
            self.state = self._fold(self.state, tape.events(self.place, place))
            self.place = place

    def prepare(self, tape: Tape) -> bool:
        """Place the next bookmark; whether there are more to place."""
        begin, kept = self._marks[-1] if self._marks else (0, None)
        stop = begin + max(len(tape) // _MARKS, _LEAST)
        if stop >= len(tape):
            return False
        state = self._initial() if kept is None else copied(kept)
        self._marks.append((stop, self._fold(state, tape.events(begin, stop))))
        return True
