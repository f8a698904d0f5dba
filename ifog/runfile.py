"""The file of a recorded run, ``.ifog``: what happened, in the order in which it was heard.

After eight bytes that no other format has come parts: a head of 16 bytes (what kind of part, its
length, checksums of it and of the head) and JSON or compressed columns. Every part stands alone, so
a file that was cut off is read up to its last whole part, while one whose bytes have changed is
refused. What is read is made of numbers, text, lists and mappings only, whoever wrote the file.
"""

from __future__ import annotations

import json
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ifog.columns import ENTRIES, Reader, write_column
from ifog.errors import RecordingError
from ifog.numbers import count, size
from ifog.telemetry import Event, decode, encode

__all__ = ["SUFFIX", "RunFile", "RunWriter", "is_recording", "read_run"]

SUFFIX = ".ifog"
_MAGIC = b"\x93ifog\r\n\x1a"
_FORMAT = 1
_HEAD = struct.Struct("<4sII")  # kind, length and checksum of a part; then a checksum of these
_SUM = struct.Struct("<I")
_HEAD_PART, _EVENTS_PART, _END_PART = b"head", b"evts", b"done"
_MOST = 8192  # events in a part
_LARGEST = 1 << 28  # bytes of a part when it is unpacked
_ENTRIES = _MOST * ENTRIES  # entries of lists in a column


