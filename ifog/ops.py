"""The operations: what all ranks, or neighbours on the graph, compute together.

Every operation is written once, as a generator over one or two message rounds. The blocking form
waits for its ``_nonblocking`` twin. Operations are matched across ranks by kind and name, or, for
those without a name, by their order in the cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import networkx as nx
import torch

from ifog.context import Context, current
from ifog.errors import ArgumentError, MismatchError, TopologyMismatchError
from ifog.exchange import Arrivals, Parcel, blocked, exchange, same, tag_of, wire
from ifog.handle import Handle, Operation
from ifog.kernels import accumulation_dtype, mean, weighted_sum
from ifog.plans import Plan, gather_plan, mixing_plan
from ifog.telemetry import OpEvent, now

__all__ = [
    "allgather",
    "allgather_nonblocking",
    "allreduce",
    "allreduce_nonblocking",
    "barrier",
    "broadcast",
    "broadcast_nonblocking",
    "neighbor_allgather",
    "neighbor_allgather_nonblocking",
    "neighbor_allreduce",
    "neighbor_allreduce_nonblocking",
    "poll",
    "synchronize",
    "wait",
    "watch",
]

T = TypeVar("T")
_ONE_ROUND = 1 << 16  # bytes up to which allreduce sends whole tensors instead of stripes
_NOTHING = torch.empty(0, dtype=torch.uint8, device="cpu")


class _Outcome(NamedTuple):
    result: Any
    arrivals: Arrivals
    nbytes: int = 0
    dst: tuple[int, ...] = ()
    src: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()


_Body = Callable[[Context, int], Operation[_Outcome]]


def _launch(op: str, name: str | None, peers: Iterable[int], body: _Body) -> Handle[Any]:
    """Start ``body`` as an operation under way, after checking that it may start."""
    context = current()
    context.require(tuple(peers), op)
    key = f"{context.healed}.{context.cell}.{op}.{name}"
    if name is None:
        key += f".unnamed.{context.unnamed[op]}"
        context.unnamed[op] += 1
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


def _recorded(context: Context, handle: Handle[Any], key: str, body: _Body) -> Operation[Any]:
    seq, t0 = context.next_op(), now()
    try:
        outcome = yield from body(context, tag_of(key))
    finally:
        context.in_flight.discard(key)
    waited = blocked(handle, outcome.arrivals, t0)
    context.finished(handle.op, handle.step, outcome.nbytes, waited)
    if context.sink is not None:
        context.sink.write(
            (
                OpEvent(
                    context.rank,
                    seq,
                    handle.step,
                    handle.op,
                    handle.name,
                    t0,
                    now(),
                    waited,
                    outcome.arrivals.last_from if waited > 0.0 else -1,
                    outcome.nbytes,
                    outcome.dst,
                    outcome.src,
                    outcome.weights,
                ),
            )
        )
    return outcome.result


def _host(x: Any, op: str) -> torch.Tensor:
    """The tensor's values, contiguous and in host memory; shared with it where possible."""
    if not isinstance(x, torch.Tensor):
        raise ArgumentError(f"{op} needs a torch tensor, got {type(x).__name__}")
    return x.detach().contiguous().cpu()


def _others(context: Context) -> list[int]:
    return [rank for rank in range(context.size) if rank != context.rank]


def _to_all(context: Context, tag: int, parcel: Parcel) -> Operation[Arrivals]:
    others = _others(context)
    return exchange(context.transport, tag, dict.fromkeys(others, parcel), others)


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
    x = _host(tensor, op)
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

    def body(context: Context, tag: int) -> Operation[_Outcome]:
        step = context.steps[op, name or ""]
        if name is not None and step == 1:
            context.watcher.look(x, name, 0)
        if checked:
            yield from _compare_plans(context, tag, op, plan.src, plan.dst)
        outcome = yield from _mix(context, tag, op, x, plan)
        if name is not None:
            context.watcher.look(outcome.result, name, step)
        return outcome._replace(result=outcome.result.to(tensor.device))

    return _launch(op, name, peers, body)


