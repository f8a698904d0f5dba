"""Events on their way from a rank to the notebook, over the engine's own output channel.

An operation pays for one append to a queue. A thread wakes a few times a second, more often while
somebody looks at a dashboard, and sends now and then what is queued as one ``ifog_events`` message,
whose parent is the request being served, so that the notebook's side finds the cell it belongs to;
the channel is authenticated and ordered, and it is the one that printed text takes. The rows travel
as a pickled buffer beside the message's content: that takes a tenth of the time of JSON, which a
loop of small operations would notice, and keeps NaN and infinity, which norms of diverging iterates
are. The channel signs the content but not the buffers, so the content carries the buffer's digest;
and what reads the rows makes plain values only, whatever the pickle asks for.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import pickle
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

from ifog.event_bytes import Deferred, pack, unpack
from ifog.telemetry import (
    LANDMARKS,
    Event,
    LostEvent,
    OpEvent,
    WaitEvent,
    encode,
    now,
    revive,
)

__all__ = ["MESSAGE", "Batch", "IOPubSink", "batch_of"]

MESSAGE = "ifog_events"
_PERIODS = (0.25, 4.0)  # seconds between two messages, early and late in a cell
_LIVE_PERIOD = 0.05  # while a dashboard is open
_LOOK = 0.25  # seconds between two looks at what the main thread waits for
_IDLE = 1.0  # and, between cells, at whether an operation was called there
_MANY = 8000  # events that do not wait for the period to end
_LIMIT = 32_000  # events in one message
_NEWS = (*LANDMARKS, WaitEvent)
_T1 = OpEvent._fields.index("t1")
_PARTS = 2  # buffers of a message: all events, and once more those that are news


class IOPubSink:
    """Sends a rank's events through ``send(content, buffers, parent)``, in batches.

    Attributes:
        lost: the events of this cell that were dropped because they came too fast.
    """

    def __init__(
        self,
        rank: int,
        send: Callable[[dict[str, Any], list[bytes], Any], None],
        waiting: Callable[[], WaitEvent | None],
    ) -> None:
        self.lost = 0
        self._rank = rank
        self._send = send
        self._waiting = waiting
        self._parent: Any = None
        self._busy = False
        self._period = _PERIODS[0]
        self._live = False
        self._sent = self._looked = 0.0
        self._pending: deque[Any] = deque()  # events; operations as plain tuples
        self.operation: Callable[[tuple[Any, ...]], None] = self._pending.append
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="ifog-events", daemon=True)
        self._thread.start()

    def write(self, events: Sequence[Event]) -> None:
        """Queue the events."""
        self._pending.extend([tuple(e) if type(e) is OpEvent else e for e in events])
        self._wake.set()

    @property
    def live(self) -> bool:
        """Whether somebody looks at a dashboard; what is sent then comes often."""
        return self._live

    @live.setter
    def live(self, live: bool) -> None:
        self._live, self._period = live, _LIVE_PERIOD if live else _PERIODS[0]

    def attach(self, parent: Any, *, busy: bool) -> None:
        """Send from now on in answer to ``parent``; while ``busy``, report waits too."""
        if busy:
            self.lost = 0
            self.live = False
        self._parent = parent
        self._busy = busy
        self._wake.set()

    def flush(self) -> None:
        """Send what is queued now; returns when it is handed to the channel."""
        with self._lock:
            take = self._pending.popleft
            events = [take() for _ in range(len(self._pending))]
            if not events:
                return
            kept = _thinned(events)
            lost = len(events) - len(kept)
            if lost:
                self.lost += lost
                kept.insert(0, LostEvent(self._rank, now(), lost))
            last = next((e for e in reversed(kept) if type(e) is tuple), None)
            rows = [_rows(kept), _rows([e for e in kept if isinstance(e, _NEWS)])]
            content = {
                "rank": self._rank,
                "count": len(kept),
                "lost": lost,
                "sha256": _digests(rows),
                "busy_until": None if last is None else last[_T1],
            }
            self._send(content, rows, self._parent)

    def close(self) -> None:
        """Send the rest and end the thread."""
        self._closed.set()
        self._wake.set()
        self._thread.join(timeout=1.0)
        self.flush()

    def _run(self) -> None:
        while not self._closed.is_set():
            if not self._busy:
                self._wake.wait(_IDLE)
                self._wake.clear()
            waits = self._busy and self._look()
            due = not self._busy or now() - self._sent >= self._period
            if waits or due or len(self._pending) > _MANY:
                self.flush()
                self._sent = now()
                if not self._live:
                    self._period = min(2 * self._period, _PERIODS[1])
            self._closed.wait(min(self._period, _LOOK))

    def _look(self) -> bool:
        """Whether the main thread waits, which is then the newest event."""
        moment = now()
        if moment - self._looked < _LOOK:
            return False
        self._looked = moment
        event = self._waiting()
        if event is None or moment - event.since <= _LOOK:
            return False
        self._pending.append(event)
        return True


def _thinned(events: list[Any]) -> list[Any]:
    """The newest events up to the limit, and all that folds cannot do without."""
    surplus = len(events) - _LIMIT
    if surplus <= 0:
        return events
    return [e for e in events[:surplus] if isinstance(e, LANDMARKS)] + events[surplus:]


class _PlainUnpickler(pickle.Unpickler):
    """Reads numbers, text, lists and tuples; refuses everything that is found by a name."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is no part of an event")

    def persistent_load(self, _: Any) -> Any:
        raise pickle.UnpicklingError("an event refers to nothing outside")


