"""Columns of plain values as few bytes and exactly: what a recording is made of.

A column of whole numbers is kept as differences, one of floats as differences of clock ticks where
all of them are whole ticks and else as the bits that changed, one of lists as lengths and entries,
and anything else as a table of its distinct values in JSON. So whatever the bytes are, what is read
is made of numbers, text, lists and mappings.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

__all__ = ["ENTRIES", "Reader", "write_column"]

ENTRIES = 512  # entries of lists for each value that a column may have
_TICK = 2.0**22  # a double that counts seconds since 1970 is a multiple of 2^-22 until 2038
_HEAD = struct.Struct("<cII")  # kind of column, number of values, bytes that follow
_PART = struct.Struct("<I")
_WORD = np.dtype("<u8")
_JSON = json.JSONEncoder(separators=(",", ":"), default=lambda value: value.item())
_SELDOM = 4  # a table pays when a value occurs so often on average


def write_column(values: Sequence[Any]) -> bytes:
    """The bytes of a column, for ``Reader.column``."""
    kinds = set(map(type, values))
    if kinds == {int} and min(values) >= -(2**63) and max(values) < 2**63:
        return _column(b"i", len(values), _integers(np.array(values, dtype=np.int64)))
    if kinds == {float}:
        return _floats(np.array(values), 1)
    if kinds <= {tuple, list} and values:
        return _lists(values)
    return _table(values)


def _column(kind: bytes, count: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return _HEAD.pack(kind, count, len(body)) + body


def _planes(words: np.ndarray) -> bytes:
    """First bytes of all words, then second bytes, as far as any is not zero."""
    planes = words.astype(_WORD).view(np.uint8).reshape(-1, 8)
    width = int(words.max(initial=0)).bit_length() + 7 >> 3
    return bytes([width]) + planes[:, :width].T.tobytes()


def _integers(values: np.ndarray) -> bytes:
    steps = np.diff(values, prepend=np.int64(0))
    return _planes(((steps << 1) ^ (steps >> 63)).view(np.uint64))


def _floats(values: np.ndarray, stride: int) -> bytes:
    """A column of floats, of which those ``stride`` places apart are alike."""
    with np.errstate(all="ignore"):
        ticks = values * _TICK
        whole = bool(np.all((np.rint(ticks) == ticks) & (np.abs(ticks) < 2.0**62)))
        single = values.astype("<f4")
    if whole and not np.any(np.signbit(values) & (values == 0)):
        return _column(b"t", len(values), _integers(ticks.astype(np.int64)))
    bits = values.astype("<f8").view(_WORD)
    kind = b"d"
    if np.array_equal(single.astype("<f8").view(_WORD), bits):
        kind, bits = b"f", single.view("<u4").astype(_WORD)
    before = np.zeros_like(bits)
    before[stride:] = bits[:-stride]
    return _column(kind, len(values), _PART.pack(stride), _planes(bits ^ before))


def _lists(values: Sequence[Sequence[Any]]) -> bytes:
    entries = list(chain.from_iterable(values))
    plain = set(map(type, entries)) in ({float}, {int})
    if not plain or len({*map(tuple, values)}) * _SELDOM <= len(values):
        return _table(values)
    lengths = [len(value) for value in values]
    alike = len(set(lengths)) == 1
    if type(entries[0]) is int:
        flat = write_column(entries)
    else:
        flat = _floats(np.array(entries), lengths[0] if alike else 1)
    return _column(b"l", len(values), write_column(lengths), flat)


def _table(values: Sequence[Any]) -> bytes:
    places: dict[str, int] = {}
    indices = [places.setdefault(text, len(places)) for text in map(_JSON.encode, values)]
    text = f"[{','.join(places)}]".encode()
    index = _integers(np.array(indices, dtype=np.int64))
    return _column(b"j", len(values), _PART.pack(len(text)), text, index)


class Reader:
    """Reads columns one after the other.

    Args:
        data: what ``write_column`` made, several times.
        most: values that a column may have, and 1/``ENTRIES`` of what its lists may have; more
            are refused before memory is taken for them.

    Raises:
        ValueError: from each method, when the bytes are no column.
    """

    def __init__(self, data: bytes, most: int) -> None:
        self._data = memoryview(data)
        self._most = most

    def column(self) -> list[Any]:
        """The values of the next column; lists come as tuples."""
        try:
            return self._column()
        except (struct.error, LookupError, RecursionError, TypeError) as error:
            raise ValueError(f"not a column: {error}") from None

    def _take(self, length: int) -> memoryview:
        if length > len(self._data):
            raise ValueError(f"a column of {length} bytes, of which {len(self._data)} are there")
        part, self._data = self._data[:length], self._data[length:]
        return part

    def _column(self) -> list[Any]:
        kind, count, length = _HEAD.unpack(self._take(_HEAD.size))
        if count > self._most:
            raise ValueError(f"a column of {count} values, where {self._most} are the most")
        inner = Reader(b"", self._most)
        inner._data = self._take(length)
        if kind in (b"i", b"t"):
            whole = inner._whole(count)
            values: list[Any] = (whole if kind == b"i" else whole / _TICK).tolist()
            return values
        if kind in (b"f", b"d"):
            return inner._bits(count, "<f4" if kind == b"f" else "<f8")
        if kind == b"l":
            return inner._listed(count)
        if kind == b"j":
            return inner._distinct(count)
        raise ValueError(f"a column of the unknown kind {kind!r}")

    def _words(self, count: int) -> np.ndarray:
        width = self._take(1)[0]
        if width > 8:
            raise ValueError(f"numbers of {width} bytes")
        words = np.zeros((count, 8), dtype=np.uint8)
        planes = np.frombuffer(self._take(count * width), dtype=np.uint8)
        words[:, :width] = planes.reshape(width, count).T
        return words.reshape(-1).view(_WORD)

    def _whole(self, count: int) -> np.ndarray:
        words = self._words(count)
        steps = (words >> np.uint64(1)).view(np.int64) ^ -(words & np.uint64(1)).view(np.int64)
        return np.cumsum(steps, dtype=np.int64)

    def _bits(self, count: int, form: str) -> list[float]:
        stride = _PART.unpack(self._take(_PART.size))[0]
        words = self._words(count)
        if not stride or count % stride:
            raise ValueError(f"{count} floats in rows of {stride}")
        bits = np.bitwise_xor.accumulate(words.reshape(-1, stride), axis=0).reshape(-1)
        whole = bits.astype("<u4") if form == "<f4" else bits
        values: list[float] = whole.view(form).tolist()
        return values

    def _listed(self, count: int) -> list[Any]:
        lengths = self._column()
        inner = Reader(b"", self._most * ENTRIES)
        inner._data = self._data
        entries = inner._column()
        if len(lengths) != count or min(lengths, default=0) < 0 or sum(lengths) != len(entries):
            raise ValueError(f"{len(entries)} entries for {count} lists")
        ends = np.cumsum(lengths).tolist()
        return [
            tuple(entries[end - length : end]) for end, length in zip(ends, lengths, strict=True)
        ]

    def _distinct(self, count: int) -> list[Any]:
        length = _PART.unpack(self._take(_PART.size))[0]
        values = json.loads(bytes(self._take(length)))
        indices = self._whole(count)
        if count and not 0 <= indices.min() <= indices.max() < len(values):
            raise ValueError("a value that is not in its table")
        frozen = [_freeze(value) for value in values]
        return [frozen[index] for index in indices.tolist()]


def _freeze(value: Any) -> Any:
    return tuple(map(_freeze, value)) if type(value) is list else value
