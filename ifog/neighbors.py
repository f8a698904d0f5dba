"""What neighbours on the graph compute together: weighted averages, and gathering.

The graph is the one in use, or, in the dynamic forms, whatever edges the call itself names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import networkx as nx
import torch

from ifog.bundles import bundled, form, unbundled
from ifog.combining import combine, mix
from ifog.context import Context, current
from ifog.device_mixing import Manner, detached, mix_list_on_device, mix_on_device, on_one_device
from ifog.devices import devices_of
from ifog.edges import (
    compare,
    require_same_form,
)
from ifog.errors import ArgumentError
from ifog.exchange import Parcel, exchange, returned, same, wire
from ifog.handle import Handle, Operation
from ifog.operation import Body, Outcome, beside, delivered, host, launch, rows
from ifog.plans import Plan, gather_plan, mixing_plan
from ifog.posting import begin, fits, post

__all__ = [
    "floating",
    "neighbor_allgather",
    "neighbor_allgather_nonblocking",
    "neighbor_allreduce",
    "neighbor_allreduce_nonblocking",
    "watched",
]

X = TypeVar("X", torch.Tensor, list[torch.Tensor])


def neighbor_allreduce(
    tensor: X,
    *,
    self_weight: float | None = None,
    src_weights: Mapping[int, float] | None = None,
    dst_weights: Mapping[int, float] | Sequence[int] | None = None,
    topology: nx.DiGraph | None = None,
    enable_topo_check: bool = True,
    name: str | None = None,
) -> X:
    """The weighted average of a tensor over this rank and its in-neighbours.

    With s the own weight, a_j the weight for what comes from j and b_j the factor with which j
    sends to this rank i::

        y_i = s x_i + sum_j a_j b_j x_j

    *Static* (no ``dst_weights``): over the graph in use, on all ranks. Without weights, each of
    the m in-neighbours and the rank itself count 1/(m + 1), summed first and divided once, or the
    graph's weights if it was set with ``is_weighted=True``. Where a schedule is in use, its next
    round; every name counts its own, from 0 in each cell. *Dynamic* (``dst_weights`` or
    ``topology``): exactly over the edges named, whatever the graph in use.

    Blocks until every in-neighbour has sent and every out-neighbour can receive. Every rank of
    the graph must call it. A named tensor is watched: ``name`` is what the live views show. No
    gradient flows through it: the result is detached.

    Args:
        tensor: [...] floating point; not changed. A list of tensors travels as one, which is much
            faster than many small ones; pass the same shapes in the same order on every rank.
        self_weight: s.
        src_weights: {j: a_j}; in the static form only in-neighbours, those left out count 0.
        dst_weights: ranks to send to, or {rank: factor}.
        topology: mix over this graph with its weights, for example ``schedule(step)``.
        enable_topo_check: in the dynamic form, compare all ranks' plans, which go with the tensors.
        name: matches the call across ranks whatever the order in which they make it.

    Returns:
        [...] a new tensor of the same shape, dtype and device; of a list, a list of these, which
        share memory with one another but with nothing else.

    Raises:
        ArgumentError: the weights cannot be used.
        MismatchError: a neighbour's tensor has another shape or dtype.
        TopologyMismatchError: some rank sends where the other does not receive; on all ranks.
        PeerFailedError: another rank failed meanwhile.

    Example:
        >>> import torch, ifog
        >>> ifog.init()
        >>> ifog.neighbor_allreduce(torch.ones(3)).tolist()
        [1.0, 1.0, 1.0]

    Source: Ying, Yuan, Hu, Chen, Pan, Yin 2021, arXiv:2111.04287, section 3.
    """
    weights = (self_weight, src_weights, dst_weights, topology)
    return _begin(tensor, weights, checked=enable_topo_check, name=name, waits=True).wait()


def neighbor_allreduce_nonblocking(
    tensor: X,
    *,
    self_weight: float | None = None,
    src_weights: Mapping[int, float] | None = None,
    dst_weights: Mapping[int, float] | Sequence[int] | None = None,
    topology: nx.DiGraph | None = None,
    enable_topo_check: bool = True,
    name: str | None = None,
) -> Handle[X]:
    """Start ``neighbor_allreduce``; the tensor must not change until the handle is done.

    Small tensors that are posted one after the other travel together.
    """
    weights = (self_weight, src_weights, dst_weights, topology)
    return _begin(tensor, weights, checked=enable_topo_check, name=name, waits=False)


def _begin(
    tensor: X, weights: tuple[Any, ...], *, checked: bool, name: str | None, waits: bool
) -> Handle[X]:
    """Start the average; ``waits`` says that nothing else is done before the handle is done."""
    op = "neighbor_allreduce"
    context = current()
    self_weight, src_weights, dst_weights, topology = weights
    given: Any = tensor
    several = isinstance(given, list | tuple)
    tensors = list(given) if several else [given]
    there = context.transport.equipped and on_one_device(tensors)
    xs = [detached(x, op) if there else floating(x, op) for x in tensors]
    if not xs:
        raise ArgumentError(f"{op} got an empty list; pass at least one tensor")
    plan: Plan = mixing_plan(
        context,
        self_weight=self_weight,
        src_weights=src_weights,
        dst_weights=dst_weights,
        topology=topology,
        op=op,
        name=name,
    )
    checked = plan.dynamic and checked
    alone = waits and not checked
    if not several and not there and fits(context, xs[0], plan, given.device, alone=alone):
        start = begin if alone else post
        handle: Handle[Any] = start(context, op, name, xs[0], plan)
        return handle

    def body(context: Context, tag: int) -> Operation[Outcome]:
        if there:
            how = Manner(plan, combine, checked)
            if several:
                return (yield from mix_list_on_device(context, tag, op, xs, how))
            return (yield from mix_on_device(context, tag, op, xs[0], how))
        if several:
            return (yield from _mix_list(context, tag, op, plan, (tensors, xs), checked=checked))
        return (yield from mix(context, tag, op, xs[0], plan, checked=checked))

    shown = body if several else watched(op, name, given, xs[0], body)
    if there:
        shown = beside(devices_of(context).streams(xs[0].device), shown)
    return launch(op, name, (*plan.src, *plan.dst), shown)


def _mix_list(
    context: Context,
    tag: int,
    op: str,
    plan: Plan,
    what: tuple[list[torch.Tensor], ...],
    *,
    checked: bool,
) -> Operation[Outcome]:
    """``mix`` of many tensors, as given and in host memory: one round for each dtype of them."""
    tensors, xs = what
    kind, bundles = form(xs), bundled(xs, context.transport)
    outcomes: list[Outcome] = []
    for bundle in bundles:
        flat, first = bundle.flat, not outcomes
        outcome = yield from mix(context, tag, op, flat, plan, kind=kind, checked=checked and first)
        outcomes.append(outcome)
    result = unbundled(bundles, [outcome.result for outcome in outcomes], tensors)
    nbytes = sum(outcome.nbytes for outcome in outcomes)
    return outcomes[-1]._replace(result=result, nbytes=nbytes)


def floating(tensor: Any, op: str) -> torch.Tensor:
    """What ``host`` gives of a tensor that can be averaged.

    Raises:
        ArgumentError: not a floating-point tensor.
    """
    x = host(tensor, op)
    if not x.is_floating_point():
        raise ArgumentError(
            f"{op} averages floating-point tensors, got {x.dtype}; convert it with .float()"
        )
    return x


def watched(op: str, name: str | None, tensor: torch.Tensor, x: torch.Tensor, body: Body) -> Body:
    """``body`` with its named tensor shown to the watchers, and its result where ``tensor`` is."""
    if name is None and tensor.device == x.device:
        return body

    def watching(context: Context, tag: int) -> Operation[Outcome]:
        step = context.steps[op, name or ""]
        if name is not None and step == 1:
            context.watcher.look(x, name, 0)
        outcome = yield from body(context, tag)
        if name is not None:
            context.watcher.look(outcome.result, name, step)
        if outcome.result.device == tensor.device:
            return outcome
        return outcome._replace(result=delivered(outcome.result, tensor))

    return watching


def neighbor_allgather(
    tensor: torch.Tensor,
    *,
    src_ranks: Iterable[int] | None = None,
    dst_ranks: Iterable[int] | None = None,
    enable_topo_check: bool = True,
    name: str | None = None,
) -> torch.Tensor:
    """The in-neighbours' tensors, concatenated along the first dimension, the own one left out.

    Static (no ranks given): over the graph in use, ascending by source. Dynamic: from
    ``src_ranks``, in that order, to ``dst_ranks``, whatever the graph. Every rank must call it.

    Args:
        tensor: [r, ...]; r may differ from rank to rank, the rest may not.
        src_ranks: the ranks to receive from.
        dst_ranks: the ranks to send to.
        enable_topo_check: in the dynamic form, compare all ranks' plans, which go with the tensors.
        name: matches the call across ranks.

    Returns:
        [sum of the sources' r, ...].

    Raises:
        ArgumentError: the ranks cannot be used, or the tensor has no first dimension.
        MismatchError: a neighbour's tensor has other trailing dimensions or another dtype.
        TopologyMismatchError: some rank sends where the other does not receive; on all ranks.
    """
    return neighbor_allgather_nonblocking(
        tensor,
        src_ranks=src_ranks,
        dst_ranks=dst_ranks,
        enable_topo_check=enable_topo_check,
        name=name,
    ).wait()


def neighbor_allgather_nonblocking(
    tensor: torch.Tensor,
    *,
    src_ranks: Iterable[int] | None = None,
    dst_ranks: Iterable[int] | None = None,
    enable_topo_check: bool = True,
    name: str | None = None,
) -> Handle[torch.Tensor]:
    """Start ``neighbor_allgather``; the tensor must not change until the handle is done."""
    op = "neighbor_allgather"
    context = current()
    x = rows(host(tensor, op), op)
    plan = gather_plan(context, src_ranks=src_ranks, dst_ranks=dst_ranks, op=op)
    checked = plan.dynamic and enable_topo_check

    def body(context: Context, tag: int) -> Operation[Outcome]:
        if checked:
            everyone = dict(zip(context.participants, context.participants, strict=True))
            yield from compare(context, tag, op, src=plan.src, dst=plan.dst, places=everyone)
        parcel = Parcel(x, wire(x))
        transport = context.transport
        outgoing = dict.fromkeys(plan.dst, parcel)
        arrivals = yield from exchange(transport, tag, outgoing, plan.src, borrow=True)
        try:
            require_same_form(op, context.rank, arrivals.parcels, parcel)
            same(op, context.rank, parcel, arrivals.parcels, rows=True)
            blocks = [arrivals.parcels[j].like for j in plan.src] or [x[:0]]
            result = delivered(torch.cat(blocks), tensor)
        finally:
            arrivals.give_back(transport)
        yield from returned(transport, arrivals)
        nbytes = wire(x).size * len(plan.dst)
        return Outcome(result, arrivals, nbytes, plan.dst, plan.src)

    return launch(op, name, (*plan.src, *plan.dst), body)
