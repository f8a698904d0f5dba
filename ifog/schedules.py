"""Graphs that change from round to round: a schedule maps the step to the graph of that step.

A static graph is the constant schedule, so whatever mixes by a schedule serves both.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import Protocol

import numpy as np

from ifog import topology
from ifog.topology import Matrix, Topology, exponential, from_matrix
from ifog.weights import contraction, matrix

__all__ = [
    "Periodic",
    "Schedule",
    "constant",
    "named",
    "one_peer",
    "period_matrix",
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
        links = np.eye(n)
        for r, around in enumerate(peers):
            if around:
                links[around[step % len(around)], r] = 1
        return from_matrix(links / links.sum(axis=1, keepdims=True), label=label)

    return Periodic(math.lcm(*(max(len(around), 1) for around in peers)), label, build)


def named(label: str, n: int) -> Periodic:
    """The schedule called ``label`` for ``n`` ranks.

    Args:
        label: a name known to ``topology.named``, which is then used in every round, or
            "one-peer" with or without such a name: "one-peer exponential" is the default.
        n: how many ranks.

    Raises:
        ArgumentError: there is no such graph.
    """
    words = label.strip().lower().replace("-", " ").replace("_", " ").split()
    if words[:2] == ["one", "peer"]:
        return one_peer(topology.named(" ".join(words[2:]) or "exponential", n))
    return constant(topology.named(label, n))


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
