"""A run that is played again: an event source whose present moves, and can be put anywhere."""

from __future__ import annotations

import importlib
import math
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ifog.errors import ArgumentError, NotAvailableError
from ifog.tape import tape_of
from ifog.telemetry import Event
from ifog.telemetry import now as clock

__all__ = ["SPEEDS", "Replay", "replay"]

SPEEDS = tuple(float(f"{m}e{k}") for k in (-3, -2, -1, 0, 1) for m in (1, 2, 5))[:-1]
_LEAST = 5.0  # seconds that a run plays at first: many a cell is over before one can look


class Replay:
    """Plays a run; an event source for dashboards.

    Args:
        source: a recording's path, a cluster, or any event source; what it has now is played.

    Attributes:
        tape: the run.
        place: how many of its events have happened at the present.
        playing: whether the present moves.
        speed: how many seconds of the run go by in one.

    Raises:
        RecordingError: the file cannot be read, or is no recording.
        TypeError: the source has no events.

    Example:
        >>> from ifog.telemetry import CellStart, EventLog
        >>> log = EventLog()
        >>> log.write([CellStart(0, float(t), t, 1, (0,)) for t in (1, 2)])
        >>> replay = Replay(log)
        >>> replay.seek(0.5)
        >>> replay.since(0)[0]
        1
    """

    def __init__(self, source: Any) -> None:
        self.tape = tape_of(source)
        self.modelled = self.tape.modelled
        self.playing = False
        slow = [speed for speed in SPEEDS if speed <= 1 and self.tape.seconds / speed >= _LEAST]
        self.speed = max(slow, default=SPEEDS[0])
        self.place = 0
        edges = [edge for cell in self.tape.cells for edge in (cell.begin, cell.end)]
        ends = (self.tape.moment(0.0), self.tape.moment(self.tape.seconds))
        self._stops = sorted({*ends, *self.tape.rounds.tolist(), *edges})
        self._lock = threading.RLock()
        self._moment = self.tape.moment(0.0)
        self._looked = clock()
        self._put(self._moment)

    def since(self, cursor: int) -> tuple[int, list[Event]]:
        """The present, and the events after ``cursor`` that have happened by then."""
        with self._lock:
            return self.place, self.tape.events(min(cursor, self.place), self.place)

    def now(self) -> float:
        """The present, in seconds of the run."""
        return self._moment

    def advance(self) -> None:
        """Let the present catch up with the clock; it stops at the end of the run."""
        with self._lock:
            t = clock()
            gone, self._looked = t - self._looked, t
            if self.playing:
                self._put(self.tape.moment(self.seconds + self.speed * gone))
                self.playing = self._moment < self._stops[-1]

    @property
    def seconds(self) -> float:
        """How long one had to play from the beginning to get to the present."""
        return self.tape.played(self._moment)

    def play(self, *, speed: float | None = None) -> None:
        """Go on, from the beginning when the run is at its end.

        Raises:
            ArgumentError: a speed that is not a number above 0.
        """
        with self._lock:
            if speed is not None:
                self._set_speed(speed)
            self.advance()
            if self._moment >= self._stops[-1]:
                self.seek(0.0)
            self.playing = True

    def pause(self) -> None:
        """Stay where it is."""
        with self._lock:
            self.advance()
            self.playing = False

    def seek(self, seconds: float) -> None:
        """Put the present where playing would be after so many seconds.

        Raises:
            ArgumentError: not a number.
        """
        place = _number(seconds, "a place in the run, in seconds,")
        with self._lock:
            self._looked = clock()
            self._put(self.tape.moment(place))

    def step(self, rounds: int = 1) -> None:
        """Pause, and go on or back by rounds; where there are none, by cells."""
        with self._lock:
            self.pause()
            before = bisect_left(self._stops, self._moment)
            here = bisect_right(self._stops, self._moment) - 1 if rounds > 0 else before
            self._put(self._stops[min(max(here + rounds, 0), len(self._stops) - 1)])

    def do(self, command: Mapping[str, Any]) -> None:
        """What a dashboard asks for: ``{"play": True}``, ``{"seek": 3.5}``, ``{"step": -1}``.

        Raises:
            ArgumentError: it asks for something else.
        """
        for name, value in command.items():
            if name == "play":
                self.play() if value else self.pause()
            elif name == "seek":
                self.seek(value)
            elif name == "speed":
                self._set_speed(value)
            elif name == "step":
                self.step(int(_number(value, "a step")))
            else:
                raise ArgumentError(f"a replay plays, seeks, steps; it cannot {name!r}")

    def standing(self) -> dict[str, Any]:
        """What the bar above the panels shows of it, JSON-ready."""
        tape = self.tape
        return {
            "at": round(self.seconds, 6),
            "seconds": round(tape.seconds, 6),
            "playing": self.playing,
            "speed": self.speed,
            "speeds": list(SPEEDS),
            "ticks": [
                [round(tape.played(cell.begin), 6), f"cell {cell.seq}"] for cell in tape.cells
            ],
            "note": "; ".join(tape.notes),
        }

    def _put(self, moment: float) -> None:
        self._moment, self.place = moment, self.tape.place(moment)

    def _set_speed(self, speed: float) -> None:
        if _number(speed, "a speed") <= 0:
            raise ArgumentError(f"a speed is a number above 0, such as 2, not {speed!r}")
        with self._lock:
            self.advance()
            self.speed = float(speed)


def _number(value: Any, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ArgumentError(f"{what} is a number, not {value!r}")
    return float(value)


def replay(
    source: str | Path | Any,
    panels: Sequence[Any] | None = None,
    *,
    title: str = "",
    paused: bool = False,
) -> Any:
    """A dashboard that plays a recorded run, with a scrubber; display it as the value of a cell.

    Space plays and pauses, the arrow keys go on and back by a round, ``+`` and ``-`` change the
    speed. The time between two cells is cut short. ``page.source`` is the ``Replay``, with
    ``play``, ``pause``, ``seek`` and ``step`` for programs.

    Args:
        source: the path of a file that ``ifog.record`` wrote, or any source of events, such as a
            cluster, whose run so far is played.
        panels: the panels in reading order; by default all.
        title: the name of the run; by default what it was recorded under.
        paused: whether to stay at the beginning.

    Raises:
        RecordingError: the file cannot be read, or is no recording.
        TypeError: the source is neither a path nor has events.
        NotAvailableError: the packages that draw are not installed.

    Example:
        >>> page = replay("run.ifog")  # doctest: +SKIP
        >>> page.source.seek(12.0)  # doctest: +SKIP
    """
    run = Replay(source)
    try:
        widgets = importlib.import_module("ifog.widgets")
    except ImportError as error:
        raise NotAvailableError(
            f"ifog.replay needs {error.name}, which is not installed; type: pip install 'ifog[lab]'"
        ) from None
    if not paused:
        run.play()
    return widgets.Dashboard(run, panels, title or run.tape.title)
