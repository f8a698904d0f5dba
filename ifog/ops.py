"""What all ranks compute together, and what can be asked of any operation under way.

The blocking form of an operation waits for its ``_nonblocking`` twin.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
import torch

from ifog.context import Context, current
from ifog.errors import ArgumentError, MismatchError
from ifog.exchange import Arrivals, Parcel, exchange, returned, room_for, same, wire
from ifog.handle import Handle, Operation
from ifog.kernels import summed
from ifog.operation import Outcome, delivered, host, launch, others_of, rows, to_all

__all__ = [
    "agree",
    "allgather",
    "allgather_nonblocking",
    "allreduce",
    "allreduce_",
    "allreduce_nonblocking",
    "allreduce_nonblocking_",
    "barrier",
    "broadcast",
    "broadcast_",
    "broadcast_nonblocking",
    "broadcast_nonblocking_",
    "poll",
    "synchronize",
    "wait",
    "watch",
]

T = TypeVar("T")
_ONE_ROUND = 1 << 16  # bytes up to which allreduce sends whole tensors instead of stripes
_ONE_ROUND_NEAR = 1 << 22  # bytes up to which a rank reads all others' tensors on its machine
_NOTHING = torch.empty(0, dtype=torch.uint8, device="cpu")


def allreduce(
    tensor: torch.Tensor,
    average: bool = True,
    is_hierarchical_local: bool = False,
    name: str | None = None,
) -> torch.Tensor:
    """The mean (or, with ``average=False``, the sum) of a tensor over all ranks.

    y = (1/n) sum_i x_i, summed in rank order: every rank gets the same bits. Large tensors are
    reduced in stripes, rank i the i-th, and then gathered: 2 (n - 1)/n of the tensor is sent.

    Args:
        tensor: [...] numbers; floating point when averaged; not changed.
        average: divide by the number n of ranks that live.
        is_hierarchical_local: over the ranks of this machine only; n is then ``local_size()``.
            Ranks of every machine must call it all the same, unless they give it a name.
        name: matches the call across ranks.

    Raises:
        ArgumentError: an integer tensor cannot be averaged.
        MismatchError: the ranks' shapes, dtypes or flags differ; on every rank that took part.
    """
    return allreduce_nonblocking(tensor, average, is_hierarchical_local, name).wait()


def allreduce_nonblocking(
    tensor: torch.Tensor,
    average: bool = True,
    is_hierarchical_local: bool = False,
    name: str | None = None,
) -> Handle[torch.Tensor]:
    """Start ``allreduce``; the tensor must not change until the handle is done."""
    return _start_allreduce(tensor, average, is_hierarchical_local, name, in_place=False)


def allreduce_(
    tensor: torch.Tensor,
    average: bool = True,
    is_hierarchical_local: bool = False,
    name: str | None = None,
) -> torch.Tensor:
    """``allreduce`` whose result is written into the tensor, which is also what it returns."""
    return allreduce_nonblocking_(tensor, average, is_hierarchical_local, name).wait()


def allreduce_nonblocking_(
    tensor: torch.Tensor,
    average: bool = True,
    is_hierarchical_local: bool = False,
    name: str | None = None,
) -> Handle[torch.Tensor]:
    """Start ``allreduce_``; the tensor must neither change nor be read until the handle is done."""
    return _start_allreduce(tensor, average, is_hierarchical_local, name, in_place=True)


def _start_allreduce(
    tensor: torch.Tensor, average: bool, local: bool, name: str | None, *, in_place: bool
) -> Handle[torch.Tensor]:
    op = "allreduce"
    context = current()
    x = _target(tensor, op) if in_place else host(tensor, op)
    if x.dtype is torch.bool or (average and not x.is_floating_point()):
        raise ArgumentError(
            f"{op} cannot {'average' if average else 'sum'} {x.dtype}; convert it, for example "
            "with .float(), or pass average=False for integers"
        )
    group = context.layout.mates(context.rank) if local else context.alive

    def body(context: Context, tag: int) -> Operation[Outcome]:
        reduce = _reduce_whole if _at_once(context, x, group) else _reduce_stripes
        choice = 2 * bool(local) + bool(average)
        total, arrivals, nbytes = yield from reduce(context, tag, x, group, choice)
        others = tuple(_others(context, group))
        result = _delivered(total, tensor, in_place=in_place)
        return Outcome(result, arrivals, nbytes, others, others)

    return launch(op, name, group, body)


_Reduced = tuple[torch.Tensor, Arrivals, int]
_CHOICES = ("the sum", "the mean", "its machine's sum", "its machine's mean")


def _others(context: Context, group: Sequence[int]) -> list[int]:
    return [rank for rank in group if rank != context.rank]


def _reduce_whole(
    context: Context, tag: int, x: torch.Tensor, group: Sequence[int], choice: int
) -> Operation[_Reduced]:
    transport, parcel = context.transport, Parcel(x, wire(x), root=choice)
    others = _others(context, group)
    arrivals = yield from exchange(
        transport, tag, dict.fromkeys(others, parcel), others, borrow=True, in_turn=True
    )
    try:
        _require_same(context, parcel, arrivals)
        total = _sum_in_order(context, x, arrivals, group, choice)
    finally:
        arrivals.give_back(transport)
    yield from returned(transport, arrivals)
    return total, arrivals, wire(x).size * len(others)


def _reduce_stripes(
    context: Context, tag: int, x: torch.Tensor, group: Sequence[int], choice: int
) -> Operation[_Reduced]:
    transport, others, note = context.transport, _others(context, group), _shape_note(x)
    stripes = dict(zip(group, x.reshape(-1).tensor_split(len(group)), strict=True))
    outgoing = {
        rank: Parcel(stripes[rank], wire(stripes[rank]), root=choice, note=note) for rank in others
    }
    scattered = yield from exchange(transport, tag, outgoing, others, borrow=True, in_turn=True)
    try:
        _require_same(context, Parcel(x, root=choice, note=note), scattered)
        own = _sum_in_order(context, stripes[context.rank], scattered, group, choice)
    finally:
        scattered.give_back(transport)
    parcel = Parcel(own, wire(own))
    gathered = yield from exchange(
        transport, tag, dict.fromkeys(others, parcel), others, borrow=True, in_turn=True
    )
    total = room_for(transport, x)
    try:
        parts = [own if r == context.rank else gathered.parcels[r].like for r in group]
        torch.cat(parts, out=total.view(-1))
    finally:
        gathered.give_back(transport)
    yield from returned(transport, scattered)
    yield from returned(transport, gathered)
    nbytes = sum(parcel.data.size for parcel in outgoing.values() if parcel.data is not None)
    nbytes += wire(own).size * len(others)
    return total, gathered, nbytes


def _at_once(context: Context, x: torch.Tensor, group: Sequence[int]) -> bool:
    """Whether each rank adds up whole tensors: more to read, but half the waiting."""
    machines, nbytes = context.transport.machines, x.numel() * x.element_size()
    near = all(machines[rank] == machines[context.rank] for rank in group)
    return nbytes <= _ONE_ROUND or (near and nbytes * (len(group) - 1) <= _ONE_ROUND_NEAR)


def _shape_note(x: torch.Tensor) -> bytes:
    """The shape of the whole tensor, which goes with each of its stripes."""
    return np.array(x.shape, np.int64).tobytes()


def _require_same(context: Context, mine: Parcel, arrivals: Arrivals) -> None:
    """``same``, of parcels with whole tensors or stripes of them."""
    parcels = dict(arrivals.parcels)
    for rank, parcel in parcels.items():
        dtype = parcel.like.dtype
        if parcel.note and (parcel.note, dtype) == (mine.note, mine.like.dtype):
            parcels[rank] = parcel._replace(like=mine.like)
        elif parcel.note:
            shape = np.frombuffer(parcel.note, np.int64).tolist()
            parcels[rank] = parcel._replace(like=torch.empty(shape, dtype=dtype, device="meta"))
    same("allreduce", context.rank, mine, parcels, choices=_CHOICES)


def _sum_in_order(
    context: Context, x: torch.Tensor, arrivals: Arrivals, group: Sequence[int], choice: int
) -> torch.Tensor:
    terms = [x if rank == context.rank else arrivals.parcels[rank].like for rank in group]
    return summed(terms, room_for(context.transport, x), average=bool(choice & 1))


def _target(tensor: torch.Tensor, op: str) -> torch.Tensor:
    """What ``host`` gives, of a tensor into which the result can be written."""
    x = host(tensor, op)
    if any(step == 0 and length > 1 for step, length in zip(tensor.stride(), x.shape, strict=True)):
        raise ArgumentError(
            f"{op}_ cannot write into an expanded tensor, whose entries share memory (strides "
            f"{tensor.stride()}); pass tensor.clone(), or use {op}"
        )
    return x


def _delivered(result: torch.Tensor, tensor: torch.Tensor, *, in_place: bool) -> torch.Tensor:
    if not in_place:
        return delivered(result, tensor)
    delivered(result, tensor, tensor.detach())
    return tensor


def broadcast(tensor: torch.Tensor, root_rank: int = 0, name: str | None = None) -> torch.Tensor:
    """The tensor of ``root_rank``, on every rank, as a new tensor.

    Args:
        tensor: [...] the same shape and dtype on every rank; read on the root only.
        root_rank: whose tensor it is.
        name: matches the call across ranks.

    Raises:
        ArgumentError: ``root_rank`` is no rank.
        MismatchError: the ranks' shapes, dtypes or roots differ; on every rank.
    """
    return broadcast_nonblocking(tensor, root_rank, name).wait()


def broadcast_nonblocking(
    tensor: torch.Tensor, root_rank: int = 0, name: str | None = None
) -> Handle[torch.Tensor]:
    """Start ``broadcast``; the tensor must not change until the handle is done."""
    return _start_broadcast(tensor, root_rank, name, in_place=False)


def broadcast_(tensor: torch.Tensor, root_rank: int = 0, name: str | None = None) -> torch.Tensor:
    """``broadcast`` whose result is written into the tensor, which is also what it returns."""
    return broadcast_nonblocking_(tensor, root_rank, name).wait()


def broadcast_nonblocking_(
    tensor: torch.Tensor, root_rank: int = 0, name: str | None = None
) -> Handle[torch.Tensor]:
    """Start ``broadcast_``; the tensor must neither change nor be read until the handle is done."""
    return _start_broadcast(tensor, root_rank, name, in_place=True)


def _start_broadcast(
    tensor: torch.Tensor, root_rank: int, name: str | None, *, in_place: bool
) -> Handle[torch.Tensor]:
    op = "broadcast"
    context = current()
    x = _target(tensor, op) if in_place else host(tensor, op)
    context.require((root_rank,), op)

    def body(context: Context, tag: int) -> Operation[Outcome]:
        is_root = context.rank == root_rank
        parcel = Parcel(x, wire(x) if is_root else None, root=root_rank)
        arrivals = yield from to_all(context, tag, parcel)
        same("broadcast (root)", context.rank, parcel, arrivals.parcels)
        result = tensor
        if not is_root:
            result = _delivered(arrivals.parcels[root_rank].like, tensor, in_place=in_place)
        elif not in_place:
            result = delivered(x.clone(), tensor)
        others = tuple(others_of(context)) if is_root else ()
        nbytes = wire(x).size * len(others)
        return Outcome(result, arrivals, nbytes, others, () if is_root else (root_rank,))

    return launch(op, name, context.alive, body)


def allgather(tensor: torch.Tensor, name: str | None = None) -> torch.Tensor:
    """All ranks' tensors, concatenated along the first dimension in rank order.

    Args:
        tensor: [r, ...]; r may differ from rank to rank and may be 0, the rest may not differ.
        name: matches the call across ranks.

    Returns:
        [sum of all r, ...].

    Raises:
        ArgumentError: the tensor has no first dimension.
        MismatchError: trailing dimensions or dtypes differ; on every rank.
    """
    return allgather_nonblocking(tensor, name).wait()


def allgather_nonblocking(tensor: torch.Tensor, name: str | None = None) -> Handle[torch.Tensor]:
    """Start ``allgather``; the tensor must not change until the handle is done."""
    op = "allgather"
    context = current()
    x = rows(host(tensor, op), op)

    def body(context: Context, tag: int) -> Operation[Outcome]:
        parcel = Parcel(x, wire(x))
        arrivals = yield from to_all(context, tag, parcel, borrow=True)
        try:
            same(op, context.rank, parcel, arrivals.parcels, rows=True)
            blocks = [
                x if rank == context.rank else arrivals.parcels[rank].like for rank in context.alive
            ]
            result = delivered(torch.cat(blocks), tensor)
        finally:
            arrivals.give_back(context.transport)
        yield from returned(context.transport, arrivals)
        others = tuple(others_of(context))
        nbytes = wire(x).size * len(others)
        return Outcome(result, arrivals, nbytes, others, others)

    return launch(op, name, context.alive, body)


def barrier() -> None:
    """Return once every rank has called it."""

    def body(context: Context, tag: int) -> Operation[Outcome]:
        arrivals = yield from to_all(context, tag, Parcel(_NOTHING))
        return Outcome(None, arrivals)

    launch("barrier", None, current().alive, body).wait()


def agree(op: str, digest: bytes) -> None:
    """Check that every rank passed the same thing to ``op``; every rank must call it.

    Raises:
        MismatchError: on every rank, naming two ranks that differ.
    """
    x = torch.tensor(list(digest), dtype=torch.uint8, device="cpu")

    def body(context: Context, tag: int) -> Operation[Outcome]:
        arrivals = yield from to_all(context, tag, Parcel(x, wire(x)))
        for rank, parcel in sorted(arrivals.parcels.items()):
            if not torch.equal(parcel.like, x):
                raise MismatchError(
                    f"{op}: rank {context.rank} and rank {rank} passed different arguments; "
                    "pass the same on every rank"
                )
        return Outcome(None, arrivals)

    launch(op, None, current().alive, body).wait()


def poll(handle: Handle[Any]) -> bool:
    """Whether the operation has finished; never blocks."""
    return _handle(handle).done()


def wait(handle: Handle[T]) -> T:
    """The operation's result, once it is there."""
    return _handle(handle).wait()


def synchronize(handle: Handle[T]) -> T:
    """The operation's result, once it is there; another name of ``wait``."""
    return _handle(handle).wait()


def _handle(handle: Handle[T]) -> Handle[T]:
    if not isinstance(handle, Handle):
        raise ArgumentError(
            f"expected the handle returned by a _nonblocking call, got {type(handle).__name__}"
        )
    return handle


def watch(tensor: torch.Tensor, name: str) -> None:
    """Show this rank's copy of a tensor in the live views; call it once a round.

    Only a norm and at most 64 entries are reported, and not in every round of a fast loop. A
    tensor that is mixed by ``neighbor_allreduce(x, name="x")`` is watched without this call.

    Args:
        tensor: [...] floating point, of the same shape on every rank.
        name: what the views call it.
    """
    context = current()
    if not isinstance(tensor, torch.Tensor):
        raise ArgumentError(f"watch needs a torch tensor, got {type(tensor).__name__}")
    context.watcher.look(tensor, name, context.round)
