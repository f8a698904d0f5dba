"""BlueFog's graphs, its dynamic generators, and its helpers for weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import networkx as nx
import numpy as np
import numpy.typing as npt

import ifog
from ifog import topology as graphs
from ifog.errors import ArgumentError
from ifog.schedules import (
    exponential_machines,
    inner_outer_exponential,
    inner_outer_ring,
    one_peer,
    send_recv,
)

__all__ = [
    "ExponentialGraph",
    "ExponentialTwoGraph",
    "FullyConnectedGraph",
    "GetDynamicOnePeerSendRecvRanks",
    "GetExp2DynamicSendRecvMachineRanks",
    "GetInnerOuterExpo2DynamicSendRecvRanks",
    "GetInnerOuterRingDynamicSendRecvRanks",
    "GetRecvWeights",
    "GetSendWeights",
    "InferDestinationFromSourceRanks",
    "InferSourceFromDestinationRanks",
    "IsRegularGraph",
    "IsTopologyEquivalent",
    "MeshGrid2DGraph",
    "RingGraph",
    "StarGraph",
    "SymmetricExponentialGraph",
    "isPowerOf",
]

T = TypeVar("T")
SendRecv = Iterator[tuple[list[int], list[int]]]


def _asserted(make: Callable[[], T]) -> T:
    # BlueFog checks the arguments of generators by assert.
    try:
        return make()
    except ArgumentError as error:
        raise AssertionError(str(error)) from None


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def ExponentialTwoGraph(size: int) -> nx.DiGraph:  # noqa: N802 - BlueFog's name
    """Each rank sends to those 1, 2, 4, ... further on; uniform weights."""
    return _asserted(lambda: graphs.exponential(size))


def ExponentialGraph(size: int, base: int = 2) -> nx.DiGraph:  # noqa: N802 - BlueFog's name
    """Each rank sends to those 1, base, base^2, ... further on; uniform weights."""
    return _asserted(lambda: graphs.exponential(size, base=base))


def SymmetricExponentialGraph(size: int, base: int = 4) -> nx.DiGraph:  # noqa: N802 - BlueFog's name
    """The exponential graph, both ways round; uniform weights."""
    return _asserted(lambda: graphs.symmetric_exponential(size, base=base))


def FullyConnectedGraph(size: int) -> nx.DiGraph:  # noqa: N802 - BlueFog's name
    """Every rank sends to every rank; each weight is 1/size."""
    return _asserted(lambda: graphs.complete(size))


def RingGraph(size: int, connect_style: int = 0) -> nx.DiGraph:  # noqa: N802 - BlueFog's name
    """The cycle; ``connect_style`` 0 sends both ways, 1 to rank - 1, 2 to rank + 1."""
    styles = {0: "both", 1: "left", 2: "right"}
    _require(connect_style in styles, f"connect_style is {connect_style!r}; use 0, 1 or 2")
    return _asserted(lambda: graphs.ring(size, style=styles[connect_style]))  # type: ignore[arg-type] # one of the three


def StarGraph(size: int, center_rank: int = 0) -> nx.DiGraph:  # noqa: N802 - BlueFog's name
    """Every rank exchanges with ``center_rank`` only."""
    return _asserted(lambda: graphs.star(size, center=center_rank))


def MeshGrid2DGraph(  # noqa: N802 - BlueFog's name
    size: int, shape: tuple[int, int] | None = None
) -> nx.DiGraph:
    """A grid, numbered row by row, with Metropolis weights."""
    return _asserted(lambda: graphs.grid2d(size, shape=shape))


def GetRecvWeights(  # noqa: N802 - BlueFog's name
    topo: nx.DiGraph, rank: int
) -> tuple[float, dict[int, float]]:
    """(the self weight, {j: weight of j -> rank}), in the graph's own order."""
    own = topo.get_edge_data(rank, rank, {"weight": 0.0}).get("weight", 1.0)
    weights = {
        j: float(topo.edges[j, rank].get("weight", 1.0))
        for j in topo.predecessors(rank)
        if j != rank
    }
    return float(own), weights


def GetSendWeights(  # noqa: N802 - BlueFog's name
    topo: nx.DiGraph, rank: int
) -> tuple[float, dict[int, float]]:
    """(the self weight, {j: weight of rank -> j}), in the graph's own order."""
    return GetRecvWeights(topo.reverse(copy=False), rank)


