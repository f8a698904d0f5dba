"""The memory behind a window: one buffer for each in-neighbour, its version, its p and its locks.

Rank i's part of the shared region holds, for each in-neighbour j in ascending order, a version
counter, a number p_i[j] and the buffer B_i[j]. Two locks belong to each: one that makes a single
read or write of the buffer atomic, and the mutex that users and whole sequences take.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from ifog.context import Context
from ifog.errors import TransportError
from ifog.exchange import Parcel, wire
from ifog.handle import Moving, Operation
from ifog.operation import to_all
from ifog.telemetry import now
from ifog.transport.base import Bytes, Region

__all__ = ["Buffers", "Gift", "Key", "Slots", "senders"]

Key = tuple[int, int]  # whose part, and the number of the lock in it

_STREAMED = 1 << 20  # bytes from which the C library's copy is faster than torch's: past the caches
_LINE = 64  # bytes of a cache line, so that two buffers never share one
_DELIVERY_SECONDS = 20.0
_POLL = 50e-6  # seconds between two looks at a lock, in a thread that nothing else wakes


def senders(context: Context, rank: int) -> list[int]:
    """The in-neighbours of ``rank`` in the graph in use, ascending."""
    return sorted(u for u in context.graph.predecessors(rank) if u != rank)


def _padded(nbytes: int) -> int:
    return -(-nbytes // _LINE) * _LINE


class Gift(NamedTuple):
    """What goes into a buffer: ``B <- weight x``, or if it ``adds``, ``B += weight x``.

    ``share`` does the same with the buffer's p; None leaves that alone.
    """

    x: torch.Tensor
    weight: float
    adds: bool
    share: float | None


class Slots:
    """The buffers of one rank as views of its memory.

    Attributes:
        data: {j: B[j]}.
        versions: [m] puts and gets since the last update; ``index[j]`` is j's place.
        p: [m] associated p.
    """

    def __init__(
        self, part: np.ndarray[Any, Any], sources: Sequence[int], like: torch.Tensor
    ) -> None:
        head = _padded(8 * len(sources))
        nbytes = like.numel() * like.element_size()
        self.index = {source: i for i, source in enumerate(sources)}
        self.versions = part[: 8 * len(sources)].view(np.int64)
        self.p = part[head : head + 8 * len(sources)].view(np.float64)
        self.data = {}
        for source, i in self.index.items():
            start = 2 * head + i * _padded(nbytes)
            flat = torch.from_numpy(part[start : start + nbytes])
            self.data[source] = flat.view(like.dtype).view(like.shape)

    @staticmethod
    def nbytes(count: int, like: torch.Tensor) -> int:
        """The memory that ``count`` buffers take."""
        return 2 * _padded(8 * count) + count * _padded(like.numel() * like.element_size())

    def store(self, source: int, x: torch.Tensor, weight: float) -> None:
        """``B[source] <- weight x``; counts as one more version."""
        buffer = self.data[source]
        if weight == 1 and x.nbytes >= _STREAMED and x.is_contiguous():
            np.copyto(wire(buffer), wire(x))
        elif weight == 1:
            buffer.copy_(x)
        else:
            torch.mul(x, weight, out=buffer)
        self.versions[self.index[source]] += 1

    def take(self, source: int, gift: Gift) -> None:
        """Put what ``source`` gives into its buffer."""
        i = self.index[source]
        if gift.adds:
            self.data[source].add_(gift.x, alpha=gift.weight)
        else:
            self.store(source, gift.x, gift.weight)
        if gift.share is not None:
            self.p[i] = gift.share + (self.p[i] if gift.adds else 0.0)


class Buffers:
    """The buffers of this rank and of its out-neighbours, with their locks.

    Those of ranks on this machine are read and written where they are, others by request.
    """

    def __init__(self, context: Context, like: torch.Tensor) -> None:
        self._context = context
        self._like = like
        self._held: Counter[Key] = Counter()
        self.era = 0  # how often all locks have been let go of
        self._slots: dict[int, Slots] = {}
        count = len(senders(context, context.rank))
        self._region: Region = context.transport.region(Slots.nbytes(count, like))

    @property
    def own(self) -> Slots:
        """The buffers of this rank."""
        return self._slots[self._context.rank]

    def open(
        self, tag: int, first: torch.Tensor | None, read: Callable[[], torch.Tensor]
    ) -> Operation[None]:
        """Exchange addresses with all ranks and map what this one needs; collective.

        Args:
            tag: of the messages.
            first: what the own buffers begin with; zeros if None.
            read: what others get of this rank; called in any thread.

        Raises:
            TransportError: on every rank, if any cannot reach another's memory.
        """
        context, region = self._context, self._region
        around = (context.rank, *context.weights.dst)
        addresses = yield from _tell(context, tag, region.address)
        trouble = ""
        try:
            region.join(addresses, {*senders(context, context.rank), *around})
            for rank in filter(region.near, around):
                self._slots[rank] = Slots(region.part(rank), senders(context, rank), self._like)
        except TransportError as error:
            trouble = str(error)
        if first is not None and not trouble:
            for buffer in self.own.data.values():
                buffer.copy_(first)
        self._read = read
        region.answer(self._serve)
        told = yield from _tell(context, tag, trouble.encode())
        region.joined()
        found = [text for text in (trouble.encode(), *told.values()) if text]
        if found:
            self.close()
            raise TransportError(found[0].decode())

    def close(self) -> None:
        """Let go of the memory."""
        self._slots.clear()
        self._region.close()

    def keys(self, pairs: Iterable[tuple[int, int]], *, mutex: bool = False) -> list[Key]:
        """The locks of these (owner, source) pairs, in the order in which everybody takes them.

        Args:
            pairs: whose buffer, and who writes it.
            mutex: the users' mutexes as well.
        """
        chosen = sorted(pairs)
        inner = [(owner, self._context.size + source) for owner, source in chosen]
        return [*chosen, *inner] if mutex else inner

    def acquire(self, keys: Iterable[Key]) -> Operation[float]:
        """Take locks one after the other; returns when the last was waited for, 0.0 if none.

        A mutex that this rank has already is counted instead of taken.
        """
        waited, taken = 0.0, []
        try:
            for key in keys:
                # Whoever holds a lock is its owner or its source.
                peer = key[0] if key[0] != self._context.rank else key[1] % self._context.size
                try:
                    while not (self._held[key] or self._region.try_lock(*key)):
                        self._context.transport.check()
                        yield (peer,)
                        waited = now()
                except BaseException:
                    if not self._region.near(key[0]):
                        self._region.unlock(*key)  # the answer may be that it has been taken
                    raise
                self._held[key] += 1
                taken.append(key)
        except BaseException:
            self.release(taken)
            raise
        return waited

    def release(self, keys: Iterable[Key]) -> None:
        """Give locks back, those that ``let_go`` has not given back already."""
        for key in keys:
            if not self._held[key]:
                continue
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]
                self._region.unlock(*key)

    def let_go(self) -> None:
        """Give all locks back: whoever took them will not, because its cell failed."""
        for key in self._held:
            self._region.unlock(*key)
        self._held.clear()
        self.era += 1

    def give(self, rank: int, make: Callable[[], Gift], *, mutex: bool) -> Operation[float]:
        """Put what ``make`` returns into this rank's buffer on ``rank``.

        Returns:
            What ``acquire`` does.
        """
        me = self._context.rank
        near = self._region.near(rank)
        keys = self.keys([(rank, me)], mutex=mutex) if near else [(rank, me)] * mutex
        waited = yield from self.acquire(keys)
        try:
            gift = make()
            if near:
                self._slots[rank].take(me, gift)
            else:
                yield from self._request(
                    rank,
                    ["take", *gift[1:]],
                    wire(gift.x.clone(memory_format=torch.contiguous_format)),
                )
        finally:
            self.release(keys)
        return waited

    def fetch(self, rank: int, weight: float, *, mutex: bool) -> Operation[None]:
        """Have what ``rank`` lets be read put into the buffer for it here."""
        me = self._context.rank
        keys = [(rank, me)] * mutex
        yield from self.acquire(keys)
        try:
            near = self._region.near(rank)
            data = yield from self._request(rank, ["deliver", weight] if near else ["read"])
        finally:
            self.release(keys)
        if not near:
            inner = self.keys([(me, rank)])
            yield from self.acquire(inner)
            try:
                self.own.store(rank, self._tensor(data), weight)
            finally:
                self.release(inner)

    def _request(self, rank: int, body: Any, data: Bytes | None = None) -> Operation[Bytes]:
        asked = self._region.ask(rank, body, data)
        while not asked.test():
            self._context.transport.check()
            yield Moving((rank,))  # a thread there answers in any case
        return asked.payload

    def _tensor(self, data: Bytes) -> torch.Tensor:
        if not data.size:
            return torch.empty_like(self._like)
        return torch.from_numpy(data).view(self._like.dtype).view(self._like.shape)

    def _serve(self, rank: int, body: Any, data: Bytes) -> Bytes | None:
        """Do what ``rank`` asks for; called in any thread."""
        what, *rest = body
        if what == "read":
            # A copy, because its owner goes on writing while it is signed and sent.
            return wire(self._read().clone(memory_format=torch.contiguous_format))
        if what == "deliver":
            source, owner = self._context.rank, rank
            gift = Gift(self._read(), rest[0], adds=False, share=None)
        else:
            source, owner = rank, self._context.rank
            gift = Gift(self._tensor(data), *rest)
        (key,) = self.keys([(owner, source)])
        deadline = time.monotonic() + _DELIVERY_SECONDS
        while not self._region.try_lock(*key):
            if time.monotonic() > deadline:
                raise TransportError(f"the buffer on rank {owner} stayed locked")
            time.sleep(_POLL)
        try:
            self._slots[owner].take(source, gift)
        finally:
            self._region.unlock(*key)
        return None


def _tell(context: Context, tag: int, text: bytes) -> Operation[dict[int, bytes]]:
    """Send ``text`` to all other ranks; returns what each of them sent."""
    x = torch.tensor(list(text), dtype=torch.uint8, device="cpu")
    arrivals = yield from to_all(context, tag, Parcel(x, wire(x)))
    return {rank: bytes(parcel.like.tolist()) for rank, parcel in arrivals.parcels.items()}
