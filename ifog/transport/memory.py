"""Memory that ranks of one machine share, and requests that any ranks can send each other.

Each process allocates its own part as an anonymous file, which the others open through the owner's
``/proc`` entry (or, where there is no such thing, by a name that is removed once all have it). So
nothing has to fit into ``/dev/shm`` and nothing outlives the processes. Locks are record locks on
a second such file: the kernel drops those of a process that dies. The memory and the locks of a
rank on another machine are reached by requests over TCP.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import secrets
import threading
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ifog.errors import TransportError
from ifog.transport import bell
from ifog.transport.base import Answer, Asked, Bytes
from ifog.transport.far import Call, Connection, Line, Office, Place
from ifog.transport.files import AnonymousFile, machine_name, mapped

__all__ = ["MachineMemory", "MachineRegion"]

_LOCKS = 1 << 20  # record locks set aside for each region
_NOTHING = np.empty(0, np.uint8)


class _Address(NamedTuple):
    """Where a rank's part of a region is found: what travels to the other ranks."""

    key: str
    machine: str
    memory: str
    nbytes: int
    locks: str
    bell: str
    secret: str
    office: Place | None


class _Locks:
    """Record locks on the lock files of all ranks; also exclusive between this process's threads.

    A rank's lock file is opened once and for all: closing any descriptor of it would drop every
    lock this process holds on it.
    """

    def __init__(self) -> None:
        self.own = AnonymousFile(1)
        atexit.register(self.own.unlink)
        self._descriptors = {self.own.path: self.own.descriptor}
        self._held: set[tuple[str, int]] = set()
        self._guard = threading.Lock()

    def try_acquire(self, path: str, offset: int) -> bool:
        with self._guard:
            if (path, offset) in self._held:
                return False
            if path not in self._descriptors:
                self._descriptors[path] = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            flags = fcntl.LOCK_EX | fcntl.LOCK_NB
            try:
                fcntl.lockf(self._descriptors[path], flags, 1, offset)
            except (BlockingIOError, PermissionError):  # POSIX allows either for "is locked"
                return False
            self._held.add((path, offset))
            return True

    def release(self, path: str, offset: int) -> None:
        with self._guard:
            self._held.discard((path, offset))
            fcntl.lockf(self._descriptors[path], fcntl.LOCK_UN, 1, offset)


class _Guests:
    """The locks that this process holds for ranks on other machines."""

    def __init__(self, locks: _Locks) -> None:
        self._locks = locks
        self._held: dict[Connection, set[int]] = {}

    def take(self, connection: Connection, offset: int) -> bool:
        if not self._locks.try_acquire(self._locks.own.path, offset):
            return False
        if connection not in self._held:
            self._held[connection] = set()
            connection.closed.append(lambda: self._leave(connection))
        self._held[connection].add(offset)
        return True

    def give_back(self, connection: Connection, offset: int) -> None:
        held = self._held.get(connection, set())
        if offset in held:
            held.discard(offset)
            self._locks.release(self._locks.own.path, offset)

    def _leave(self, connection: Connection) -> None:
        for offset in self._held.pop(connection, set()):
            self._locks.release(self._locks.own.path, offset)


