"""What happens on the ranks, as small immutable records, and the places they go to.

Ops emit events, sinks carry them, folds turn them into pictures. Only the standard library is
used: this is the one module that engines and notebook share. Events are named tuples because one
is made for every operation: building one costs a third of a frozen dataclass, and a row on the
wire is the tuple itself behind its kind.
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from weakref import WeakSet

__all__ = [
    "EPOCH",
    "LANDMARKS",
    "CellEnd",
    "CellStart",
    "DeathEvent",
    "Event",
    "EventLog",
    "GraphEvent",
    "JsonlSink",
    "LawEvent",
    "LogEvent",
    "LostEvent",
    "OpEvent",
    "Sink",
    "Tee",
    "WaitEvent",
    "WatchEvent",
    "decode",
    "encode",
    "now",
    "read_jsonl",
    "reporter",
    "revive",
]


def _epoch(tries: int = 8) -> float:
    # Each process measures this by itself; a try that was not interrupted is exact to 0.2 us,
    # so that the processes of one machine agree.
    brackets = []
    for _ in range(tries):
        before, wall, after = time.perf_counter(), time.time(), time.perf_counter()
        brackets.append((after - before, wall - (before + after) / 2))
    return min(brackets)[1]


EPOCH = _epoch()  # seconds since 1970 at which time.perf_counter() was 0


def now() -> float:
    """Seconds since 1970, from a clock that never steps back within a process."""
    return EPOCH + time.perf_counter()


class CellStart(NamedTuple):
    """Rank ``rank`` begins cell ``seq``, in which ``ranks`` take part, in a world of ``n``."""

    rank: int
    t: float
    seq: int
    n: int
    ranks: tuple[int, ...]


class CellEnd(NamedTuple):
    """Rank ``rank`` is through with cell ``seq``.

    ``status`` is "ok", "error" or "interrupted"; ``rounds`` the largest number of mixing rounds of
    one name; ``nbytes`` what the rank sent; ``wait`` the seconds it was blocked for others;
    ``lost`` the events dropped because they came too fast; ``error`` is None or a mapping with
    ``ename``, ``evalue``, ``line`` (of the cell, or None), ``where``, ``peer`` (the rank whose
    failure it reports, or None), ``traceback`` (plain text, frames of the user's code only) and
    ``wait`` (the fields of the ``WaitEvent`` that the error cut off, or None).
    """

    rank: int
    t: float
    seq: int
    status: str
    rounds: int
    nbytes: int
    wait: float
    lost: int
    error: dict[str, Any] | None


class OpEvent(NamedTuple):
    """One finished operation of one rank.

    ``seq`` counts the rank's operations, ``step`` the earlier ones of this op and name in the cell
    (the round, from 0). ``t0``..``t1`` is the whole call in seconds since 1970, ``wait`` the part
    in which a peer had not arrived yet, ``late`` the last peer to arrive (-1: none). ``nbytes`` is
    the payload sent to all of ``dst`` together. For mixing ops ``weights`` is
    ``(self_weight, weight of src[0], weight of src[1], ...)``, the row of W used in this round,
    sender's factors included; for other ops it is empty. ``arrived`` says when the message of each
    of ``src`` was there, in that order; it is empty where nobody looked.
    """

    rank: int
    seq: int
    step: int
    op: str
    name: str
    t0: float
    t1: float
    wait: float
    late: int
    nbytes: int
    dst: tuple[int, ...]
    src: tuple[int, ...]
    weights: tuple[float, ...]
    arrived: tuple[float, ...] = ()


class WatchEvent(NamedTuple):
    """A glance at one rank's copy of a watched tensor after ``step`` rounds (0: before the first).

    ``sample`` holds the same at most 64 entries on every rank, spread evenly over the ``numel``
    entries; ``norm`` is the 2-norm of the whole tensor; ``eps`` the spacing of its dtype at 1.
    """

    rank: int
    t: float
    name: str
    step: int
    numel: int
    norm: float
    eps: float
    sample: tuple[float, ...]


class LogEvent(NamedTuple):
    """Figures that the user's code gave to ``log``: (name, value) in the order of the call.

    ``step`` counts the rank's earlier calls in the cell, ``round`` its finished rounds.
    """

    rank: int
    t: float
    step: int
    round: int
    values: tuple[tuple[str, float], ...]


class LawEvent(NamedTuple):
    """One rank's part of a law that the user's code had checked after ``step`` rounds.

    ``left`` and ``right`` are glances at two tensors whose sums over ranks must be equal; with
    ``owner`` >= 0, ``left`` is this rank's copy of that rank's tensor, all copies of which must be
    equal, and ``right`` is empty. ``eps`` is the spacing of the dtype at 1.
    """

    rank: int
    t: float
    law: str
    owner: int
    step: int
    eps: float
    left: tuple[float, ...]
    right: tuple[float, ...]


class GraphEvent(NamedTuple):
    """The declared graph, sent by rank 0 when it is set: ``edges`` of (u, v, weight), u sends to v.

    Self loops are among the edges and carry the self weights; ``weight`` is what v applies to u.
    """

    rank: int
    t: float
    n: int
    label: str
    edges: tuple[tuple[int, int, float], ...]


class WaitEvent(NamedTuple):
    """Rank ``rank`` has been blocked since ``since`` in ``op`` for ``peers``; repeated while so.

    It needs every one of ``peers``. ``moving`` says that something is under way already, so that
    the wait ends whatever the peers do; ``line`` is the line of the user's cell, if it is known.
    """

    rank: int
    t: float
    op: str
    name: str
    step: int
    peers: tuple[int, ...]
    since: float
    moving: bool = False
    line: int | None = None


class LostEvent(NamedTuple):
    """Rank ``rank`` dropped ``events`` events before ``t``, because they came too fast."""

    rank: int
    t: float
    events: int


class DeathEvent(NamedTuple):
    """The process of rank ``rank`` was found gone at ``t``, as noted by the notebook's side.

    ``cause`` says how it ended, such as "signal 9"; "" where that is not known.
    """

    rank: int
    t: float
    cause: str


Event = (
    CellStart
    | CellEnd
    | OpEvent
    | WatchEvent
    | LogEvent
    | LawEvent
    | GraphEvent
    | WaitEvent
    | LostEvent
    | DeathEvent
)

LANDMARKS = (CellStart, CellEnd, GraphEvent)
_LANDMARKS_KEPT = 4096  # of those that fell out of a log

_KINDS: dict[str, Any] = {
    "start": CellStart,
    "end": CellEnd,
    "op": OpEvent,
    "watch": WatchEvent,
    "log": LogEvent,
    "law": LawEvent,
    "graph": GraphEvent,
    "wait": WaitEvent,
    "lost": LostEvent,
    "death": DeathEvent,
}
_NAMES: dict[type, str] = {cls: kind for kind, cls in _KINDS.items()}
_MAKERS: dict[str, Any] = {kind: cls._make for kind, cls in _KINDS.items()}


def encode(event: Event) -> list[Any]:
    """The event as a JSON-ready row: its kind, then its fields."""
    return [_NAMES[type(event)], *event]


def _freeze(value: Any) -> Any:
    # Rows that took a trip through JSON have lists where events have tuples.
    return tuple(map(_freeze, value)) if type(value) is list else value


def decode(row: Sequence[Any]) -> Event:
    """The event of a row made by ``encode``, also after a trip through JSON.

    Raises:
        ValueError: the row is not an event of this version.
    """
    fields: Iterable[Any] = row[1:]
    if list in map(type, fields):
        fields = map(_freeze, fields)
    try:
        return _KINDS[row[0]](*fields)  # type: ignore[no-any-return]
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"not an event row: {str(row)[:80]!r}") from error


def revive(row: Sequence[Any]) -> Event:
    """``decode`` of a row that no JSON has touched, in a tenth of its time.

    Raises:
        ValueError: the row is not an event of this version.
    """
    try:
        return _MAKERS[row[0]](row[1:])  # type: ignore[no-any-return]
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"not an event row: {str(row)[:80]!r}") from error


class Sink(Protocol):
    """Where events go."""

    def write(self, events: Sequence[Event]) -> None:
        """Take the events; must not block and must not raise for a slow reader."""


class Tee:
    """Hands events on to several sinks."""

    def __init__(self, sinks: Sequence[Sink]) -> None:
        self.sinks = tuple(sinks)

    def write(self, events: Sequence[Event]) -> None:
        """Hand the events to every sink."""
        for sink in self.sinks:
            sink.write(events)


def reporter(sink: Sink | None) -> Callable[[tuple[Any, ...]], None] | None:
    """What takes the fields of an ``OpEvent``, a tuple, to the sink: its ``operation`` if any."""
    if sink is None:
        return None
    direct: Callable[[tuple[Any, ...]], None] | None = getattr(sink, "operation", None)
    return direct or (lambda fields: sink.write((OpEvent._make(fields),)))


class EventLog:
    """The last ``capacity`` events, to be read at the reader's own pace; also a sink.

    Cells and graphs stay when they fall out: without them the rest says little to late readers.
    Producers call ``write`` from any thread; each reader keeps a cursor and asks ``since(cursor)``.
    ``lost`` counts what engines dropped, as told by the batches; ``followers`` are the live views
    that read the log, for whose sake engines send more often.
    """

    def __init__(self, capacity: int = 200_000) -> None:
        self._capacity = capacity
        self._chunks: deque[tuple[Collection[Event], Sequence[Event]]] = deque()
        self._kept: deque[tuple[int, Event]] = deque(maxlen=_LANDMARKS_KEPT)  # with their places
        self._held = 0  # events in the chunks
        self._written = 0
        self._lock = threading.Lock()
        self.lost = 0
        self.followers: WeakSet[Any] = WeakSet()

    def write(self, events: Collection[Event], marks: Sequence[Event] = ()) -> None:
        """Append the events, which are read when asked for; the oldest fall out of a full log.

        ``marks`` are those of cells and graphs among them where these are no list.
        """
        chunk = tuple(events) if isinstance(events, list) else events
        if not chunk:
            return
        with self._lock:
            self._chunks.append((chunk, chunk if isinstance(chunk, tuple) else marks))
            self._held += len(chunk)
            self._written += len(chunk)
            while self._held - len(self._chunks[0][0]) >= self._capacity:
                chunk, marks = self._chunks.popleft()
                self._held -= len(chunk)
                place = self._written - self._held
                self._kept.extend((place, event) for event in marks if isinstance(event, LANDMARKS))

    def missed(self, cursor: int) -> int:
        """How many events that were written after ``cursor`` have fallen out already."""
        with self._lock:
            return max(self._written - cursor - min(self._held, self._capacity), 0)

    def since(self, cursor: int) -> tuple[int, list[Event]]:
        """The new cursor and the events written after ``cursor`` that are still kept."""
        chunks, found = [], 0
        with self._lock:
            events = [event for place, event in self._kept if place > cursor]
            written = self._written
            missing = min(written - cursor, self._held, self._capacity)
            for chunk, _ in reversed(self._chunks):
                if found >= missing:
                    break
                chunks.append(chunk)
                found += len(chunk)
        for chunk in reversed(chunks):
            # What the first one has too many was read before.
            events += islice(chunk, 0 if chunk is not chunks[-1] else found - missing, None)
        return written, events


class JsonlSink:
    """Writes one JSON row a line; ``read_jsonl`` reads it back."""

    def __init__(self, path: str | Path) -> None:
        self._file = Path(path).open("a", encoding="utf-8")  # noqa: SIM115 - closed by close()

    def write(self, events: Sequence[Event]) -> None:
        """Append the events to the file."""
        self._file.writelines(json.dumps(encode(event)) + "\n" for event in events)
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_jsonl(path: str | Path) -> Iterable[Event]:
    """The events of a file written by ``JsonlSink``."""
    with Path(path).open(encoding="utf-8") as lines:
        for line in lines:
            yield decode(json.loads(line))
