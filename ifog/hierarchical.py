"""Mixing between machines: reduce on each machine, let the leaders exchange, hand out the result.

Only the lowest rank of each machine, its leader, speaks with other machines, so the network
carries one tensor for each edge between machines, however many ranks they have.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch

from ifog.combining import combine
from ifog.context import Context, current
from ifog.edges import compare
from ifog.errors import MismatchError, ParticipationError, TopologyMismatchError
from ifog.exchange import Arrivals, Parcel, exchange, returned, room_for, same, wire
from ifog.handle import Handle, Operation
from ifog.kernels import mean
from ifog.neighbors import floating, watched
from ifog.operation import Outcome, launch
from ifog.plans import Plan, machine_plan

__all__ = ["hierarchical_neighbor_allreduce", "hierarchical_neighbor_allreduce_nonblocking"]

_REFUSALS = {1: MismatchError, 2: TopologyMismatchError}  # by the root of a parcel with a message


def hierarchical_neighbor_allreduce(
    tensor: torch.Tensor,
    *,
    self_weight: float | None = None,
    src_machine_weights: Mapping[int, float] | None = None,
    dst_machine_weights: Mapping[int, float] | Sequence[int] | None = None,
    enable_topo_check: bool = False,
    name: str | None = None,
) -> torch.Tensor:
    """The weighted average of the machines' means over this machine and its in-neighbours.

    With z_m the plain mean of x over the n_m ranks of machine m, s the own weight, a_k the weight
    for what comes from machine k, and b_k the factor with which k sends to this machine m, every
    rank of m gets::

        z_m = (1 / n_m) sum_{r on m} x_r
        y = s z_m + sum_k a_k b_k z_k

    *Static* (no weights): over the graph of ``set_machine_topology``, with its weights if it was
    set with ``is_weighted=True``, else 1/(in-neighbours + 1) each, summed first and divided once.
    *Dynamic* (all three given): exactly over the machines named, which must be neighbours in the
    machine topology if there is one.

    Machines may have unequal numbers of ranks. Each counts as one then, whatever its n_m: doubly
    stochastic weights keep ``sum_m z_m / M``, which is the mean over all ranks only for equal n_m.
    The mean over all ranks is kept by W with ``sum_m n_m W[m, k] = n_k``, for example::

        graph = ifog.weights.metropolis(graph, counts=ifog.machines.ranks_per_machine())
        ifog.set_machine_topology(graph, is_weighted=True)

    Every rank of the machines concerned must call it, with the same weights on one machine.
    A named tensor is watched.

    Args:
        tensor: [...] floating point; not changed.
        self_weight: s.
        src_machine_weights: {machine k: a_k}; may be empty.
        dst_machine_weights: machines to send to, or {machine: factor}; may be empty.
        enable_topo_check: compare all machines' plans before they exchange; then every rank of
            every machine must call it.
        name: matches the call across ranks.

    Returns:
        [...] a new tensor of the same shape, dtype and device.

    Raises:
        ArgumentError: the weights cannot be used, or there is no machine topology.
        MismatchError: shapes, dtypes, or the weights on one machine differ; on every rank of the
            machines that met the difference.
        TopologyMismatchError: a machine sends where the other does not receive; on all ranks.
        PeerFailedError: another rank failed meanwhile.
    """
    return hierarchical_neighbor_allreduce_nonblocking(
        tensor,
        self_weight=self_weight,
        src_machine_weights=src_machine_weights,
        dst_machine_weights=dst_machine_weights,
        enable_topo_check=enable_topo_check,
        name=name,
    ).wait()


def hierarchical_neighbor_allreduce_nonblocking(
    tensor: torch.Tensor,
    *,
    self_weight: float | None = None,
    src_machine_weights: Mapping[int, float] | None = None,
    dst_machine_weights: Mapping[int, float] | Sequence[int] | None = None,
    enable_topo_check: bool = False,
    name: str | None = None,
) -> Handle[torch.Tensor]:
    """Start ``hierarchical_neighbor_allreduce``; the tensor must not change until it is done."""
    op = "hierarchical_neighbor_allreduce"
    context = current()
    x = floating(tensor, op)
    plan = machine_plan(
        context,
        self_weight=self_weight,
        src_weights=src_machine_weights,
        dst_weights=dst_machine_weights,
        op=op,
    )
    leaders, mates = context.layout.leaders(), context.layout.mates(context.rank)
    empty = sorted({*plan.src, *plan.dst} - set(leaders))
    if empty:
        raise ParticipationError(
            f"{op} on rank {context.rank} names machine {empty[0]}, whose ranks are all dead; "
            f"name only machines of {list(leaders)}"
        )
    if enable_topo_check:
        peers = {*mates, *leaders.values()}
    else:
        peers = {*mates, *(leaders[machine] for machine in (*plan.src, *plan.dst))}

    def body(context: Context, tag: int) -> Operation[Outcome]:
        call = _Call(context, tag, op, x, plan, leaders, mates, enable_topo_check)
        return (yield from _lead(call) if context.rank == mates[0] else _follow(call))

    return launch(op, name, peers, watched(op, name, tensor, x, body))


class _Call(NamedTuple):
    context: Context
    tag: int
    op: str
    x: torch.Tensor
    plan: Plan
    leaders: dict[int, int]
    mates: tuple[int, ...]
    checked: bool

    def send(
        self, outgoing: Mapping[int, Parcel], sources: Sequence[int], *, borrow: bool = False
    ) -> Operation[Arrivals]:
        transport = self.context.transport
        return exchange(transport, self.tag, outgoing, sources, borrow=borrow, in_turn=True)

    def claim(self) -> int:
        """A number that says which weights this rank passed."""
        own, src, dst = self.plan.self_weight, self.plan.src, self.plan.dst
        return zlib.crc32(repr((own, src, sorted(dst.items()), self.checked)).encode())


def _follow(call: _Call) -> Operation[Outcome]:
    leader = call.mates[0]
    mine = Parcel(call.x, wire(call.x), root=call.claim())
    arrivals = yield from call.send({leader: mine}, [leader])
    answer = arrivals.parcels[leader]
    _raise_refusals(arrivals)
    return Outcome(answer.like, arrivals, wire(call.x).size, (leader,), (leader,))


def _lead(call: _Call) -> Operation[Outcome]:
    gathered = yield from call.send({}, call.mates[1:], borrow=True)
    try:
        outcome = yield from _between(call, gathered)
    except (MismatchError, TopologyMismatchError) as error:
        # Those who wait for the result must hear why there is none.
        yield from call.send(dict.fromkeys(call.mates[1:], _refusal(error)), [])
        raise
    result = Parcel(outcome.result, wire(outcome.result))
    yield from call.send(dict.fromkeys(call.mates[1:], result), [])
    return outcome._replace(
        nbytes=outcome.nbytes + wire(outcome.result).size * len(call.mates[1:]),
        dst=(*call.mates[1:], *outcome.dst),
    )


def _between(call: _Call, gathered: Arrivals) -> Operation[Outcome]:
    """What the leaders do: compare plans where asked, then exchange the machines' means."""
    context, op, plan = call.context, call.op, call.plan
    transport, at = context.transport, call.leaders
    try:
        if call.checked:
            yield from compare(
                context, call.tag, op, src=plan.src, dst=plan.dst, places=at, node="machine"
            )
        own, failure = _mean_of_machine(call, gathered)
    finally:
        gathered.give_back(transport)
    payload, sources = wire(own), [at[m] for m in plan.src]
    outgoing = {
        at[m]: _refusal(failure) if failure else Parcel(own, payload, factor)
        for m, factor in plan.dst.items()
    }
    arrivals = yield from call.send(outgoing, sources, borrow=True)
    try:
        if failure is not None:
            raise failure
        _raise_refusals(arrivals)
        same(op, context.rank, Parcel(own), arrivals.parcels)
        by_machine = {m: arrivals.parcels[at[m]] for m in plan.src}
        result, _ = combine(own, plan, by_machine, room_for(transport, own))
    finally:
        arrivals.give_back(transport)
    yield from returned(transport, arrivals)
    nbytes = payload.size * len(outgoing)
    return Outcome(result, arrivals, nbytes, tuple(outgoing), tuple(sources))


