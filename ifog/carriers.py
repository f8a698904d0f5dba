"""Rows of tensors from rank to rank: what lets a rank host many agents.

Each rank sends each other one only the rows that agents there hear, all tensors of a round in one
message.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ifog.agents import Graph, MatrixMixer
from ifog.algorithms.base import Under
from ifog.context import Context, current
from ifog.errors import MismatchError
from ifog.exchange import Arrivals, Parcel, exchange, wire
from ifog.handle import Handle, Operation
from ifog.hosting import Traffic
from ifog.mixing import Round
from ifog.operation import Outcome, launch
from ifog.ops import allreduce_nonblocking
from ifog.recount import Recount
from ifog.squeezing import squeezed, unsqueezed

__all__ = ["agent_mixer"]

_OP = "agent_mixer"
_ROUND = "neighbor_agents"  # a round of neighbours, which is what live views count


def agent_mixer(graph: Graph, *, squeeze: bool = False, name: str | None = None) -> MatrixMixer:
    """The mixer of as many agents as the graph has nodes, spread evenly over the ranks.

    Rank r hosts a contiguous block of them: with 4 ranks and ``ifog.ring(16)`` agents 4 r to
    4 r + 3. Tensors are [agents here, ...]. Every rank must make it with the same graph, and call
    it as often as the others.

    Args:
        graph: a digraph whose weights are used, arrays of edges, or a schedule.
        squeeze: send rows with few entries that are not zero, or with few different values, in
            fewer bytes, the same to the bit; for methods that compress. It takes time to find out.
        name: what timelines call the rounds.

    Raises:
        ArgumentError: not a graph, or fewer agents than ranks.

    Example:
        >>> import torch, ifog
        >>> ifog.init()
        >>> mix = ifog.agent_mixer(ifog.complete(4))
        >>> mix(mix.agents[:, None].double()).flatten().tolist()
        [1.5, 1.5, 1.5, 1.5]
    """
    return MatrixMixer(graph, _Ranks(squeeze, name))


class _Ranks:
    """The ranks of the context in use."""

    def __init__(self, squeeze: bool, name: str | None) -> None:
        context = current()
        self.me, self.count = context.rank, context.size
        self._squeeze, self._name = squeeze, name
        self._recount = Recount()

    def tables(self, xs: Sequence[Tensor], traffic: Traffic) -> Under:
        return _rows_nonblocking(xs, traffic, self._squeeze, self._name)

    def sums(self, xs: Sequence[Tensor]) -> Under:
        handles = [allreduce_nonblocking(x) for x in xs]
        return Round(tuple(handles), lambda means: [mean * self.count for mean in means])

    def resumed(self, step: int) -> int:
        return self._recount.agree(_OP, step)[0] if self._recount.due else step


def _rows_nonblocking(
    xs: Sequence[Tensor], traffic: Traffic, squeeze: bool, name: str | None
) -> Handle[list[Tensor]]:
    """Start to exchange rows; gives for each x its table of all rows, by rank."""
    tensors = [x.detach() for x in xs]
    by_dtype: dict[torch.dtype, list[int]] = {}
    for place, x in enumerate(tensors):
        by_dtype.setdefault(x.dtype, []).append(place)

    def body(context: Context, tag: int) -> Operation[Outcome]:
        tables: dict[int, Tensor] = {}
        nbytes = 0
        for places in by_dtype.values():
            group = [tensors[place] for place in places]
            outgoing = {rank: _parcel(group, rows, squeeze) for rank, rows in traffic.send.items()}
            sources = tuple(traffic.receive)
            arrivals = yield from exchange(context.transport, tag, outgoing, sources)
            nbytes += sum(parcel.like.nbytes for parcel in outgoing.values())
            open_ = _unsqueezed if squeeze else _opened
            came = open_(context.rank, group, traffic.receive, arrivals)
            for number, place in enumerate(places):
                tables[place] = _table(context.rank, group[number], came, number)
        found = [tables[place] for place in range(len(tensors))]
        return Outcome(found, arrivals, nbytes, tuple(traffic.send), sources)

    return launch(_ROUND, name, {*traffic.send, *traffic.receive}, body)


def _parcel(xs: Sequence[Tensor], rows: Tensor, squeeze: bool) -> Parcel:
    chosen = [x[rows.to(x.device)] for x in xs]
    flat = torch.cat([squeezed(x) if squeeze else x.reshape(-1).cpu() for x in chosen])
    return Parcel(flat, wire(flat))


def _opened(
    rank: int, xs: Sequence[Tensor], expected: Mapping[int, int], arrivals: Arrivals
) -> dict[int, list[Tensor]]:
    """What came from each rank, as rows of each x."""
    came = {}
    for source, rows in expected.items():
        flat = arrivals.parcels[source].like
        sizes = [rows * math.prod(x.shape[1:]) for x in xs]
        if flat.dtype != xs[0].dtype or flat.numel() != sum(sizes):
            raise MismatchError(
                f"{_OP}: rank {rank} expects {sum(sizes)} numbers ({xs[0].dtype}) of {rows} agents "
                f"from rank {source}, which sent {flat.numel()} ({flat.dtype}); use the same "
                "graph, and tensors of the same shape and dtype, on every rank"
            )
        parts = torch.split(flat, sizes)
        came[source] = [
            part.view(rows, *x.shape[1:]).to(x.device) for part, x in zip(parts, xs, strict=True)
        ]
    return came


def _unsqueezed(
    rank: int, xs: Sequence[Tensor], expected: Mapping[int, int], arrivals: Arrivals
) -> dict[int, list[Tensor]]:
    """As ``_opened``, of rows that were squeezed."""
    came: dict[int, list[Tensor]] = {}
    for source, rows in expected.items():
        rest, came[source] = arrivals.parcels[source].like, []
        if rest.dtype != torch.uint8:
            raise MismatchError(
                f"{_OP}: rank {rank} squeezes its rows and rank {source} does not; make the mixer "
                "with the same squeeze on every rank"
            )
        for x in xs:
            found, rest = unsqueezed(rest, rows, x)
            came[source].append(found.to(x.device))
        if len(rest):
            raise MismatchError(
                f"{_OP}: rank {source} sent {len(rest)} bytes more than rank {rank} expects; use "
                "tensors of the same shape and dtype on every rank"
            )
    return came


def _table(rank: int, own: Tensor, came: Mapping[int, list[Tensor]], number: int) -> Tensor:
    pieces = {source: tensors[number] for source, tensors in came.items()} | {rank: own}
    return torch.cat([pieces[source] for source in sorted(pieces)])
