"""One round of messages between ranks: tensors out, tensors in, each behind a header.

Every operation of ifog is one or two such rounds. The header in front of each message says what
follows (dtype, shape) and with which weight, so a receiver learns of a wrong shape or dtype before
it computes, and messages of any size can be received without asking first. Small payloads travel
inside the header's message; large ones are lent where the receiver can read the sender's memory.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np
import torch

from ifog.departures import Departures
from ifog.errors import MismatchError
from ifog.handle import Handle, Moving, Operation
from ifog.parcels import (
    DTYPES,
    HEAD,
    HEADER_BYTES,
    INLINE,
    INSIDE,
    LENT,
    NOTE,
    SHAPES,
    Parcel,
    fits,
    header,
    wire,
)
from ifog.telemetry import now
from ifog.transport.base import TOKEN_BYTES, Bytes, Letter, Loan, Request, Transport

__all__ = [
    "Arrivals",
    "Parcel",
    "exchange",
    "returned",
    "room",
    "room_for",
    "same",
    "tag_of",
    "wire",
]

_ROOMY = 1 << 15  # bytes of a result from which a copy saved in the next round is worth its block


class Arrivals(NamedTuple):
    """What came in a round: the parcels by source, when the last one came, and from whom.

    ``borrowed`` are the sources whose tensors are still theirs, with what it takes to give them
    back: they must not be written to, and not be used once ``give_back`` was called. ``lent`` are
    the own tensors that others read.
    """

    parcels: dict[int, Parcel]
    last_at: float
    last_from: int
    borrowed: Mapping[int, bytes] = {}
    lent: Sequence[Loan] = ()

    def give_back(self, transport: Transport) -> None:
        """Let the sources have their tensors again."""
        for source, token in self.borrowed.items():
            transport.give_back(source, token)


def room_for(transport: Transport, x: torch.Tensor) -> torch.Tensor:
    """A tensor like ``x`` for a result, where it can be lent later if it is large; not filled."""
    if x.nbytes <= _ROOMY:
        return torch.empty_like(x)
    pinnable = transport.equipped and transport.pinnable(wire(x)) is not None
    return room(transport, x.shape, x.dtype, pinnable=pinnable)


def room(
    transport: Transport, shape: Sequence[int], dtype: torch.dtype, *, pinnable: bool = False
) -> torch.Tensor:
    """A tensor that can be lent without a copy, if there is memory for it; not filled."""
    memory = transport.room(math.prod(shape) * dtype.itemsize, pinnable=pinnable)
    if memory is None:
        return torch.empty(tuple(shape), dtype=dtype, device="cpu")
    return torch.from_numpy(memory).view(dtype).view(tuple(shape))


def tag_of(key: str) -> int:
    """The tag under which an operation's messages travel, from what identifies it."""
    return zlib.crc32(key.encode()) & 0x3FFFFFFF


