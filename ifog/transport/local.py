"""Ranks as threads of one process: the wire of most tests, and of machines without MPI."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Generator, Iterable, Mapping
from itertools import count
from typing import Any

import numpy as np

from ifog.errors import PeerFailedError, TransportError
from ifog.transport import cuda
from ifog.transport.base import Answer, Bytes, Loan
from ifog.transport.envelopes import Inbox

__all__ = ["LocalHub", "LocalTransport"]

_SPINS = 3
_SLICE = 0.05  # seconds; bounds how late an interrupt of the main thread is served


class LocalHub:
    """The mailboxes that the ranks of one process share."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.boxes: dict[tuple[int, ...], deque[tuple[int, Bytes]]] = {}
        self.arrived = [threading.Event() for _ in range(size)]
        self.failure: tuple[int, str] | None = None
        self.failed_at: float | None = None
        self.regions: dict[int, LocalRegion] = {}
        self.keys = count()
        self.locks: set[tuple[int, int]] = set()
        self.guard = threading.Lock()
        self.alive = tuple(range(size))
        self.dead: set[int] = set()
        self.epoch = 0
        self.met: set[int] = set()
        self._lock = threading.Lock()

    def transport(self, rank: int) -> LocalTransport:
        """The view of ``rank``."""
        return LocalTransport(self, rank)

    def box(self, key: tuple[int, ...]) -> deque[tuple[int, Bytes]]:
        """The mailbox of (destination, source): messages behind their tags, in order."""
        # A defaultdict would not do: creating the deque may collect garbage, whose finalizers let
        # the other end run and create a second one.
        found = self.boxes.get(key)
        return self.boxes.setdefault(key, deque()) if found is None else found

    def abort(self, rank: int, cause: str) -> None:
        """Record the first failure and wake everybody."""
        with self._lock:
            if self.failure is None:
                self.failure = (rank, cause)
                self.failed_at = None if rank in self.dead else time.time()
        self.wake()

    def wake(self) -> None:
        """Let everybody look again at what they wait for."""
        for event in self.arrived:
            event.set()

    def kill(self, rank: int) -> None:
        """Count ``rank`` as dead from now on, as if its process had been killed."""
        with self._lock:
            self.dead.add(rank)
        self.abort(rank, "its process died")

    def come(self, rank: int, epoch: int) -> None:
        """Note that ``rank`` is ready to end ``epoch``."""
        with self._lock:
            if self.epoch == epoch:
                self.met.add(rank)
        self.wake()

    def heal(self, epoch: int) -> None:
        """End ``epoch``, unless another rank has done so: empty the mailboxes, bury the dead."""
        with self._lock:
            if self.epoch > epoch:
                return
            self.boxes.clear()
            self.failure = None
            self.alive = tuple(rank for rank in self.alive if rank not in self.dead)
            self.met.clear()
            self.epoch += 1
        self.wake()


class _Sent:
    payload = np.empty(0, np.uint8)

    def test(self) -> bool:
        return True


class _Letter:
    data: Any = None

    def __init__(self, transport: LocalTransport, source: int, tag: int) -> None:
        self._transport = transport
        self._source = source
        self._tag = tag

    def test(self) -> bool:
        if self.data is None:
            self.data = self._transport.inbox(self._source).take(self._tag)
        return self.data is not None


class _Receive(_Letter):
    def __init__(self, transport: LocalTransport, out: Bytes, source: int, tag: int) -> None:
        super().__init__(transport, source, tag)
        self._out = out

    def test(self) -> bool:
        if self.data is None and super().test():
            data: Any = self.data
            self._out[: len(data)] = data
        return self.data is not None


class LocalRegion:
    """A region whose parts are arrays of one process."""

    def __init__(self, hub: LocalHub, rank: int, nbytes: int) -> None:
        self._hub = hub
        self._rank = rank
        self.own = np.zeros(nbytes, np.uint8)
        self.answering: Answer | None = None
        self.key = next(hub.keys)
        self.address = str(self.key).encode()
        hub.regions[self.key] = self
        self._regions = {rank: self}

    def join(self, addresses: Mapping[int, bytes], ranks: Iterable[int]) -> None:
        """Find the parts of ``ranks``."""
        for rank in ranks:
            if rank not in self._regions:
                self._regions[rank] = self._hub.regions[int(addresses[rank])]

    def joined(self) -> None:
        """Nothing to let go of."""

    def near(self, rank: int) -> bool:
        """Whether ``rank`` is there: all of them are near."""
        return rank in self._regions

    def part(self, rank: int) -> Bytes:
        """The memory of ``rank``."""
        return self._regions[rank].own

    def try_lock(self, rank: int, index: int) -> bool:
        """Take a lock, unless anybody has it."""
        lock = (self._regions[rank].key, index)
        with self._hub.guard:
            if lock in self._hub.locks:
                return False
            self._hub.locks.add(lock)
            return True

    def unlock(self, rank: int, index: int) -> None:
        """Give back a lock that this rank holds."""
        with self._hub.guard:
            self._hub.locks.discard((self._regions[rank].key, index))
        # Whoever waits for the lock sleeps until something arrives.
        for event in self._hub.arrived:
            event.set()

    def answer(self, function: Answer) -> None:
        """Let ``function`` serve the requests of other ranks, in their own threads."""
        self.answering = function

    def ask(self, rank: int, body: Any, data: Bytes | None = None) -> _Sent:
        """Run what ``rank`` gave to ``answer``."""
        function = self._regions[rank].answering
        if function is None:
            raise TransportError(f"rank {rank} could not answer: it has given the window up")
        function(self._rank, body, _Sent.payload if data is None else data)
        return _Sent()

    def close(self) -> None:
        """Forget the region."""
        self.answering = None
        self._hub.regions.pop(self.key, None)


