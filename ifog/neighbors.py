"""What neighbours on the graph compute together: weighted averages, and gathering.

The graph is the one in use, or, in the dynamic forms, whatever edges the call itself names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import networkx as nx
import torch

from ifog.context import Context, current
from ifog.errors import ArgumentError, TopologyMismatchError
from ifog.exchange import Parcel, exchange, same, wire
from ifog.handle import Handle, Operation
from ifog.kernels import mean, weighted_sum
from ifog.operation import Outcome, host, launch, rows
from ifog.plans import Plan, gather_plan, mixing_plan

__all__ = [
    "neighbor_allgather",
    "neighbor_allgather_nonblocking",
    "neighbor_allreduce",
    "neighbor_allreduce_nonblocking",
]


def neighbor_allreduce(
    tensor: torch.Tensor,
    *,
    self_weight: float | None = None,
    src_weights: Mapping[int, float] | None = None,
    dst_weights: Mapping[int, float] | Sequence[int] | None = None,
    topology: nx.DiGraph | None = None,
    enable_topo_check: bool = True,
    name: str | None = None,
) -> torch.Tensor:
    """The weighted average of a tensor over this rank and its in-neighbours.

    With s the own weight, a_j the weight for what comes from j and b_j the factor with which j
    sends to this rank i::

        y_i = s x_i + sum_j a_j b_j x_j

    *Static* (no ``dst_weights``): over the graph in use, on all ranks. Without weights, each of
    the m in-neighbours and the rank itself count 1/(m + 1), summed first and divided once, or the
    graph's weights if it was set with ``is_weighted=True``. *Dynamic* (``dst_weights`` or
    ``topology``): exactly over the edges named, whatever the graph in use.

    Blocks until every in-neighbour has sent and every out-neighbour can receive. Every rank of
    the graph must call it. A named tensor is watched: ``name`` is what the live views show.

    Args:
        tensor: [...] floating point; not changed.
        self_weight: s.
        src_weights: {j: a_j}; in the static form only in-neighbours, those left out count 0.
        dst_weights: ranks to send to, or {rank: factor}.
        topology: mix over this graph with its weights, for example ``schedule(step)``.
        enable_topo_check: in the dynamic form, compare all ranks' plans before bytes move.
        name: matches the call across ranks whatever the order in which they make it.

    Returns:
        [...] a new tensor of the same shape, dtype and device.

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
    return neighbor_allreduce_nonblocking(
        tensor,
        self_weight=self_weight,
        src_weights=src_weights,
        dst_weights=dst_weights,
        topology=topology,
        enable_topo_check=enable_topo_check,
        name=name,
    ).wait()


def neighbor_allreduce_nonblocking(
    tensor: torch.Tensor,
    *,
    self_weight: float | None = None,
    src_weights: Mapping[int, float] | None = None,
    dst_weights: Mapping[int, float] | Sequence[int] | None = None,
    topology: nx.DiGraph | None = None,
    enable_topo_check: bool = True,
    name: str | None = None,
) -> Handle[torch.Tensor]:
    """Start ``neighbor_allreduce``; the tensor must not change until the handle is done."""
    op = "neighbor_allreduce"
    context = current()
    x = host(tensor, op)
    if not x.is_floating_point():
        raise ArgumentError(
            f"{op} averages floating-point tensors, got {x.dtype}; convert it with .float()"
        )
    plan = mixing_plan(
        context,
        self_weight=self_weight,
        src_weights=src_weights,
        dst_weights=dst_weights,
        topology=topology,
        op=op,
    )
    checked = plan.dynamic and enable_topo_check
    peers = context.participants if checked else (*plan.src, *plan.dst)

    def body(context: Context, tag: int) -> Operation[Outcome]:
        step = context.steps[op, name or ""]
        if name is not None and step == 1:
            context.watcher.look(x, name, 0)
        if checked:
            yield from _compare_plans(context, tag, op, plan.src, plan.dst)
        outcome = yield from _mix(context, tag, op, x, plan)
        if name is not None:
            context.watcher.look(outcome.result, name, step)
        return outcome._replace(result=outcome.result.to(tensor.device))

    return launch(op, name, peers, body)


def _mix(context: Context, tag: int, op: str, x: torch.Tensor, plan: Plan) -> Operation[Outcome]:
    payload = wire(x)
    outgoing = {dst: Parcel(x, payload, factor) for dst, factor in plan.dst.items()}
    arrivals = yield from exchange(context.transport, tag, outgoing, tuple(plan.src))
    parcels = arrivals.parcels
    same(op, context.rank, Parcel(x), parcels)
    received = [parcels[j].like for j in plan.src]
    if plan.uniform and all(parcels[j].weight == 1.0 for j in plan.src):
        share = 1.0 / (len(received) + 1)
        weights = (share,) * (len(received) + 1)
        result = mean(x, received)
    else:
        effective = [a * parcels[j].weight for j, a in plan.src.items()]
        weights = (plan.self_weight, *effective)
        result = weighted_sum(x, plan.self_weight, received, effective)
    dst = tuple(plan.dst)
    return Outcome(result, arrivals, payload.size * len(dst), dst, tuple(plan.src), weights)


def _compare_plans(
    context: Context, tag: int, op: str, src: Iterable[int], dst: Iterable[int]
) -> Operation[None]:
    """Tell all ranks of the cell which edges this rank uses, and check that both ends agree.

    Raises:
        TopologyMismatchError: on all ranks, naming the first edge on which the ends differ.
    """
    mine = torch.zeros(2, context.size, dtype=torch.uint8, device="cpu")
    mine[0, list(dst)] = 1
    mine[1, list(src)] = 1
    others = [rank for rank in context.participants if rank != context.rank]
    parcel = Parcel(mine, wire(mine))
    arrivals = yield from exchange(context.transport, tag, dict.fromkeys(others, parcel), others)
    plans = {rank: arrivals.parcels[rank].like.tolist() for rank in others}
    plans[context.rank] = mine.tolist()
    wrong = [
        (u, v, bool(plans[u][0][v]))
        for u in sorted(plans)
        for v in sorted(plans)
        if plans[u][0][v] != plans[v][1][u]
    ]
    if wrong:
        u, v, sends = wrong[0]
        told = (
            f"rank {u} sends to rank {v}, but rank {v} does not receive from rank {u}"
            if sends
            else f"rank {v} receives from rank {u}, but rank {u} does not send to rank {v}"
        )
        more = f" (and {len(wrong) - 1} more edges)" if len(wrong) > 1 else ""
        raise TopologyMismatchError(
            f"{op}: {told}{more}; the ranks' sources and destinations must be each other's mirror"
        )


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
        enable_topo_check: in the dynamic form, compare all ranks' plans before bytes move.
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
    peers = context.participants if checked else (*plan.src, *plan.dst)

    def body(context: Context, tag: int) -> Operation[Outcome]:
        if checked:
            yield from _compare_plans(context, tag, op, plan.src, plan.dst)
        parcel = Parcel(x, wire(x))
        arrivals = yield from exchange(
            context.transport, tag, dict.fromkeys(plan.dst, parcel), plan.src
        )
        same(op, context.rank, parcel, arrivals.parcels, rows=True)
        blocks = [arrivals.parcels[j].like for j in plan.src] or [x[:0]]
        nbytes = wire(x).size * len(plan.dst)
        result = torch.cat(blocks).to(tensor.device)
        return Outcome(result, arrivals, nbytes, plan.dst, plan.src)

    return launch(op, name, peers, body)
