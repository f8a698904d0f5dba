"""What all operations share: how one is started, matched across ranks, timed and reported.

An operation's body is a generator over message rounds that returns an ``Outcome``. Operations are
matched across ranks by kind and name, or, for those without a name, by their order in the cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, cast

import torch

from ifog.context import Context, current
from ifog.devices import Arriving, devices_of
from ifog.errors import ArgumentError
from ifog.exchange import Arrivals, Parcel, blocked, exchange, room, tag_of
from ifog.handle import Handle, Moving, Operation
from ifog.telemetry import now
from ifog.transport import cuda

__all__ = [
    "Body",
    "Outcome",
    "beside",
    "delivered",
    "entered",
    "host",
    "launch",
    "others_of",
    "passed",
    "report",
    "rows",
    "staged",
    "to_all",
]


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
    if context.posting is not None:
        context.posting.close()
    key = entered(context, op, name, peers, matched=matched, group=group)
    if context.arriving:
        body = _after(context.arriving, body)
        context.arriving = []
    handle: Handle[Any] = Handle(context.progress, op, name or "", context.step_of(op, name or ""))
    handle.begin(_recorded(context, handle, key, body))
    return handle


def entered(
    context: Context,
    op: str,
    name: str | None,
    peers: Iterable[int],
    *,
    matched: bool = True,
    group: str = "",
) -> str:
    """Check that an operation may start, and count it among those under way; returns its key."""
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
    return key


def _recorded(context: Context, handle: Handle[Any], key: str, body: Body) -> Operation[Any]:
    seq, t0 = context.next_op(), now()
    try:
        outcome = yield from body(context, tag_of(key))
    finally:
        context.in_flight.discard(key)
    report(context, handle, seq, t0, outcome)
    return outcome.result


def report(context: Context, handle: Handle[Any], seq: int, t0: float, outcome: Outcome) -> None:
    """Count an operation that is through, and tell the watchers of it."""
    waited = blocked(handle, outcome.arrivals)
    context.finished(handle.op, handle.step, outcome.nbytes, waited)
    tell = context.report
    if tell is not None:
        arrivals, src = outcome.arrivals, outcome.src
        parcels = arrivals.parcels
        try:
            arrived = tuple([parcels[source].arrived_at for source in src])
        except KeyError:  # a source whose own message was not among the last round's
            arrived = ()
        late = arrivals.last_from if waited > 0.0 else -1
        tell(
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


def host(x: Any, op: str, *, at_once: bool = False) -> torch.Tensor:
    """The tensor's values, contiguous and in host memory; shared with it where possible.

    Those of a device are on their way to where neighbours can read them; the operation launched
    next waits for them, unless they are to be here ``at_once``.
    """
    if not isinstance(x, torch.Tensor):
        raise ArgumentError(f"{op} needs a torch tensor, got {type(x).__name__}")
    if not x.requires_grad and x.is_cpu and x.is_contiguous():
        return x
    return x.detach().contiguous() if x.is_cpu else staged(x.detach(), at_once=at_once)


def staged(x: torch.Tensor, *, at_once: bool = False) -> torch.Tensor:
    """A contiguous copy of ``x`` in host memory that can be lent, on its way as ``host`` says."""
    context = current()
    if not x.numel():
        return torch.empty(x.shape, dtype=x.dtype, device="cpu")
    if not cuda.driver.takes(x):
        return room(context.transport, x.shape, x.dtype).copy_(x)
    if at_once:
        return devices_of(context).slot(x).copy_(x)
    slot, arriving = devices_of(context).fetch(x.contiguous())
    context.arriving.append(arriving)
    return slot


def delivered(
    result: torch.Tensor, like: torch.Tensor, into: torch.Tensor | None = None
) -> torch.Tensor:
    """What lies in host memory, where ``like`` is; what is started there next finds its values.

    Args:
        result: is not written to any more.
        like: on the device where it should be.
        into: there, takes the values; a new tensor by default.
    """
    if cuda.driver.takes(like):
        if into is None:
            into = torch.empty(result.shape, dtype=result.dtype, device=like.device)
        return devices_of(current()).send(result, into)
    return result.to(like.device) if into is None else into.copy_(result)


def beside(streams: cuda.Streams, body: Body) -> Body:
    """``body`` with the caller's stream of now as the current one, whatever thread moves it on."""
    resumed = streams.caller()

    def running(context: Context, tag: int) -> Operation[Outcome]:
        steps = body(context, tag)
        try:
            while True:
                with resumed():
                    try:
                        peers = next(steps)
                    except StopIteration as stop:
                        return cast("Outcome", stop.value)
                yield peers
        finally:
            steps.close()

    return running


def passed(context: Context, event: cuda.Event, peers: tuple[int, ...]) -> Operation[None]:
    """Wait until a device has done what comes before ``event``."""
    while not event.query():
        context.transport.check()
        yield Moving(peers)


def _after(arriving: Sequence[Arriving], body: Body) -> Body:
    """``body`` once all of these copies are there."""

    def running(context: Context, tag: int) -> Operation[Outcome]:
        for copy in arriving:
            yield from passed(context, copy.event, (context.rank,))
        return (yield from body(context, tag))

    return beside(arriving[0].streams, running)


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
