"""What all operations share: how one is started, matched across ranks, timed and reported.

An operation's body is a generator over message rounds that returns an ``Outcome``. Operations are
matched across ranks by kind and name, or, for those without a name, by their order in the cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch

from ifog.context import Context, current
from ifog.errors import ArgumentError
from ifog.exchange import Arrivals, Parcel, blocked, exchange, room, tag_of
from ifog.handle import Handle, Operation
from ifog.telemetry import now

__all__ = ["Body", "Outcome", "host", "launch", "others_of", "rows", "staged", "to_all"]


class Outcome(NamedTuple):
    """What an operation gives back, and what its event says."""

    result: Any
    arrivals: Arrivals
    nbytes: int = 0
    dst: tuple[int, ...] = ()
    src: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()


Body = Callable[[Context, int], Operation[Outcome]]


def launch(
    op: str,
    name: str | None,
    peers: Iterable[int],
    body: Body,
    *,
    matched: bool = True,
    group: str = "",
) -> Handle[Any]:
    """Start ``body`` as an operation under way, after checking that it may start.

    Args:
        op: the kind of operation.
        name: matches it across ranks.
        peers: the ranks that must be there.
        body: what it does.
        matched: other ranks take part by calling the same; one-sided operations are not matched,
            so several of one name may be under way.
        group: those who call it together, where they are not all ranks: calls are matched, and
            those without a name counted, for each group by itself.
    """
    context = current()
    context.require(tuple(peers), op)
    if context.before is not None:
        context.before(op)
    kind = op + group
    key = f"{context.healed}.{context.cell}.{kind}.{name}"
    if not matched:
        pass
    elif name is None:
        key += f".unnamed.{context.unnamed[kind]}"
        context.unnamed[kind] += 1
    else:
        if key in context.in_flight:
            raise ArgumentError(
                f"{op}: an operation named {name!r} is still in flight on rank {context.rank}; "
                "wait for its handle first, or use another name"
            )
        context.in_flight.add(key)
    handle: Handle[Any] = Handle(context.progress, op, name or "", context.step_of(op, name or ""))
    handle.begin(_recorded(context, handle, key, body))
    return handle


def _recorded(context: Context, handle: Handle[Any], key: str, body: Body) -> Operation[Any]:
    seq, t0 = context.next_op(), now()
    try:
        outcome = yield from body(context, tag_of(key))
    finally:
        context.in_flight.discard(key)
    waited = blocked(handle, outcome.arrivals)
    context.finished(handle.op, handle.step, outcome.nbytes, waited)
    report = context.report
    if report is not None:
        arrivals, src = outcome.arrivals, outcome.src
        parcels = arrivals.parcels
        try:
            arrived = tuple([parcels[source].arrived_at for source in src])
        except KeyError:  # a source whose own message was not among the last round's
            arrived = ()
        late = arrivals.last_from if waited > 0.0 else -1
        report(
            (
                context.rank,
                seq,
                handle.step,
                handle.op,
                handle.name,
                t0,
                now(),
                waited,
                late,
                outcome.nbytes,
                outcome.dst,
                src,
                outcome.weights,
                arrived,
            )
        )
    return outcome.result


def host(x: Any, op: str) -> torch.Tensor:
    """The tensor's values, contiguous and in host memory; shared with it where possible.

    Those of a device go straight to where neighbours can read them.
    """
    if not isinstance(x, torch.Tensor):
        raise ArgumentError(f"{op} needs a torch tensor, got {type(x).__name__}")
    if not x.requires_grad and x.is_cpu and x.is_contiguous():
        return x
    return x.detach().contiguous() if x.is_cpu else staged(x.detach())


def staged(x: torch.Tensor) -> torch.Tensor:
    """A copy of ``x`` in host memory that can be lent, contiguous."""
    if not x.numel():
        return torch.empty(x.shape, dtype=x.dtype, device="cpu")
    return room(current().transport, x.shape, x.dtype).copy_(x)


def others_of(context: Context) -> list[int]:
    """All ranks that live but this one."""
    return [rank for rank in context.alive if rank != context.rank]


def to_all(
    context: Context, tag: int, parcel: Parcel, *, borrow: bool = False
) -> Operation[Arrivals]:
    """Send the same parcel to every other rank and receive one from each, as ``exchange`` does."""
    others = others_of(context)
    outgoing = dict.fromkeys(others, parcel)
    return exchange(context.transport, tag, outgoing, others, borrow=borrow)


def rows(x: torch.Tensor, op: str) -> torch.Tensor:
    """The tensor, if it has a first dimension to join along."""
    if x.ndim == 0:
        raise ArgumentError(f"{op} joins along the first dimension; reshape the number to [1]")
    return x
