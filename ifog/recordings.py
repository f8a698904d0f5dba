"""Recording: a thread that copies what a source of events tells into a file, while the ranks work.

It reads as dashboards do, at its own pace, so that the ranks and the cell do not notice it. What
the source no longer had when it was read is counted as lost, and so is what the ranks dropped.
"""

from __future__ import annotations

import atexit
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ifog.errors import RecordingError
from ifog.numbers import count, size
from ifog.runfile import RunWriter
from ifog.sources import events_of, is_modelled, source_of
from ifog.telemetry import CellEnd, CellStart, Event, GraphEvent

__all__ = ["Recording", "record"]

_PERIOD = 0.5  # seconds between two looks; ranks send less often while nobody looks
_ENOUGH = 10.0  # seconds in which the thread must end


class Recording:
    """A recording that goes on until it is stopped; also a context manager.

    Attributes:
        path: the file.
        events: how many events are in it.
        lost: how many are not, because they came too fast.
    """

    def __init__(
        self, path: str | Path, source: Any, *, past: bool = False, title: str = ""
    ) -> None:
        self._source = source_of(source)
        self._writer = RunWriter(path, title=title, modelled=is_modelled(source))
        self.path = self._writer.path
        self._stopping = threading.Event()
        self._failure: OSError | None = None
        self._log: Any = None
        self._cursor = self._dropped = 0
        standing = self._begin(past=past)
        self._thread = threading.Thread(
            target=self._run, args=(standing,), name="ifog recording", daemon=True
        )
        self._thread.start()
        atexit.register(self.stop)

    @property
    def events(self) -> int:
        """How many events are in the file."""
        return self._writer.events

    @property
    def lost(self) -> int:
        """How many events came too fast to be in it."""
        return self._writer.lost

    @property
    def stopped(self) -> bool:
        """Whether the recording was ended."""
        return self._stopping.is_set()

    def __enter__(self) -> Recording:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __str__(self) -> str:
        lost = f", {count(self.lost)} lost" if self.lost else ""
        return f"{self.path}: {count(self.events)} events{lost}, {size(self._writer.size)}"

    def stop(self) -> None:
        """Write what is still to be written and close the file; a second call does nothing.

        Raises:
            RecordingError: something could not be written, for example because the disk is full.
        """
        if self._stopping.is_set():
            return
        atexit.unregister(self.stop)
        self._stopping.set()
        self._thread.join(_ENOUGH)
        if self._failure is not None:
            raise RecordingError(
                f"{self.path} lacks what came after its first {count(self.events)} events: "
                f"{self._failure.strerror}; what is there can be replayed"
            )

    def _run(self, standing: Sequence[Event]) -> None:
        try:
            self._writer.write(standing)
            while not self._stopping.wait(_PERIOD):
                self._look()
            self._look()
            self._writer.close()
        except OSError as error:
            self._failure = error
            self._writer.abandon()

    def _begin(self, *, past: bool) -> Sequence[Event]:
        self._log = events_of(self._source)
        self._dropped = getattr(self._log, "lost", 0)
        self._cursor, events = self._log.since(0)
        return events if past else _standing(events)

    def _look(self) -> None:
        log = events_of(self._source)
        if log is not self._log:
            self._log, self._cursor, self._dropped = log, 0, 0
        cursor, events = log.since(self._cursor)
        dropped = getattr(log, "lost", 0)
        lost = cursor - self._cursor - len(events) + dropped - self._dropped
        self._cursor, self._dropped = cursor, dropped
        if events or lost > 0:
            self._writer.write(events, max(lost, 0))


def _standing(events: list[Event]) -> list[Event]:
    """What the pictures need of the time before: the graph, and the cells that still run."""
    graph: Event | None = None
    running: dict[int, Event] = {}
    for event in events:
        if isinstance(event, GraphEvent):
            graph = event
        elif isinstance(event, CellStart):
            running[event.rank] = event
        elif isinstance(event, CellEnd):
            running.pop(event.rank, None)
    return ([] if graph is None else [graph]) + list(running.values())


def record(
    path: str | Path, source: Any = None, *, past: bool = False, title: str = ""
) -> Recording:
    """Record what the ranks report from now on into a file that ``ifog.replay`` plays.

    The file grows as events come; after a crash all but the last seconds of it can be read. Another
    recording of that name is replaced. An operation takes about 16 bytes.

    Args:
        path: the file, by custom with the suffix ``.ifog``.
        source: a cluster, or any source of events; by default the running cluster.
        past: whether to begin with all that the source still has, rather than now.
        title: what the run is called.

    Returns:
        A context manager; without ``with``, call its ``stop``.

    Raises:
        RecordingError: the file cannot be written, or is something else than a recording.
        NoClusterError: no source was given and no cluster runs.
        TypeError: the source has no events.

    Example:
        >>> import tempfile
        >>> from ifog.telemetry import CellStart, EventLog
        >>> log = EventLog()
        >>> with record(tempfile.mktemp(".ifog"), log) as recording:
        ...     log.write([CellStart(0, 1.0, 1, 1, (0,))])
        >>> recording.events
        1
    """
    if source is None:
        from ifog.cluster import current

        source = current()
    return Recording(path, source, past=past, title=title)
