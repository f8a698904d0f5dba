"""Static communication graphs, as weighted networkx digraphs.

The convention of the whole project, stated once: an edge ``(u, v)`` means u sends to v, and its
``weight`` is the coefficient v applies to u's value. Self loops carry the self weights, nodes are
the ranks 0..n-1, and one round of mixing is ``x_v = sum over u of W[v, u] x_u`` with ``W[v, u]``
the weight of the edge ``(u, v)``. Every generator below is doubly stochastic, so it keeps the mean.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable
from typing import Any, Literal, TypeAlias

import networkx as nx
import numpy as np
import numpy.typing as npt

from ifog.errors import ArgumentError

__all__ = [
    "Topology",
    "check",
    "complete",
    "equivalent",
    "exponential",
    "from_matrix",
    "grid2d",
    "is_power",
    "is_regular",
    "metropolis_matrix",
    "named",
    "names",
    "ring",
    "star",
    "symmetric_exponential",
]

Topology: TypeAlias = nx.DiGraph
Matrix: TypeAlias = npt.NDArray[np.float64]


def ring(n: int, *, style: Literal["both", "left", "right"] = "both") -> Topology:
    """The cycle of ``n`` ranks.

    Args:
        n: how many ranks.
        style: "both" sends to both sides, each weight 1/3; "left" sends to rank - 1 and "right" to
            rank + 1, each weight 1/2. On two ranks every style is the complete graph.

    With both sides the spectral gap is ``(2/3)(1 - cos(2 pi / n))``.
    """
    offsets = {"both": (0, 1, -1), "left": (0, -1), "right": (0, 1)}.get(style)
    if offsets is None:
        raise ArgumentError(f"ring: style is {style!r}; use 'both', 'left' or 'right'")
    return _circulant(n, offsets, "ring" if style == "both" else f"ring ({style})")


def star(n: int, *, center: int = 0) -> Topology:
    """Every rank exchanges with ``center`` only; the spectral gap is ``1/n``.

    Edges to and from the centre weigh 1/n, so does the centre's self loop; leaves keep 1 - 1/n.
    """
    _require_size("star", n)
    if not 0 <= center < n:
        raise ArgumentError(f"star: center is {center}, but the ranks are 0..{n - 1}")
    leaves = [leaf for leaf in range(n) if leaf != center]
    edges = [(center, center, 1 / n)]
    for leaf in leaves:
        edges += [(leaf, leaf, 1 - 1 / n), (leaf, center, 1 / n), (center, leaf, 1 / n)]
    return _build(n, edges, "star")


def grid2d(n: int, *, shape: tuple[int, int] | None = None) -> Topology:
    """A grid of rows and columns, numbered row by row, with Metropolis weights.

    Neighbours are the up to four cells beside a rank; nothing wraps around.

    Args:
        n: how many ranks.
        shape: rows and columns; by default the divisor of n closest to its root from below, and
            the rest.
    """
    _require_size("grid2d", n)
    if shape is None:
        rows = max(d for d in range(1, math.isqrt(n) + 1) if n % d == 0)
        shape = (rows, n // rows)
    rows, columns = shape
    if rows < 1 or columns < 1 or rows * columns != n:
        raise ArgumentError(
            f"grid2d: shape {rows} x {columns} holds {rows * columns} ranks, not {n}; "
            "give rows and columns whose product is n"
        )
    links = nx.Graph()
    links.add_nodes_from(range(n))
    links.add_edges_from((r, r + columns) for r in range(n - columns))
    links.add_edges_from((r, r + 1) for r in range(n) if (r + 1) % columns)
    return _build(n, _metropolis_edges(links), "grid")


def exponential(n: int, *, base: int = 2) -> Topology:
    """Each rank sends to the ranks 1, ``base``, ``base``^2, ... further on; uniform weights.

    With base 2 and even n the spectral gap is exactly ``2 / (1 + ceil(log2 n))``; with odd n it is
    larger (Ying, Yuan, Chen, Hu, Pan, Yin 2021, arXiv:2110.13363).
    """
    _require_size("exponential", n)
    _require_base("exponential", base)
    label = "exponential" if base == 2 else f"exponential (base {base})"
    return _circulant(n, [0, *_powers(base, n)], label)


def symmetric_exponential(n: int, *, base: int = 4) -> Topology:
    """Like ``exponential``, sending both ways round: undirected; uniform weights.

    A rank further on by ``o`` is a neighbour when ``o``, or ``n - o`` if that is the shorter way
    round, is a power of ``base``.
    """
    _require_base("symmetric_exponential", base)
    _require_size("symmetric_exponential", n)
    offsets = [o for o in range(1, n) if is_power(min(o, n - o), base)]
    return _circulant(n, [0, *offsets], "symmetric exponential")


def complete(n: int) -> Topology:
    """Every rank sends to every rank; each weight is 1/n, so one round gives the mean."""
    _require_size("complete", n)
    return _circulant(n, range(n), "complete")


def from_matrix(W: npt.ArrayLike, *, label: str = "custom") -> Topology:
    """The graph of a mixing matrix: a round is ``W @ x``, so ``W[v, u]`` is what v makes of u.

    Zeros give no edge. The matrix need not be stochastic.

    Raises:
        ArgumentError: ``W`` is not a finite square matrix.
    """
    try:
        matrix = np.asarray(W, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"from_matrix: W is not a matrix of real numbers: {error}") from error
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise ArgumentError(
            f"from_matrix: W must be n x n with n >= 1, its shape is {matrix.shape}"
        )
    wrong = np.argwhere(~np.isfinite(matrix))
    if wrong.size:
        row, column = wrong[0]
        raise ArgumentError(
            f"from_matrix: W[{row}, {column}] is {matrix[row, column]}; weights must be finite"
        )
    edges = [(int(u), int(v), float(matrix[v, u])) for v, u in np.argwhere(matrix)]
    return _build(matrix.shape[0], edges, label)


_NAMED: dict[str, Callable[[int], Topology]] = {
    "complete": complete,
    "exponential": exponential,
    "grid": grid2d,
    "ring": ring,
    "star": star,
    "symmetric_exponential": symmetric_exponential,
}


def names() -> tuple[str, ...]:
    """What ``named`` knows, sorted."""
    return tuple(sorted(_NAMED))


def named(label: str, n: int) -> Topology:
    """The generator called ``label`` with its defaults, for ``n`` ranks.

    Raises:
        ArgumentError: there is no such graph; the message lists the names and the closest one.
    """
    key = label.strip().lower().replace("-", "_").replace(" ", "_")
    key = {"grid2d": "grid"}.get(key, key)
    if key in _NAMED:
        return _NAMED[key](n)
    choices = ", ".join(_NAMED)
    if key.startswith(("one_peer", "inner_outer")):
        raise ArgumentError(
            f"{label!r} is a schedule, a new graph each round, not a static topology; in a cell "
            "use bf.one_peer(bf.size()), or bf.inner_outer_ring or bf.inner_outer_exponential "
            f"(bf.size(), bf.local_size()). Static topologies: {choices}"
        )
    close = difflib.get_close_matches(key, _NAMED, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    raise ArgumentError(f"no topology is called {label!r}{hint} Choose from: {choices}")


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


def is_power(value: int, base: int) -> bool:
    """Whether ``value`` is 1, ``base``, ``base``^2, ...; exact for integers of any size.

    Raises:
        ArgumentError: ``base`` is less than 2, or ``value`` less than 1.
    """
    _require_base("is_power", base)
    if value < 1:
        raise ArgumentError(f"is_power: value is {value}; powers start at 1")
    while value % base == 0:
        value //= base
    return value == 1


def metropolis_matrix(links: nx.Graph) -> Matrix:
    """Metropolis-Hastings weights of an undirected graph over nodes 0..n-1.

    ``W[v, u] = 1 / (1 + max(deg u, deg v))`` for linked u and v, self loops not counted, and
    ``W[v, v]`` is what is missing to 1. Symmetric and doubly stochastic for any graph
    (Xiao, Boyd, Kim 2007, "Distributed average consensus with least-mean-square deviation").
    """
    matrix = np.zeros((len(links), len(links)))
    for u, v, weight in _metropolis_edges(links):
        matrix[v, u] = weight
    return matrix


def _metropolis_edges(links: nx.Graph) -> list[tuple[int, int, float]]:
    degree = {v: sum(u != v for u in links[v]) for v in links}
    edges = [(u, v, 1 / (1 + max(degree[u], degree[v]))) for v in links for u in links[v] if u != v]
    kept = dict.fromkeys(links, 1.0)
    for _, v, weight in edges:
        kept[v] -= weight
    return edges + [(v, v, weight) for v, weight in kept.items() if weight > 1e-12]


def _circulant(n: int, offsets: Iterable[int], label: str) -> Topology:
    _require_size(label, n)
    distinct = sorted({offset % n for offset in offsets})
    edges = [(u, (u + o) % n, 1 / len(distinct)) for u in range(n) for o in distinct]
    return _build(n, edges, label)


def _build(n: int, edges: Iterable[tuple[int, int, float]], label: str) -> Topology:
    graph = nx.DiGraph(label=label)
    graph.add_nodes_from(range(n))
    # In order, so that predecessors and successors come out ascending.
    graph.add_weighted_edges_from(sorted(edges))
    return graph


def _powers(base: int, below: int) -> list[int]:
    powers, power = [], 1
    while power < below:
        powers.append(power)
        power *= base
    return powers


def _require_size(name: str, n: int) -> None:
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ArgumentError(f"{name}: n is {n!r}; a topology needs at least 1 rank")


def _require_base(name: str, base: int) -> None:
    if isinstance(base, bool) or not isinstance(base, int | np.integer) or base < 2:
        raise ArgumentError(f"{name}: base is {base!r}; the smallest base is 2, a whole number")


def _is_finite(weight: Any) -> bool:
    try:
        return bool(math.isfinite(weight))
    except (TypeError, ValueError, OverflowError):
        return False