class _Incoming:
    """One parcel on its way in: its header first, then, unless it fitted there, its payload.

    Attributes:
        source: who sends it.
        parcel: what came, once the header has.
        arrived_at: when that was.
        token: what gives the payload back, where it is borrowed.
    """

    __slots__ = (
        "_borrow",
        "_letter",
        "_payload",
        "_tag",
        "_transport",
        "arrived_at",
        "parcel",
        "source",
        "token",
    )

    def __init__(
        self,
        transport: Transport,
        source: int,
        tag: int,
        *,
        borrow: bool,
        letter: Letter | None = None,
    ) -> None:
        self._transport = transport
        self.source = source
        self._tag = tag
        self._borrow = borrow
        self._letter = letter or transport.receive(source, tag, HEADER_BYTES)
        self._payload: Request | None = None
        self.parcel: Parcel | None = None
        self.arrived_at = 0.0
        self.token: bytes | None = None

    def test(self) -> bool:
        if self._payload is not None:
            return self._payload.test()
        if not self._letter.test():
            return False
        self.arrived_at = now()
        return self._open(self._letter.data)

    def _open(self, head: Any) -> bool:
        code, ndim, flags, root, weight, nbytes = HEAD.unpack_from(head)
        start, dtype = HEAD.size + 8 * ndim, DTYPES[code]
        shape, note = SHAPES[ndim].unpack_from(head, HEAD.size), b""
        inside, flags = flags & INSIDE, flags & ~INSIDE
        if flags >> NOTE:
            note = bytes(head[start : start + (flags >> NOTE)])
            start += len(note)
        if flags & LENT:
            like = self._lent(bytes(head[start : start + TOKEN_BYTES]), nbytes, dtype, shape)
        elif inside or 0 < nbytes <= INLINE - len(note):
            count = nbytes // dtype.itemsize
            like = torch.frombuffer(head, dtype=dtype, count=count, offset=start)
            if ndim != 1:
                like = like.view(shape)
        else:
            like = _fresh(self._transport, nbytes, dtype, shape)
        self.parcel = Parcel(like, None, weight, root, self.arrived_at, note)
        if inside or flags & LENT or nbytes <= INLINE - len(note):
            return True
        self._payload = self._transport.irecv(wire(like), self.source, self._tag)
        return self._payload.test()

    def _lent(
        self, token: bytes, nbytes: int, dtype: torch.dtype, shape: Sequence[int]
    ) -> torch.Tensor:
        data = self._transport.borrow(self.source, token, nbytes)
        if self._borrow:
            self.token = token
            return torch.from_numpy(data).view(dtype).view(shape)
        like = _fresh(self._transport, nbytes, dtype, shape)
        np.copyto(wire(like), data)
        self._transport.give_back(self.source, token)
        return like


def _fresh(
    transport: Transport, nbytes: int, dtype: torch.dtype, shape: Sequence[int]
) -> torch.Tensor:
    """A tensor for what comes; not filled."""
    if nbytes > _ROOMY:  # memory that is used again need not be faulted in each time
        return room(transport, shape, dtype)
    return torch.empty(tuple(shape), dtype=dtype, device="cpu")


def _lend(transport: Transport, outgoing: Mapping[int, Parcel]) -> dict[int, Loan | None]:
    """What is lent, by the payload's identity: once, whatever the number of its readers."""
    payloads: dict[int, tuple[Bytes, list[int]]] = {}
    for destination, parcel in outgoing.items():
        if parcel.data is not None and not fits(parcel):
            payloads.setdefault(id(parcel.data), (parcel.data, []))[1].append(destination)
    return {key: transport.lend(data, readers) for key, (data, readers) in payloads.items()}


def _post(
    transport: Transport,
    tag: int,
    outgoing: Mapping[int, Parcel],
    loans: dict[int, Loan | None],
    departures: Departures | None,
) -> list[tuple[int, Request]]:
    """Send everything; returns what is not through yet, with its destination."""
    pending: list[tuple[int, Request]] = []
    last, last_loan, head = None, None, b""
    for destination, parcel in outgoing.items():
        data = parcel.data
        loan = loans.get(id(data)) if loans else None
        if loan is not None and destination not in loan.readers:
            loan = None
        if parcel is not last or loan is not last_loan:
            last, last_loan, head = parcel, loan, header(parcel, loan)
        request = transport.send(head, destination, tag)
        if not request.test():
            pending.append((destination, request))
        if loan is not None or data is None or fits(parcel):
            continue
        if departures is None or not departures.hold(destination, data):
            pending.append((destination, transport.isend(data, destination, tag)))
    if departures is not None:
        departures.sort()
        departures.start(pending)
    return pending