class MachineRegion:
    """All ranks' parts of one region, as one of them sees it."""

    def __init__(self, memory: MachineMemory, nbytes: int) -> None:
        self._memory = memory
        self._file: AnonymousFile | None = AnonymousFile(nbytes)
        own = _Address(
            key=secrets.token_hex(16),
            machine=memory.machine,
            memory=self._file.path,
            nbytes=nbytes,
            locks=memory.locks.own.path,
            bell=memory.bell.address,
            secret=memory.bell.secret,
            office=None if memory.office is None else memory.office.place,
        )
        self.address = json.dumps(own).encode()
        self._addresses = {memory.rank: own}
        self._parts = {memory.rank: mapped(self._file.descriptor, nbytes)}
        self._lines: dict[int, Line] = {}
        self._tries: dict[tuple[int, int], Call] = {}
        self._key = own.key

    def join(self, addresses: Mapping[int, bytes], ranks: Iterable[int]) -> None:
        """Open the parts of ``ranks``.

        Raises:
            TransportError: the memory of one cannot be opened.
        """
        for rank, text in addresses.items():
            address = _Address(*json.loads(text))
            if address.office is not None:
                address = address._replace(office=Place.of(address.office))
            self._addresses[rank] = address
        for rank in ranks:
            address = self._addresses[rank]
            if rank in self._parts or rank in self._lines:
                continue
            if address.machine == self._memory.machine:
                self._parts[rank] = self._open(rank, address)
            elif address.office is not None:
                self._lines[rank] = self._memory.line(rank, address.office)

    def _open(self, rank: int, address: _Address) -> Bytes:
        try:
            descriptor = os.open(address.memory, os.O_RDWR | os.O_CLOEXEC)
            try:
                part = mapped(descriptor, address.nbytes)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise TransportError(f"the memory of rank {rank} cannot be opened: {error}") from error
        return part

    def joined(self) -> None:
        """Every rank has opened what it needs: let go of the file, not of the memory."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def near(self, rank: int) -> bool:
        """Whether the memory of ``rank`` is at hand."""
        return rank in self._parts

    def part(self, rank: int) -> Bytes:
        """The memory that ``rank`` allocated."""
        return self._parts[rank]

    def try_lock(self, rank: int, index: int) -> bool:
        """Take lock ``index`` of ``rank``'s part, unless anybody has it."""
        if rank not in self._lines:
            return self._memory.locks.try_acquire(*self._lock(rank, index))
        call = self._tries.get((rank, index))
        if call is None:
            call = self._tries[rank, index] = self._far(rank, "try", index)
        if not call.test():
            return False
        del self._tries[rank, index]
        return bool(call.answer["taken"])

    def unlock(self, rank: int, index: int) -> None:
        """Give back a lock that this rank holds, or try to take it no more."""
        tried = self._tries.pop((rank, index), None)
        if rank in self._lines:
            self._far(rank, "unlock", index)
        elif tried is None:
            self._memory.locks.release(*self._lock(rank, index))

    def _far(self, rank: int, what: str, body: Any, data: Bytes = _NOTHING) -> Call:
        head = {
            "what": what,
            "key": self._addresses[rank].key,
            "rank": self._memory.rank,
            "body": body,
        }
        return self._lines[rank].ask(head, data)

    def _lock(self, rank: int, index: int) -> tuple[str, int]:
        """The file and the offset in it: the key decides where the region's locks begin."""
        address = self._addresses[rank]
        return address.locks, _offset(address.key, index)

    def answer(self, function: Answer) -> None:
        """Let ``function(rank, body, data)`` serve the requests of other ranks, in a thread."""
        self._memory.bell.answers[self._key] = function

    def ask(self, rank: int, body: Any, data: Bytes | None = None) -> Asked:
        """Have ``rank`` run what it gave to ``answer``, whatever its main thread does."""
        if rank in self._lines:
            return self._far(rank, "call", body, _NOTHING if data is None else data)
        own, address = self._memory.bell, self._addresses[rank]
        message = {
            "key": address.key,
            "rank": self._memory.rank,
            "body": body,
            "bell": own.address,
            "number": own.number(address.secret),
        }
        return bell.Asked(own, rank, (address.bell, address.secret), message)

    def close(self) -> None:
        """Forget the region; its memory goes when the last rank does so."""
        self._memory.bell.answers.pop(self._key, None)
        self._parts.clear()
        self.joined()


def _offset(key: str, index: int) -> int:
    return int(key[:10], 16) * _LOCKS + index


class MachineMemory:
    """What one process shares with other ranks; made when first asked for.

    Args:
        rank: the own number.
        apart: whether ranks run on other machines, so that there must be an office.
        alone: whether to take the ranks of this machine for such as well.

    Attributes:
        machine: the same on ranks that share memory.
    """

    def __init__(self, rank: int, *, apart: bool = False, alone: bool = False) -> None:
        self.rank = rank
        self.machine = f"{rank}:{machine_name()}" if alone else machine_name()
        self.locks = _Locks()
        self.bell = bell.Bell(rank)
        self._largest = 0
        self._lines: dict[Place, Line] = {}
        self._guests = _Guests(self.locks)
        self.office = Office(self._serve, lambda: self._largest) if apart or alone else None

    def region(self, nbytes: int) -> MachineRegion:
        """A region in which this rank's part is ``nbytes`` zeros."""
        self._largest = max(self._largest, nbytes)
        return MachineRegion(self, nbytes)

    def line(self, rank: int, place: Place) -> Line:
        """The connection to the office of a rank."""
        if place not in self._lines:
            self._lines[place] = Line(rank, place)
        return self._lines[place]

    @property
    def forged(self) -> int:
        """How many requests of nobody who may ask were dropped."""
        return self.bell.forged + (0 if self.office is None else self.office.forged)

    def _serve(self, connection: Connection, head: Any, data: Bytes) -> tuple[Any, Bytes]:
        """Do what a rank on another machine asks for; in a thread of the office."""
        key, body = head["key"], head["body"]
        if head["what"] == "try":
            return {"taken": self._guests.take(connection, _offset(key, body))}, _NOTHING
        if head["what"] == "unlock":
            self._guests.give_back(connection, _offset(key, body))
            return {}, _NOTHING
        answer = self.bell.answers.get(key)
        if answer is None:
            raise TransportError("it has given the window up")
        found = answer(head["rank"], body, data)
        return {}, _NOTHING if found is None else found
