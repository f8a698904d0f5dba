"""Averages over neighbours of tensors on devices, in which the host never waits for a device.

An average begins with a claim to every neighbour, by ordinary mail: shape, dtype, weight, and
whether this rank offers to send from device to device. Where both ends of an edge offer, the
tensor goes that way; over the other edges through host memory. A rank offers only while no earlier
offer of its own is open. Two ranks that start two averages in opposite order thus never start them
in opposite order on their devices, where each would wait for the other for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch

from ifog.bundles import form
from ifog.context import Context
from ifog.devices import Arriving, devices_of
from ifog.edges import NOTHING, apart, note_of, notes_by, require_mirrored, require_same_form
from ifog.errors import ArgumentError, MismatchError, TransportError
from ifog.exchange import Arrivals, Parcel, exchange, returned, same, wire
from ifog.handle import Moving, Operation
from ifog.operation import Outcome, passed
from ifog.plans import Plan
from ifog.transport import cuda
from ifog.transport.group import Transfer

__all__ = ["Manner", "detached", "mix_list_on_device", "mix_on_device", "on_one_device"]

Average = Callable[
    [torch.Tensor, Plan, Mapping[int, Parcel], torch.Tensor],
    tuple[torch.Tensor, tuple[float, ...]],
]
_CAUSE_SECONDS = 2.0  # for the news of a death, which is noticed within that time


class Manner(NamedTuple):
    """How an average is formed.

    Attributes:
        plan: who sends what to whom.
        average: forms the weighted sum from the own tensor and what came.
        checked: whether all ranks first compare the edges that they name.
    """

    plan: Plan
    average: Average
    checked: bool


def on_one_device(tensors: Sequence[object]) -> bool:
    """Whether all of ``tensors`` are on one device."""
    if not any(map(cuda.driver.takes, tensors)):
        return False
    return len({x.device if isinstance(x, torch.Tensor) else None for x in tensors}) == 1


def detached(tensor: torch.Tensor, op: str) -> torch.Tensor:
    """The tensor's values where they are, contiguous.

    Raises:
        ArgumentError: not a floating-point tensor.
    """
    if not tensor.is_floating_point():
        raise ArgumentError(
            f"{op} averages floating-point tensors, got {tensor.dtype}; convert it with .float()"
        )
    return tensor.detach().contiguous()


def mix_list_on_device(
    context: Context,
    tag: int,
    op: str,
    xs: Sequence[torch.Tensor],
    how: Manner,
) -> Operation[Outcome]:
    """``mix_on_device`` of many tensors of one device: one round for each dtype of them."""
    by_dtype: dict[torch.dtype, list[int]] = {}
    for place, x in enumerate(xs):
        by_dtype.setdefault(x.dtype, []).append(place)
    results, outcomes = list(xs), []
    for places in by_dtype.values():
        chosen = [xs[place] for place in places]
        flat = torch.cat([x.view(-1) for x in chosen])
        outcomes.append((yield from mix_on_device(context, tag, op, flat, how, kind=form(xs))))
        how = how._replace(checked=False)  # it is known by now
        parts = outcomes[-1].result.split([x.numel() for x in chosen])
        for place, part, x in zip(places, parts, chosen, strict=True):
            results[place] = part.view(x.shape)
    nbytes = sum(outcome.nbytes for outcome in outcomes)
    return outcomes[-1]._replace(result=results, nbytes=nbytes)


def mix_on_device(
    context: Context,
    tag: int,
    op: str,
    x: torch.Tensor,
    how: Manner,
    *,
    kind: int = 0,
) -> Operation[Outcome]:
    """One round of the weighted average, of a contiguous tensor where it is.

    Args:
        context: this rank's.
        tag: of the messages.
        op: the operation, for messages.
        x: [...] not changed.
        how: who sends what to whom, and so on.
        kind: says of what the average is.

    Raises:
        MismatchError: a neighbour's tensor has another shape or dtype, or is in host memory.
        TransportError: the way from device to device broke.
    """
    devices = devices_of(context)
    devices.advance(x.device)
    streams = devices.streams(x.device)
    out = torch.empty_like(x)  # of the caller's stream, to which it belongs afterwards
    streams.follow()
    flight = _Flight(context, tag, op, x, how, kind, {}, [])
    try:
        arrivals, claims = yield from _moved(flight)
    except BaseException:
        devices.keep(streams.mark(), flight)  # a device may still copy from or to it
        if any(isinstance(thing, Transfer) for thing in flight.held):
            devices.abandon()
        raise
    parcels = {j: claims[j].parcel._replace(like=flight.landed[j]) for j in how.plan.src}
    with streams.beside():
        result, weights = how.average(x, how.plan, parcels, out)
    streams.join()
    src, dst = how.plan.sources, how.plan.destinations
    return Outcome(result, arrivals, x.nbytes * len(dst), dst, src, weights)


class _Claim(NamedTuple):
    """What a neighbour says of its tensor: as a parcel without payload, and whether it offers."""

    parcel: Parcel
    offers: bool


class _Flight(NamedTuple):
    """One tensor on its way to the neighbours, and theirs.

    ``landed`` are those that came, by source; ``held`` is what must stay until all is through.
    """

    context: Context
    tag: int
    op: str
    x: torch.Tensor
    how: Manner
    kind: int
    landed: dict[int, torch.Tensor]
    held: list[object]


def _moved(flight: _Flight) -> Operation[tuple[Arrivals, dict[int, _Claim]]]:
    """Bring the neighbours' tensors to this device; returns what they claimed of them."""
    context, plan, x = flight.context, flight.how.plan, flight.x
    devices = devices_of(context)
    streams = devices.streams(x.device)
    home = devices.is_home(x.device) and x.numel() > 0
    group = devices.group if home and devices.offer is None else None
    copy = devices.fetch(x) if group is None and plan.dst else None
    transfer = None
    devices.offer = devices.offer or (flight if group is not None else None)
    try:
        arrivals, claims, failure = yield from _claims(flight, offers=group is not None)
        direct = {peer for peer, claim in claims.items() if group is not None and claim.offers}
        if group is not None and direct:
            with streams.beside():
                received = {j: torch.empty_like(x) for j in plan.src if j in direct}
            flight.landed.update(received)
            sent = dict.fromkeys(direct.intersection(plan.dst), x)
            transfer = group.start(sent, received, streams)
            flight.held.append(transfer)
    finally:
        if devices.offer is flight:
            devices.offer = None
    readers = [dst for dst in plan.dst if dst in claims and dst not in direct]
    if readers and copy is None:
        copy = devices.fetch(x)
    sources = [j for j in plan.src if j in claims and j not in direct]
    yield from _through_host(flight, copy, readers, sources)
    if transfer is not None:
        yield from _arrived(context, transfer, tuple(sorted(direct)))
    if failure is not None:
        raise failure
    return arrivals, claims


