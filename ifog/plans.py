"""From the arguments of a neighbour operation to who sends what to whom.

A plan is one rank's share of a round: its row of W (what it applies to what arrives) and the
factors it puts on what leaves. Everything that can be wrong in the arguments is found here, before
anything is sent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import networkx as nx

from ifog import topology as graphs
from ifog.errors import ArgumentError
from ifog.survival import surviving
from ifog.weights import of_rank

if TYPE_CHECKING:
    from ifog.context import Context

__all__ = ["GatherPlan", "Plan", "gather_plan", "machine_plan", "mixing_plan", "pair_plan"]

_ROUNDING = 2.0**-52


@dataclass(frozen=True)
class Plan:
    """One rank's share of a mixing round.

    ``src`` is ascending by rank. ``uniform`` says that self and all of ``src`` have the weight
    1/(len(src) + 1), so that the average is summed first and divided once.
    """

    self_weight: float
    src: dict[int, float]
    dst: dict[int, float]
    uniform: bool
    dynamic: bool

    # Events of all rounds refer to these: a thousand of them wait for the next message to leave.
    @cached_property
    def sources(self) -> tuple[int, ...]:
        """The ranks of ``src``."""
        return tuple(self.src)

    @cached_property
    def destinations(self) -> tuple[int, ...]:
        """The ranks of ``dst``."""
        return tuple(self.dst)

    @cached_property
    def plain(self) -> bool:
        """Whether no factor is put on what leaves."""
        return all(factor == 1.0 for factor in self.dst.values())

    @cached_property
    def shares(self) -> tuple[float, ...]:
        """The weights of a uniform round: the own one, then by source."""
        return (1.0 / (len(self.src) + 1),) * (len(self.src) + 1)


class _Nodes(NamedTuple):
    """What the keys of weights are: the ranks, or the machines."""

    kind: str
    mine: int
    total: int


class GatherPlan(NamedTuple):
    """One rank's share of a gathering round; the result is in the order of ``src``."""

    src: tuple[int, ...]
    dst: tuple[int, ...]
    dynamic: bool


def mixing_plan(
    context: Context,
    *,
    self_weight: float | None,
    src_weights: Mapping[int, float] | None,
    dst_weights: Mapping[int, float] | Sequence[int] | None,
    topology: nx.DiGraph | None,
    op: str,
    name: str | None = None,
) -> Plan:
    """The plan of a ``neighbor_allreduce`` call.

    Raises:
        ArgumentError: naming the argument, what was found, and what to pass instead.
    """
    if self_weight is None and src_weights is None and dst_weights is None and topology is None:
        if context.schedule is not None:
            return _of_graph(context, context.schedule(context.steps[op, name or ""]))
        if context.static_plan is None:
            context.static_plan = _static(context)
        return context.static_plan
    given = [self_weight is not None, src_weights is not None]
    if topology is not None:
        if any(given) or dst_weights is not None:
            raise ArgumentError(f"{op}: pass either topology or weights, not both")
        return _of_graph(context, topology)
    if any(given) and not all(given):
        found = "self_weight" if given[0] else "src_weights"
        raise ArgumentError(
            f"{op}: only {found} was given; pass self_weight and src_weights together, or neither"
        )
    if dst_weights is not None and not all(given):
        raise ArgumentError(f"{op}: dst_weights needs self_weight and src_weights as well")
    assert self_weight is not None
    assert src_weights is not None
    own = _number(self_weight, "self_weight", op)
    nodes = _ranks_of(context)
    src = _keyed(nodes, src_weights, "src_weights", op)
    if dst_weights is None:
        return _static_weighted(context, own, src, op)
    dst = _destinations(nodes, dst_weights, "dst_weights", op)
    src = dict(sorted(src.items()))
    return Plan(own, src, dst, _is_uniform(own, src), True)


def gather_plan(
    context: Context,
    *,
    src_ranks: Iterable[int] | None,
    dst_ranks: Iterable[int] | None,
    op: str,
) -> GatherPlan:
    """The plan of a ``neighbor_allgather`` call.

    Raises:
        ArgumentError: naming the argument, what was found, and what to pass instead.
    """
    if (src_ranks is None) != (dst_ranks is None):
        found = "dst_ranks" if src_ranks is None else "src_ranks"
        raise ArgumentError(
            f"{op}: only {found} was given; pass src_ranks and dst_ranks together, or neither"
        )
    if src_ranks is None or dst_ranks is None:
        weights = context.weights
        return GatherPlan(tuple(sorted(weights.src)), tuple(weights.dst), False)
    nodes = _ranks_of(context)
    src = _destinations(nodes, _unique(src_ranks, "src_ranks", op), "src_ranks", op)
    dst = _destinations(nodes, _unique(dst_ranks, "dst_ranks", op), "dst_ranks", op)
    return GatherPlan(tuple(src), tuple(dst), True)


def machine_plan(
    context: Context,
    *,
    self_weight: float | None,
    src_weights: Mapping[int, float] | None,
    dst_weights: Mapping[int, float] | Sequence[int] | None,
    op: str,
) -> Plan:
    """The plan of a ``hierarchical_neighbor_allreduce`` call, whose nodes are the machines.

    Raises:
        ArgumentError: naming the argument, what was found, and what to pass instead.
    """
    graph, layout = context.machine_graph, context.layout
    given = {
        "self_weight": self_weight,
        "src_machine_weights": src_weights,
        "dst_machine_weights": dst_weights,
    }
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        if graph is None:
            raise ArgumentError(
                f"{op}: there is no machine topology; call set_machine_topology on every rank, "
                "or pass weights"
            )
        weights = context.machine_weights
        src = dict(sorted(weights.src.items()))
        uniform = context.machines_evenly or _is_uniform(weights.self_weight, src)
        return Plan(weights.self_weight, src, dict.fromkeys(weights.dst, 1.0), uniform, False)
    if missing:
        raise ArgumentError(
            f"{op}: {' and '.join(missing)} missing; pass {', '.join(given)} together, or none"
        )
    nodes = _Nodes("machine", layout.machines[context.rank], layout.count)
    own = _number(self_weight, "self_weight", op)
    src = dict(sorted(_keyed(nodes, src_weights, "src_machine_weights", op).items()))
    dst = _destinations(nodes, dst_weights, "dst_machine_weights", op)
    if graph is not None:
        _on_graph(src, graph.predecessors(nodes.mine), "src_machine_weights", nodes, op)
        _on_graph(dst, graph.successors(nodes.mine), "dst_machine_weights", nodes, op)
    return Plan(own, src, dst, _is_uniform(own, src), True)


