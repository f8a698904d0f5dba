"""The thread that keeps panels up to date while a cell blocks the kernel's main thread.

It asks the source for new events some twenty times a second, folds them and sets one trait a panel;
a panel that takes long is asked less often. Nothing new costs a comparison; a closed feed costs
nothing. A panel that fails says so in its own place, and the others go on: nothing here can fail in
the notebook.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, MutableSet, Sequence
from time import monotonic, thread_time
from typing import Any, Protocol

from ifog.batches import Once
from ifog.sources import EventSource, events_of, source_of
from ifog.telemetry import now
from ifog.widgets.past import Past

__all__ = ["Feed"]

_PERIOD = 0.045  # seconds between two looks at the source
_BREATH = 0.005  # seconds that are always left to other threads
_SLOW = 0.25  # with many ranks
_MANY = 32
_REST = 60  # times as long as it worked a panel rests, so that none takes much of a core
_LONGEST = 2.0  # seconds it may rest
_REFRESH = 0.5  # seconds after which clocks and rates move on without news


class Follower(Protocol):
    """What a feed keeps up to date."""

    n: int
    asleep: bool

    def announce(self, source: EventSource) -> None:
        """``source`` is about to be read for the first time."""

    def take(self, source: EventSource) -> None:
        """Take what is new in ``source``, which is not shown yet."""

    def follow(self, source: EventSource, *, refresh: bool) -> None:
        """Take what is new in ``source``; ``refresh`` asks to move on without news too."""

    def restart(self) -> None:
        """Read the source again from its beginning."""

    def turn(self, *, back: bool) -> None:
        """Read a past of the source from now on, or the source itself again where it was left."""

    def prepare(self, source: EventSource) -> bool:
        """Do a bit of what makes going back in ``source`` quick; whether more is to be done."""


def _followers(events: Any) -> MutableSet[Any]:
    followers: MutableSet[Any] = getattr(events, "followers", set())
    return followers


class Feed:
    """Reads one source for several panels.

    Args:
        source: an event source, or an object whose ``events`` is one (read anew at each look).
        panels: the panels, each of which reads at its own cursor.
        deliver: called after each look, to send what the panels show now.
    """

    def __init__(
        self, source: Any, panels: Sequence[Follower], deliver: Callable[[], None] | None = None
    ) -> None:
        self._source = source_of(source)
        self._panels = tuple(panels)
        self._deliver = deliver
        self._closed = threading.Event()
        self._looking = threading.Lock()
        self._refreshed = 0.0
        self._rested: dict[Follower, float] = dict.fromkeys(self._panels, 0.0)
        self._unprepared: deque[Follower] = deque()
        self._events: Any = None
        self._read = 0  # events that are unpacked
        self._past: Past | None = None
        self._asked: deque[tuple[int, int, int]] = deque()
        self._thread = threading.Thread(target=self._run, name="ifog dashboard", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Look no more; returns when the thread has ended."""
        self._closed.set()
        _followers(self._events).discard(self)
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout=2.0)

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed.is_set()

    def step_back(self, by: int, cell: int, done: int) -> None:
        """Show the run ``by`` rounds later than now, negative for earlier; 0 to show it live again.

        Args:
            by: how many rounds.
            cell: where the page was paused: in this cell,
            done: and after so many of its rounds.
        """
        self._asked.append((by, cell, done))  # the thread may have to read the whole run

    def step(self) -> None:
        """One look: fold what is new into every panel."""
        self._look(self._panels)

    def _look(self, panels: Iterable[Follower]) -> None:
        with self._looking:
            events: Any = events_of(self._source)
            self._answer(events)
            if self._events is not events:
                for panel in self._panels if self._events is not None else ():
                    panel.restart()
                self._events, self._read = events, 0
                for panel in self._panels:
                    panel.announce(events)
                self._unprepared = deque(self._panels)
            if not all(panel.asleep for panel in self._panels):
                _followers(events).add(self)
            else:  # engines need not send as often for pages that nobody sees
                _followers(events).discard(self)
            if hasattr(events, "advance"):
                events.advance()
            events = self._past or events
            events = self._taken(events)
            time = now()
            due = time - self._refreshed > _REFRESH
            for panel in panels:
                if not panel.asleep:
                    begun = thread_time()
                    panel.follow(events, refresh=due)
                    rest = min(_REST * (thread_time() - begun), _LONGEST)
                    self._rested[panel] = monotonic() + rest
            if due:
                self._refreshed = time
            if self._deliver is not None:
                self._deliver()

    def _taken(self, events: Any) -> Any:
        """The source as it is now, after all panels have taken what is new in it."""
        if getattr(events, "tape", None) is not None:
            return events
        present = Once(events, self._read)
        self._read = present.cursor
        for panel in self._panels:  # one that rests is spared its picture, not the events
            if not panel.asleep:
                panel.take(present)
        return present

    def _answer(self, events: Any) -> None:
        """Go to where the page asks to be: to a round that is over, or to the present."""
        if self._past is not None and self._events is not events:
            self._asked.append((0, 0, 0))  # another run has begun
        while self._asked:
            by, cell, done = self._asked.popleft()
            tape = None if self._past is None else self._past.tape
            if not by:
                self._past = None
            else:
                self._past = self._past or Past(events, cell, done)
                self._past.step(by)
            if tape is not (None if self._past is None else self._past.tape):
                for panel in self._panels:
                    panel.turn(back=bool(by))
                self._unprepared = deque(self._panels if by else ())
            self._rested = dict.fromkeys(self._panels, 0.0)

    def _run(self) -> None:
        period = 0.0
        while not self._closed.wait(period):
            moment = monotonic()
            # Asked one by one, because where the page goes elsewhere no panel rests.
            self._look(panel for panel in self._panels if self._rested[panel] <= moment)
            many = max((panel.n for panel in self._panels), default=0) > _MANY
            # What the look itself took counts, or there were fewer looks than there should be.
            period = max((_SLOW if many else _PERIOD) - (monotonic() - moment), _BREATH)
            due = now() + period
            while not self._closed.is_set() and now() < due and self._prepare():
                period = due - now()

    def _prepare(self) -> bool:
        """Let one panel place one bookmark, in turns; whether any has more to place."""
        if self._unprepared:
            panel = self._unprepared.popleft()
            if panel.prepare(self._past or self._events):
                self._unprepared.append(panel)
        return bool(self._unprepared)
