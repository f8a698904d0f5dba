"""Large payloads lent to the other ranks of the machine: written once, read where they are.

A rank copies a payload into a block of memory that the others map, or finds that it lives in such
a block already, and sends where it is instead of what it is. A reader sets a byte in the lender's
ledger when it is through. Blocks come from segments that grow geometrically, and are kept; a dead
process's segments vanish with the last process that maps them.
"""

from __future__ import annotations

import bisect
import os
import struct
import threading
import weakref
from collections import deque
from collections.abc import Iterable
from time import monotonic
from typing import Any, NamedTuple

import numpy as np
import psutil

from ifog.errors import TransportError
from ifog.transport.base import TOKEN_BYTES, Bytes
from ifog.transport.files import AnonymousFile, mapped, vacate
from ifog.transport.mail import LOANS, Mail, fence

__all__ = ["Loan", "Loans", "Pool"]

_TOKEN = struct.Struct("<IHHq")  # file descriptor, row of the ledger, flags, offset
_LIVES, _STAYS = 1, 2  # flags: it is the user's own memory; its pages stay where they are
assert _TOKEN.size == TOKEN_BYTES
_PAGE = 4096
_LEAST = 1 << 26  # bytes of a segment; a page of it takes memory once it is written
_LARGE = 1 << 20  # bytes of a block whose pages are worth giving back
_IDLE = 2.0  # seconds after which a free large block counts as no longer used
_SHARE = 8  # of the machine's memory that the blocks of all its ranks may hold, as a fraction 1/8


class _Segment(NamedTuple):
    start: int  # address
    descriptor: int
    memory: Bytes


class Block(NamedTuple):
    """A part of a segment."""

    segment: _Segment
    offset: int
    nbytes: int

    @property
    def memory(self) -> Bytes:
        """All of it."""
        return self.segment.memory[self.offset : self.offset + self.nbytes]

    @property
    def key(self) -> tuple[int, int]:
        """What tells it from others."""
        return self.segment.start, self.offset