def _mix(context: Context, tag: int, op: str, x: torch.Tensor, plan: Plan) -> Operation[_Outcome]:
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
    return _Outcome(result, arrivals, payload.size * len(dst), dst, tuple(plan.src), weights)


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
    x = _rows(_host(tensor, op), op)
    plan = gather_plan(context, src_ranks=src_ranks, dst_ranks=dst_ranks, op=op)
    checked = plan.dynamic and enable_topo_check
    peers = context.participants if checked else (*plan.src, *plan.dst)

    def body(context: Context, tag: int) -> Operation[_Outcome]:
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
        return _Outcome(result, arrivals, nbytes, plan.dst, plan.src)

    return _launch(op, name, peers, body)


def allreduce(
    tensor: torch.Tensor, average: bool = True, *, name: str | None = None
) -> torch.Tensor:
    """The mean (or, with ``average=False``, the sum) of a tensor over all ranks.

    y = (1/n) sum_i x_i, summed in rank order: every rank gets the same bits. Large tensors are
    reduced in stripes, rank i the i-th, and then gathered: 2 (n - 1)/n of the tensor is sent.

    Args:
        tensor: [...] numbers; floating point when averaged; not changed.
        average: divide by the number of ranks.
        name: matches the call across ranks.

    Raises:
        ArgumentError: an integer tensor cannot be averaged.
        MismatchError: the ranks' shapes, dtypes or ``average`` differ; on every rank.
    """
    return allreduce_nonblocking(tensor, average, name=name).wait()


def allreduce_nonblocking(
    tensor: torch.Tensor, average: bool = True, *, name: str | None = None
) -> Handle[torch.Tensor]:
    """Start ``allreduce``; the tensor must not change until the handle is done."""
    op = "allreduce"
    context = current()
    x = _host(tensor, op)
    if x.dtype is torch.bool or (average and not x.is_floating_point()):
        raise ArgumentError(
            f"{op} cannot {'average' if average else 'sum'} {x.dtype}; convert it, for example "
            "with .float(), or pass average=False for integers"
        )

    def body(context: Context, tag: int) -> Operation[_Outcome]:
        small = x.numel() * x.element_size() <= _ONE_ROUND
        reduce = _reduce_whole if small else _reduce_stripes
        total, arrivals, nbytes = yield from reduce(context, tag, x, average)
        others = tuple(_others(context))
        return _Outcome(total.to(tensor.device), arrivals, nbytes, others, others)

    return _launch(op, name, range(context.size), body)


_Reduced = tuple[torch.Tensor, Arrivals, int]


def _reduce_whole(
    context: Context, tag: int, x: torch.Tensor, average: bool
) -> Operation[_Reduced]:
    parcel = Parcel(x, wire(x), root=int(average))
    arrivals = yield from _to_all(context, tag, parcel)
    same("allreduce (average)", context.rank, parcel, arrivals.parcels)
    total = _sum_in_order(context, x, arrivals, average)
    return total, arrivals, wire(x).size * (context.size - 1)


def _reduce_stripes(
    context: Context, tag: int, x: torch.Tensor, average: bool
) -> Operation[_Reduced]:
    claim = Parcel(x, root=int(average))
    arrivals = yield from _to_all(context, tag, claim)
    same("allreduce (average)", context.rank, claim, arrivals.parcels)
    others = _others(context)
    stripes = x.reshape(-1).tensor_split(context.size)
    outgoing = {rank: Parcel(stripes[rank], wire(stripes[rank])) for rank in others}
    scattered = yield from exchange(context.transport, tag, outgoing, others)
    own = _sum_in_order(context, stripes[context.rank], scattered, average)
    gathered = yield from _to_all(context, tag, Parcel(own, wire(own)))
    parts = [own if r == context.rank else gathered.parcels[r].like for r in range(context.size)]
    nbytes = sum(parcel.data.size for parcel in outgoing.values() if parcel.data is not None)
    nbytes += wire(own).size * len(others)
    return torch.cat(parts).reshape(x.shape), gathered, nbytes


def _sum_in_order(
    context: Context, x: torch.Tensor, arrivals: Arrivals, average: bool
) -> torch.Tensor:
    terms = [
        x if rank == context.rank else arrivals.parcels[rank].like for rank in range(context.size)
    ]
    total = terms[0].to(accumulation_dtype(x.dtype), copy=True)
    for term in terms[1:]:
        total += term
    if average:
        total /= context.size
    return total.to(x.dtype)


