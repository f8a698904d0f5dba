"""Memory of the ranks of one machine that all of them can touch, and requests they can send.

Each process allocates its own part as an anonymous file, which the others open through the owner's
``/proc`` entry (or, where there is no such thing, by a name that is removed once all have it). So
nothing has to fit into ``/dev/shm`` and nothing outlives the processes. Locks are record locks on
a second such file: the kernel drops those of a process that dies. Requests travel as datagrams
between threads of the processes, so they are answered while the main thread computes or sleeps.
"""

from __future__ import annotations

import atexit
import fcntl
import hmac
import json
import os
import secrets
import socket
import tempfile
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ifog.errors import PeerFailedError, TransportError
from ifog.transport.base import Answer, Bytes
from ifog.transport.files import AnonymousFile, machine_name, mapped

__all__ = ["MachineMemory", "MachineRegion"]

_LOCKS = 1 << 20  # record locks set aside for each region
_MESSAGE = 1 << 16
_SIGNATURE = 32
_REPLY_SECONDS = 5.0


class _Address(NamedTuple):
    """Where a rank's part of a region is found: what travels to the other ranks."""

    key: str
    machine: str
    memory: str
    nbytes: int
    locks: str
    bell: str
    secret: str


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


class _Bell:
    """The thread that answers other ranks' requests, and the socket it listens on.

    A datagram is a message behind its HMAC-SHA256 under the secret of the bell that is asked, for
    the answer as well; secrets travel with the addresses of regions, never here. Anybody on the
    machine can send to the socket, so whatever has another signature is counted and dropped unread.

    Attributes:
        forged: how many datagrams were dropped.
    """

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.secret = secrets.token_hex(16)
        self.answers: dict[str, Answer] = {}
        self.replies: dict[int, str] = {}
        self.expected: dict[int, str] = {}
        self.forged = 0
        self._count = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(self._name())
        self.address = os.fsdecode(self._socket.getsockname())
        thread = threading.Thread(target=self._listen, name="ifog-windows", daemon=True)
        thread.start()

    def _name(self) -> str:
        # Linux has socket names without files, which vanish with the process.
        if Path("/proc/self").exists():
            return "\0ifog-" + secrets.token_hex(16)
        return str(Path(tempfile.mkdtemp(prefix="ifog-")) / "bell")

    def send(self, address: str, secret: str, message: Mapping[str, Any], *, wait: bool) -> bool:
        """Whether the datagram could be sent; with ``wait`` some seconds are spent on trying."""
        body = json.dumps(message).encode()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.settimeout(_REPLY_SECONDS if wait else 0.0)
            try:
                out.sendto(_signature(secret, body) + body, os.fsencode(address))
            except (BlockingIOError, TimeoutError):
                return False
        return True

    def number(self, secret: str) -> int:
        """A number for the next request, whose answer will be signed with ``secret``."""
        self._count += 1
        self.expected[self._count] = secret
        return self._count

    def forget(self, number: int) -> None:
        """No answer to this request is wanted any more."""
        self.expected.pop(number, None)
        self.replies.pop(number, None)

    def _listen(self) -> None:
        while True:
            data = self._socket.recv(_MESSAGE)
            try:
                self._take(data[:_SIGNATURE], data[_SIGNATURE:])
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
                self.forged += 1

    def _take(self, signature: bytes, body: bytes) -> None:
        if hmac.compare_digest(signature, _signature(self.secret, body)):
            self._answer(json.loads(body))
            return
        # An answer is signed by the bell that was asked.
        asked = set(self.expected.values())
        if not any(hmac.compare_digest(signature, _signature(key, body)) for key in asked):
            raise ValueError("signed by nobody who was asked")
        message = json.loads(body)
        self.replies[message["number"]] = str(message["error"])

    def _answer(self, message: dict[str, Any]) -> None:
        try:
            answer = self.answers.get(message["key"])
            if answer is None:
                raise TransportError("it has given the window up")
            answer(message["rank"], message["body"])
            error = ""
        except Exception as failure:  # the asking rank raises it
            error = f"{type(failure).__name__}: {failure}"
        reply = {"number": message["number"], "error": error}
        try:
            self.send(message["bell"], self.secret, reply, wait=True)
        except OSError:
            return  # the asking rank is gone


