"""Graphs that change from round to round: a schedule maps the step to the graph of that step.

A static graph is the constant schedule, so whatever mixes by a schedule serves both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import count
from typing import Protocol

import numpy as np

from ifog import topology
from ifog.errors import ArgumentError
from ifog.topology import Matrix, Topology, exponential, from_matrix
from ifog.weights import contraction, matrix

__all__ = [
    "Periodic",
    "Schedule",
    "constant",
    "exponential_machines",
    "inner_outer_exponential",
    "inner_outer_ring",
    "named",
    "one_peer",
    "period_matrix",
    "send_recv",
    "spectral_rate",
]


class Schedule(Protocol):
    """The graph of step 0, 1, 2, ...: the same on every rank that asks."""

    def __call__(self, step: int) -> Topology:
        """The graph to mix by in round ``step``."""


@dataclass(frozen=True, slots=True)
class Periodic:
    """A schedule that repeats after ``period`` steps; graphs are built once and shared.

    Attributes:
        period: after how many steps it repeats.
        label: a short name for tables and pictures.
        build: the graph of a step in ``range(period)``.
    """

    period: int
    label: str
    build: Callable[[int], Topology]

    def __call__(self, step: int) -> Topology:
        """The graph to mix by in round ``step``."""
        return self.build(step % self.period)


def constant(graph: Topology) -> Periodic:
    """The schedule that always gives ``graph``."""
    return Periodic(1, str(graph.graph.get("label", "custom")), lambda _: graph)


def one_peer(graph: Topology | int) -> Periodic:
    """Each rank sends to one neighbour a step, to all of them in turn, clockwise by distance.

    In step k rank r sends to its neighbour number ``k mod d_r``, where its d_r out-neighbours q
    are ordered by ``(q - r) mod n``. A rank with m senders in that step weighs itself and each of
    them by 1/(m + 1); this is doubly stochastic exactly when everyone hears equally many.

    Args:
        graph: whose links to use; a number n stands for ``exponential(n)``. Then every weight is
            1/2, and for n = 2^m the product of m successive matrices is exactly J
            (Ying, Yuan, Chen, Hu, Pan, Yin 2021, arXiv:2110.13363).
    """
    base = graph if not isinstance(graph, int | np.integer) else exponential(int(graph))
    n = len(base)
    peers = [
        [(r + distance) % n for distance in range(1, n) if base.has_edge(r, (r + distance) % n)]
        for r in range(n)
    ]
    label = f"one-peer {base.graph.get('label', 'custom')}"

    @lru_cache(maxsize=1024)
    def build(step: int) -> Topology:
        now = ((r, around[step % len(around)]) for r, around in enumerate(peers) if around)
        return _even(n, now, label)

    return Periodic(math.lcm(*(max(len(around), 1) for around in peers)), label, build)


def exponential_machines(size: int, local_size: int) -> Periodic:
    """Each *machine* sends to one other a step, 1, 2, 4, ... machines further on in turn.

    The nodes are the M = size / local_size machines, for ``hierarchical_neighbor_allreduce``.
    With E = floor(log2(M - 1)) machine m sends to ``(m + 2^(k mod (E + 1))) mod M`` in step k, and
    every weight is 1/2: doubly stochastic. The period is E + 1, and when M is a power of two the
    product over a period is exactly J.

    Raises:
        ArgumentError: ``local_size`` does not divide ``size``, or there is only one machine.
    """
    machines = _machines("exponential_machines", size, local_size)
    if machines < 2:
        raise ArgumentError(
            f"exponential_machines: {size} ranks with {local_size} on each machine are one machine "
            "and have no other to send to; use one_peer(size) among the ranks"
        )
    label = "one-peer exponential of machines"
    between = one_peer(machines)

    @lru_cache(maxsize=1024)
    def build(step: int) -> Topology:
        return from_matrix(matrix(between(step)), label=label)

    return Periodic(between.period, label, build)


def inner_outer_ring(size: int, local_size: int) -> Periodic:
    """One rank of each machine sends to the next machine, the others round their machine.

    Ranks are numbered machine by machine: with c = local_size, M = size / c machines and m, l the
    machine and the local index of rank m c + l, the local index ``g = k mod c`` goes outside::

        l = g    sends to index l of machine (m + 1) mod M
        else     sends to the next index of its own machine, (l + 1) mod c, passing over g

    Everyone sends to one and hears one, so every weight is 1/2: doubly stochastic. The period is
    c. On a single machine index g sits out, with weight 1.

    Limitation: a rank leaves its machine once in c steps, and then always for the same rank.

    Args:
        size: how many ranks.
        local_size: how many of them on each machine, at least 3.

    Raises:
        ArgumentError: ``local_size`` does not divide ``size``, or is less than 3.
    """
    return _inner_outer("inner-outer ring", size, local_size, outer=[1], inner=[1])


def inner_outer_exponential(size: int, local_size: int) -> Periodic:
    """One rank of each machine sends to another machine, the others inside, by powers of two.

    Ranks are numbered machine by machine: with c = local_size, M = size / c machines and m, l the
    machine and the local index of rank m c + l, the local index ``g = k mod c`` goes outside. With
    Eo = floor(log2(M - 1)) and Ei = floor(log2(c - 2))::

        l = g    sends to index l of machine (m + 2^(k mod (Eo + 1))) mod M
        else     sends 2^(k mod (Ei + 1)) places further on among the c - 1 indices of its machine
                 that stay, in the circle g + 1, g + 2, ..., g + c - 1 (mod c)

    Everyone sends to one and hears one, so every weight is 1/2: doubly stochastic. The period is
    lcm(c, Eo + 1, Ei + 1). On a single machine index g sits out, with weight 1.

    Limitation: where c and Eo + 1 have a common factor, a local index does not use all distances
    between machines. With M = 16 and c = 4, for example, index 1 always goes 2 machines further.

    Args:
        size: how many ranks.
        local_size: how many of them on each machine, at least 3.

    Raises:
        ArgumentError: ``local_size`` does not divide ``size``, or is less than 3.
    """
    machines = _machines("inner-outer exponential", size, local_size)
    outer, inner = _powers_of_two(machines - 1), _powers_of_two(local_size - 2)
    return _inner_outer("inner-outer exponential", size, local_size, outer=outer, inner=inner)


def named(label: str, n: int, *, local_size: int | None = None) -> Periodic:
    """The schedule called ``label`` for ``n`` ranks.

    Args:
        label: a name known to ``topology.named``, which is then used in every round; "one-peer"
            with or without such a name, "one-peer exponential" being the default; "inner-outer
            ring" or "inner-outer exponential".
        n: how many ranks.
        local_size: how many ranks on each machine; needed by the last two.

    Raises:
        ArgumentError: there is no such graph, or ``local_size`` is missing or does not fit.
    """
    words = label.strip().lower().replace("-", " ").replace("_", " ").split()
    if words[:2] == ["one", "peer"]:
        return one_peer(topology.named(" ".join(words[2:]) or "exponential", n))
    if words[:2] != ["inner", "outer"]:
        return constant(topology.named(label, n))
    make = {"ring": inner_outer_ring, "exponential": inner_outer_exponential}.get(
        " ".join(words[2:]) or "exponential"
    )
    if make is None:
        raise ArgumentError(
            f"no schedule is called {label!r}; there are 'inner-outer ring' and "
            "'inner-outer exponential'"
        )
    if local_size is None:
        raise ArgumentError(f"{label!r} needs local_size, the number of ranks on each machine")
    return make(n, local_size)


def send_recv(schedule: Schedule, rank: int) -> Iterator[tuple[list[int], list[int]]]:
    """Whom ``rank`` sends to and whom it hears in step 0, 1, 2, ..., without end.

    Each item is (destinations, sources), both ascending, the rank itself left out: what the
    dynamic forms of the neighbour operations take. For a schedule over machines, ``rank`` and the
    lists are machines.

    Raises:
        ArgumentError: ``rank`` is not a node of the schedule's graphs.

    Example:
        >>> steps = send_recv(one_peer(8), 0)
        >>> next(steps), next(steps), next(steps)
        (([1], [7]), ([2], [6]), ([4], [4]))
    """
    nodes = schedule(0)
    if rank not in nodes:
        raise ArgumentError(f"send_recv: rank {rank} is not one of the {len(nodes)} of the graph")

    def steps() -> Iterator[tuple[list[int], list[int]]]:
        for step in count():
            graph = schedule(step)
            yield (
                sorted(int(v) for v in graph.successors(rank) if v != rank),
                sorted(int(u) for u in graph.predecessors(rank) if u != rank),
            )

    return steps()


def period_matrix(schedule: Periodic) -> Matrix:
    """The product of the mixing matrices of one period, the last step leftmost."""
    factors = (matrix(schedule(step)) for step in range(schedule.period))
    return reduce(lambda product, W: W @ product, factors)


def spectral_rate(schedule: Periodic) -> float:
    """The predicted factor on the error per step: ``||period product - J||_2 ^ (1/period)``.

    0 when a period gives the mean exactly. For a period of 1 and a normal W it is the second
    largest eigenvalue modulus. Meant for doubly stochastic schedules.
    """
    return float(contraction(period_matrix(schedule)) ** (1 / schedule.period))


def _inner_outer(
    label: str, size: int, local_size: int, *, outer: Sequence[int], inner: Sequence[int]
) -> Periodic:
    machines, c = _machines(label, size, local_size), int(local_size)
    if c < 3:
        raise ArgumentError(
            f"{label}: local_size is {c}, but with one rank of a machine outside, two must stay "
            "to send to each other; it must be at least 3"
        )

    @lru_cache(maxsize=1024)
    def build(step: int) -> Topology:
        outside, shift = step % c, inner[step % len(inner)]
        circle = [(outside + place) % c for place in range(1, c)]
        edges = []
        for machine in range(machines):
            first = machine * c
            if machines > 1:
                other = (machine + outer[step % len(outer)]) % machines
                edges.append((first + outside, other * c + outside))
            for place, index in enumerate(circle):
                edges.append((first + index, first + circle[(place + shift) % (c - 1)]))
        return _even(machines * c, edges, label)

    return Periodic(math.lcm(c, len(outer), len(inner)), label, build)


def _even(n: int, edges: Iterable[tuple[int, int]], label: str) -> Topology:
    """The graph of ``edges`` in which a rank gives itself and its m senders 1/(m + 1) each."""
    links = np.eye(n)
    for u, v in edges:
        links[v, u] = 1
    return from_matrix(links / links.sum(axis=1, keepdims=True), label=label)


def _machines(name: str, size: int, local_size: int) -> int:
    for what, value in (("size", size), ("local_size", local_size)):
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ArgumentError(f"{name}: {what} is {value!r}; it must be a whole number from 1 on")
    if size % local_size:
        raise ArgumentError(
            f"{name}: {size} ranks do not fill machines of {local_size}; size must be a multiple "
            "of local_size"
        )
    return int(size) // int(local_size)


def _powers_of_two(most: int) -> list[int]:
    """1, 2, 4, ... up to ``most``; 1 alone where even that is too much."""
    return [2**exponent for exponent in range(max(int(most).bit_length(), 1))]