def broadcast(
    tensor: torch.Tensor, root_rank: int = 0, *, name: str | None = None
) -> torch.Tensor:
    """The tensor of ``root_rank``, on every rank, as a new tensor.

    Args:
        tensor: [...] the same shape and dtype on every rank; read on the root only.
        root_rank: whose tensor it is.
        name: matches the call across ranks.

    Raises:
        ArgumentError: ``root_rank`` is no rank.
        MismatchError: the ranks' shapes, dtypes or roots differ; on every rank.
    """
    return broadcast_nonblocking(tensor, root_rank, name=name).wait()


def broadcast_nonblocking(
    tensor: torch.Tensor, root_rank: int = 0, *, name: str | None = None
) -> Handle[torch.Tensor]:
    """Start ``broadcast``; the tensor must not change until the handle is done."""
    op = "broadcast"
    context = current()
    x = _host(tensor, op)
    context.require((root_rank,), op)

    def body(context: Context, tag: int) -> Operation[_Outcome]:
        is_root = context.rank == root_rank
        parcel = Parcel(x, wire(x) if is_root else None, root=root_rank)
        arrivals = yield from _to_all(context, tag, parcel)
        same("broadcast (root)", context.rank, parcel, arrivals.parcels)
        result = x.clone() if is_root else arrivals.parcels[root_rank].like
        others = tuple(_others(context)) if is_root else ()
        nbytes = wire(x).size * len(others)
        sources = () if is_root else (root_rank,)
        return _Outcome(result.to(tensor.device), arrivals, nbytes, others, sources)

    return _launch(op, name, range(context.size), body)


def allgather(tensor: torch.Tensor, *, name: str | None = None) -> torch.Tensor:
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
    return allgather_nonblocking(tensor, name=name).wait()


def allgather_nonblocking(
    tensor: torch.Tensor, *, name: str | None = None
) -> Handle[torch.Tensor]:
    """Start ``allgather``; the tensor must not change until the handle is done."""
    op = "allgather"
    context = current()
    x = _rows(_host(tensor, op), op)

    def body(context: Context, tag: int) -> Operation[_Outcome]:
        parcel = Parcel(x, wire(x))
        arrivals = yield from _to_all(context, tag, parcel)
        same(op, context.rank, parcel, arrivals.parcels, rows=True)
        blocks = [
            x if rank == context.rank else arrivals.parcels[rank].like
            for rank in range(context.size)
        ]
        others = tuple(_others(context))
        nbytes = wire(x).size * len(others)
        result = torch.cat(blocks).to(tensor.device)
        return _Outcome(result, arrivals, nbytes, others, others)

    return _launch(op, name, range(context.size), body)


def _rows(x: torch.Tensor, op: str) -> torch.Tensor:
    if x.ndim == 0:
        raise ArgumentError(f"{op} joins along the first dimension; reshape the number to [1]")
    return x


def barrier() -> None:
    """Return once every rank has called it."""

    def body(context: Context, tag: int) -> Operation[_Outcome]:
        arrivals = yield from _to_all(context, tag, Parcel(_NOTHING))
        return _Outcome(None, arrivals)

    _launch("barrier", None, range(current().size), body).wait()


def agree(op: str, digest: bytes) -> None:
    """Check that every rank passed the same thing to ``op``; every rank must call it.

    Raises:
        MismatchError: on every rank, naming two ranks that differ.
    """
    x = torch.tensor(list(digest), dtype=torch.uint8, device="cpu")

    def body(context: Context, tag: int) -> Operation[_Outcome]:
        arrivals = yield from _to_all(context, tag, Parcel(x, wire(x)))
        for rank, parcel in sorted(arrivals.parcels.items()):
            if not torch.equal(parcel.like, x):
                raise MismatchError(
                    f"{op}: rank {context.rank} and rank {rank} passed different arguments; "
                    "pass the same on every rank"
                )
        return _Outcome(None, arrivals)

    _launch(op, None, range(current().size), body).wait()


def poll(handle: Handle[Any]) -> bool:
    """Whether the operation has finished; never blocks."""
    return handle.done()


def wait(handle: Handle[T]) -> T:
    """The operation's result, once it is there."""
    return handle.wait()


def synchronize(handle: Handle[T]) -> T:
    """The operation's result, once it is there; another name of ``wait``."""
    return handle.wait()


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
