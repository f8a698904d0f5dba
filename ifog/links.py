"""Graphs as arrays of edges: the form in which a million agents fit, and what makes them.

Link k goes from ``source[k]`` to ``target[k]``, and ``weight[k]`` is what the target applies to the
source's value: ``W[target[k], source[k]] = weight[k]``. Self loops are links. Everything here is
linear in the number of links; networkx is only met where somebody asks for a digraph.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from typing import Any, ParamSpec, Protocol, TypeAlias, cast

import networkx as nx
import numpy as np
import numpy.typing as npt

from ifog.errors import ArgumentError

__all__ = [
    "Generator",
    "Links",
    "Topology",
    "as_graph",
    "as_links",
    "averaging",
    "circulant",
    "distinct_pairs",
    "exchanging",
    "generator",
    "is_connected",
    "key_of",
    "linked_pairs",
    "require_power_of_two",
    "require_size",
    "require_whole",
    "stable_order",
    "undirected",
]

Topology: TypeAlias = nx.DiGraph
Whole: TypeAlias = npt.NDArray[np.int64]
Real: TypeAlias = npt.NDArray[np.float64]
P = ParamSpec("P")


@dataclass(frozen=True, slots=True, eq=False)
class Links:
    """The links of a graph over the nodes 0..n-1, at most one from any node to any other.

    Attributes:
        n: how many nodes.
        source: [m] int64, who sends.
        target: [m] int64, who receives.
        weight: [m] float64, what the receiver applies to it.
        label: a short name for tables and pictures.
    """

    n: int
    source: Whole
    target: Whole
    weight: Real
    label: str = "custom"

    def graph(self) -> Topology:
        """The same as a networkx digraph; for as many nodes as can be looked at."""
        graph = nx.DiGraph(label=self.label)
        graph.add_nodes_from(range(self.n))
        # In order, so that predecessors and successors come out ascending.
        order = np.lexsort((self.target, self.source))
        columns = (self.source[order], self.target[order], self.weight[order])
        graph.add_weighted_edges_from(zip(*(column.tolist() for column in columns), strict=True))
        return graph

    def rows(self) -> tuple[Whole, Whole, Real]:
        """W by rows: of node v, the links ``first[v]`` to ``first[v + 1]``.

        Returns:
            ``first`` [n + 1], and the sources and the weights [m] in that order; a row's sources
            are in the order in which its links were given. By counting, in time linear in m.
        """
        order = stable_order(self.target, self.n)
        first = np.zeros(self.n + 1, dtype=np.int64)
        np.cumsum(np.bincount(self.target, minlength=self.n), out=first[1:])
        return first, self.source[order], self.weight[order]

    def without_loops(self) -> tuple[Whole, Whole]:
        """Who sends to whom, the nodes themselves left out."""
        away = self.source != self.target
        return self.source[away], self.target[away]


class Generator(Protocol[P]):
    """A function that makes graphs, as digraphs or as arrays."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Topology:
        """The graph as a networkx digraph."""

    def links(self, *args: P.args, **kwargs: P.kwargs) -> Links:
        """The graph as arrays."""


def generator(make: Callable[P, Links]) -> Generator[P]:
    """A function that gives digraphs, from one that gives arrays, which becomes its ``links``."""

    @wraps(make)
    def graph(*args: P.args, **kwargs: P.kwargs) -> Topology:
        return make(*args, **kwargs).graph()

    told: Any = graph
    told.links = make
    told.__signature__ = inspect.signature(make).replace(return_annotation="Topology")
    return cast("Generator[P]", told)


def as_links(graph: Topology | Links) -> Links:
    """The arrays of a graph; a link without weight counts 1."""
    if isinstance(graph, Links):
        return graph
    edges = list(graph.edges(data="weight", default=1.0))
    ends = np.array([edge[:2] for edge in edges], dtype=np.int64).reshape(-1, 2)
    weight = np.array([edge[2] for edge in edges], dtype=np.float64)
    label = str(graph.graph.get("label", "custom"))
    return Links(len(graph), ends[:, 0], ends[:, 1], weight, label)


def as_graph(graph: Topology | Links) -> Topology:
    """The digraph of a graph."""
    return graph.graph() if isinstance(graph, Links) else graph


def circulant(
    n: int, offsets: Iterable[int], label: str, weights: Iterable[float] | None = None
) -> Links:
    """Every node sends to those that are ``offsets`` further on, modulo n.

    Args:
        n: how many nodes.
        offsets: distances; 0 is the node itself, and equal ones modulo n are one link.
        label: the name.
        weights: of the offsets, adding up where these are equal; by default all the same, 1 in all.
    """
    require_size(label, n)
    places = np.array([offset % n for offset in offsets], dtype=np.int64)
    distinct, which = np.unique(places, return_inverse=True)
    shares = np.full(len(distinct), 1 / len(distinct))
    if weights is not None:
        shares = np.bincount(which, weights=np.array(list(weights)), minlength=len(distinct))
    source = np.repeat(np.arange(n), len(distinct))
    target = (source + np.tile(distinct, n)) % n
    return Links(n, source, target, np.tile(shares, n), label)


