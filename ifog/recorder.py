"""Writes what this rank does to a trace file, for Perfetto and Chrome's trace viewer.

The file must be readable whatever becomes of the process, and a loop of small operations must
hardly notice that it is written. So an event costs one append; a thread turns what has come into
lines of an array, whose closing bracket viewers do not miss, and hands them to the system every
half second and at the end of every cell. A process that is killed loses at most that half second.
"""

from __future__ import annotations

import atexit
import os
import platform
import threading
import warnings
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from ifog.context import Context, current, is_initialized
from ifog.errors import ArgumentError
from ifog.telemetry import EPOCH, CellEnd, CellStart, Event, now
from ifog.tracks import Activity, Layout

__all__ = [
    "Timeline",
    "file_of",
    "timeline",
    "timeline_context",
    "timeline_end_activity",
    "timeline_start_activity",
]

_PERIOD = 0.5  # seconds between two writes
_LIMIT = 20_000  # events kept until the next write
_STUCK = 0.5  # seconds after which a wait that goes on is noted


def file_of(path: str | Path, rank: int) -> Path:
    """The file that ``timeline(path)`` writes on ``rank``.

    ``path`` is a prefix: ``run`` and ``run.json`` both give ``run.0.json``, ``run.1.json`` and so
    on; a folder, or what ends with a slash, gives ``timeline.0.json`` and so on inside.
    """
    prefix = Path(path)
    if str(path).endswith(("/", os.sep)) or prefix.is_dir():
        prefix /= "timeline"
    return prefix.with_name(f"{prefix.name.removesuffix('.json')}.{rank}.json")