def exchange(
    transport: Transport,
    tag: int,
    outgoing: Mapping[int, Parcel],
    sources: Sequence[int],
    *,
    borrow: bool = False,
    in_turn: bool = False,
    letters: Sequence[Letter] | None = None,
) -> Operation[Arrivals]:
    """Send ``outgoing`` and receive one parcel from each of ``sources``.

    Yields the ranks still waited for; returns when all has arrived and all own buffers are free.
    With ``borrow`` it leaves large tensors where they are: the caller reads them, calls
    ``give_back`` of what it got, whatever happens, and then waits for ``returned``. With
    ``in_turn`` large payloads leave for other machines one after the other. ``letters`` are the
    first messages of the ``sources`` where the caller receives them already.
    """
    received: Iterable[Letter | None] = repeat(None) if letters is None else letters
    incoming = [
        _Incoming(transport, source, tag, borrow=borrow, letter=letter)
        for source, letter in zip(sources, received, strict=False)
    ]
    # Who gets no payload need not wait until those of the others have been copied.
    bare = {to: parcel for to, parcel in outgoing.items() if parcel.data is None}
    full = {to: outgoing[to] for to in outgoing if to not in bare} if bare else outgoing
    sends = _post(transport, tag, bare, {}, None) if bare else []
    loans = _lend(transport, full)
    departures = Departures(transport, tag) if in_turn and len(full) > 1 else None
    sends += _post(transport, tag, full, loans, departures)
    parcels: dict[int, Parcel] = {}
    borrowed: dict[int, bytes] = {}
    last_at, last_from = 0.0, -1
    while True:
        moving, awaited = False, []
        for arrival in incoming:
            if not arrival.test():
                awaited.append(arrival)
                moving = moving or arrival.parcel is not None
                continue
            assert arrival.parcel is not None
            parcels[arrival.source] = arrival.parcel
            if arrival.token is not None:
                borrowed[arrival.source] = arrival.token
            if arrival.arrived_at > last_at:
                last_at, last_from = arrival.arrived_at, arrival.source
        incoming = awaited
        # Each is asked, so that a large payload moves even while its header has not been taken.
        sends = [send for send in sends if not send[1].test()]
        if departures is not None:
            departures.start(sends)
        if not incoming and not sends:
            break
        peers = tuple([arrival.source for arrival in incoming] or [send[0] for send in sends])
        yield Moving(peers) if moving else peers
    lent = [loan for loan in loans.values() if loan is not None and loan.lives]
    arrivals = Arrivals(parcels, last_at, last_from, borrowed, lent)
    if not borrow:
        yield from returned(transport, arrivals)
    return arrivals


def returned(transport: Transport, arrivals: Arrivals) -> Operation[None]:
    """Wait until all others have read what this rank lent them of its own memory."""
    for loan in arrivals.lent:
        while unread := loan.unread():
            transport.check()
            yield unread


def same(
    what: str,
    rank: int,
    mine: Parcel,
    parcels: Mapping[int, Parcel],
    *,
    rows: bool = False,
    choices: Sequence[str] = (),
) -> None:
    """Check that all parcels have my dtype, shape and root.

    Args:
        what: the operation, for the message.
        rank: this rank.
        mine: what it sent.
        parcels: what came, by source.
        rows: the first dimension may differ.
        choices: what each value of ``root`` means, where it is not a rank.

    Raises:
        MismatchError: naming both ranks and what each of them sent.
    """
    skip = 1 if rows else 0
    dtype, shape, root = mine.like.dtype, mine.like.shape[skip:], mine.root
    for parcel in parcels.values():
        like = parcel.like
        if like.dtype != dtype or like.shape[skip:] != shape or parcel.root != root:
            break
    else:
        return
    for source in sorted(parcels):
        other = parcels[source]
        if other.like.dtype != mine.like.dtype or other.like.shape[skip:] != mine.like.shape[skip:]:
            raise MismatchError(
                f"{what}: rank {rank} has {mine.describe()}, rank {source} has "
                f"{other.describe()}; call it with the same "
                f"{'trailing dimensions' if rows else 'shape'} and dtype on both"
            )
        if other.root != mine.root:
            asked = [choices[p.root] if p.root < len(choices) else p.root for p in (mine, other)]
            raise MismatchError(
                f"{what}: rank {rank} asked for {asked[0]}, rank {source} for {asked[1]}; "
                "pass the same value on every rank"
            )


def blocked(handle: Handle[object], arrivals: Arrivals) -> float:
    """Seconds for which the caller was blocked before the last peer arrived."""
    since = handle.blocked_at
    return 0.0 if since is None else max(0.0, arrivals.last_at - since)