class LocalTransport:
    """A rank that is a thread. Sends copy their bytes and complete at once."""

    def __init__(self, hub: LocalHub, rank: int) -> None:
        self.hub = hub
        self.rank = rank
        self.size = hub.size
        self.alive = hub.alive
        self._epoch = hub.epoch
        self._inboxes: dict[int, Inbox] = {}
        self.machines = (0,) * hub.size
        self.equipped = cuda.driver.equipped()

    def check(self) -> None:
        """Raise when any rank has aborted."""
        if self.hub.failure is not None:
            rank, cause = self.hub.failure
            raise PeerFailedError(f"rank {rank} stopped: {cause}", rank, cause)

    def send(self, data: bytes, destination: int, tag: int) -> _Sent:
        """Put a small message in the destination's mailbox."""
        return self.isend(np.frombuffer(data, np.uint8), destination, tag)

    def isend(self, data: Bytes, destination: int, tag: int) -> _Sent:
        """Put a copy of ``data`` in the destination's mailbox."""
        self.check()
        self.hub.box((destination, self.rank)).append((tag, data.copy()))
        self.hub.arrived[destination].set()
        return _Sent()

    def receive(self, source: int, tag: int, most: int) -> _Letter:  # noqa: ARG002 - any size will do
        """Wait for the next message of ``source`` with this tag."""
        self.check()
        return _Letter(self, source, tag)

    def irecv(self, out: Bytes, source: int, tag: int) -> _Receive:
        """Wait for the next message of ``source`` with this tag."""
        self.check()
        return _Receive(self, out, source, tag)

    def opens(self, ranks: Iterable[int]) -> int:  # noqa: ARG002 - all are equal here
        """No limit: threads share all memory."""
        return sys.maxsize

    def inbox(self, source: int) -> Inbox:
        """What came from ``source``."""
        inbox = self._inboxes.get(source)
        if inbox is None:
            inbox = self._inboxes[source] = Inbox(source, self.borrow, self.give_back)
        box = self.hub.box((self.rank, source))
        if not box:
            self.check()
        while box:
            inbox.put(*box.popleft())
        return inbox

    def region(self, nbytes: int) -> LocalRegion:
        """A region in which this rank's part is ``nbytes`` zeros."""
        return LocalRegion(self.hub, self.rank, nbytes)

    def lend(self, data: Bytes, readers: Iterable[int], *, kept: bool = False) -> Loan | None:
        """Nothing: sends are copies."""

    def borrow(self, lender: int, token: bytes, nbytes: int) -> Bytes:
        """Nothing was lent."""
        raise TransportError(f"rank {lender} lent nothing: {nbytes} bytes as {token!r}")

    def give_back(self, lender: int, token: bytes) -> None:
        """Nothing was lent."""

    def room(self, nbytes: int, *, pinnable: bool = False) -> Bytes | None:
        """Nothing can be lent."""

    def pinnable(self, data: Bytes) -> Bytes | None:
        """Nothing was lent."""

    def idle(self, polls: int) -> None:
        """Sleep until something arrives."""
        if polls > _SPINS:
            arrived = self.hub.arrived[self.rank]
            arrived.wait(_SLICE)
            arrived.clear()

    def abort(self, cause: str, rank: int | None = None) -> None:
        """Stop every rank."""
        self.hub.abort(self.rank if rank is None else rank, cause)

    def failed_at(self) -> float | None:
        """When a rank aborted."""
        return None if self.hub.failure is None else self.hub.failed_at

    def meet(self) -> Generator[tuple[int, ...], None, None]:
        """Wait until every living rank is here."""
        hub = self.hub
        hub.come(self.rank, self._epoch)
        while hub.epoch == self._epoch:
            missing = set(hub.alive) - hub.met - hub.dead
            if not missing:
                return
            yield tuple(sorted(missing))

    def heal(self) -> None:
        """Empty all mailboxes and go on without the dead; every living rank must call it."""
        self.hub.heal(self._epoch)
        self._epoch += 1
        self._inboxes.clear()
        self.alive = self.hub.alive

    def close(self) -> None:
        """Nothing to release."""

    @property
    def forged(self) -> int:
        """None: threads of one process need no signatures."""
        return 0

    def describe(self) -> dict[str, Any]:
        """What a status page says about this wire."""
        return {"transport": "threads", "wire": "threads of one process", "threads": True}