def _arrived(context: Context, transfer: Transfer, peers: tuple[int, ...]) -> Operation[None]:
    """Wait until all has been sent and received.

    Raises:
        PeerFailedError: a rank died or stopped.
        TransportError: it failed for another reason.
    """
    try:
        yield from passed(context, transfer, peers)
    except TransportError:
        # That a connection broke may be known before that its other end has died.
        deadline = time.monotonic() + _CAUSE_SECONDS
        while time.monotonic() < deadline:
            context.transport.check()
            yield Moving(peers)
        raise


def _claims(
    flight: _Flight, *, offers: bool
) -> Operation[tuple[Arrivals, dict[int, _Claim], MismatchError | None]]:
    """Tell all neighbours what is to come, hear the same of them, and check that it fits.

    Returns what came, the claims that fit, and the error to raise if one does not: not before those
    that do are served, who may have nothing to do with it.

    Raises:
        MismatchError: a tensor is in host memory, or only some ranks named their edges.
        TopologyMismatchError: the ranks' edges do not fit.
    """
    context, tag, op, x, how, kind, *_ = flight
    rank, plan = context.rank, how.plan
    edges = note_of(plan.src, plan.dst, context.size) if how.checked else b""
    note = bytes([offers]) + edges  # of an odd length: no other note is
    others = [other for other in context.participants if other != rank] if how.checked else []
    outgoing = dict.fromkeys(others, Parcel(NOTHING, root=kind, note=note))
    peers = sorted({*plan.src, *plan.dst})
    for peer in peers:
        outgoing[peer] = Parcel(x, None, plan.dst.get(peer, 1.0), kind, note=note)
    arrivals = yield from exchange(context.transport, tag, outgoing, tuple(outgoing))
    mine, parcels = Parcel(x, root=kind, note=edges), {}
    for source, parcel in arrivals.parcels.items():
        if not len(parcel.note) % 2:
            raise apart(op, host=source, device=rank)
        parcels[source] = parcel._replace(note=parcel.note[1:])
    require_same_form(op, rank, parcels, mine)
    if how.checked:
        places = {place: place for place in context.participants}
        require_mirrored(op, notes_by(rank, op, mine, parcels, places))
    claims: dict[int, _Claim] = {}
    failure: MismatchError | None = None
    for peer in peers:
        try:
            same(op, rank, mine, {peer: parcels[peer]})
            claims[peer] = _Claim(parcels[peer], bool(arrivals.parcels[peer].note[0]))
        except MismatchError as error:
            failure = failure or error
    return arrivals, claims, failure


def _through_host(
    flight: _Flight,
    copy: tuple[torch.Tensor, Arriving] | None,
    readers: Sequence[int],
    sources: Sequence[int],
) -> Operation[None]:
    """Let ``readers`` read the copy of the tensor, and read the copies of ``sources``."""
    context, x = flight.context, flight.x
    devices, transport = devices_of(context), context.transport
    streams = devices.streams(x.device)
    outgoing: dict[int, Parcel] = {}
    if copy is not None:
        flight.held.append(copy)
        yield from passed(context, copy[1].event, tuple(readers) or (context.rank,))
        outgoing = dict.fromkeys(readers, Parcel(copy[0], wire(copy[0])))
    arrivals = yield from exchange(
        transport, flight.tag, outgoing, sources, borrow=True, in_turn=True
    )
    flight.held.append(arrivals)
    try:
        for source in sources:
            like = arrivals.parcels[source].like
            devices.pin(like, x.device)
            with streams.beside():
                flight.landed[source] = torch.empty_like(x).copy_(like, non_blocking=True)
        if sources:
            yield from passed(context, streams.mark(), tuple(sources))
    finally:
        arrivals.give_back(transport)
    yield from returned(transport, arrivals)
