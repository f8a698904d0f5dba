"""From the arguments of a neighbour operation to who sends what to whom.

A plan is one rank's share of a round: its row of W (what it applies to what arrives) and the
factors it puts on what leaves. Everything that can be wrong in the arguments is found here, before
anything is sent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import TYPE_CHECKING, Any, NamedTuple

import networkx as nx

from ifog import topology as graphs
from ifog.errors import ArgumentError
from ifog.weights import of_rank

if TYPE_CHECKING:
    from ifog.context import Context

__all__ = ["GatherPlan", "Plan", "gather_plan", "mixing_plan"]

_UNIFORM_TOLERANCE = 1e-12


class Plan(NamedTuple):
    """One rank's share of a mixing round.

    ``src`` is ascending by rank. ``uniform`` says that self and all of ``src`` have the weight
    1/(len(src) + 1), so that the average is summed first and divided once.
    """

    self_weight: float
    src: dict[int, float]
    dst: dict[int, float]
    uniform: bool
    dynamic: bool


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
) -> Plan:
    """The plan of a ``neighbor_allreduce`` call.

    Raises:
        ArgumentError: naming the argument, what was found, and what to pass instead.
    """
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
    if self_weight is None or src_weights is None:
        return _static(context)
    own = _number(self_weight, "self_weight", op)
    src = _ranks(context, src_weights, "src_weights", op)
    if dst_weights is None:
        return _static_weighted(context, own, src, op)
    dst = _destinations(context, dst_weights, op)
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
    src = _ranks(context, dict.fromkeys(_unique(src_ranks, "src_ranks", op), 1.0), "src_ranks", op)
    dst = _ranks(context, dict.fromkeys(_unique(dst_ranks, "dst_ranks", op), 1.0), "dst_ranks", op)
    return GatherPlan(tuple(src), tuple(dst), True)


def _static(context: Context) -> Plan:
    weights = context.weights
    src = dict(sorted(weights.src.items()))
    uniform = not context.weighted or _is_uniform(weights.self_weight, src)
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
    weights = of_rank(topology, context.rank, weighted=True)
    src = dict(sorted(weights.src.items()))
    uniform = _is_uniform(weights.self_weight, src)
    return Plan(weights.self_weight, src, dict.fromkeys(weights.dst, 1.0), uniform, True)


def _is_uniform(own: float, src: Mapping[int, float]) -> bool:
    share = 1.0 / (len(src) + 1)
    return all(abs(w - share) <= _UNIFORM_TOLERANCE for w in (own, *src.values()))


def _destinations(
    context: Context, dst_weights: Mapping[int, float] | Iterable[int], op: str
) -> dict[int, float]:
    if not isinstance(dst_weights, Mapping):
        dst_weights = dict.fromkeys(_unique(dst_weights, "dst_weights", op), 1.0)
    return _ranks(context, dst_weights, "dst_weights", op)


def _unique(ranks: Iterable[Any], what: str, op: str) -> list[int]:
    found = [int(rank) for rank in ranks]
    if len(set(found)) != len(found):
        raise ArgumentError(f"{op}: {what} names a rank twice: {found}")
    return found


def _ranks(context: Context, weights: Any, what: str, op: str) -> dict[int, float]:
    if not isinstance(weights, Mapping):
        raise ArgumentError(
            f"{op}: {what} must be a dict of rank -> weight, got {type(weights).__name__}"
        )
    result = {int(rank): _number(weight, what, op) for rank, weight in weights.items()}
    for rank in result:
        if rank == context.rank or not 0 <= rank < context.size:
            raise ArgumentError(
                f"{op} on rank {context.rank}: {what} names rank {rank}; the other ranks are "
                f"{[r for r in range(context.size) if r != context.rank]}"
                + (" (its own share is self_weight)" if rank == context.rank else "")
            )
    return result


def _number(value: Any, what: str, op: str) -> float:
    if not isinstance(value, Real) or not math.isfinite(value):
        raise ArgumentError(f"{op}: a weight in {what} must be a finite number, got {value!r}")
    return float(value)
