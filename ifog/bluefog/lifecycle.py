"""BlueFog's start and end, who is where, and the graphs in use."""

from __future__ import annotations

import atexit
import logging
from collections.abc import Callable

import networkx as nx

import ifog
from ifog.bluefog.state import state
from ifog.bluefog.timeline import start_from_environment
from ifog.bluefog.topology_util import ExponentialGraph, IsTopologyEquivalent
from ifog.context import Context, current
from ifog.errors import ArgumentError

__all__ = [
    "get_skip_negotiate_stage",
    "in_neighbor_machine_ranks",
    "in_neighbor_ranks",
    "init",
    "is_homogeneous",
    "is_machine_topo_weighted",
    "is_topo_weighted",
    "load_machine_topology",
    "load_topology",
    "machine_rank",
    "machine_size",
    "mpi_threads_supported",
    "nccl_built",
    "out_neighbor_machine_ranks",
    "out_neighbor_ranks",
    "resume",
    "set_machine_topology",
    "set_skip_negotiate_stage",
    "set_topology",
    "shutdown",
    "suspend",
    "unified_mpi_window_model_supported",
]

_logger = logging.getLogger("bluefog")
_own: Context | None = (
    None  # what init() started here; in an engine of ifog the rank is there first
)


def init(topology_fn: Callable[[int], nx.DiGraph] | None = None, is_weighted: bool = False) -> None:
    """Make this process a rank, and set the topology: by default the exponential graph, unweighted.

    Called again it sets the topology anew; while windows exist the old one stays, which is logged.

    Args:
        topology_fn: number of ranks -> graph.
        is_weighted: whether averaging uses the graph's weights.
    """
    global _own
    if not ifog.is_initialized():
        ifog.init()
        _own = current()
        atexit.register(shutdown)
    start_from_environment()
    make = topology_fn or ExponentialGraph
    set_topology(make(ifog.size()), is_weighted)


def shutdown() -> None:
    """End what ``init`` began; a rank that ifog started goes on to be one."""
    global _own
    if _own is not None and ifog.is_initialized() and current() is _own:
        ifog.shutdown()
    _own = None


def machine_size() -> int:
    """The number of machines.

    Raises:
        AssertionError: they have different numbers of ranks.
    """
    _require_homogeneous()
    return ifog.machine_size()


def machine_rank() -> int:
    """The number of this rank's machine.

    Raises:
        AssertionError: the machines have different numbers of ranks.
    """
    _require_homogeneous()
    return ifog.machine_rank()


def is_homogeneous() -> bool:
    """Whether all machines have equally many ranks, each a run of consecutive ones."""
    return ifog.is_homogeneous()


def nccl_built() -> bool:
    """False: tensors travel through host memory."""
    return False


def mpi_threads_supported() -> int:
    """1 if MPI serves several threads at a time (MPI_THREAD_MULTIPLE), else 0."""
    return int(current().transport.describe()["threads"])


def unified_mpi_window_model_supported() -> bool:
    """True: what a rank writes into a window is what the others see."""
    current()
    return True


def suspend() -> None:
    """Refuse operations until ``resume``."""
    state().suspended = True


def resume() -> None:
    """Accept operations again."""
    state().suspended = False


def set_skip_negotiate_stage(value: bool) -> None:
    """Note whether BlueFog would skip its negotiation; here only ``pair_gossip`` asks for it."""
    if not ifog.is_initialized():
        _logger.error("set_skip_negotiate_stage: call bf.init() first")
        return
    state().skip_negotiate = bool(value)


def get_skip_negotiate_stage() -> bool:
    """What was noted, False at first."""
    return ifog.is_initialized() and state().skip_negotiate


def set_topology(topology: nx.DiGraph | None = None, is_weighted: bool = False) -> bool:
    """Mix over ``topology`` from now on; every rank must call it with the same graph.

    Args:
        topology: a graph over the ranks, by default the exponential one.
        is_weighted: whether averaging uses the graph's weights.

    Returns:
        True, or False while windows exist, which is logged; then the old one stays.

    Raises:
        TypeError: not a DiGraph, or not as many nodes as ranks.
    """
    size = ifog.size()
    if topology is None:
        topology = ExponentialGraph(size)
        if ifog.local_rank() == 0:
            _logger.info("no topology was given; taking the exponential graph")
    _require_graph(topology, size, "ranks")
    context = current()
    if IsTopologyEquivalent(topology, context.graph):
        if bool(is_weighted) != context.weighted and not context.windows:
            context.install(context.graph, weighted=is_weighted)
        return True
    if context.windows:
        names = ", ".join(sorted(context.windows))
        _logger.error("the topology stays: the windows %s exist; free them first", names)
        return False
    return ifog.set_topology(topology, is_weighted)


def load_topology() -> nx.DiGraph | None:
    """The graph in use, the object that was set; None before ``init``."""
    return ifog.load_topology() if ifog.is_initialized() else None


def is_topo_weighted() -> bool:
    """Whether averaging uses the graph's weights."""
    return ifog.is_initialized() and ifog.is_topo_weighted()


def in_neighbor_ranks() -> list[int]:
    """The ranks this one receives from, in the graph's own order; none before ``init``."""
    return ifog.in_neighbor_ranks() if ifog.is_initialized() else []


def out_neighbor_ranks() -> list[int]:
    """The ranks this one sends to, in the graph's own order; none before ``init``."""
    return ifog.out_neighbor_ranks() if ifog.is_initialized() else []


def set_machine_topology(topology: nx.DiGraph, is_weighted: bool = False) -> bool:
    """Mix machines over ``topology`` from now on.

    Returns:
        True.

    Raises:
        ValueError: no topology.
        TypeError: not a DiGraph, or not as many nodes as machines.
        AssertionError: the machines have different numbers of ranks.
    """
    if topology is None:
        raise ArgumentError("set_machine_topology needs a graph over the machines, got None")
    _require_graph(topology, machine_size(), "machines")
    context = current()
    if IsTopologyEquivalent(topology, context.machine_graph):
        if bool(is_weighted) != context.machine_weighted:
            context.install_machines(context.machine_graph, weighted=is_weighted)
        return True
    return ifog.set_machine_topology(topology, is_weighted)


def load_machine_topology() -> nx.DiGraph | None:
    """The object that was set; None before."""
    return ifog.load_machine_topology() if ifog.is_initialized() else None


def is_machine_topo_weighted() -> bool:
    """Whether machines mix with their graph's weights."""
    return ifog.is_initialized() and ifog.is_machine_topo_weighted()


def in_neighbor_machine_ranks() -> list[int]:
    """The machines this one receives from; none when no machine topology is set."""
    return ifog.in_neighbor_machine_ranks() if ifog.is_initialized() else []


def out_neighbor_machine_ranks() -> list[int]:
    """The machines this one sends to; none when no machine topology is set."""
    return ifog.out_neighbor_machine_ranks() if ifog.is_initialized() else []


def _require_graph(topology: object, size: int, nodes: str) -> None:
    if not isinstance(topology, nx.DiGraph):
        raise TypeError(
            f"a topology must be a networkx.DiGraph, got {type(topology).__name__}; "
            "an undirected graph becomes one by .to_directed()"
        )
    if topology.number_of_nodes() != size:
        raise TypeError(
            f"the topology has {topology.number_of_nodes()} nodes, but there are {size} {nodes}"
        )


def _require_homogeneous() -> None:
    if not ifog.is_homogeneous():
        raise AssertionError(
            "the machines do not have equally many consecutive ranks each; machine ranks are "
            "defined for that only"
        )
