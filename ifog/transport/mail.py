"""Small messages between the ranks of one machine, through memory that they share.

Each rank owns a box: a ring of slots for every sender, which only this sender fills and only the
owner empties, so that no lock is needed, and a semaphore on which the owner sleeps. A message is a
copy into a slot and one out of it. A second ring has few slots for larger messages, of which the
first one tells. The box also holds the rank's ledger: a byte for every loan and reader, which the
reader sets when it has read what was lent.
"""

from __future__ import annotations

import contextlib
import os
import platform
import struct
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ifog.errors import TransportError
from ifog.transport.base import Bytes
from ifog.transport.envelopes import ENVELOPE, Borrow, GiveBack, Inbox
from ifog.transport.files import AnonymousFile, mapped
from ifog.transport.semaphores import SEMAPHORE_BYTES, Semaphore

__all__ = ["LOANS", "MOST_BYTES", "SLOT_BYTES", "Mail", "fence"]

SLOT_BYTES = 4256  # of a small message; also a header with its small payload
MOST_BYTES = (1 << 18) + 512  # of a message; a multiple of a cache line
LOANS = 256  # that a rank may have given out at a time
_HEAD = struct.Struct("<II")  # bytes, tag
_SLOT = 4288  # a multiple of a cache line
_SLOTS = 32
_LARGE_SLOTS = 4
_LINE = 64

# These processors show stores to others in the order of the program.
_ORDERED = platform.machine() in ("x86_64", "AMD64")
_order = threading.Lock()


def fence() -> None:
    """Keep what is read and written before apart from what comes after, as other processes see it.

    For the main thread only. It needs a release before an acquire, hence two of each; an interrupt
    in between leaves a lock that the next call can use.
    """
    if _ORDERED:
        return
    _order.acquire(blocking=False)
    _order.release()
    _order.acquire(blocking=False)
    _order.release()


