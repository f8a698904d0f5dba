"""Whether both ends of every edge agree, found out by all ranks before any uses what came.

The price is one small message between any two that compare; between neighbours it is their
tensors' message.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from ifog.context import Context
from ifog.errors import MismatchError, TopologyMismatchError
from ifog.exchange import Parcel, exchange
from ifog.handle import Operation

__all__ = [
    "NOTHING",
    "apart",
    "compare",
    "note_of",
    "notes_by",
    "require_mirrored",
    "require_same_form",
]

NOTHING = torch.empty(0, dtype=torch.uint8, device="cpu")


def note_of(src: Iterable[int], dst: Iterable[int], nodes: int) -> bytes:
    """The edges that one of so many nodes uses, to be sent to the others."""
    size = -(-nodes // 8)
    return b"".join(sum(1 << node for node in ends).to_bytes(size, "little") for ends in (dst, src))


def require_mirrored(op: str, notes: Mapping[int, bytes], node: str = "rank") -> None:
    """Check that both ends of every edge agree.

    Args:
        op: the operation, for the message.
        notes: of all nodes, by number.
        node: what a node is.

    Raises:
        TopologyMismatchError: naming the first edge on which the ends differ.
    """
    sends, hears = {}, {}
    for u, note in notes.items():
        half = len(note) // 2
        sends[u] = _members(note[:half])
        hears[u] = _members(note[half:])
    told = {(u, v) for u, ends in sends.items() for v in ends}
    expected = {(u, v) for v, ends in hears.items() for u in ends}
    if told == expected:
        return
    wrong = told ^ expected
    u, v = min(wrong)
    text = (
        f"{node} {u} sends to {node} {v}, but {node} {v} does not receive from {node} {u}"
        if (u, v) in told
        else f"{node} {v} receives from {node} {u}, but {node} {u} does not send to {node} {v}"
    )
    more = f" (and {len(wrong) - 1} more edges)" if len(wrong) > 1 else ""
    raise TopologyMismatchError(
        f"{op}: {text}{more}; the {node}s' sources and destinations must be each other's mirror"
    )


def _members(mask: bytes) -> list[int]:
    bits, found = int.from_bytes(mask, "little"), []
    while bits:
        lowest = bits & -bits
        found.append(lowest.bit_length() - 1)
        bits ^= lowest
    return found


def compare(
    context: Context,
    tag: int,
    op: str,
    *,
    src: Iterable[int],
    dst: Iterable[int],
    places: Mapping[int, int],
    node: str = "rank",
) -> Operation[None]:
    """Tell all ``places`` which edges this one uses, and check that both ends agree.

    Args:
        context: this rank's.
        tag: of the operation.
        op: its name, for the message.
        src: the nodes from which this one receives.
        dst: the nodes to which it sends.
        places: {node: the rank that speaks for it}; all of these must call it.
        node: what a node is.

    Raises:
        TopologyMismatchError: on all of them, naming the first edge on which the ends differ.
        MismatchError: another rank named no edges in its call.
    """
    mine = Parcel(NOTHING, note=note_of(src, dst, max(places) + 1))
    others = [rank for rank in places.values() if rank != context.rank]
    arrivals = yield from exchange(context.transport, tag, dict.fromkeys(others, mine), others)
    require_mirrored(op, notes_by(context.rank, op, mine, arrivals.parcels, places), node)


def notes_by(
    rank: int, op: str, mine: Parcel, parcels: Mapping[int, Parcel], places: Mapping[int, int]
) -> dict[int, bytes]:
    """The notes of all ``places``, this rank's among them, by node.

    Raises:
        MismatchError: another rank named no edges in its call.
    """
    notes = {}
    for node, place in places.items():
        notes[node] = note = (mine if place == rank else parcels[place]).note
        if len(note) != len(mine.note):
            raise _other_form(op, place, rank)
    return notes


def require_same_form(op: str, rank: int, parcels: Mapping[int, Parcel], mine: Parcel) -> None:
    """Check that tensors of the same form came, and nobody else's edges where none were named.

    Raises:
        MismatchError: an edge was named by one of two ranks only, or another list of tensors came.
    """
    for source, parcel in parcels.items():
        if len(parcel.note) % 2:  # it says what tensor of a device is to come
            raise apart(op, host=rank, device=source)
        if bool(parcel.note) != bool(mine.note):
            static, dynamic = (rank, source) if parcel.note else (source, rank)
            raise _other_form(op, static, dynamic)
        if parcel.root != mine.root:
            raise MismatchError(
                f"{op}: ranks {rank} and {source} passed different lists of tensors; pass the "
                "same shapes and dtypes in the same order on every rank"
            )


def apart(op: str, *, host: int, device: int) -> MismatchError:
    """The error for two ranks of which one has its tensor on a device."""
    return MismatchError(
        f"{op}: the tensor of rank {device} is on a device, that of rank {host} in host memory; "
        "put both on devices, or both in host memory with .cpu()"
    )


def _other_form(op: str, static: int, dynamic: int) -> MismatchError:
    return MismatchError(
        f"{op}: rank {dynamic} names its destinations and has all ranks compare them, rank "
        f"{static} does not; call it in the same form on every rank"
    )