def pair_plan(
    context: Context,
    target: int,
    self_weight: float | None,
    pair_weight: float | None,
    op: str,
) -> Plan:
    """The plan of a ``pair_gossip`` call.

    Raises:
        ArgumentError: naming the argument, what was found, and what to pass instead.
    """
    if (self_weight is None) != (pair_weight is None):
        found = "pair_weight" if self_weight is None else "self_weight"
        raise ArgumentError(
            f"{op}: only {found} was given; pass self_weight and pair_weight together, or neither"
        )
    own = 0.5 if self_weight is None else _number(self_weight, "self_weight", op)
    theirs = 0.5 if pair_weight is None else _number(pair_weight, "pair_weight", op)
    src = _keyed(_ranks_of(context), {target: theirs}, "target_rank", op)
    return Plan(own, src, dict.fromkeys(src, 1.0), _is_uniform(own, src), True)


def _on_graph(
    keys: Iterable[int], neighbors: Iterable[int], what: str, nodes: _Nodes, op: str
) -> None:
    known = sorted(set(neighbors) - {nodes.mine})
    strangers = sorted(set(keys) - set(known))
    if strangers:
        raise ArgumentError(
            f"{op} on machine {nodes.mine}: {what} names {strangers}, but in the machine topology "
            f"only {known} can be named; name those, or set another machine topology"
        )


def _ranks_of(context: Context) -> _Nodes:
    return _Nodes("rank", context.rank, context.size)


def _static(context: Context) -> Plan:
    weights = context.weights
    src = dict(sorted(weights.src.items()))
    uniform = context.evenly or _is_uniform(weights.self_weight, src)
    return Plan(weights.self_weight, src, dict.fromkeys(weights.dst, 1.0), uniform, False)


def _static_weighted(context: Context, own: float, src: dict[int, float], op: str) -> Plan:
    neighbors = sorted(context.weights.src)
    strangers = sorted(set(src) - set(neighbors))
    if strangers:
        raise ArgumentError(
            f"{op} on rank {context.rank}: src_weights names {strangers}, but the in-neighbours "
            f"in the graph are {neighbors}; name only those, or pass dst_weights as well for a "
            "round off the graph"
        )
    # Neighbours that are not named send all the same: receive and ignore them.
    full = {rank: src.get(rank, 0.0) for rank in neighbors}
    uniform = len(src) == len(full) and _is_uniform(own, full)
    return Plan(own, full, dict.fromkeys(context.weights.dst, 1.0), uniform, False)


def _of_graph(context: Context, topology: nx.DiGraph) -> Plan:
    graphs.check(topology, context.size)
    if len(context.alive) < context.size:
        topology = surviving(topology, context.alive).graph
    weights = of_rank(topology, context.rank, weighted=True)
    src = dict(sorted(weights.src.items()))
    uniform = _is_uniform(weights.self_weight, src)
    return Plan(weights.self_weight, src, dict.fromkeys(weights.dst, 1.0), uniform, True)


def _is_uniform(own: float, src: Mapping[int, float]) -> bool:
    share = 1.0 / (len(src) + 1)
    # What rounding alone can make of an even share: that of one minus the sum of the others.
    # Weights further off are meant, and must not be replaced.
    tolerance = (len(src) + 1) * _ROUNDING
    return all(abs(w - share) <= tolerance for w in (own, *src.values()))


def _destinations(
    nodes: _Nodes, weights: Mapping[int, float] | Iterable[int] | None, what: str, op: str
) -> dict[int, float]:
    if weights is not None and not isinstance(weights, Mapping):
        weights = dict.fromkeys(_unique(weights, what, op), 1.0)
    return _keyed(nodes, weights, what, op)


def _unique(ranks: Iterable[Any], what: str, op: str) -> list[int]:
    found = [int(rank) for rank in ranks]
    if len(set(found)) != len(found):
        raise ArgumentError(f"{op}: {what} names a rank twice: {found}")
    return found


def _keyed(nodes: _Nodes, weights: Any, what: str, op: str) -> dict[int, float]:
    kind, mine, total = nodes
    if not isinstance(weights, Mapping):
        raise ArgumentError(
            f"{op}: {what} must be a dict of {kind} -> weight, got {type(weights).__name__}"
        )
    result = {int(node): _number(weight, what, op) for node, weight in weights.items()}
    for node in result:
        if node == mine or not 0 <= node < total:
            raise ArgumentError(
                f"{op} on {kind} {mine}: {what} names {kind} {node}; the other {kind}s are "
                f"{[other for other in range(total) if other != mine]}"
                + (" (its own share is self_weight)" if node == mine else "")
            )
    return result


def _number(value: Any, what: str, op: str) -> float:
    if not isinstance(value, Real) or not math.isfinite(value):
        raise ArgumentError(f"{op}: a weight in {what} must be a finite number, got {value!r}")
    return float(value)