def undirected(n: int, pairs: Iterable[tuple[Any, Any]], label: str) -> Links:
    """Links in both directions between the nodes of each pair, with Metropolis weights.

    ``W[v, u] = 1 / (1 + max(deg u, deg v))`` for linked u and v, and ``W[v, v]`` is what is missing
    to 1: symmetric and doubly stochastic (Xiao, Boyd, Kim 2007).

    Args:
        n: how many nodes.
        pairs: arrays of equally many ends; pairs of a node with itself and repeated ones are
            dropped.
        label: the name.
    """
    low, high = distinct_pairs(n, pairs)
    degree = np.bincount(low, minlength=n) + np.bincount(high, minlength=n)
    return exchanging(n, low, high, 1 / (1 + np.maximum(degree[low], degree[high])), label)


def exchanging(n: int, one: Whole, other: Whole, weight: Real | float, label: str) -> Links:
    """Both nodes of each pair apply ``weight`` to the other's value, and 1 - the sum to their own.

    ``W = I - sum_k weight[k] (e_u - e_v)(e_u - e_v)^T``: symmetric, rows and columns sum to 1.

    Args:
        n: how many nodes.
        one: one end of each pair, no pair twice.
        other: the other end.
        weight: of each pair, or of all of them.
        label: the name.
    """
    source, target = np.concatenate([one, other]), np.concatenate([other, one])
    weight = np.tile(np.broadcast_to(weight, one.shape), 2).astype(np.float64)
    own = 1 - np.bincount(target, weights=weight, minlength=n)
    loops = np.flatnonzero(np.abs(own) > 1e-12)
    return Links(
        n,
        np.concatenate([source, loops]),
        np.concatenate([target, loops]),
        np.concatenate([weight, own[loops]]),
        label,
    )


def distinct_pairs(n: int, pairs: Iterable[tuple[Any, Any]]) -> tuple[Whole, Whole]:
    """The pairs of different nodes, the smaller one first, each once, ascending."""
    ends = [
        np.concatenate([np.ravel(side) for side in sides]) for sides in zip(*pairs, strict=True)
    ]
    one, other = ends or (np.zeros(0, dtype=np.int64),) * 2
    low, high = np.minimum(one, other), np.maximum(one, other)
    keys = np.unique((low.astype(np.int64) * n + high)[low != high])
    return keys // n, keys % n


def linked_pairs(what: str, graph: Topology | Links) -> tuple[Whole, Whole]:
    """The two ends of each undirected link, the smaller one first, ascending; no self loops.

    Args:
        what: needs both directions, for the message.
        graph: the links.

    Raises:
        ArgumentError: a link has no opposite link.
    """
    links = as_links(graph)
    source, target = links.without_loops()
    low, high = distinct_pairs(links.n, [(source, target)])
    if 2 * len(low) != len(source):
        alone = np.setdiff1d(source * links.n + target, target * links.n + source)[0]
        u, v = divmod(int(alone), links.n)
        raise ArgumentError(
            f"{what}: {u} sends to {v}, but {v} does not send to {u}; it needs both directions of "
            "every link"
        )
    return low, high


def averaging(n: int, source: Whole, target: Whole, label: str) -> Links:
    """A round in which every node gives itself and its m senders 1/(m + 1) each.

    Args:
        n: how many nodes.
        source: who sends, different from ``target``; no link twice.
        target: who receives.
        label: the name.
    """
    share = 1 / (1 + np.bincount(target, minlength=n))
    everyone = np.arange(n)
    return Links(
        n,
        np.concatenate([source, everyone]),
        np.concatenate([target, everyone]),
        np.concatenate([share[target], share]),
        label,
    )


def is_connected(n: int, one: Whole, other: Whole) -> bool:
    """Whether links between ``one[k]`` and ``other[k]`` join all of 0..n-1, in either sense."""
    root = np.arange(n)
    while True:
        # Hook the larger root to the smaller one, then let everybody look up its root.
        a, b = root[one], root[other]
        low, high = np.minimum(a, b), np.maximum(a, b)
        if np.array_equal(low, high):
            return bool((root == root[0]).all())
        np.minimum.at(root, high, low)
        while not np.array_equal(root, above := root[root]):
            root = above


def stable_order(keys: Whole, below: int) -> Whole:
    """The order that sorts ``keys``, all in ``range(below)``, equal ones as they are; linear."""
    # numpy sorts 16 bits by counting, so wider keys go digit by digit.
    order = np.argsort((keys & 0xFFFF).astype(np.uint16), kind="stable")
    for shift in range(16, max(below - 1, 1).bit_length(), 16):
        digit = ((keys >> shift) & 0xFFFF).astype(np.uint16)
        order = order[np.argsort(digit[order], kind="stable")]
    return order


def require_size(name: str, n: int) -> None:
    """Refuse what is no number of ranks.

    Raises:
        ArgumentError: ``n`` is not a whole number from 1 on.
    """
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise ArgumentError(f"{name}: n is {n!r}; a topology needs at least 1 rank")


def require_whole(name: str, what: str, value: Any, least: int = 1) -> None:
    """Refuse what is not a whole number from ``least`` on.

    Raises:
        ArgumentError: ``value`` is not such a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ArgumentError(
            f"{name}: {what} is {value!r}; it must be a whole number from {least} on"
        )


def require_power_of_two(name: str, n: int) -> None:
    """Refuse what is not 1, 2, 4, ...

    Raises:
        ArgumentError: ``n`` is not such a number.
    """
    require_size(name, n)
    if n & (n - 1):
        near = 1 << (n.bit_length() - 1)
        raise ArgumentError(
            f"{name}: n is {n}, but it takes 2^m ranks, for example {near} or {2 * near}"
        )


def key_of(label: str) -> str:
    """A name as the tables spell it: small letters joined by underscores."""
    return label.strip().lower().replace("-", "_").replace(" ", "_")