def _mean_of_machine(call: _Call, gathered: Arrivals) -> tuple[torch.Tensor, MismatchError | None]:
    """The mean, or any tensor and why there is none."""
    rank, claim = call.context.rank, call.claim()
    for source, parcel in sorted(gathered.parcels.items()):
        if parcel.root != claim:
            return call.x, MismatchError(
                f"{call.op}: ranks {rank} and {source} are on one machine, but passed different "
                "weights; pass the same on every rank of a machine"
            )
    try:
        same(call.op, rank, Parcel(call.x, root=claim), gathered.parcels)
    except MismatchError as error:
        return call.x, error
    others = [gathered.parcels[mate].like for mate in call.mates[1:]]
    if not others:
        return call.x, None
    return mean(call.x, others, room_for(call.context.transport, call.x)), None


def _refusal(error: MismatchError | TopologyMismatchError) -> Parcel:
    text = torch.tensor(list(str(error).encode()), dtype=torch.uint8, device="cpu")
    kind = next(root for root, kind in _REFUSALS.items() if isinstance(error, kind))
    return Parcel(text, wire(text), root=kind)


def _raise_refusals(arrivals: Arrivals) -> None:
    for _, parcel in sorted(arrivals.parcels.items()):
        if parcel.root in _REFUSALS:
            raise _REFUSALS[parcel.root](bytes(parcel.like.tolist()).decode())
