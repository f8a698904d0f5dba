"""Graphs that change from round to round: a schedule maps the step to the graph of that step.

A static graph is the constant schedule, so whatever mixes by a schedule serves both.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import count

import numpy as np

from ifog import topology
from ifog.base_graphs import base_graph
from ifog.errors import ArgumentError
from ifog.links import (
    Links,
    as_links,
    averaging,
    circulant,
    exchanging,
    key_of,
    require_power_of_two,
    require_whole,
)
from ifog.matcha import matcha
from ifog.random_schedules import epidemic, equi_dynamic, random_pair
from ifog.rounds import Drawn, Periodic, Schedule, constant, links_of, mean_graph
from ifog.topology import Matrix, Topology
from ifog.weights import contraction, matrix

__all__ = [
    "Drawn",
    "Periodic",
    "Schedule",
    "base_graph",
    "constant",
    "epidemic",
    "equi_dynamic",
    "exponential_machines",
    "hypercube_matching",
    "inner_outer_exponential",
    "inner_outer_ring",
    "links_of",
    "matcha",
    "mean_graph",
    "named",
    "names",
    "one_peer",
    "period_matrix",
    "random_pair",
    "send_recv",
    "spectral_rate",
]


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
    if isinstance(graph, int | np.integer):
        return _shifts(int(graph), "one-peer exponential")
    n, links = len(graph), as_links(graph)
    source, target = links.without_loops()
    order = np.lexsort(((target - source) % n, source))
    source, target = source[order], target[order]
    count = np.bincount(source, minlength=n)
    first, talking = np.cumsum(count) - count, np.flatnonzero(count)

    def build(step: int) -> Links:
        now = target[first[talking] + step % count[talking]]
        return averaging(n, talking, now, f"one-peer {links.label}")

    # Plain integers: what numpy counts would overflow in large periods.
    period = math.lcm(*np.unique(np.maximum(count, 1)).tolist())
    return Periodic(period, f"one-peer {links.label}", build)


def _shifts(n: int, label: str) -> Periodic:
    """Everyone sends to the node 1, 2, 4, ... further on in turn, every weight 1/2."""
    distances = _powers_of_two(n - 1) if n > 1 else [0]
    return Periodic(len(distances), label, lambda step: circulant(n, [0, distances[step]], label))


def hypercube_matching(n: int) -> Periodic:
    """In step k each rank averages with the one whose number differs in bit k mod m; n = 2^m.

    Symmetric, every weight 1/2, and a period is exactly J, in any order.

    Raises:
        ArgumentError: ``n`` is not a power of two.
    """
    require_power_of_two("hypercube_matching", n)
    bits = max((n - 1).bit_length(), 1)
    rank = np.arange(n)

    def build(step: int) -> Links:
        lower = rank[rank & (1 << step) == 0] if n > 1 else rank[:0]
        return exchanging(n, lower, lower | (1 << step), 0.5, "hypercube matching")

    return Periodic(bits, "hypercube matching", build)


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
    return _shifts(machines, "one-peer exponential of machines")


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


_DRAWN: Mapping[str, Callable[[int], Periodic | Drawn]] = {
    "base": base_graph,
    "epidemic": epidemic,
    "equi_dynamic": equi_dynamic,
    "hypercube_matching": hypercube_matching,
    "matcha": lambda n: matcha(topology.named_links("ring", n)),
    "one_peer": one_peer,
    "random_pair": random_pair,
}
_OVER: Mapping[str, Callable[[Topology], Periodic | Drawn]] = {
    "matcha": matcha,
    "one_peer": one_peer,
}

_ONE_WAY = ("equi_static", "exponential")  # graphs whose links do not all have an opposite


def names() -> tuple[str, ...]:
    """What ``named`` knows: names of graphs, of schedules, and of schedules over graphs, sorted.

    Left out are those that need to know the machines.
    """
    one_peers = (f"one_peer_{graph}" for graph in topology.names())
    matchas = (f"matcha_{graph}" for graph in topology.names() if graph not in _ONE_WAY)
    return tuple(sorted({*topology.names(), *_DRAWN, *one_peers, *matchas}))


def named(label: str, n: int, *, local_size: int | None = None) -> Periodic | Drawn:
    """The schedule called ``label`` for ``n`` ranks, with its defaults.

    Args:
        label: a name known to ``topology.named``, which is then used in every round; "base",
            "base-3" and so on, "epidemic", "equi-dynamic", "hypercube matching" or "random pair";
            "one-peer" with or without the name of a graph, "one-peer exponential" being the
            default; "matcha" likewise, by default over the ring; "inner-outer ring" or
            "inner-outer exponential".
        n: how many ranks.
        local_size: how many ranks on each machine; needed by the last two.

    Raises:
        ArgumentError: there is no such graph, or ``local_size`` is missing or does not fit.
    """
    key = key_of(label)
    if key in _DRAWN:
        return _DRAWN[key](n)
    if key.startswith("base_") and key[5:].isdigit():
        require_whole("base", "the number", int(key[5:]), 2)
        return base_graph(n, degree=int(key[5:]) - 1)
    for way, make in _OVER.items():
        if key.startswith(f"{way}_"):
            return make(topology.named(key.removeprefix(f"{way}_"), n))
    if key.startswith("inner_outer"):
        return _inner_outer_named(label, key, n, local_size)
    if key not in topology.names() and (near := difflib.get_close_matches(key, _DRAWN, n=1)):
        raise ArgumentError(f"no schedule is called {label!r}; did you mean {near[0]!r}?")
    return constant(topology.named_links(label, n))


def _inner_outer_named(label: str, key: str, n: int, local_size: int | None) -> Periodic:
    make = {
        "inner_outer": inner_outer_exponential,
        "inner_outer_exponential": inner_outer_exponential,
        "inner_outer_ring": inner_outer_ring,
    }.get(key)
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


def spectral_rate(schedule: Periodic | Drawn, *, draws: int = 200) -> float:
    """The predicted factor on the error per step: ``||period product - J||_2 ^ (1/period)``.

    0 when a period gives the mean exactly. For a period of 1 and a normal W it is the second
    largest eigenvalue modulus. Of a random schedule, the root of the mean square over ``draws``
    rounds, ``||(I - J) mean(W^T W) (I - J)||_2 ^ (1/2)``. Meant for doubly stochastic schedules.
    """
    if isinstance(schedule, Periodic):
        return float(contraction(period_matrix(schedule)) ** (1 / schedule.period))
    square: Matrix = np.mean([W.T @ W for W in map(matrix, map(schedule.links, range(draws)))], 0)
    off = np.eye(len(square)) - 1 / len(square)
    return math.sqrt(max(float(np.linalg.eigvalsh(off @ square @ off)[-1]), 0.0))


def _inner_outer(
    label: str, size: int, local_size: int, *, outer: Sequence[int], inner: Sequence[int]
) -> Periodic:
    machines, c = _machines(label, size, local_size), int(local_size)
    if c < 3:
        raise ArgumentError(
            f"{label}: local_size is {c}, but with one rank of a machine outside, two must stay "
            "to send to each other; it must be at least 3"
        )

    def build(step: int) -> Links:
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
        source, target = np.array(edges).T
        return averaging(machines * c, source, target, label)

    return Periodic(math.lcm(c, len(outer), len(inner)), label, build)


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
