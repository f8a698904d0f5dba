"""What goes over one edge in a round, and the header in front of it."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np
import torch

from ifog.errors import ArgumentError
from ifog.transport.base import Bytes, Loan

__all__ = [
    "DTYPES",
    "HEAD",
    "HEADER_BYTES",
    "INLINE",
    "INSIDE",
    "LENT",
    "NOTE",
    "SHAPES",
    "Parcel",
    "enclosed",
    "fits",
    "header",
    "wire",
]

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
HEAD = struct.Struct("<BBHIdq")  # dtype, ndim, flags and note bytes, root, weight, payload bytes
_MAX_NDIM = 16
INLINE = 4096  # bytes of payload up to which two copies take less than lending it
HEADER_BYTES = HEAD.size + 8 * _MAX_NDIM + INLINE
LENT = 1  # flag of a header that carries where the payload is
INSIDE = 1 << 15  # flag of one that comes with its payload, whatever that one's size
NOTE = 1  # bits of flags before those that say how long the note is
SHAPES = [struct.Struct(f"<{ndim}q") for ndim in range(_MAX_NDIM + 1)]
_EMPTY = np.empty(0, np.uint8)
_KNOWN = 4096  # headers that are kept
_enclosed: dict[tuple[torch.dtype, torch.Size], bytes] = {}


class Parcel(NamedTuple):
    """What goes over one edge.

    ``like`` gives dtype and shape; ``data`` is the payload's bytes or None when only the header is
    sent; ``weight`` is the sender's factor, applied by the receiver in float64; ``root`` is
    whatever else both ends must agree on, and ``note`` what else there is to tell, in at most a
    few hundred bytes. ``arrived_at`` is when it was there, if it has come.
    """

    like: torch.Tensor
    data: Bytes | None = None
    weight: float = 1.0
    root: int = 0
    arrived_at: float = 0.0
    note: bytes = b""

    def describe(self) -> str:
        """The shape and dtype in words."""
        return f"shape {tuple(self.like.shape)} {str(self.like.dtype).removeprefix('torch.')}"


def wire(x: torch.Tensor) -> Bytes:
    """The bytes of a contiguous CPU tensor, shared with it."""
    if not x.numel():
        return _EMPTY
    if x.dtype is torch.bfloat16:  # unknown to NumPy
        x = x.view(torch.int16)
    return x.numpy().reshape(-1).view(np.uint8)


def header(parcel: Parcel, loan: Loan | None, flags: int = 0) -> bytes:
    """What goes in front of a parcel, or, where it fits there, all of it.

    Args:
        parcel: what is sent.
        loan: of its payload, if it is lent.
        flags: more of them.

    Raises:
        ArgumentError: such a tensor cannot be sent.
    """
    like = parcel.like
    if like.ndim > _MAX_NDIM:
        raise ArgumentError(
            f"a tensor has {like.ndim} dimensions; at most {_MAX_NDIM} can be sent: flatten it"
        )
    if like.dtype not in _CODE:
        raise ArgumentError(f"dtype {like.dtype} cannot be sent; use one of {list(DTYPES)}")
    data = parcel.data
    nbytes = -1 if data is None else data.size
    flags |= len(parcel.note) << NOTE | (loan is not None and LENT)
    head = HEAD.pack(_CODE[like.dtype], like.ndim, flags, parcel.root, parcel.weight, nbytes)
    head += SHAPES[like.ndim].pack(*like.shape) + parcel.note
    if loan is not None:
        return head + loan.token
    if data is None or flags & INSIDE or not fits(parcel):
        return head
    return head + data.tobytes()


def fits(parcel: Parcel) -> bool:
    """Whether the payload travels in the header's message."""
    return parcel.data is None or parcel.data.size + len(parcel.note) <= INLINE


def enclosed(like: torch.Tensor) -> bytes:
    """The header of a tensor like this, not empty, for a message that ends with its payload.

    Raises:
        ArgumentError: such a tensor cannot be sent.
    """
    key = (like.dtype, like.shape)
    head = _enclosed.get(key)
    if head is None:
        if len(_enclosed) >= _KNOWN:
            _enclosed.clear()
        data = np.empty(like.nbytes, np.uint8)
        head = _enclosed[key] = header(Parcel(like, data), None, INSIDE)
    return head
