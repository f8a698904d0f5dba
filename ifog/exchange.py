"""One round of messages between ranks: tensors out, tensors in, each behind a header.

Every operation of ifog is one or two such rounds. The header in front of each message says what
follows (dtype, shape) and with which weight, so a receiver learns of a wrong shape or dtype before
it computes, and messages of any size can be received without asking first. Small payloads travel
inside the header's message.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from ifog.errors import ArgumentError, MismatchError
from ifog.handle import Handle, Moving, Operation
from ifog.telemetry import now
from ifog.transport.base import Bytes, Request, Transport

__all__ = ["Arrivals", "Parcel", "exchange", "same", "tag_of", "wire"]

DTYPES = (
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.bool,
)
_CODE = {dtype: code for code, dtype in enumerate(DTYPES)}
_HEAD = struct.Struct("<BBHIdq")  # dtype, ndim, flags, root, weight, payload bytes
_MAX_NDIM = 16
_INLINE = 1024  # bytes of payload that travel inside the header's message
_HEADER_BYTES = _HEAD.size + 8 * _MAX_NDIM + _INLINE
_EMPTY = np.empty(0, np.uint8)


class Parcel(NamedTuple):
    """What goes over one edge.

    ``like`` gives dtype and shape; ``data`` is the payload's bytes or None when only the header is
    sent; ``weight`` is the sender's factor, applied by the receiver in float64; ``root`` is
    whatever else both ends must agree on. ``arrived_at`` is when it was there, if it has come.
    """

    like: torch.Tensor
    data: Bytes | None = None
    weight: float = 1.0
    root: int = 0
    arrived_at: float = 0.0

    def describe(self) -> str:
        """The shape and dtype in words."""
        return f"shape {tuple(self.like.shape)} {str(self.like.dtype).removeprefix('torch.')}"


class Arrivals(NamedTuple):
    """What came in a round: the parcels by source, when the last one came, and from whom."""

    parcels: dict[int, Parcel]
    last_at: float
    last_from: int


def wire(x: torch.Tensor) -> Bytes:
    """The bytes of a contiguous CPU tensor, shared with it."""
    return x.reshape(-1).view(torch.uint8).numpy() if x.numel() else _EMPTY


def tag_of(key: str) -> int:
    """The tag under which an operation's messages travel, from what identifies it."""
    return zlib.crc32(key.encode()) & 0x3FFFFFFF


def _header(parcel: Parcel) -> Bytes:
    like = parcel.like
    if like.ndim > _MAX_NDIM:
        raise ArgumentError(
            f"a tensor has {like.ndim} dimensions; at most {_MAX_NDIM} can be sent: flatten it"
        )
    if like.dtype not in _CODE:
        raise ArgumentError(f"dtype {like.dtype} cannot be sent; use one of {list(DTYPES)}")
    data = parcel.data
    nbytes = -1 if data is None else data.size
    head = _HEAD.pack(_CODE[like.dtype], like.ndim, 0, parcel.root, parcel.weight, nbytes)
    head += struct.pack(f"<{like.ndim}q", *like.shape)
    if data is not None and nbytes <= _INLINE:
        head += data.tobytes()
    return np.frombuffer(head, np.uint8)


class _Incoming:
    """One parcel on its way in: its header first, then, unless it fitted there, its payload."""

    def __init__(self, transport: Transport, source: int, tag: int) -> None:
        self._transport = transport
        self._source = source
        self._tag = tag
        self._head = np.empty(_HEADER_BYTES, np.uint8)
        self._request: Request = transport.irecv(self._head, source, tag)
        self.parcel: Parcel | None = None
        self.arrived_at = 0.0

    def test(self) -> bool:
        if not self._request.test():
            return False
        if self.parcel is not None:
            return True
        self.arrived_at = now()
        return self._open()

    def _open(self) -> bool:
        head = self._head.data
        code, ndim, _, root, weight, nbytes = _HEAD.unpack_from(head)
        shape = struct.unpack_from(f"<{ndim}q", head, _HEAD.size)
        like = torch.empty(shape, dtype=DTYPES[code], device="cpu")
        data = None if nbytes < 0 else wire(like)
        self.parcel = Parcel(like, data, weight, root, self.arrived_at)
        if data is None or nbytes == 0:
            return True
        if nbytes <= _INLINE:
            start = _HEAD.size + 8 * ndim
            data[:] = self._head[start : start + nbytes]
            return True
        self._request = self._transport.irecv(data, self._source, self._tag)
        return self._request.test()


def _post(transport: Transport, parcel: Parcel, destination: int, tag: int) -> list[Request]:
    requests: list[Request] = [transport.isend(_header(parcel), destination, tag)]
    if parcel.data is not None and parcel.data.size > _INLINE:
        requests.append(transport.isend(parcel.data, destination, tag))
    return requests


def _all_done(requests: list[Request]) -> bool:
    # Each is asked, so that a large payload moves even while its header has not been taken.
    done = [request.test() for request in requests]
    return all(done)


def exchange(
    transport: Transport,
    tag: int,
    outgoing: Mapping[int, Parcel],
    sources: Sequence[int],
) -> Operation[Arrivals]:
    """Send ``outgoing`` and receive one parcel from each of ``sources``.

    Yields the ranks still waited for; returns when all has arrived and all own buffers are free.
    """
    incoming = {source: _Incoming(transport, source, tag) for source in sources}
    sends = {dst: _post(transport, parcel, dst, tag) for dst, parcel in outgoing.items()}
    parcels: dict[int, Parcel] = {}
    last_at, last_from = 0.0, -1
    while incoming or sends:
        moving = False
        for source, arrival in list(incoming.items()):
            if arrival.test():
                del incoming[source]
                assert arrival.parcel is not None
                parcels[source] = arrival.parcel
                if arrival.arrived_at > last_at:
                    last_at, last_from = arrival.arrived_at, source
            elif arrival.parcel is not None:
                moving = True
        for destination in [dst for dst, requests in sends.items() if _all_done(requests)]:
            del sends[destination]
        if incoming or sends:
            peers = tuple(incoming) or tuple(sends)
            yield Moving(peers) if moving else peers
    return Arrivals(parcels, last_at, last_from)


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


def blocked(handle: Handle[object], arrivals: Arrivals, started: float) -> float:
    """Seconds for which the caller was blocked before the last peer arrived."""
    since = handle.blocked_at if handle.blocked_at is not None else started
    return max(0.0, arrivals.last_at - since)