class Batch(NamedTuple):
    """The events of one message.

    Attributes:
        rank: whose they are.
        events: all, in their order, read when they are asked for.
        news: those of cells, graphs and waits, for which nobody can wait.
        lost: how many the rank dropped before them.
        busy_until: when the last operation among them ended, or None.
    """

    rank: int
    events: Deferred
    news: list[Event]
    lost: int
    busy_until: float | None


def batch_of(message: dict[str, Any]) -> Batch:
    """The events of an ``ifog_events`` message.

    The signature of the message's content has been checked by the session that received it.

    Raises:
        ValueError: the rows are not those that the content was signed with, or not events of this
            version.
    """
    content, rows = message["content"], [bytes(part) for part in message["buffers"]]
    if len(rows) != _PARTS or not hmac.compare_digest(_digests(rows), str(content.get("sha256"))):
        raise ValueError("the events are not those that were signed")
    try:
        rank, count, lost, until = map(content.get, ("rank", "count", "lost", "busy_until"))
        events = Deferred(int(count), partial(_read, rows[0]))
        return Batch(int(rank), events, _read(rows[1]), int(lost), until and float(until))
    except TypeError as error:
        raise ValueError(f"not a batch of events: {error}") from None


def _digests(rows: Sequence[bytes]) -> str:
    return " ".join(hashlib.sha256(part).hexdigest() for part in rows)


def _rows(events: Sequence[Any]) -> bytes:
    """Operations, which are plain tuples, as columns, and where among them the others were."""
    operations = [e for e in events if type(e) is tuple]
    others = [(place, encode(e)) for place, e in enumerate(events) if type(e) is not tuple]
    rows = (pack(operations) if operations else None, others)
    return pickle.dumps(rows, pickle.HIGHEST_PROTOCOL)


def _read(data: bytes) -> list[Event]:
    try:
        columns, others = _PlainUnpickler(io.BytesIO(data)).load()
        events: list[Event] = [] if columns is None else [*unpack(columns)]
        for place, row in others:
            events.insert(place, revive(row))
        return events
    except ValueError:
        raise
    except Exception as error:  # a broken pickle raises nearly anything
        raise ValueError(f"not events: {type(error).__name__}: {error}") from None
