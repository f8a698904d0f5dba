"""Many small messages in one: how they are put together, and taken apart by their tags.

An envelope has a list of what is in it, a record for each letter (its tag, its head, how long its
payload is), and then all payloads in a row. Whoever expects the very letters that are listed takes
their payloads at once, as they lie there; anybody else takes out a letter by its tag. Letters of
one tag are taken in the order in which they were sent, whether in an envelope or not.
"""

from __future__ import annotations

import struct
from collections import Counter, deque
from collections.abc import Callable
from typing import Any

import numpy as np

from ifog.transport.base import TOKEN_BYTES, Bytes

__all__ = ["ENVELOPE", "Borrow", "Envelope", "GiveBack", "Inbox", "front", "payload_at", "record"]

ENVELOPE = (1 << 32) - 1  # the tag of an envelope; those of letters are smaller
_FRONT = struct.Struct("<IIQ")  # whether the rest is lent, bytes of the records, of the payloads
_RECORD = struct.Struct("<III")  # tag, bytes of the head, of the payload
_ALIGNMENT = 64
Borrow = Callable[[int, bytes, int], Bytes]
GiveBack = Callable[[int, bytes], None]


def record(tag: int, head: bytes, nbytes: int) -> bytes:
    """What the list says of a letter with ``nbytes`` of payload; in front of a letter is ``head``.

    No record is the beginning of another one.
    """
    return _RECORD.pack(tag, len(head), nbytes) + head


def payload_at(listed: int) -> int:
    """Where the payloads begin behind ``listed`` bytes of records."""
    return -(-listed // _ALIGNMENT) * _ALIGNMENT


def front(listed: int, nbytes: int, *, lent: bool) -> bytes:
    """What an envelope begins with; then comes the rest, or the token of a loan of it."""
    return _FRONT.pack(lent, listed, nbytes)


class Envelope:
    """One that has come, and what is still in it.

    Attributes:
        source: who sent it.
        listed: its records.
        read: how many bytes of them belong to letters that have been taken.
        arrived_at: when it was first seen, as whoever takes it counts; 0 before.
    """

    __slots__ = (
        "_give_back",
        "_payloads",
        "_tags",
        "_taken",
        "_token",
        "arrived_at",
        "listed",
        "read",
        "source",
    )

    def __init__(self, source: int, data: Any, borrow: Borrow, give_back: GiveBack) -> None:
        self.source = source
        lent, listed, nbytes = _FRONT.unpack_from(data)
        start = payload_at(listed)
        body: Bytes = np.frombuffer(data, np.uint8)[_FRONT.size :]
        self._token = body[:TOKEN_BYTES].tobytes() if lent else b""
        if lent:
            body = borrow(source, self._token, start + nbytes)
        self.listed = body[:listed].tobytes()
        self._payloads = body[start : start + nbytes]
        self._give_back = give_back
        self._taken = 0  # bytes of payloads
        self._tags: Counter[int] | None = None
        self.read = 0
        self.arrived_at = 0.0

    @property
    def empty(self) -> bool:
        """Whether nothing is left in it."""
        return self.read == len(self.listed)

    def has(self, tag: int) -> bool:
        """Whether a letter with this tag is still in it."""
        if self._tags is None:
            self._tags = Counter()
            place = self.read
            while place < len(self.listed):
                number, head, _ = _RECORD.unpack_from(self.listed, place)
                self._tags[number] += 1
                place += _RECORD.size + head
        return self._tags[tag] > 0

    def first(self) -> int:
        """The tag of the next letter."""
        tag: int = _RECORD.unpack_from(self.listed, self.read)[0]
        return tag

    def payloads(self, nbytes: int) -> Bytes:
        """The next ``nbytes`` of payloads, to be read only, and only before they are taken."""
        return self._payloads[self._taken : self._taken + nbytes]

    def skip(self, listed: int, nbytes: int) -> None:
        """Count so much more of the list and of the payloads as taken."""
        self._tags = None
        self._advance(listed, nbytes)

    def pop(self) -> bytearray:
        """The next letter."""
        tag, head, nbytes = _RECORD.unpack_from(self.listed, self.read)
        start = self.read + _RECORD.size
        data = bytearray(self.listed[start : start + head])
        data += self.payloads(nbytes).data
        if self._tags is not None:
            self._tags[tag] -= 1
        self._advance(_RECORD.size + head, nbytes)
        return data

    def _advance(self, listed: int, nbytes: int) -> None:
        self.read += listed
        self._taken += nbytes
        if self.empty and self._token:
            self._give_back(self.source, self._token)


class Inbox:
    """What has come from one rank and has not been taken.

    Attributes:
        letters: by tag, in the order in which they were sent.
        envelopes: those that have not been taken apart; what is in them was sent after all letters
            of the same tag.
    """

    __slots__ = ("_borrow", "_give_back", "_source", "envelopes", "letters")

    def __init__(self, source: int, borrow: Borrow, give_back: GiveBack) -> None:
        self._source = source
        self._borrow = borrow
        self._give_back = give_back
        self.letters: dict[int, deque[Any]] = {}
        self.envelopes: deque[Envelope] = deque()

    def put(self, tag: int, data: Any) -> None:
        """Add what came next."""
        if tag == ENVELOPE:
            self.envelopes.append(Envelope(self._source, data, self._borrow, self._give_back))
            return
        if self.envelopes:
            self._take_apart(tag)
        self._keep(tag, data)

    def take(self, tag: int) -> Any:
        """The next letter with this tag, or None."""
        if tag not in self.letters and self.envelopes:
            head = self.envelopes[0]
            if head.first() == tag:
                data = head.pop()
                self.tidy()
                return data
            self._take_apart(tag)
        waiting = self.letters.get(tag)
        if waiting is None:
            return None
        data = waiting.popleft()
        if not waiting:
            del self.letters[tag]
        return data

    def tidy(self) -> None:
        """Drop the first envelope if nothing is left in it."""
        if self.envelopes and self.envelopes[0].empty:
            self.envelopes.popleft()

    def _take_apart(self, tag: int) -> None:
        """Make letters of all envelopes up to the last one with this tag."""
        count = max((k + 1 for k, each in enumerate(self.envelopes) if each.has(tag)), default=0)
        for _ in range(count):
            envelope = self.envelopes[0]
            while not envelope.empty:
                self._keep(envelope.first(), envelope.pop())
            self.envelopes.popleft()

    def _keep(self, tag: int, data: Any) -> None:
        self.letters.setdefault(tag, deque()).append(data)