def _signature(secret: str, body: bytes) -> bytes:
    return hmac.digest(secret.encode(), body, "sha256")


class _Asked:
    """A request to another rank, until it has been answered."""

    def __init__(self, bell: _Bell, rank: int, address: _Address, message: dict[str, Any]) -> None:
        self._bell = bell
        self._rank = rank
        self._address = address
        self._message = message
        self._sent = False

    def test(self) -> bool:
        bell, address = self._bell, self._address
        if not self._sent:
            try:
                self._sent = bell.send(address.bell, address.secret, self._message, wait=False)
            except OSError:
                bell.forget(self._message["number"])
                cause = "its process died"
                raise PeerFailedError(f"rank {self._rank}: {cause}", self._rank, cause) from None
        error = bell.replies.get(self._message["number"])
        if error is None:
            return False
        bell.forget(self._message["number"])
        if error:
            raise TransportError(f"rank {self._rank} could not answer: {error}")
        return True


class MachineRegion:
    """All ranks' parts of one region, as one of them sees it."""

    def __init__(self, memory: MachineMemory, nbytes: int) -> None:
        self._memory = memory
        self._file: AnonymousFile | None = AnonymousFile(nbytes)
        bell, locks = memory.bell, memory.locks.own.path
        key, path = secrets.token_hex(16), self._file.path
        own = _Address(key, machine_name(), path, nbytes, locks, bell.address, bell.secret)
        self.address = json.dumps(own).encode()
        self._addresses = {memory.rank: own}
        self._parts = {memory.rank: mapped(self._file.descriptor, nbytes)}
        self._key = key

    def join(self, addresses: Mapping[int, bytes], ranks: Iterable[int]) -> None:
        """Open the parts of ``ranks``.

        Raises:
            TransportError: one is on another machine, or its memory cannot be opened.
        """
        for rank, text in addresses.items():
            self._addresses[rank] = _Address(*json.loads(text))
        for rank in ranks:
            if rank not in self._parts:
                self._parts[rank] = self._open(rank, self._addresses[rank])

    def _open(self, rank: int, address: _Address) -> Bytes:
        if address.machine != machine_name():
            raise TransportError(
                f"rank {rank} runs on {address.machine.split(':')[0]}, rank {self._memory.rank} on "
                f"{socket.gethostname()}: windows need ranks that share memory; run all ranks of "
                "the graph on one machine, or use neighbor_allreduce"
            )
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

    def part(self, rank: int) -> Bytes:
        """The memory that ``rank`` allocated."""
        return self._parts[rank]

    def try_lock(self, rank: int, index: int) -> bool:
        """Take lock ``index`` of ``rank``'s part, unless anybody has it."""
        return self._memory.locks.try_acquire(*self._lock(rank, index))

    def unlock(self, rank: int, index: int) -> None:
        """Give back a lock that this rank holds."""
        self._memory.locks.release(*self._lock(rank, index))

    def _lock(self, rank: int, index: int) -> tuple[str, int]:
        """The file and the offset in it: the key decides where the region's locks begin."""
        address = self._addresses[rank]
        return address.locks, int(address.key[:10], 16) * _LOCKS + index

    def answer(self, function: Answer) -> None:
        """Let ``function(rank, body)`` serve the requests of other ranks, in a thread."""
        self._memory.bell.answers[self._key] = function

    def ask(self, rank: int, body: Any) -> _Asked:
        """Have ``rank`` run what it gave to ``answer``, whatever its main thread does."""
        bell, address = self._memory.bell, self._addresses[rank]
        message = {
            "key": address.key,
            "rank": self._memory.rank,
            "body": body,
            "bell": bell.address,
            "number": bell.number(address.secret),
        }
        return _Asked(bell, rank, address, message)

    def close(self) -> None:
        """Forget the region; its memory goes when the last rank does so."""
        self._memory.bell.answers.pop(self._key, None)
        self._parts.clear()
        self.joined()


class MachineMemory:
    """What one process shares with the others of its machine; made when first asked for."""

    def __init__(self, rank: int) -> None:
        self.rank = rank
        self.locks = _Locks()
        self.bell = _Bell(rank)

    def region(self, nbytes: int) -> MachineRegion:
        """A region in which this rank's part is ``nbytes`` zeros."""
        return MachineRegion(self, nbytes)
