"""One round of weighted averaging: what every average over neighbours does once it has its plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ifog.context import Context
from ifog.edges import NOTHING, note_of, notes_by, require_mirrored, require_same_form
from ifog.exchange import (
    Arrivals,
    Parcel,
    exchange,
    returned,
    room_for,
    same,
    wire,
)
from ifog.handle import Operation
from ifog.kernels import mean, weighted_sum
from ifog.operation import Outcome
from ifog.parcels import HEADER_BYTES, enclosed
from ifog.plans import Plan
from ifog.telemetry import now
from ifog.transport.base import Letter, Request

__all__ = ["combine", "mix", "mix_small"]


def mix(
    context: Context,
    tag: int,
    op: str,
    x: torch.Tensor,
    plan: Plan,
    *,
    kind: int = 0,
    checked: bool = False,
    letters: Sequence[Letter] | None = None,
) -> Operation[Outcome]:
    """One round of the weighted average: send, receive, combine.

    ``kind`` says of what. Where it is ``checked`` that all ranks name the same edges, each hears
    from all others: those to which it does not send get its edges alone. ``letters`` are those of
    ``plan.src``, where this rank's part is on its way and theirs are received already.
    """
    rank, transport, payload = context.rank, context.transport, wire(x)
    parcel, sources = Parcel(x, payload, root=kind), plan.sources
    outgoing: dict[int, Parcel] = {}
    if checked:
        parcel = parcel._replace(note=note_of(plan.src, plan.dst, context.size))
        sources = tuple([other for other in context.participants if other != rank])
        outgoing = dict.fromkeys(sources, Parcel(NOTHING, root=kind, note=parcel.note))
    for to, factor in plan.dst.items() if letters is None else ():
        outgoing[to] = parcel if factor == 1.0 else parcel._replace(weight=factor)
    arrivals = yield from exchange(
        transport, tag, outgoing, sources, borrow=True, in_turn=True, letters=letters
    )
    parcels = arrivals.parcels
    try:
        require_same_form(op, rank, parcels, parcel)
        if checked:
            places = {place: place for place in context.participants}
            require_mirrored(op, notes_by(rank, op, parcel, parcels, places))
            parcels = {source: parcels[source] for source in plan.src}
        same(op, rank, parcel, parcels)
        result, weights = combine(x, plan, parcels, room_for(transport, x))
    finally:
        arrivals.give_back(transport)
    yield from returned(transport, arrivals)
    dst = plan.destinations
    return Outcome(result, arrivals, payload.size * len(dst), dst, plan.sources, weights)


def mix_small(
    context: Context, tag: int, op: str, x: torch.Tensor, plan: Plan, *, sent: bool = False
) -> Operation[Outcome]:
    """What ``mix`` does, in less time, where ``x`` and its header are one message.

    No factor is put on what leaves. ``sent`` says that it has left already.
    """
    transport, sources = context.transport, plan.sources
    letters = [transport.receive(source, tag, HEADER_BYTES) for source in sources]
    head, sends = enclosed(x), list[tuple[int, Request]]()
    if not sent:
        message = b"".join([head, wire(x).data])
        sent_to = [(to, transport.send(message, to, tag)) for to in plan.dst]
        sends = [send for send in sent_to if not send[1].test()]
    arrived: dict[int, float] = {}
    while True:
        missing = []
        for source, letter in zip(sources, letters, strict=True):
            if source in arrived:
                continue
            if letter.test():
                arrived[source] = now()
            else:
                missing.append(source)
        if sends:
            sends = [send for send in sends if not send[1].test()]
        if not missing and not sends:
            break
        yield tuple(missing or [send[0] for send in sends])
    size = len(head)
    for letter in letters:
        if memoryview(letter.data)[:size] != head:
            # It has another shape or dtype, or comes with a factor, or is something else.
            return (yield from mix(context, tag, op, x, plan, letters=letters))
    last = max(sources, key=arrived.__getitem__)
    parcels = {}
    if context.report is not None:
        parcels = {source: Parcel(x, arrived_at=at) for source, at in arrived.items()}
    arrivals = Arrivals(parcels, arrived[last], last)
    result, weights = _combined(x, plan, [letter.data for letter in letters], size)
    to = plan.destinations
    return Outcome(result, arrivals, x.nbytes * len(to), to, sources, weights)


def _combined(
    x: torch.Tensor, plan: Plan, letters: Sequence[Any], start: int
) -> tuple[torch.Tensor, tuple[float, ...]]:
    """What ``combine`` gives, of the payloads that begin at ``start``."""
    dtype, shape, numel = x.dtype, x.shape, x.numel()
    received = [torch.frombuffer(d, dtype=dtype, count=numel, offset=start) for d in letters]
    if len(shape) != 1:
        received = [each.view(shape) for each in received]
    if plan.uniform:
        return mean(x, received), plan.shares
    effective = tuple(plan.src.values())
    result = weighted_sum(x, plan.self_weight, received, effective)
    return result, (plan.self_weight, *effective)


def combine(
    x: torch.Tensor, plan: Plan, parcels: Mapping[int, Parcel], out: torch.Tensor
) -> tuple[torch.Tensor, tuple[float, ...]]:
    """The weighted average of ``x`` and what came, and the weights: the own one, then by source.

    The average is in ``out``.
    """
    received = [parcels[j].like for j in plan.src]
    if plan.uniform and all(parcels[j].weight == 1.0 for j in plan.src):
        return mean(x, received, out), plan.shares
    effective = [a * parcels[j].weight for j, a in plan.src.items()]
    result = weighted_sum(x, plan.self_weight, received, effective, out)
    return result, (plan.self_weight, *effective)
