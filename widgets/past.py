"""A live run as it was after one of its rounds: what the arrow keys of a paused page show."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Any

from ifog.sources import is_modelled
from ifog.tape import Tape, tape_of
from ifog.telemetry import Event

__all__ = ["Past"]


class Past:
    """An event source that ends after a round of another one, and can be moved by rounds.

    Args:
        source: the run, of which what is there now is kept.
        cell: the number of a cell, of which ``done`` rounds are over; where there is no such
            round, the run is taken as it is now.
        done: how many.

    Attributes:
        tape: the run as far as it is known here.
    """

    def __init__(self, source: Any, cell: int, done: int) -> None:
        self._source = source
        self.modelled = is_modelled(source)
        self._read()
        self._moment = self.tape.moment(self.tape.seconds)
        spans = [span for span in self.tape.cells if span.seq == cell]
        if spans and done > 0:
            rounds = self.tape.rounds
            place = int(rounds.searchsorted(spans[-1].begin)) + done - 1
            if place < len(rounds) and rounds[place] <= spans[-1].end:
                self._moment = float(rounds[place])

    def now(self) -> float:
        """The moment that is shown, in seconds of the run."""
        return self._moment

    def since(self, cursor: int) -> tuple[int, list[Event]]:
        """The new cursor, and the events after ``cursor`` that had happened by then."""
        place = self.tape.place(self._moment)
        return place, self.tape.events(min(cursor, place), place)

    def step(self, rounds: int) -> None:
        """Go on or back by rounds; where the run has gone on since, it is read again."""
        if rounds > 0 and self._moment >= self._stops[-1]:
            self._read()
        if rounds > 0:
            place = bisect_right(self._stops, self._moment) + rounds - 1
        else:
            place = bisect_left(self._stops, self._moment) + rounds
        self._moment = self._stops[min(max(place, 0), len(self._stops) - 1)]

    def _read(self) -> None:
        self.tape: Tape = tape_of(self._source)
        rounds = self.tape.rounds.tolist()
        edges = [edge for cell in self.tape.cells for edge in (cell.begin, cell.end)]
        ends = [self.tape.moment(0.0), self.tape.moment(self.tape.seconds)]
        self._stops: list[float] = sorted(rounds or edges or ends)