class _Box:
    """The memory of one rank's box, as one of its machine sees it.

    Args:
        memory: the whole of it.
        count: the ranks of the machine.
        fresh: whether this process made it.
    """

    def __init__(self, memory: Bytes, count: int, *, fresh: bool) -> None:
        self.bell = Semaphore(memory[:SEMAPHORE_BYTES], fresh=fresh)
        start, lines = SEMAPHORE_BYTES, count * _LINE
        self.written = memory[start : start + lines].data.cast("q")
        self.read = memory[start + lines : start + 2 * lines].data.cast("q")
        start += 2 * lines
        self.ledger = memory[start : start + LOANS * count].reshape(LOANS, count)
        start += -(-LOANS * count // _LINE) * _LINE
        small = count * _SLOTS * _SLOT
        self.rings = memory[start : start + small].data
        self.large = memory[start + small :].data

    @staticmethod
    def nbytes(count: int) -> int:
        ledger = -(-LOANS * count // _LINE) * _LINE
        slots = _SLOTS * _SLOT + _LARGE_SLOTS * MOST_BYTES
        return SEMAPHORE_BYTES + 2 * count * _LINE + ledger + count * slots


def _large(place: int, number: int) -> int:
    """Where in ``large`` the ``number``-th message of the sender with this place is."""
    return (place * _LARGE_SLOTS + number % _LARGE_SLOTS) * MOST_BYTES


class _Outbox:
    """The rings that one rank fills: the place of ``sender`` in the box of another."""

    def __init__(self, box: _Box, sender: int) -> None:
        self._box = box
        self._sender = sender
        self._counter = sender * _LINE // 8
        self._first = sender * _SLOTS * _SLOT
        self._written = 0
        self._large = 0  # large messages among them
        self.bell = box.bell
        self.late: deque[tuple[bytes, int]] = deque()

    def put(self, data: Any, tag: int) -> bool:
        """Whether there was a free slot."""
        box, written = self._box, self._written
        if written - box.read[self._counter] >= _SLOTS:
            return False
        start, size = self._first + written % _SLOTS * _SLOT, len(data)
        if size <= SLOT_BYTES:
            box.rings[start + 8 : start + 8 + size] = data
        else:
            if self._large - box.read[self._counter + 1] >= _LARGE_SLOTS:
                return False
            place = _large(self._sender, self._large)
            box.large[place : place + size] = data
            self._large += 1
        _HEAD.pack_into(box.rings, start, size, tag)
        fence()
        self._written = box.written[self._counter] = written + 1
        box.bell.post()
        return True

    def hurry(self) -> bool:
        """Put what was late; whether nothing is late any more."""
        while self.late and self.put(*self.late[0]):
            self.late.popleft()
        return not self.late


class _Sent:
    """A message whose bytes have been taken."""

    __slots__ = ()

    def test(self) -> bool:
        return True


class _Late:
    """A message that found no free slot."""

    __slots__ = ("_check", "_outbox")

    def __init__(self, outbox: _Outbox, check: Callable[[], None]) -> None:
        self._outbox = outbox
        self._check = check

    def test(self) -> bool:
        self._check()
        return self._outbox.hurry()


class _Awaited:
    """A message that is to come."""

    __slots__ = ("_mail", "_source", "_tag", "data")

    def __init__(self, mail: Mail, source: int, tag: int) -> None:
        self._mail = mail
        self._source = source
        self._tag = tag
        self.data: bytearray | None = None

    def test(self) -> bool:
        if self.data is None:
            self.data = self._mail.take(self._source, self._tag)
            if self.data is None:
                self._mail.check()
                return False
        return True


_SENT = _Sent()


def _nothing_lent(*_: Any) -> Any:
    raise TransportError("an envelope was lent to a rank that cannot open it")


class Mail:
    """The messages of one rank to and from the others of its machine.

    Args:
        rank: the own number.
        ranks: those of this machine, ascending, the own one among them.
        check: raises when a rank has aborted.
        borrow: opens what a rank lent, for envelopes that are not sent as they are.
        give_back: tells it that this has been read.

    Attributes:
        ranks: as given.
        address: where the own box is, as a process id and a file descriptor.
    """

    def __init__(
        self,
        rank: int,
        ranks: Sequence[int],
        check: Callable[[], None],
        borrow: Borrow | None = None,
        give_back: GiveBack | None = None,
    ) -> None:
        self.rank = rank
        self.ranks = tuple(ranks)
        self.check = check
        self._nbytes = _Box.nbytes(len(self.ranks))
        self._file: AnonymousFile | None = AnonymousFile(self._nbytes)
        self.address = (os.getpid(), self._file.descriptor)
        own = _Box(mapped(self._file.descriptor, self._nbytes), len(self.ranks), fresh=True)
        self.place = {rank: place for place, rank in enumerate(self.ranks)}
        self._boxes = {rank: own}
        self._own = own
        self._outboxes: dict[int, _Outbox] = {}
        self._read = dict.fromkeys(self.ranks, 0)
        self._large = dict.fromkeys(self.ranks, 0)  # large messages among these
        others = [(r, place * _LINE // 8) for r, place in self.place.items() if r != rank]
        self._counters = tuple(others)
        open_, close = borrow or _nothing_lent, give_back or _nothing_lent
        self._inboxes = {rank: Inbox(rank, open_, close) for rank in self.ranks}

    def open(self, addresses: Mapping[int, tuple[int, int]]) -> None:
        """Map the boxes of the others.

        Raises:
            TransportError: one cannot be opened from here.
        """
        for rank in self.ranks:
            if rank == self.rank:
                continue
            pid, number = addresses[rank]
            try:
                descriptor = os.open(f"/proc/{pid}/fd/{number}", os.O_RDWR | os.O_CLOEXEC)
                try:
                    memory = mapped(descriptor, self._nbytes)
                finally:
                    os.close(descriptor)
            except (OSError, ValueError) as error:
                raise TransportError(
                    f"the memory of rank {rank} cannot be opened: {error}"
                ) from None
            self._boxes[rank] = _Box(memory, len(self.ranks), fresh=False)
            self._outboxes[rank] = _Outbox(self._boxes[rank], self.place[self.rank])

    def opened(self) -> None:
        """Every rank has opened what it needs: let go of the file, not of the memory."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def send(self, data: Any, rank: int, tag: int) -> _Sent | _Late:
        """Start sending a message of at most ``MOST_BYTES``."""
        outbox = self._outboxes[rank]
        if not outbox.late and outbox.put(data, tag):
            return _SENT
        outbox.late.append((bytes(data), tag))
        return _Late(outbox, self.check)

    def receive(self, rank: int, tag: int) -> _Awaited:
        """Start receiving a message."""
        return _Awaited(self, rank, tag)

    def take(self, source: int, tag: int) -> bytearray | None:
        """The next message of ``source`` with this tag, if it is here."""
        inbox = self._inboxes[source]
        if inbox.letters or inbox.envelopes:
            data = inbox.take(tag)
            if data is not None:
                return data  # type: ignore[no-any-return] # letters are what was put into it
        return self._empty(source, tag)

    def inbox(self, source: int) -> Inbox:
        """All that has come from ``source`` and has not been taken."""
        self._empty(source, None)
        return self._inboxes[source]

    def _empty(self, source: int, tag: int | None) -> bytearray | None:
        """Move what is in the ring of ``source`` to its inbox, up to the first one of this tag."""
        own, place = self._own, self.place[source]
        counter = place * _LINE // 8
        written, read = own.written[counter], self._read[source]
        if written == read:
            return None
        fence()
        inbox, found = self._inboxes[source], None
        while read < written and found is None:
            start = (place * _SLOTS + read % _SLOTS) * _SLOT
            size, mark = _HEAD.unpack_from(own.rings, start)
            if size <= SLOT_BYTES:
                data = bytearray(own.rings[start + 8 : start + 8 + size])
            else:
                data = self._copy(source, size)
            read += 1
            if mark == tag:
                found = data
                continue
            inbox.put(mark, data)
            if mark == ENVELOPE and tag is not None:
                found = inbox.take(tag)
        fence()
        self._read[source] = own.read[counter] = read
        return found

    def _copy(self, source: int, size: int) -> bytearray:
        """The next large message of ``source``, whose slot is free from then on."""
        own, place, number = self._own, self.place[source], self._large[source]
        start = _large(place, number)
        data = bytearray(own.large[start : start + size])
        fence()
        self._large[source] = own.read[place * _LINE // 8 + 1] = number + 1
        return data

    def fresh(self) -> bool:
        """Whether a message is here that nobody has looked at."""
        written, read = self._own.written, self._read
        for rank, counter in self._counters:  # noqa: SIM110 - any() takes twice the time
            if written[counter] != read[rank]:
                return True
        return False

    def sleep(self, seconds: float) -> None:
        """Give up the processor until a message comes, a signal, or the time is over."""
        self._own.bell.wait(seconds)

    def ring(self, rank: int) -> None:
        """Wake a rank that sleeps."""
        self._boxes[rank].bell.post()

    def ledger(self, rank: int) -> Bytes:
        """[loans, ranks of the machine]: which loans of ``rank`` have been given back by whom."""
        return self._boxes[rank].ledger

    def close(self) -> None:
        """Let go of the memory."""
        with contextlib.suppress(OSError):
            self.opened()
        self._outboxes.clear()