def _clock() -> str:
    """What the processes have in common that share this machine's monotonic clock."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return platform.node()


class Timeline:
    """The trace file of one rank while it is written: a sink of events, and a context manager.

    Attributes:
        path: the file.
    """

    def __init__(self, context: Context, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            raise ArgumentError(
                f"cannot write the timeline of rank {context.rank} to {str(path)!r}: {error}; "
                "give another path"
            ) from error
        self.path = path
        self._context = context
        self._pending: deque[Event | Activity] = deque()
        self._open: Counter[str] = Counter()
        self._noted = 0.0
        self._broken = False
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._begin()
        context.timeline = self
        context.attach(self)
        atexit.register(self.stop)
        self._thread = threading.Thread(target=self._run, name="ifog-timeline", daemon=True)
        self._thread.start()

    def _begin(self) -> None:
        context, base = self._context, now()
        rank, seq = context.rank, context.cell
        self._layout = Layout(rank, base)
        origin = {
            "rank": rank,
            "size": context.size,
            "host": platform.node(),
            "pid": os.getpid(),
            "clock": _clock(),
            "wall": base,
            "monotonic": base - EPOCH,
        }
        lines = [
            self._layout.metadata("ifog_timeline", origin),
            self._layout.metadata("process_name", {"name": f"rank {rank}"}),
            self._layout.metadata("process_sort_index", {"sort_index": rank}),
        ]
        if seq:
            start = CellStart(rank, base, seq, context.size, context.participants)
            lines += self._layout.lines(start)
        self._put("[\n" + ",\n".join(lines))

    def __enter__(self) -> Timeline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def write(self, events: Sequence[Event]) -> None:
        """Take the events; the end of a cell is in the file when this returns."""
        self._pending.extend(events)
        if len(self._pending) > _LIMIT or isinstance(events[-1], CellEnd):
            self.flush()

    def start_activity(self, tensor: str, activity: str) -> bool:
        """Note that ``activity`` on ``tensor`` begins now; True."""
        self._open[tensor] += 1
        self._pending.append(Activity("B", now(), tensor, activity))
        return True

    def end_activity(self, tensor: str) -> bool:
        """Note that the innermost activity on ``tensor`` ends now; whether there was one."""
        if self._open[tensor] <= 0:
            return False
        self._open[tensor] -= 1
        self._pending.append(Activity("E", now(), tensor, ""))
        return True

    def flush(self) -> None:
        """Write all that has happened so far to the file."""
        with self._lock:
            pending = self._pending
            events = [pending.popleft() for _ in range(len(pending))]
            lines = [line for event in events for line in self._layout.lines(event)]
            self._put("".join(f",\n{line}" for line in lines))

    def stop(self) -> None:
        """End the trace and close the file; nothing happens the second time."""
        if self._closed.is_set():
            return
        self._closed.set()
        atexit.unregister(self.stop)
        self._context.detach(self)
        if self._context.timeline is self:
            self._context.timeline = None
        self._thread.join(timeout=10.0)
        self.flush()
        with self._lock:
            ends = self._layout.close(now())
            self._put("".join(f",\n{line}" for line in ends) + "\n]\n")
            with suppress(OSError):  # what a full disk did not take is tried again
                self._file.close()

    def _put(self, text: str) -> None:
        if not text or self._broken or self._file.closed:
            return
        try:
            self._file.write(text)
            self._file.flush()
        except OSError as error:
            self._broken = True  # a full disk must not end the computation
            text = f"the timeline {self.path} ends here: {error}"
            warnings.warn(text, RuntimeWarning, stacklevel=2)

    def _run(self) -> None:
        while not self._closed.wait(_PERIOD):
            wait = self._context.waiting()
            if wait is not None and wait.since != self._noted and wait.t - wait.since > _STUCK:
                self._noted = wait.since
                self._pending.append(wait)
            self.flush()


def timeline(path: str | Path) -> Timeline:
    """Write what this rank does from now on to a trace file, until ``stop()`` or the program ends.

    Operations, with the part of each spent waiting and for whom, cells, and the activities told by
    ``timeline_start_activity`` become slices that https://ui.perfetto.dev shows; ``ifog timeline
    merge`` makes one file of all ranks' and draws each message as an arrow. It also begins at
    ``ifog.init()`` where the environment variable ``IFOG_TIMELINE`` holds a path. A rank has one
    timeline: a second call ends the first one.

    Args:
        path: a prefix; rank r writes ``<path>.<r>.json``, or ``timeline.<r>.json`` in the folder
            that ``path`` is. An older file is replaced.

    Returns:
        The timeline; in a ``with`` statement it stops at the statement's end.

    Raises:
        ArgumentError: the file cannot be written.
        NotInitializedError: before ``ifog.init()``.

    Example:
        >>> import tempfile, torch, ifog
        >>> ifog.init()
        >>> with ifog.timeline(tempfile.mkdtemp() + "/run") as run:
        ...     x = ifog.allreduce(torch.ones(3), name="x")
        >>> run.path.name
        'run.0.json'
    """
    context = current()
    if context.timeline is not None:
        context.timeline.stop()
    return Timeline(context, file_of(path, context.rank))


def timeline_start_activity(tensor_name: str, activity_name: str) -> bool:
    """Show in the timeline that ``activity_name`` begins on ``tensor_name``.

    Activities on one name nest.

    Returns:
        Whether this rank writes a timeline.
    """
    running = _running()
    return running is not None and running.start_activity(tensor_name, activity_name)


def timeline_end_activity(tensor_name: str) -> bool:
    """Show in the timeline that the innermost activity on ``tensor_name`` ends.

    Returns:
        Whether this rank writes a timeline and there was such an activity.
    """
    running = _running()
    return running is not None and running.end_activity(tensor_name)


@contextmanager
def timeline_context(tensor_name: str, activity_name: str) -> Iterator[None]:
    """Show the ``with`` statement in the timeline as ``activity_name`` on ``tensor_name``.

    Example:
        >>> import ifog
        >>> with ifog.timeline_context("x", "local step"):
        ...     pass
    """
    started = timeline_start_activity(tensor_name, activity_name)
    try:
        yield
    finally:
        if started:
            timeline_end_activity(tensor_name)


def _running() -> Timeline | None:
    return current().timeline if is_initialized() else None
