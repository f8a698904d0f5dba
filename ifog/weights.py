"""From graphs to numbers: mixing matrices, one rank's share of them, and how fast they mix.

Everything follows the convention of ``ifog.topology``: ``W[v, u]`` is the weight of the edge
``(u, v)`` and a round is ``W @ x``. ``J`` is the matrix whose entries are all 1/n.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, cast

import numpy as np

from ifog.adjacency import Matrix, from_matrix
from ifog.errors import ArgumentError
from ifog.fastest import fastest_mixing
from ifog.links import Links, Topology, Whole, as_links, exchanging, linked_pairs, undirected

__all__ = [
    "Weights",
    "column_stochastic",
    "contraction",
    "effective_neighbors",
    "fastest_mixing",
    "is_doubly_stochastic",
    "matrix",
    "max_degree",
    "metropolis",
    "of_rank",
    "recv_weights",
    "row_stochastic",
    "send_weights",
    "spectral_rate",
    "uniform",
]

G = TypeVar("G", Topology, Links)


@dataclass(frozen=True, slots=True)
class Weights:
    """One rank's share of W: ``y = self_weight x + sum over u in src of src[u] dst_u[v] x_u``.

    Attributes:
        self_weight: what multiplies the rank's own value.
        src: what multiplies that which arrives from each in-neighbour, ascending by rank.
        dst: what multiplies that which leaves for each out-neighbour, ascending by rank.
    """

    self_weight: float
    src: Mapping[int, float]
    dst: Mapping[int, float]


def matrix(graph: Topology | Links) -> Matrix:
    """The mixing matrix, [n, n] float64: ``W[v, u]`` is the weight of ``(u, v)``, 0 without edge.

    An edge without the attribute ``weight`` counts as 1, as everywhere in networkx.
    """
    links = as_links(graph)
    W = np.zeros((links.n, links.n))
    W[links.target, links.source] = links.weight
    return W


def uniform(graph: Topology) -> Topology:
    """The same links, averaged evenly: every rank gives itself and each sender 1/(senders + 1).

    Row-stochastic; doubly stochastic when all ranks have equally many senders and receivers.
    """
    n = len(graph)
    links = (matrix(graph) != 0) | np.eye(n, dtype=bool)
    return from_matrix(links / links.sum(axis=1, keepdims=True), label=_label(graph))


def metropolis(graph: Topology, *, counts: Sequence[int] | None = None) -> Topology:
    """The same links with Metropolis-Hastings weights, doubly stochastic for any undirected graph.

    ``W[v, u] = 1 / (1 + max(deg u, deg v))``, and the self loop takes the rest
    (Xiao, Boyd, Kim 2007). Where node v stands for ``counts[v]`` ranks, the mean over the ranks is
    kept instead of that over the nodes: rows sum to 1 and ``sum_v counts[v] W[v, u] = counts[u]``,
    with ``counts[v] W[v, u] = min(counts[v] / (1 + deg v), counts[u] / (1 + deg u))``
    (Hastings 1970).

    Args:
        graph: the links, each in both directions.
        counts: how many ranks each node stands for; by default 1.

    Raises:
        ArgumentError: a link has no opposite link, or there is not one positive count for a node.
    """
    ends = linked_pairs("metropolis", graph)
    if counts is None:
        return undirected(len(graph), [ends], _label(graph)).graph()
    if len(counts) != len(graph) or min(counts) < 1:
        raise ArgumentError(
            f"metropolis: counts is {list(counts)}; give a positive number for each of the "
            f"{len(graph)} nodes"
        )
    share = np.asarray(counts) / (1 + np.bincount(np.concatenate(ends), minlength=len(graph)))
    W = np.zeros((len(graph), len(graph)))
    W[ends] = W[ends[::-1]] = np.minimum(share[ends[0]], share[ends[1]])
    W /= np.asarray(counts)[:, None]
    np.fill_diagonal(W, 1.0 - W.sum(axis=1))
    return from_matrix(W, label=_label(graph))


def max_degree(graph: G) -> G:
    """The same links with one weight for all: ``1 / (1 + the largest degree)``.

    ``W = I - L / (1 + d)`` with L the Laplacian; the self loop takes the rest. Doubly stochastic
    for any undirected graph; never faster than ``metropolis`` on graphs with a few busy ranks.

    Raises:
        ArgumentError: a link has no opposite link.
    """
    low, high = linked_pairs("max_degree", graph)
    links = as_links(graph)
    degree = np.bincount(np.concatenate([low, high]), minlength=links.n).max()
    return _like(graph, exchanging(links.n, low, high, 1 / (1 + degree), links.label))


def row_stochastic(graph: G) -> G:
    """The graph with its weights scaled so that what each rank hears, itself included, sums to 1.

    A rank without a self loop gets one that weighs as much as its mean link does. Such a round
    keeps agreement but not the mean: values go to ``pi^T x`` with ``pi^T W = pi^T``.

    Raises:
        ArgumentError: some rank's weights do not sum to a positive number.
    """
    links = _with_loops(as_links(graph), "target")
    return _like(graph, _scaled("row_stochastic", links, links.target))


def column_stochastic(graph: G) -> G:
    """The graph with its weights scaled so that what becomes of each rank's value sums to 1.

    A rank without a self loop gets one that weighs as much as its mean link does. Such a round
    keeps the sum over ranks, as push-sum needs it, but not agreement.

    Raises:
        ArgumentError: some rank's weights do not sum to a positive number.

    Example:
        >>> import networkx as nx
        >>> W = matrix(column_stochastic(nx.DiGraph([(0, 1), (0, 2), (1, 0), (2, 0)])))
        >>> W[:, 0].round(3).tolist()
        [0.333, 0.333, 0.333]
    """
    links = _with_loops(as_links(graph), "source")
    return _like(graph, _scaled("column_stochastic", links, links.source))


def of_rank(graph: Topology, rank: int, *, weighted: bool) -> Weights:
    """The share of ``rank``: whom it hears, whom it tells, and the factors.

    Args:
        graph: the topology.
        rank: a node of it.
        weighted: take the weights of the graph. Otherwise only its links count, and the rank
            averages evenly over itself and its senders: 1/(senders + 1).

    Raises:
        ArgumentError: ``rank`` is not a node of the graph.
    """
    if rank not in graph:
        raise ArgumentError(f"rank {rank} is not in the topology, whose ranks are {list(graph)}")
    sources = sorted(u for u in graph.predecessors(rank) if u != rank)
    dst = dict.fromkeys(sorted(v for v in graph.successors(rank) if v != rank), 1.0)
    if not weighted:
        even = 1.0 / (len(sources) + 1)
        return Weights(even, dict.fromkeys(sources, even), dst)
    src = {u: float(graph.edges[u, rank].get("weight", 1.0)) for u in sources}
    own = graph.get_edge_data(rank, rank, {"weight": 0.0}).get("weight", 1.0)
    return Weights(float(own), src, dst)


def recv_weights(graph: Topology, rank: int) -> tuple[float, dict[int, float]]:
    """What ``rank`` makes of what it hears: its own weight, and that of every in-neighbour.

    Returns:
        ``(W[r, r], {u: W[r, u]})`` in the graph's own order of predecessors, the rank left out;
        0.0 without a self loop. What ``self_weight`` and ``src_weights`` of the neighbour
        operations take.

    Raises:
        ArgumentError: ``rank`` is not a node of the graph.
    """
    share = of_rank(graph, rank, weighted=True)
    return share.self_weight, {u: share.src[u] for u in graph.predecessors(rank) if u != rank}


def send_weights(graph: Topology, rank: int) -> tuple[float, dict[int, float]]:
    """What becomes of what ``rank`` says: its own weight, and the weight at every out-neighbour.

    Returns:
        ``(W[r, r], {v: W[v, r]})`` in the graph's own order of successors, the rank left out; 0.0
        without a self loop.

    Raises:
        ArgumentError: ``rank`` is not a node of the graph.
    """
    return recv_weights(graph.reverse(copy=False), rank)


def spectral_rate(W: Matrix) -> float:
    """The second largest eigenvalue modulus: the factor a round takes off the error, in the end.

    ``rho = |lambda_2|`` with ``|lambda_1| >= |lambda_2| >= ...``; 1 - rho is the spectral gap.
    0 for a single rank and where a round gives the mean exactly.
    """
    moduli = np.sort(np.abs(np.linalg.eigvals(W)))
    return _without_rounding(float(moduli[-2])) if len(moduli) > 1 else 0.0


def contraction(W: Matrix) -> float:
    """The largest factor between the errors before and after a round, ``||W - J||_2``.

    For doubly stochastic W; equals ``spectral_rate`` for normal matrices, is never below it.
    """
    return _without_rounding(float(np.linalg.norm(W - 1.0 / len(W), ord=2)))


def effective_neighbors(W: Matrix, *, decay: float = 0.9) -> float:
    """How many ranks one effectively averages with, between 1 and n.

    Values take a random walk ``z <- W (sqrt(decay) z + noise)``; the result is the stationary
    variance of a lone walker divided by that of the mixed ones:
    ``1/(1 - decay) / (mean over k of |lambda_k|^2 / (1 - decay |lambda_k|^2))`` for normal W.
    (Vogels, Hendrikx, Jaggi 2022, arXiv:2206.03093.)

    Raises:
        ArgumentError: ``decay`` is not in [0, 1).
    """
    if not 0 <= decay < 1:
        raise ArgumentError(f"effective_neighbors: decay is {decay}; it must be in [0, 1)")
    covariance, step, remaining = W @ W.T, np.sqrt(decay) * W, decay
    # Doubling: after j turns the sum holds 2^j terms of decay^k W^(k+1) W^(k+1)^T.
    while remaining > 1e-17:
        covariance = covariance + step @ covariance @ step.T
        step, remaining = step @ step, remaining * remaining
    return float(1 / (1 - decay) / (np.trace(covariance) / len(W)))


def is_doubly_stochastic(W: Matrix) -> bool:
    """Whether no entry is negative and all rows and columns sum to 1, up to rounding."""
    sums = np.concatenate([W.sum(axis=0), W.sum(axis=1)])
    return bool((W >= 0).all() and np.allclose(sums, 1.0, rtol=0, atol=1e-12))


def _with_loops(links: Links, end: Literal["source", "target"]) -> Links:
    ends: Whole = getattr(links, end)
    count, total = np.bincount(ends, minlength=links.n), np.bincount(ends, links.weight, links.n)
    missing = np.setdiff1d(np.arange(links.n), links.source[links.source == links.target])
    mean = np.where(count > 0, total / np.maximum(count, 1), 1.0)
    return Links(
        links.n,
        np.concatenate([links.source, missing]),
        np.concatenate([links.target, missing]),
        np.concatenate([links.weight, mean[missing]]),
        links.label,
    )


def _scaled(what: str, links: Links, ends: Whole) -> Links:
    total = np.bincount(ends, links.weight, links.n)
    if not (total > 0).all():
        rank = int(np.argmin(total))
        raise ArgumentError(
            f"{what}: the weights of rank {rank} sum to {total[rank]:.3g}; they must sum to more "
            "than 0 to be scaled to 1"
        )
    return replace(links, weight=links.weight / total[ends])


def _like(graph: G, links: Links) -> G:
    found: Any = links if isinstance(graph, Links) else links.graph()
    return cast("G", found)


def _without_rounding(value: float) -> float:
    # A rate per step takes roots of this: what is 0 in theory must not come out as 1e-16.
    return 0.0 if value < 1e-12 else value


def _label(graph: Topology) -> str:
    return str(graph.graph.get("label", "custom"))
