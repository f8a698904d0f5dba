"""Graphs of one's own, from matrices and lists of neighbours, and what is refused as a graph.

Everything follows the convention of ``ifog.topology``: ``W[v, u]`` is the weight of the edge
``(u, v)``, over which u sends to v.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import networkx as nx
import numpy as np
import numpy.typing as npt

from ifog.errors import ArgumentError
from ifog.links import Links, Topology, averaging, generator, require_size, undirected

__all__ = [
    "Matrix",
    "check",
    "equivalent",
    "from_adjacency",
    "from_matrix",
    "is_regular",
    "metropolis_matrix",
]

Matrix: TypeAlias = npt.NDArray[np.float64]


def from_matrix(W: npt.ArrayLike, *, label: str = "custom") -> Topology:
    """The graph of a mixing matrix: a round is ``W @ x``, so ``W[v, u]`` is what v makes of u.

    Zeros give no edge. The matrix need not be stochastic.

    Raises:
        ArgumentError: ``W`` is not a finite square matrix.
    """
    matrix = _square("from_matrix", "W", W)
    target, source = np.nonzero(matrix)
    return Links(len(matrix), source, target, matrix[target, source], label).graph()


@generator
def from_adjacency(
    links: npt.ArrayLike | Mapping[int, Sequence[int]], *, label: str = "custom"
) -> Links:
    """The graph of your own links, weighted so that it mixes.

    Links that all go both ways get Metropolis weights, doubly stochastic. Otherwise every rank
    averages evenly over itself and its senders: row-stochastic, which does not keep the mean; for
    the other choice see ``weights.column_stochastic``.

    Args:
        links: {rank: the ranks it sends to} with every rank as a key, or an n x n matrix whose
            entry [u, v] is not 0 where u sends to v. Self loops do not count.
        label: a short name for tables and pictures.

    Raises:
        ArgumentError: a rank that is not there, or not a square matrix.

    Example:
        >>> from_adjacency({0: [1], 1: [0, 2], 2: [1]}).edges[0, 1]["weight"] == 1 / 3
        True
    """
    if isinstance(links, Mapping):
        n, pairs = len(links), [(u, v) for u, to in links.items() for v in to]
        require_size("from_adjacency", n)
        strange = {*links, *(v for _, v in pairs)} - set(range(n))
        if strange:
            raise ArgumentError(
                f"from_adjacency: there is a rank {min(strange, key=str)!r}, but {n} keys stand "
                f"for the ranks 0..{n - 1}"
            )
        source, target = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    else:
        there = _square("from_adjacency", "links", links)
        n, (source, target) = len(there), np.nonzero(there)
    keys = np.unique((source * n + target)[source != target])
    source, target = keys // n, keys % n
    if np.array_equal(np.sort(target * n + source), keys):
        return undirected(n, [(source, target)], label)
    return averaging(n, source, target, label)


def metropolis_matrix(links: nx.Graph) -> Matrix:
    """Metropolis-Hastings weights of an undirected graph over nodes 0..n-1.

    ``W[v, u] = 1 / (1 + max(deg u, deg v))`` for linked u and v, self loops not counted, and
    ``W[v, v]`` is what is missing to 1. Symmetric and doubly stochastic for any graph
    (Xiao, Boyd, Kim 2007, "Distributed average consensus with least-mean-square deviation").
    """
    ends = np.array(links.edges, dtype=np.int64).reshape(-1, 2)
    made = undirected(len(links), [(ends[:, 0], ends[:, 1])], "")
    matrix = np.zeros((len(links), len(links)))
    matrix[made.target, made.source] = made.weight
    return matrix


def check(graph: Any, n: int, *, nodes: str = "ranks") -> None:
    """Refuse what cannot be the topology of ``n`` ranks (or other ``nodes``).

    Raises:
        ArgumentError: not a DiGraph, wrong number or names of nodes, or a weight that is not a
            finite number. An edge without weight counts as 1.
    """
    if not isinstance(graph, nx.DiGraph) or graph.is_multigraph():
        raise ArgumentError(
            f"a topology must be a networkx.DiGraph, this is a {type(graph).__name__}; "
            "use ifog.ring(n) and the like, ifog.from_matrix(W), or graph.to_directed()"
        )
    if graph.number_of_nodes() != n:
        raise ArgumentError(
            f"the topology has {graph.number_of_nodes()} nodes, but there are {n} {nodes}; "
            f"make it for {n}"
        )
    strange = [node for node in graph if node not in range(n)]
    if strange:
        raise ArgumentError(
            f"the topology has a node {strange[0]!r}; nodes must be the {nodes} 0..{n - 1} "
            "(networkx.convert_node_labels_to_integers numbers them)"
        )
    for u, v, weight in graph.edges(data="weight", default=1.0):
        if not _is_finite(weight):
            raise ArgumentError(
                f"the weight of edge {u} -> {v} is {weight!r}; weights must be finite numbers"
            )


def equivalent(a: Topology | None, b: Topology | None) -> bool:
    """Whether two graphs have the same nodes, links and weights; False where one is None.

    Nodes are compared by name, not up to renumbering. An edge without weight counts as 1.
    """
    if a is None or b is None or set(a) != set(b):
        return False
    first, second = (
        {(u, v): weight for u, v, weight in graph.edges(data="weight", default=1.0)}
        for graph in (a, b)
    )
    return first == second


def is_regular(graph: Topology) -> bool:
    """Whether all ranks have equally many links, in and out together; a self loop counts twice."""
    return len({degree for _, degree in graph.degree}) <= 1


def _square(name: str, what: str, given: npt.ArrayLike) -> Matrix:
    try:
        matrix = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{name}: {what} is not a matrix of real numbers: {error}") from error
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise ArgumentError(
            f"{name}: {what} must be n x n with n >= 1, its shape is {matrix.shape}"
        )
    wrong = np.argwhere(~np.isfinite(matrix))
    if wrong.size:
        row, column = wrong[0]
        raise ArgumentError(
            f"{name}: {what}[{row}, {column}] is {matrix[row, column]}; weights must be finite"
        )
    return matrix


def _is_finite(weight: Any) -> bool:
    try:
        return bool(math.isfinite(weight))
    except (TypeError, ValueError, OverflowError):
        return False