def IsTopologyEquivalent(  # noqa: N802 - BlueFog's name
    topo1: nx.DiGraph | None, topo2: nx.DiGraph | None
) -> bool:
    """Whether both have exactly the same edges with the same weights."""
    if topo1 is None or topo2 is None:
        return False
    if set(topo1) != set(topo2) or topo1.number_of_edges() != topo2.number_of_edges():
        return False
    weights = dict(topo2.edges.items())
    return all(
        edge in weights and data.get("weight", 1.0) == weights[edge].get("weight", 1.0)
        for edge, data in topo1.edges.items()
    )


def IsRegularGraph(topo: nx.DiGraph) -> bool:  # noqa: N802 - BlueFog's name
    """Whether all nodes have the same number of edges, in and out together."""
    return len({degree for _, degree in topo.degree}) <= 1


def isPowerOf(x: int, base: int) -> bool:  # noqa: N802 - BlueFog's name
    """Whether x is ``base`` to some whole power from 0 on."""
    _require(isinstance(base, int) and base > 1, f"base is {base!r}; it must be an int above 1")
    _require(x > 0, f"x is {x!r}; it must be positive")
    power = 1
    while power < x:
        power *= base
    return power == x


def GetDynamicOnePeerSendRecvRanks(topo: nx.DiGraph, self_rank: int) -> SendRecv:  # noqa: N802 - BlueFog's name
    """Each round one out-neighbour in turn, clockwise by distance; whom that gives to hear."""
    yield from send_recv(one_peer(topo), self_rank)


def GetExp2DynamicSendRecvMachineRanks(  # noqa: N802 - BlueFog's name
    world_size: int, local_size: int, self_rank: int, local_rank: int
) -> SendRecv:
    """Each round the machine 1, 2, 4, ... further on; yields machines."""
    _require(
        self_rank % local_size == local_rank,
        f"rank {self_rank} of machines of {local_size} has no local rank {local_rank}",
    )
    _require(
        world_size % local_size == 0, f"{world_size} ranks do not fill machines of {local_size}"
    )
    _require(world_size > local_size, "there is only one machine")
    yield from send_recv(exponential_machines(world_size, local_size), self_rank // local_size)


def GetInnerOuterRingDynamicSendRecvRanks(  # noqa: N802 - BlueFog's name
    world_size: int, local_size: int, self_rank: int
) -> SendRecv:
    """Each round one rank of a machine sends to the next machine, the others round their own."""
    schedule = _asserted(lambda: inner_outer_ring(world_size, local_size))
    yield from send_recv(schedule, self_rank)


def GetInnerOuterExpo2DynamicSendRecvRanks(  # noqa: N802 - BlueFog's name
    world_size: int, local_size: int, self_rank: int
) -> SendRecv:
    """The same by powers of two, between and within machines."""
    schedule = _asserted(lambda: inner_outer_exponential(world_size, local_size))
    yield from send_recv(schedule, self_rank)


def InferSourceFromDestinationRanks(  # noqa: N802 - BlueFog's name
    dst_ranks: list[int], construct_adjacency_matrix: bool = False
) -> list[int] | tuple[list[int], npt.NDArray[np.float64]]:
    """The ranks that name this one as a destination; every rank must call it.

    With ``construct_adjacency_matrix`` also the column-normalised matrix of who sends to whom.
    """
    _require_others(dst_ranks)
    if construct_adjacency_matrix:
        return ifog.infer_source_from_destination_ranks(dst_ranks, construct_adjacency_matrix=True)
    return ifog.infer_source_from_destination_ranks(dst_ranks)


def InferDestinationFromSourceRanks(  # noqa: N802 - BlueFog's name
    src_ranks: list[int], construct_adjacency_matrix: bool = False
) -> list[int] | tuple[list[int], npt.NDArray[np.float64]]:
    """The ranks that name this one as a source; every rank must call it.

    With ``construct_adjacency_matrix`` also the column-normalised matrix of who sends to whom.
    """
    _require_others(src_ranks)
    if construct_adjacency_matrix:
        return ifog.infer_destination_from_source_ranks(src_ranks, construct_adjacency_matrix=True)
    return ifog.infer_destination_from_source_ranks(src_ranks)


def _require_others(ranks: Sequence[Any]) -> None:
    me, size = ifog.rank(), ifog.size()
    wrong = [r for r in ranks if not isinstance(r, int) or not 0 <= r < size or r == me]
    _require(not wrong, f"{wrong} are not other ranks; on rank {me} name ints of 0..{size - 1}")
    _require(len(set(ranks)) == len(ranks), f"{list(ranks)} names a rank twice")
