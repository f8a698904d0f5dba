"""Rows in as few bytes as their values allow, and back to the bit: what compression saves.

A compressor leaves few entries, or few different values. Either is found out from the row itself,
so whoever packs it need not know what compressed it; any other row is sent as it is.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ifog.errors import MismatchError

__all__ = ["squeezed", "unsqueezed"]

Bytes = npt.NDArray[np.uint8]
_HEAD = struct.Struct("<BI")  # the kind of row, and how many entries or different values follow
_PLAIN, _SPARSE, _PALETTE = range(3)
_MOST = 256  # different values that are worth a palette
_WHOLE = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def squeezed(x: Tensor) -> Tensor:
    """The rows of x [r, ...] one after the other, [bytes] uint8.

    Example:
        >>> x = torch.zeros(1, 1000)
        >>> x[0, 7] = 3.0
        >>> len(squeezed(x)), len(squeezed(torch.where(x > 0, 1.0, -1.0)))
        (11, 138)
    """
    # As whole numbers, so that nothing happens to the signs of zeros and to what is no number.
    rows = _as_whole(x.detach().cpu().contiguous())
    parts = [part for row in rows for part in _packed(row)]
    return torch.from_numpy(np.concatenate(parts)) if parts else torch.empty(0, dtype=torch.uint8)


def unsqueezed(data: Tensor, rows: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The first rows that ``data`` was made of.

    Args:
        data: [bytes] uint8.
        rows: how many.
        like: [n, ...], says their shape and dtype.

    Returns:
        [rows, ...], and the bytes that are left.

    Raises:
        MismatchError: rows of another shape or dtype were squeezed.
    """
    found = torch.empty(rows, *like.shape[1:], dtype=like.dtype)
    rest = data.numpy()
    try:
        for row in _as_whole(found):
            rest = _unpacked(rest, row)
    except (IndexError, ValueError, struct.error) as error:
        raise MismatchError(
            f"what came is not {rows} rows of shape {tuple(like.shape[1:])} {like.dtype}: {error}; "
            "use the same shape and dtype on every rank"
        ) from error
    return found, torch.from_numpy(rest)


def _as_whole(x: Tensor) -> npt.NDArray[np.integer]:
    """The bits of x [r, ...] as whole numbers [r, d], shared with it."""
    whole = x.view(_WHOLE[x.element_size()])
    return np.asarray(whole.numpy().reshape(len(x), math.prod(x.shape[1:])))


def _packed(row: npt.NDArray[np.integer]) -> Iterator[Bytes]:
    places = np.flatnonzero(row).astype(_place_type(len(row)))
    sparse = places.nbytes + len(places) * row.itemsize
    if sparse < row.nbytes // 32:  # a palette has at least one bit an entry
        yield from (_head(_SPARSE, len(places)), _raw(places), _raw(row[places]))
        return
    values, codes = np.unique(row, return_inverse=True)
    width = _width(len(values))
    palette = values.nbytes + (len(row) * width + 7) // 8
    if len(values) <= _MOST and palette < min(sparse, row.nbytes):
        bits = (codes.reshape(-1, 1) >> np.arange(width)) & 1
        yield from (_head(_PALETTE, len(values)), _raw(values), np.packbits(bits.astype(bool)))
    elif sparse < row.nbytes:
        yield from (_head(_SPARSE, len(places)), _raw(places), _raw(row[places]))
    else:
        yield from (_head(_PLAIN, len(row)), _raw(row))


def _unpacked(data: Bytes, row: npt.NDArray[np.integer]) -> Bytes:
    """Fill ``row`` from the beginning of ``data``; gives the rest of it."""
    kind, count = _HEAD.unpack(data[: _HEAD.size].tobytes())
    data = data[_HEAD.size :]
    if kind == _PLAIN and count == len(row):
        row[:], data = _taken(data, count, row.dtype)
    elif kind == _SPARSE and count <= len(row):
        places, data = _taken(data, count, _place_type(len(row)))
        row[:] = 0
        row[places], data = _taken(data, count, row.dtype)
    elif kind == _PALETTE and count <= _MOST:
        width = _width(count)
        values, data = _taken(data, count, row.dtype)
        packed, data = _taken(data, (len(row) * width + 7) // 8, np.dtype(np.uint8))
        bits = np.unpackbits(packed.view(np.uint8), count=len(row) * width).reshape(len(row), width)
        row[:] = values[bits @ (1 << np.arange(width))]
    else:
        raise ValueError(f"a row of {count} entries")
    return data


def _taken(
    data: Bytes, count: int, dtype: np.dtype[np.integer]
) -> tuple[npt.NDArray[np.integer], Bytes]:
    nbytes = count * dtype.itemsize
    if len(data) < nbytes:
        raise ValueError(f"{len(data)} bytes where {nbytes} are needed")
    return np.frombuffer(data[:nbytes].tobytes(), dtype), data[nbytes:]


def _head(kind: int, count: int) -> Bytes:
    return np.frombuffer(_HEAD.pack(kind, count), np.uint8)


def _raw(values: npt.NDArray[np.integer]) -> Bytes:
    return np.ascontiguousarray(values).view(np.uint8)


def _width(values: int) -> int:
    """Bits that tell so many values apart."""
    return max(1, (values - 1).bit_length())


def _place_type(entries: int) -> np.dtype[np.integer]:
    return np.dtype(np.uint16 if entries <= 1 << 16 else np.uint32)