def _rounded(nbytes: int) -> int:
    """The size of the block for so many bytes: one of four in each power of two."""
    pages = max(1, -(-nbytes // _PAGE))
    step = 1 << max(0, pages.bit_length() - 3)
    return -(-pages // step) * step * _PAGE


class Pool:
    """Blocks of memory of this process that others can open.

    The pages of large free blocks go back to the system when a block of a new size is needed, or
    when they have not been used for some seconds in which others were: what a program no longer
    uses does not stay in memory beside what it uses now, and what it uses in turn does. The limit
    is one of pages: addresses cost nothing, so who needs other sizes again and again has room for
    each.

    Args:
        sharers: how many ranks of this machine have such a pool.
        fixed: whether all pages stay, because something knows them by their physical place.
    """

    def __init__(self, sharers: int, *, fixed: bool = False) -> None:
        self.fixed = fixed
        self._limit: int = psutil.virtual_memory().total // (_SHARE * sharers)
        self._total = 0  # bytes of the segments
        self._held = 0  # bytes of the blocks that have their pages, in use or free
        self._segments: list[_Segment] = []  # by address
        self._files: list[AnonymousFile] = []
        self._filled: tuple[_Segment, int] | None = None  # the newest and how much of it is used
        self._free: dict[int, list[Block]] = {}
        self._rooms: dict[tuple[int, int], weakref.ref[Any]] = {}
        self._left: deque[Block] = deque()
        self._full: set[tuple[int, int]] = set()  # these blocks
        self._unused: set[tuple[int, int]] = set()  # those that were free and have not been taken
        self._aged = monotonic()
        self._lock = threading.Lock()  # a thread may move operations forward meanwhile

    def take(self, nbytes: int) -> Block | None:
        """A block of at least so many bytes; None where there would be too many."""
        with self._lock:
            while self._left:  # filled by whatever thread drops a tensor
                back = self._left.popleft()
                self._free.setdefault(back.nbytes, []).append(back)
            size = _rounded(nbytes)
            free = self._free.setdefault(size, [])
            if not (free and free[-1].key in self._full) and not self._affords(size, not free):
                return None
            block = free.pop() if free else self._new(size)
            if block is not None and block.key not in self._full:
                self._full.add(block.key)
                self._held += size
            if block is not None and size >= _LARGE:
                self._age(block)
            return block

    def _affords(self, size: int, new: bool) -> bool:
        """Whether there may be pages for one block more; a new one is no reason to keep others'."""
        if new or self._held + size > self._limit:
            self._empty(self._full)
        return self._held + size <= self._limit

    def _age(self, taken: Block) -> None:
        """Empty what was free at the last look, some seconds ago, and ever since."""
        self._unused.discard(taken.key)
        if monotonic() - self._aged >= _IDLE:
            self._aged = monotonic()
            self._empty(self._unused)
            free = (block for blocks in self._free.values() for block in blocks)
            self._unused = {block.key for block in free} & self._full

    def _new(self, size: int) -> Block | None:
        segment, used = self._filled or (None, 0)
        if segment is None or used + size > segment.memory.size:
            if self.fixed and self._total + size > self._limit:  # these may be pinned as a whole
                return None
            segment, used = self._grow(size), 0
        self._filled = segment, used + size
        return Block(segment, used, size)

    def _empty(self, chosen: set[tuple[int, int]]) -> None:
        if self.fixed:
            return
        for block in (block for blocks in self._free.values() for block in blocks):
            if block.nbytes < _LARGE or block.key not in chosen or block.key not in self._full:
                continue
            if vacate(block.segment.memory, block.offset, block.nbytes):
                self._full.discard(block.key)
                self._held -= block.nbytes

    def give(self, block: Block) -> None:
        """Take a block back; safe in any thread."""
        self._left.append(block)

    def _grow(self, size: int) -> _Segment:
        most = self._limit - self._total if self.fixed else self._limit
        nbytes = min(max(size, _LEAST, self._total), max(size, most))
        file = AnonymousFile(nbytes)
        memory = mapped(file.descriptor, nbytes)
        segment = _Segment(memory.ctypes.data, file.descriptor, memory)
        self._files.append(file)
        self._total += nbytes
        bisect.insort(self._segments, segment, key=lambda known: known.start)
        return segment

    def room(self, nbytes: int) -> Bytes | None:
        """Memory that goes back to the pool when nothing refers to the array any more."""
        block = self.take(nbytes)
        if block is None:
            return None
        room = block.memory[:nbytes]
        self._rooms[block.key] = weakref.ref(room, lambda _: self._leave(block))
        return room

    def _leave(self, block: Block) -> None:
        self._rooms.pop(block.key, None)
        self.give(block)

    def find(self, data: Bytes) -> tuple[int, int] | None:
        """File descriptor and offset of ``data``, if it lives in a segment."""
        address = data.__array_interface__["data"][0]
        place = bisect.bisect_right(self._segments, address, key=lambda known: known.start) - 1
        if place < 0:
            return None
        segment = self._segments[place]
        offset = address - segment.start
        return (segment.descriptor, offset) if offset < segment.memory.size else None

    def around(self, data: Bytes) -> Bytes | None:
        """The whole segment in which ``data`` lies, if it lives in one."""
        found = self.find(data)
        descriptor = -1 if found is None else found[0]
        return next((s.memory for s in self._segments if s.descriptor == descriptor), None)


class Loan:
    """One payload that others may read.

    Attributes:
        token: where it is, for the readers.
        readers: who they are, and their places in the ledger; none once all have read it.
        row: of the ledger.
        block: to be used again once nobody reads it.
        kept: the memory itself, where nobody writes to it any more.
        lives: whether it is the user's own memory, which must not change before all have read it.
    """

    __slots__ = ("_flags", "block", "kept", "lives", "readers", "row", "token")

    def __init__(
        self, token: bytes, row: int, flags: Bytes, readers: dict[int, int], block: Block | None
    ) -> None:
        self.token = token
        self.row = row
        self.readers = readers
        self.lives = block is None
        self.block = block
        self.kept: Bytes | None = None
        self._flags = flags.data

    def unread(self) -> tuple[int, ...]:
        """The ranks that have not given it back."""
        flags = self._flags
        return tuple([rank for rank, place in self.readers.items() if not flags[place]])


class Loans:
    """What one rank has lent and borrowed.

    Args:
        mail: carries the ledgers.
        pool: where the payloads are.
        pids: the processes of the ranks of this machine.
        pinnable: like ``pool``, but its pages stay where they are.
    """

    def __init__(
        self, mail: Mail, pool: Pool, pids: dict[int, int], pinnable: Pool | None = None
    ) -> None:
        self._mail = mail
        self._pool = pool
        self._pinnable = pinnable or Pool(1, fixed=True)
        self._stays: dict[int, Bytes] = {}  # by address, what was borrowed and has such pages
        self._ledger = mail.ledger(mail.rank)
        self._rows = list(range(LOANS))
        self._out: deque[Loan] = deque()
        self._pids = pids
        self._opened: dict[tuple[int, int], Bytes] = {}

    def lend(self, data: Bytes, readers: Iterable[int], *, kept: bool = False) -> Loan | None:
        """Let ``readers`` read ``data``; None where that cannot be, so that it must be sent.

        What is ``kept`` nobody writes to any more, so that nobody needs to wait for its return.
        """
        places = {rank: self._mail.place[rank] for rank in readers if rank in self._mail.place}
        if not places:
            return None
        self._settle()
        if not self._rows:
            return None
        block = None
        found, stays = self._pool.find(data), 0
        if found is None and (found := self._pinnable.find(data)) is not None:
            stays = _STAYS
        if found is None:
            block = self._pool.take(data.size)
            if block is None:
                return None
            np.copyto(block.memory[: data.size], data)
            found = block.segment.descriptor, block.offset
        row = self._rows.pop()
        flags = self._ledger[row]
        flags[:] = 0
        lives = block is None and not kept
        token = _TOKEN.pack(found[0], row, _LIVES * lives | stays, found[1])
        loan = Loan(token, row, flags, places, block)
        if kept and block is None:
            loan.lives, loan.kept = False, data
        self._out.append(loan)
        return loan

    def _settle(self) -> None:
        """Use again what has been given back."""
        for _ in range(len(self._out)):
            loan = self._out.popleft()
            if loan.unread():
                self._out.append(loan)
                continue
            loan.readers = {}  # whoever still asks for it must not be told of the row's next loan
            self._rows.append(loan.row)
            block = loan.block
            if block is not None:
                self._pool.give(block)

    def drop(self) -> None:
        """Take everything back, whether it has been read or not."""
        for loan in self._out:
            block = loan.block
            if block is not None:
                self._pool.give(block)
        self._out.clear()

    def borrow(self, lender: int, token: bytes, nbytes: int) -> Bytes:
        """What ``lender`` lent, to be read only, until it is given back.

        Raises:
            TransportError: its memory cannot be opened.
        """
        descriptor, _, flags, offset = _TOKEN.unpack(token)
        memory = self._opened.get((lender, descriptor))
        if memory is None:
            memory = self._opened[lender, descriptor] = self._map(lender, descriptor)
            if flags & _STAYS:
                self._stays[memory.ctypes.data] = memory
        return memory[offset : offset + nbytes]

    def _map(self, lender: int, number: int) -> Bytes:
        try:
            descriptor = os.open(
                f"/proc/{self._pids[lender]}/fd/{number}", os.O_RDWR | os.O_CLOEXEC
            )
            try:
                return mapped(descriptor, os.fstat(descriptor).st_size)
            finally:
                os.close(descriptor)
        except (OSError, ValueError) as error:
            raise TransportError(f"the memory of rank {lender} cannot be opened: {error}") from None

    def pinnable(self, data: Bytes) -> Bytes | None:
        """The whole memory in which ``data`` lies, own or borrowed, if its pages stay."""
        own = self._pinnable.around(data)
        if own is not None:
            return own
        at = data.ctypes.data
        inside = (m for start, m in self._stays.items() if start <= at < start + m.size)
        return next(inside, None)

    def give_back(self, lender: int, token: bytes) -> None:
        """Tell ``lender`` that this rank is through with what it lent."""
        fence()
        _, row, flags, _ = _TOKEN.unpack(token)
        self._mail.ledger(lender)[row, self._mail.place[self._mail.rank]] = 1
        if flags & _LIVES:  # only then does the lender wait for it
            self._mail.ring(lender)
