"""Whether both ends of every edge agree, found out by all ranks before bytes move.

The price is one small message between any two that compare.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch

from ifog.context import Context
from ifog.errors import MismatchError, TopologyMismatchError
from ifog.exchange import Parcel, exchange, wire
from ifog.handle import Operation

__all__ = ["compare", "require_same_form"]

_PLAN = 1  # the root of a parcel that carries a plan instead of a tensor


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
    mine = torch.zeros(2, max(places) + 1, dtype=torch.uint8, device="cpu")
    mine[0, list(dst)] = 1
    mine[1, list(src)] = 1
    others = [rank for rank in places.values() if rank != context.rank]
    parcel = Parcel(mine, wire(mine), root=_PLAN)
    arrivals = yield from exchange(context.transport, tag, dict.fromkeys(others, parcel), others)
    for rank, other in arrivals.parcels.items():
        if other.root != _PLAN:
            raise _other_form(op, rank, context.rank)
    plans = {
        number: (mine if rank == context.rank else arrivals.parcels[rank].like).tolist()
        for number, rank in places.items()
    }
    wrong = [
        (u, v, bool(sends[v]))
        for u, (sends, _) in plans.items()
        for v, (_, hears) in plans.items()
        if sends[v] != hears[u]
    ]
    if wrong:
        u, v, u_sends = min(wrong)
        told = (
            f"{node} {u} sends to {node} {v}, but {node} {v} does not receive from {node} {u}"
            if u_sends
            else f"{node} {v} receives from {node} {u}, but {node} {u} does not send to {node} {v}"
        )
        more = f" (and {len(wrong) - 1} more edges)" if len(wrong) > 1 else ""
        raise TopologyMismatchError(
            f"{op}: {told}{more}; the {node}s' sources and destinations must be each other's mirror"
        )


def require_same_form(op: str, rank: int, parcels: Mapping[int, Parcel], form: int = 0) -> None:
    """Check that tensors of this ``form`` came, and not the plans of ranks that name their edges.

    Raises:
        MismatchError: a plan came, while this rank named no edges, or another list of tensors.
    """
    for source, parcel in parcels.items():
        if parcel.root == _PLAN:
            raise _other_form(op, rank, source)
        if parcel.root != form:
            raise MismatchError(
                f"{op}: ranks {rank} and {source} passed different lists of tensors; pass the "
                "same shapes and dtypes in the same order on every rank"
            )


def _other_form(op: str, static: int, dynamic: int) -> MismatchError:
    return MismatchError(
        f"{op}: rank {dynamic} names its destinations and has all ranks compare them, rank "
        f"{static} does not; call it in the same form on every rank"
    )
