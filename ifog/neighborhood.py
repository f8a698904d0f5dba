"""The graph over which ranks mix: set by all of them together, and what a rank sees of it."""

from __future__ import annotations

import hashlib
from typing import Any

import networkx as nx

from ifog import topology as graphs
from ifog.context import current
from ifog.errors import ArgumentError
from ifog.ops import agree
from ifog.rounds import Schedule, mean_graph
from ifog.schedules import named

__all__ = [
    "fingerprint",
    "in_neighbor_ranks",
    "is_topo_weighted",
    "load_topology",
    "out_neighbor_ranks",
    "set_topology",
]


def set_topology(
    topology: nx.DiGraph | Schedule | str | None = None, is_weighted: bool = False
) -> bool:
    """Mix over ``topology`` from now on; every rank must call it with the same graph.

    Edge (u, v) means that u sends to v, and its ``weight`` is what v applies to u's value.

    Of a schedule ``neighbor_allreduce`` uses one round after the other, with their weights, and
    all ranks compare their part of each round. What asks for *the* graph (neighbours, windows,
    pictures) gets the mean of a period, or of 64 rounds of a random one.

    Args:
        topology: a graph over the nodes 0..size-1, a schedule, the name of one of them ("ring",
            "one-peer"), or None for the exponential graph.
        is_weighted: average with the graph's weights; otherwise every in-neighbour and the rank
            itself get 1/(indegree + 1).

    Returns:
        True.

    Raises:
        ArgumentError: not a directed graph over these ranks, or windows exist: their buffers
            belong to the neighbours of the graph in use.
        MismatchError: the ranks passed different graphs.
    """
    context = current()
    if isinstance(topology, str):
        topology = named(topology, context.size)
        if topology.period == 1:
            topology = topology(0)
    graph, schedule = _declared(graphs.exponential(context.size) if topology is None else topology)
    graphs.check(graph, context.size)
    mine = fingerprint(graph, is_weighted or schedule is not None)
    agree("set_topology", mine + (b"" if schedule is None else _first_rounds(schedule)))
    if not context.windows:
        weighted = is_weighted or schedule is not None
        context.install(graph, weighted=weighted, schedule=schedule)
    elif schedule is not None or mine != fingerprint(context.declared, context.weighted):
        raise ArgumentError(
            f"set_topology: the windows {sorted(context.windows)} are laid out for the graph in "
            "use; free them first (ifog.win_free())"
        )
    return True


def fingerprint(graph: nx.DiGraph, is_weighted: bool) -> bytes:
    """A digest of a graph's edges and weights, equal for equal ones."""
    edges = sorted((u, v, float(w)) for u, v, w in graph.edges(data="weight", default=1.0))
    return hashlib.sha256(repr((edges, is_weighted)).encode()).digest()


def _declared(topology: Any) -> tuple[nx.DiGraph, Schedule | None]:
    if callable(topology) and not isinstance(topology, nx.Graph):
        return mean_graph(topology), topology
    return topology, None


def _first_rounds(schedule: Schedule) -> bytes:
    return b"".join(fingerprint(schedule(step), True) for step in range(4))


def load_topology() -> nx.DiGraph:
    """The graph in use: the object that was passed to ``set_topology``, as long as all live."""
    return current().graph


def is_topo_weighted() -> bool:
    """Whether averaging uses the weights of the graph in use."""
    return current().weighted


def in_neighbor_ranks() -> list[int]:
    """The ranks this one receives from, itself excluded, in the graph's own order."""
    context = current()
    return [u for u in context.graph.predecessors(context.rank) if u != context.rank]


def out_neighbor_ranks() -> list[int]:
    """The ranks this one sends to, itself excluded, in the graph's own order."""
    context = current()
    return [v for v in context.graph.successors(context.rank) if v != context.rank]
