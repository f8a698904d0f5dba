"""Static communication graphs, as weighted networkx digraphs.

The convention of the whole project, stated once: an edge ``(u, v)`` means u sends to v, and its
``weight`` is the coefficient v applies to u's value. Self loops carry the self weights, nodes are
the ranks 0..n-1, and one round of mixing is ``x_v = sum over u of W[v, u] x_u`` with ``W[v, u]``
the weight of the edge ``(u, v)``. Every generator is doubly stochastic, so it keeps the mean;
``generator.links(...)`` gives the same graph as arrays, for as many nodes as memory holds.
"""

from __future__ import annotations

import difflib
import math
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ifog.adjacency import (
    Matrix,
    check,
    equivalent,
    from_adjacency,
    from_matrix,
    is_regular,
    metropolis_matrix,
)
from ifog.errors import ArgumentError
from ifog.links import (
    Links,
    Topology,
    Whole,
    circulant,
    generator,
    key_of,
    require_power_of_two,
    require_size,
    require_whole,
    undirected,
)
from ifog.random_graphs import equi_static, erdos_renyi, geometric, random_regular, small_world

if TYPE_CHECKING:
    from ifog.graph_report import GraphReport
    from ifog.rounds import Schedule

__all__ = [
    "Matrix",
    "Topology",
    "barbell",
    "check",
    "complete",
    "equi_static",
    "equivalent",
    "erdos_renyi",
    "exponential",
    "from_adjacency",
    "from_matrix",
    "geometric",
    "grid2d",
    "hypercube",
    "is_power",
    "is_regular",
    "metropolis_matrix",
    "named",
    "named_links",
    "names",
    "path",
    "random_regular",
    "report",
    "ring",
    "small_world",
    "star",
    "symmetric_exponential",
    "torus2d",
    "tree",
]


@generator
def ring(n: int, *, style: Literal["both", "left", "right"] = "both") -> Links:
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
    return circulant(n, offsets, "ring" if style == "both" else f"ring ({style})")


@generator
def path(n: int) -> Links:
    """The ranks in a row, each exchanging with the one before and after; Metropolis weights.

    The eigenvalues are ``(1 + 2 cos(pi k / n)) / 3``, so the gap is ``(2/3)(1 - cos(pi / n))``.
    """
    require_size("path", n)
    return undirected(n, [(np.arange(n - 1), np.arange(1, n))], "path")


@generator
def star(n: int, *, center: int = 0) -> Links:
    """Every rank exchanges with ``center`` only; the spectral gap is ``1/n``.

    Edges to and from the centre weigh 1/n, so does the centre's self loop; leaves keep 1 - 1/n.
    """
    require_size("star", n)
    if not 0 <= center < n:
        raise ArgumentError(f"star: center is {center}, but the ranks are 0..{n - 1}")
    leaves = np.delete(np.arange(n), center)
    hub, few, many = np.full(n - 1, center), np.full(2 * n - 1, 1 / n), np.full(n - 1, 1 - 1 / n)
    source = np.concatenate([[center], leaves, hub, leaves])
    target = np.concatenate([[center], hub, leaves, leaves])
    return Links(n, source, target, np.concatenate([few, many]), "star")


@generator
def grid2d(n: int, *, shape: tuple[int, int] | None = None) -> Links:
    """A grid of rows and columns, numbered row by row, with Metropolis weights.

    Neighbours are the up to four cells beside a rank; nothing wraps around.

    Args:
        n: how many ranks.
        shape: rows and columns; by default the divisor of n closest to its root from below, and
            the rest.
    """
    cell = _cells("grid2d", n, shape)
    return undirected(n, [(cell[:-1], cell[1:]), (cell[:, :-1], cell[:, 1:])], "grid")


@generator
def torus2d(n: int, *, shape: tuple[int, int] | None = None) -> Links:
    """A grid whose rows and columns close to rings, with Metropolis weights.

    With at least 3 rows and 3 columns every weight is 1/5, and the gap is
    ``(2/5)(1 - cos(2 pi / max(shape)))``.

    Args:
        n: how many ranks.
        shape: rows and columns, as for ``grid2d``.
    """
    cell = _cells("torus2d", n, shape)
    return undirected(n, [(cell, np.roll(cell, -1, axis)) for axis in (0, 1)], "torus")


@generator
def hypercube(n: int) -> Links:
    """Ranks whose numbers differ in a single bit exchange; n = 2^m, every weight is 1/(m + 1).

    The spectral gap is ``2/(m + 1)``.

    Raises:
        ArgumentError: ``n`` is not a power of two.
    """
    require_power_of_two("hypercube", n)
    rank = np.arange(n)
    flips = [(rank, rank ^ (1 << bit)) for bit in range((n - 1).bit_length())]
    return undirected(n, [(rank, rank), *flips], "hypercube")


