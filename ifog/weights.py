"""From graphs to numbers: mixing matrices, one rank's share of them, and how fast they mix.

Everything follows the convention of ``ifog.topology``: ``W[v, u]`` is the weight of the edge
``(u, v)`` and a round is ``W @ x``. ``J`` is the matrix whose entries are all 1/n.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import networkx as nx
import numpy as np

from ifog.errors import ArgumentError
from ifog.topology import Matrix, Topology, from_matrix, metropolis_matrix

__all__ = [
    "Weights",
    "contraction",
    "effective_neighbors",
    "is_doubly_stochastic",
    "matrix",
    "metropolis",
    "of_rank",
    "recv_weights",
    "send_weights",
    "spectral_rate",
    "uniform",
]


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


def matrix(graph: Topology) -> Matrix:
    """The mixing matrix, [n, n] float64: ``W[v, u]`` is the weight of ``(u, v)``, 0 without edge.

    An edge without the attribute ``weight`` counts as 1, as everywhere in networkx.
    """
    W = np.zeros((len(graph), len(graph)))
    for u, v, weight in graph.edges(data="weight", default=1.0):
        W[v, u] = weight
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
    for u, v in graph.edges:
        if not graph.has_edge(v, u):
            raise ArgumentError(
                f"metropolis: {u} sends to {v}, but {v} does not send to {u}; "
                "Metropolis weights need both directions of every link"
            )
    links = nx.Graph(graph)
    if counts is None:
        return from_matrix(metropolis_matrix(links), label=_label(graph))
    if len(counts) != len(graph) or min(counts) < 1:
        raise ArgumentError(
            f"metropolis: counts is {list(counts)}; give a positive number for each of the "
            f"{len(graph)} nodes"
        )
    degrees = np.array([sum(u != v for u in links[v]) for v in range(len(graph))])
    share = np.asarray(counts) / (1 + degrees)
    W = nx.to_numpy_array(links, nodelist=range(len(graph)), weight=None)
    np.fill_diagonal(W, 0.0)
    W *= np.minimum.outer(share, share) / np.asarray(counts)[:, None]
    np.fill_diagonal(W, 1.0 - W.sum(axis=1))
    return from_matrix(W, label=_label(graph))


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


def _without_rounding(value: float) -> float:
    # A rate per step takes roots of this: what is 0 in theory must not come out as 1e-16.
    return 0.0 if value < 1e-12 else value


def _label(graph: Topology) -> str:
    return str(graph.graph.get("label", "custom"))
