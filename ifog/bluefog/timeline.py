"""BlueFog's timeline: the file ``<BLUEFOG_TIMELINE><rank>.json``, in its format and with its names.

Each tensor is a process of the trace; track 1 is the thread that calls, track 2 the one that
communicates in BlueFog. Whatever an operation did is in the file when it returns. The processing
phase is called ``MPI_<OPERATION>``, as BlueFog's documentation and tests call it.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary, finalize

import ifog
from ifog.context import Context, current
from ifog.errors import ArgumentError
from ifog.telemetry import EPOCH, Event, OpEvent, now

__all__ = [
    "TimelineFile",
    "start_from_environment",
    "timeline_context",
    "timeline_end_activity",
    "timeline_start_activity",
]

_CALLS, _COMMUNICATES = 1, 2  # the tracks
_ENQUEUED = 1.0  # microseconds for which an operation is shown being enqueued
_TENSORS = {
    "allreduce": "allreduce",
    "broadcast": "broadcast",
    "allgather": "allgather",
    "neighbor_allgather": "neighbor.allgather",
    "neighbor_allreduce": "neighbor.allreduce",
    "hierarchical_neighbor_allreduce": "neighbor.allreduce",
    "pair_gossip": "pair.gossip",
}
_PHASES = {"hierarchical_neighbor_allreduce": "NEIGHBOR_ALLREDUCE"}
_AVERAGING = ("neighbor_allreduce", "hierarchical_neighbor_allreduce", "pair_gossip")
_WINDOWS = ("win_create", "win_put", "win_get", "win_accumulate")
_UPDATES = ("win_update", "win_update_then_collect")


def _microseconds(t: float) -> float:
    return round((t - EPOCH) * 1e7) / 10


class TimelineFile:
    """The file of one rank: a sink that writes at once, since programs read it while they run."""

    def __init__(self, path: str) -> None:
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ArgumentError(
                f"cannot write BlueFog's timeline {path!r}: {error}; set BLUEFOG_TIMELINE to a "
                "prefix in a folder that exists, or unset it"
            ) from error
        finalize(self, os.close, self._file)
        self._lock = threading.Lock()
        self._threads = {threading.get_ident(): _CALLS}
        self._tensors: dict[str, int] = {}
        self._ended: dict[int, float] = defaultdict(float)
        self._open: dict[str, list[int]] = defaultdict(list)
        os.write(self._file, b"[\n")

    def goes_to(self, path: str) -> bool:
        """Whether what is written can be read at ``path``."""
        try:
            return os.path.samestat(os.fstat(self._file), os.stat(path))  # noqa: PTH116
        except OSError:
            return False

    def write(self, events: Sequence[Event]) -> None:
        """Write the operations among the events."""
        with self._lock:
            for event in events:
                if isinstance(event, OpEvent):
                    self._operation(event)

    def start_activity(self, tensor: str, activity: str) -> None:
        """Write that the activity on the tensor begins."""
        with self._lock:
            track = self._threads.setdefault(threading.get_ident(), len(self._threads) + 2)
            self._open[tensor].append(track)
            self._put(tensor, track, [("B", _microseconds(now()), activity)])

    def end_activity(self, tensor: str) -> bool:
        """Write that the innermost activity on the tensor ends; whether there was one."""
        with self._lock:
            if not self._open[tensor]:
                return False
            self._put(tensor, self._open[tensor].pop(), [("E", _microseconds(now()), "")])
            return True

    def _operation(self, event: OpEvent) -> None:
        op = event.op.rstrip("_")
        begin, end = _microseconds(event.t0), _microseconds(event.t1)
        if op in _UPDATES:
            marks = [("B", begin, "WIN_SYNC_COMPUTE_AVERAGE"), ("E", end, "")]
            self._put(event.name, _CALLS, marks)
        elif op in _WINDOWS:
            self._processed(event.name, op, event, begin, end)
        elif op in _TENSORS:
            name = event.name or f"noname.{event.seq}"
            self._processed(f"{_TENSORS[op]}.{name}", op, event, begin, end)

    def _processed(self, tensor: str, op: str, event: OpEvent, begin: float, end: float) -> None:
        phase = _PHASES.get(op, op.upper())
        if op != "win_create":
            enqueued = [("B", begin, f"ENQUEUE_{phase}"), ("E", begin + _ENQUEUED, "")]
            self._put(tensor, _CALLS, enqueued)
        # One thread would do one thing after the other; operations on a window may overlap here.
        begin = max(begin + _ENQUEUED, self._ended[self._process(tensor)])
        end = max(end, begin)
        marks = [("B", begin, f"MPI_{phase}"), ("B", begin, "COMMUNICATE")]
        if op in _AVERAGING and event.arrived:
            there = min(max(_microseconds(max(event.arrived)), begin), end)
            marks += [("E", there, ""), ("B", there, "COMPUTE_AVERAGE")]
        self._put(tensor, _COMMUNICATES, [*marks, ("E", end, ""), ("E", end, "")])
        self._ended[self._process(tensor)] = end

    def _process(self, tensor: str) -> int:
        if tensor not in self._tensors:
            number = self._tensors[tensor] = len(self._tensors) + 1
            told: dict[str, Any] = {"process_name": {"name": tensor}}
            told["process_sort_index"] = {"sort_index": number}
            self._lines(
                {"name": name, "ph": "M", "pid": number, "tid": _CALLS, "args": arguments}
                for name, arguments in told.items()
            )
        return self._tensors[tensor]

    def _put(self, tensor: str, track: int, marks: Sequence[tuple[str, float, str]]) -> None:
        process = self._process(tensor)
        self._lines(
            {
                **({"name": name} if name else {}),
                "ph": phase,
                "ts": round(ts, 1),
                "pid": process,
                "tid": track,
            }
            for phase, ts, name in marks
        )

    def _lines(self, objects: Iterator[dict[str, Any]]) -> None:
        os.write(self._file, "".join(f"{json.dumps(line)},\n" for line in objects).encode())


_files: WeakKeyDictionary[Context, TimelineFile] = WeakKeyDictionary()
_told = threading.Event()  # the error about a timeline that is off has been logged


def start_from_environment() -> None:
    """Begin the timeline that ``BLUEFOG_TIMELINE`` asks for, if it is not being written already.

    One that is goes on, whether the variable is there or not, unless it asks for another file or
    the file was removed.

    Raises:
        ArgumentError: the file cannot be written.
    """
    context = current()
    prefix, before = os.environ.get("BLUEFOG_TIMELINE"), _files.get(context)
    path = f"{prefix}{context.rank}.json"
    if not prefix or (before is not None and before.goes_to(path)):
        return
    file = TimelineFile(path)
    if before is not None:
        context.detach(before)
    context.attach(file)
    _files[context] = file


def _file() -> TimelineFile | None:
    return _files.get(current()) if ifog.is_initialized() else None


def timeline_start_activity(tensor_name: str, activity_name: str) -> bool:
    """Show in the timeline that an activity on a tensor begins; ifog's own timeline shows it too.

    Returns:
        Whether there is a timeline; the first time that there is none, an error is logged.
    """
    shown = ifog.timeline_start_activity(tensor_name, activity_name)
    file = _file()
    if file is not None:
        file.start_activity(tensor_name, activity_name)
    return _tell_if_off() and (shown or file is not None)


def timeline_end_activity(tensor_name: str) -> bool:
    """Show in the timeline that the innermost activity on a tensor ends.

    Returns:
        Whether there is a timeline and such an activity.
    """
    shown = ifog.timeline_end_activity(tensor_name)
    file = _file()
    ended = file is not None and file.end_activity(tensor_name)
    return _tell_if_off() and (ended or shown)


def _tell_if_off() -> bool:
    on = ifog.is_initialized() and (_file() is not None or current().timeline is not None)
    if not on and not _told.is_set():
        _told.set()
        logging.getLogger("bluefog").error(
            "the timeline is off: set BLUEFOG_TIMELINE to a file's prefix before bf.init()"
        )
    return on


@contextmanager
def timeline_context(tensor_name: str, activity_name: str) -> Iterator[None]:
    """Show the ``with`` statement in the timeline as an activity on a tensor."""
    timeline_start_activity(tensor_name, activity_name)
    try:
        yield
    finally:
        timeline_end_activity(tensor_name)