@generator
def tree(n: int, *, branching: int = 2) -> Links:
    """A rooted tree, filled level by level: rank r > 0 hangs below (r - 1) // branching.

    Metropolis weights. With ``branching`` 1 it is the path.
    """
    require_size("tree", n)
    require_whole("tree", "branching", branching)
    below = np.arange(1, n)
    return undirected(n, [(below, (below - 1) // branching)], "tree")


@generator
def barbell(n: int, *, bridge: int = 0) -> Links:
    """Two complete graphs joined by a path over ``bridge`` further ranks; Metropolis weights.

    The first half of the ranks that are not on the bridge, rounded up, comes first, then the
    bridge, then the other half. A graph that mixes badly, to test methods on.
    """
    require_size("barbell", n)
    most = max(n - 2, 0)
    if isinstance(bridge, bool) or not isinstance(bridge, int) or not 0 <= bridge <= most:
        raise ArgumentError(f"barbell: bridge is {bridge!r}, but must be in 0..{most}")
    first = (n - bridge + 1) // 2
    chain = np.arange(first - 1, min(first + bridge + 1, n))
    one, other = np.triu_indices(first, 1), np.triu_indices(n - bridge - first, 1)
    beyond = (other[0] + first + bridge, other[1] + first + bridge)
    return undirected(n, [one, (chain[:-1], chain[1:]), beyond], "barbell")


@generator
def exponential(n: int, *, base: int = 2) -> Links:
    """Each rank sends to the ranks 1, ``base``, ``base``^2, ... further on; uniform weights.

    With base 2 and even n the spectral gap is exactly ``2 / (1 + ceil(log2 n))``; with odd n it is
    larger (Ying, Yuan, Chen, Hu, Pan, Yin 2021, arXiv:2110.13363).
    """
    require_size("exponential", n)
    _require_base("exponential", base)
    label = "exponential" if base == 2 else f"exponential (base {base})"
    return circulant(n, [0, *_powers(base, n)], label)


@generator
def symmetric_exponential(n: int, *, base: int = 4) -> Links:
    """Like ``exponential``, sending both ways round: undirected; uniform weights.

    A rank further on by ``o`` is a neighbour when ``o``, or ``n - o`` if that is the shorter way
    round, is a power of ``base``.
    """
    _require_base("symmetric_exponential", base)
    require_size("symmetric_exponential", n)
    near = [power for power in _powers(base, n) if 2 * power <= n]
    return circulant(n, [0, *near, *(-power for power in near)], "symmetric exponential")


@generator
def complete(n: int) -> Links:
    """Every rank sends to every rank; each weight is 1/n, so one round gives the mean."""
    require_size("complete", n)
    return circulant(n, range(n), "complete")


_NAMED: dict[str, Any] = {
    "barbell": barbell,
    "complete": complete,
    "equi_static": equi_static,
    "erdos_renyi": erdos_renyi,
    "exponential": exponential,
    "geometric": geometric,
    "grid": grid2d,
    "hypercube": hypercube,
    "path": path,
    "random_regular": random_regular,
    "ring": ring,
    "small_world": small_world,
    "star": star,
    "symmetric_exponential": symmetric_exponential,
    "torus": torus2d,
    "tree": tree,
}


def names() -> tuple[str, ...]:
    """What ``named`` knows, sorted."""
    return tuple(sorted(_NAMED))


def named(label: str, n: int) -> Topology:
    """The generator called ``label`` with its defaults, for ``n`` ranks.

    Raises:
        ArgumentError: there is no such graph; the message lists the names and the closest one.
    """
    return named_links(label, n).graph()


def named_links(label: str, n: int) -> Links:
    """What ``named`` gives, as arrays."""
    key = key_of(label)
    key = {"grid2d": "grid", "torus2d": "torus"}.get(key, key)
    if key in _NAMED:
        links: Links = _NAMED[key].links(n)
        return links
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


def report(graph: Topology | Links | Schedule | str, n: int | None = None) -> GraphReport:
    """How a graph or a schedule mixes and what a round costs; in a notebook also a picture.

    Args:
        graph: a graph, a schedule, or the name of one of them.
        n: how many ranks, where a name is given.

    Example:
        >>> report(ring(8)).gap.__round__(6)
        0.195262
    """
    from ifog.graph_report import describe

    return describe(graph, n)


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


def _powers(base: int, below: int) -> list[int]:
    powers, power = [], 1
    while power < below:
        powers.append(power)
        power *= base
    return powers


def _require_base(name: str, base: int) -> None:
    if isinstance(base, bool) or not isinstance(base, int | np.integer) or base < 2:
        raise ArgumentError(f"{name}: base is {base!r}; the smallest base is 2, a whole number")


def _cells(name: str, n: int, shape: tuple[int, int] | None) -> Whole:
    """The ranks, row by row."""
    require_size(name, n)
    if shape is None:
        rows = max(d for d in range(1, math.isqrt(n) + 1) if n % d == 0)
        shape = (rows, n // rows)
    rows, columns = shape
    if rows < 1 or columns < 1 or rows * columns != n:
        raise ArgumentError(
            f"{name}: shape {rows} x {columns} holds {rows * columns} ranks, not {n}; "
            "give rows and columns whose product is n"
        )
    return np.arange(n).reshape(rows, columns)
