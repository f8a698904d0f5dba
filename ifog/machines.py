"""Machines as nodes: which of them this rank is on, and the graph over which they mix.

The machines are those of the wire (ranks that share memory), or runs of k consecutive ranks where
``IFOG_RANKS_PER_MACHINE=k`` (or ``BLUEFOG_NODES_PER_MACHINE=k``) is set when ``init`` is called.
They may have different numbers of ranks.
"""

from __future__ import annotations

import networkx as nx

from ifog import topology as graphs
from ifog.context import current
from ifog.errors import ArgumentError
from ifog.neighborhood import fingerprint
from ifog.ops import agree

__all__ = [
    "in_neighbor_machine_ranks",
    "is_homogeneous",
    "is_machine_topo_weighted",
    "load_machine_topology",
    "local_rank",
    "local_size",
    "machine_rank",
    "machine_size",
    "out_neighbor_machine_ranks",
    "ranks_per_machine",
    "set_machine_topology",
]


def local_rank() -> int:
    """This rank among the ranks of its machine, from 0."""
    context = current()
    return context.layout.mates(context.rank).index(context.rank)


def local_size() -> int:
    """The number of ranks on this machine."""
    context = current()
    return len(context.layout.mates(context.rank))


def machine_rank() -> int:
    """The number of this rank's machine, from 0 to ``machine_size() - 1``."""
    context = current()
    return context.layout.machines[context.rank]


def machine_size() -> int:
    """The number of machines."""
    return current().layout.count


def ranks_per_machine() -> list[int]:
    """The number of ranks on every machine."""
    return list(current().layout.sizes())


def is_homogeneous() -> bool:
    """Whether all machines have equally many ranks, each a run of consecutive ones."""
    return current().layout.homogeneous


def set_machine_topology(topology: nx.DiGraph | str, is_weighted: bool = False) -> bool:
    """Mix machines over ``topology`` from now on; every rank must call it with the same graph.

    Args:
        topology: a graph over the machines 0..machine_size-1, or the name of one ("ring").
        is_weighted: average with the graph's weights; otherwise every in-neighbour and the machine
            itself get 1/(indegree + 1).

    Returns:
        True.

    Raises:
        ArgumentError: not a directed graph over the machines.
        MismatchError: the ranks passed different graphs.
    """
    context = current()
    count = context.layout.count
    if topology is None:
        raise ArgumentError(
            "set_machine_topology needs a graph over the machines; for the exponential one pass "
            f"ifog.exponential({count})"
        )
    graph = graphs.named(topology, count) if isinstance(topology, str) else topology
    graphs.check(graph, count, nodes="machines")
    agree("set_machine_topology", fingerprint(graph, is_weighted))
    context.install_machines(graph, weighted=is_weighted)
    return True


def load_machine_topology() -> nx.DiGraph | None:
    """The object that was passed to ``set_machine_topology``; None before."""
    return current().machine_graph


def is_machine_topo_weighted() -> bool:
    """Whether machines mix with their graph's weights."""
    return current().machine_weighted


def in_neighbor_machine_ranks() -> list[int]:
    """The machines this one receives from, itself excluded, in the graph's own order."""
    graph, mine = current().machine_graph, machine_rank()
    return [] if graph is None else [m for m in graph.predecessors(mine) if m != mine]


def out_neighbor_machine_ranks() -> list[int]:
    """The machines this one sends to, itself excluded, in the graph's own order."""
    graph, mine = current().machine_graph, machine_rank()
    return [] if graph is None else [m for m in graph.successors(mine) if m != mine]