class RunWriter:
    """Writes a recording, part by part.

    Args:
        path: the file; another recording of that name is replaced, any other file is not.
        title: what the run is called.
        modelled: whether the times are those of a model, not of clocks.

    Raises:
        RecordingError: the file cannot be written, or is something else than a recording.
    """

    def __init__(self, path: str | Path, *, title: str = "", modelled: bool = False) -> None:
        self.path = Path(path)
        self.events = self.lost = self.size = 0
        self._fields: dict[str, list[str]] = {}
        if self.path.exists() and not is_recording(self.path):
            raise RecordingError(
                f"{self.path} is there and is no recording; it is left as it is: choose another "
                f"name, such as {self.path.stem}{SUFFIX}"
            )
        try:
            self._file = self.path.open("wb")
            about = {"format": _FORMAT, "time": time.time(), "title": title, "modelled": modelled}
            self._put(_MAGIC)
            self._part(_HEAD_PART, json.dumps(about).encode())
        except OSError as error:
            raise RecordingError(f"{self.path} cannot be written: {error.strerror}") from None

    def write(self, events: Sequence[Event], lost: int = 0) -> None:
        """Append events, and how many were lost since the last ones.

        Raises:
            OSError: the disk is full, for example.
        """
        widest = max((event.rank for event in events), default=0) + 1
        most = max(min(_MOST, _ENTRIES // widest), 1)
        for start in range(0, max(len(events), 1 if lost else 0), most):
            piece = events[start : start + most]
            self._part(_EVENTS_PART, zlib.compress(_pack(piece, 0 if start else lost), 6))
        self.events += len(events)
        self.lost += lost

    def close(self) -> None:
        """Say that the run is complete, and close the file."""
        self._part(_END_PART, json.dumps({"events": self.events}).encode())
        self._file.close()

    def abandon(self) -> None:
        """Close the file as it is."""
        with suppress(OSError):
            self._file.close()

    def _part(self, kind: bytes, body: bytes) -> None:
        head = _HEAD.pack(kind, len(body), zlib.crc32(body))
        self._put(head + _SUM.pack(zlib.crc32(head)) + body)
        self._file.flush()

    def _put(self, data: bytes) -> None:
        self._file.write(data)
        self.size += len(data)


def is_recording(path: Path) -> bool:
    """Whether the file begins as recordings do; an empty one counts as well."""
    try:
        with path.open("rb") as file:
            begin = file.read(len(_MAGIC))
    except OSError:
        return False
    return begin in (b"", _MAGIC)


def _pack(events: Sequence[Event], lost: int) -> bytes:
    """Events as columns, sorted by kind, rank and name, because then neighbours are alike."""
    rows = [encode(event) for event in events]
    names = [getattr(event, "name", "") for event in events]
    keys = [
        (row[0], event.rank, name) for row, event, name in zip(rows, events, names, strict=True)
    ]
    groups = {key: place for place, key in enumerate(sorted(set(keys)))}
    order = [groups[key] for key in keys]
    sorted_rows = [rows[place] for place in np.argsort(order, kind="stable")]
    kinds: dict[str, list[list[Any]]] = {}
    for row in sorted_rows:
        kinds.setdefault(row[0], []).append(row[1:])
    about = {"lost": lost, "kinds": [[kind, len(table[0])] for kind, table in kinds.items()]}
    columns = [
        write_column(column) for table in kinds.values() for column in zip(*table, strict=True)
    ]
    return b"".join([write_column([about]), write_column(order), *columns])


def _unpack(data: bytes) -> tuple[list[Event], int]:
    reader = Reader(data, _MOST)
    about, order = reader.column()[0], reader.column()
    rows: list[tuple[Any, ...]] = []
    for kind, width in about["kinds"]:
        columns = [reader.column() for _ in range(width)]
        rows.extend((kind, *fields) for fields in zip(*columns, strict=True))
    places = np.argsort(order, kind="stable").tolist()
    events: list[Any] = [None] * len(rows)
    for place, row in zip(places, rows, strict=True):
        events[place] = decode(row)
    return events, int(about["lost"])


class _Part(NamedTuple):
    place: int
    kind: bytes
    body: bytes


class RunFile:
    """A recording that was opened; its events are read part by part.

    Attributes:
        path: where it is.
        title: what the run is called, "" when nobody said.
        modelled: whether its times are those of a model.
        created: when the recording began, in seconds since 1970.
        parts: how many parts with events there are.
        complete: whether the recording was ended, rather than cut off or still going on.
        cut: the bytes at its end that are no whole part.
    """

    def __init__(self, path: Path, about: dict[str, Any], parts: list[_Part], cut: int) -> None:
        self.path = path
        self.title = str(about.get("title", ""))
        self.modelled = bool(about.get("modelled", False))
        self.created = float(about.get("time", 0.0))
        self.complete = bool(parts) and parts[-1].kind == _END_PART
        self.cut = cut
        self._parts = [part for part in parts if part.kind == _EVENTS_PART]
        self.parts = len(self._parts)

    def events(self, part: int) -> tuple[list[Event], int]:
        """The events of a part, and how many were lost before them.

        Raises:
            RecordingError: its bytes say something else than events.
        """
        place, _, body = self._parts[part]
        try:
            unpacker = zlib.decompressobj()
            data = unpacker.decompress(body, _LARGEST)
            if not unpacker.eof:
                raise ValueError(f"a part of more than {size(_LARGEST)}")
            return _unpack(data)
        except (ValueError, LookupError, TypeError, zlib.error) as error:
            raise RecordingError(
                f"{self.path}: what stands at byte {count(place)} is not as ifog writes it "
                f"({error}); the file was made by something else, or by a newer ifog"
            ) from None


def read_run(path: str | Path) -> RunFile:
    """Open a recording.

    Args:
        path: a file that ``ifog.record`` wrote, or is writing.

    Raises:
        RecordingError: there is no such file, it is no recording, its bytes have changed, or it
            was made by a newer version.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordingError(f"{path} cannot be read: {error.strerror}") from None
    if data[: len(_MAGIC)] != _MAGIC:
        cut = _MAGIC.startswith(data)
        what = "was cut off before its first event" if cut else "is no recording of ifog"
        raise RecordingError(f"{path} {what}; record one with: %bf record on run{SUFFIX}")
    parts = list(_parts(path, data))
    end = parts[-1].place + _HEAD.size + _SUM.size + len(parts[-1].body) if parts else len(_MAGIC)
    if not parts:
        raise RecordingError(f"{path} was cut off before its first event")
    about = _about(path, parts[0])
    return RunFile(path, about, parts[1:], len(data) - end)


def _about(path: Path, part: _Part) -> dict[str, Any]:
    about = json.loads(part.body) if part.kind == _HEAD_PART else {}
    if about.get("format") != _FORMAT:
        found = about.get("format", "none")
        raise RecordingError(
            f"{path} is a recording of format {found}, this ifog reads format {_FORMAT}; "
            "install the version that wrote it"
        )
    return dict(about)


def _parts(path: Path, data: bytes) -> Iterator[_Part]:
    """All whole parts.

    Raises:
        RecordingError: a checksum does not fit.
    """
    place = len(_MAGIC)
    begin = _HEAD.size + _SUM.size
    while place + begin <= len(data):
        kind, length, checksum = _HEAD.unpack_from(data, place)
        body = data[place + begin : place + begin + length]
        head = zlib.crc32(data[place : place + _HEAD.size])
        whole = len(body) == length
        if _SUM.unpack_from(data, place + _HEAD.size)[0] != head or (
            whole and zlib.crc32(body) != checksum
        ):
            raise RecordingError(
                f"{path} is damaged at byte {count(place)} of {count(len(data))}: its checksum "
                "does not fit; take a copy of the file that was not changed"
            )
        if not whole:
            return
        yield _Part(place, kind, body)
        place += begin + length
