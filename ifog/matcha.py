"""MATCHA: a graph taken apart into matchings, each used with a probability that favours the vital.

Source: Wang, Sahu, Yang, Joshi, Kar 2019, arXiv:1905.09435. With L_j the Laplacian of matching j,
p_j its probability and W = I - a sum of the L_j in use, the error shrinks by

    rho = ||E W^2 - J|| = ||I - 2 a M + a^2 (M^2 + 2 V) - J||,

M = sum_j p_j L_j and V = sum_j p_j (1 - p_j) L_j, because L_j^2 = 2 L_j.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import networkx as nx
import numpy as np

from ifog.errors import ArgumentError
from ifog.links import Links, Real, Topology, Whole, as_links, exchanging, linked_pairs
from ifog.rounds import Drawn

__all__ = ["Matcha", "matcha", "matcha_plan"]

_STEPS = 600
_ORDERS = ("saturation_largest_first", "largest_first", "smallest_last", "connected_sequential_bfs")
Pair = tuple[Whole, Whole]


@dataclass(frozen=True, slots=True, eq=False)
class Matcha:
    """What MATCHA makes of a graph.

    Attributes:
        n: how many ranks.
        matchings: pairs of ranks, as two arrays of ends; a rank is in at most one pair of each.
        probabilities: of the matchings, [matchings].
        alpha: the weight of a link in use.
        rate: rho, the expected factor on the squared error per round.
        connectivity: the second smallest eigenvalue of M, which the probabilities maximise.
        label: of the graph.
    """

    n: int
    matchings: tuple[Pair, ...]
    probabilities: Real
    alpha: float
    rate: float
    connectivity: float
    label: str

    def links(self, seed: int, step: int) -> Links:
        """The round ``step``: each matching by chance, all of those drawn at once."""
        coins = np.random.default_rng((seed, step)).random(len(self.matchings))
        used = np.flatnonzero(coins < self.probabilities)
        ends = [np.zeros((2, 0), dtype=np.int64), *(np.array(self.matchings[j]) for j in used)]
        one, other = np.concatenate(ends, axis=1)
        return exchanging(self.n, one, other, self.alpha, self.label)


def matcha(graph: Topology | Links, *, budget: float = 0.5, seed: int = 0) -> Drawn:
    """A schedule that uses a share ``budget`` of a graph's links on average, the vital ones more.

    Every round is symmetric with rows that sum to 1, so the mean is kept; a self weight may be
    negative. For graphs of up to a few hundred ranks.

    Args:
        graph: whose links to use, all in both directions; its weights do not count.
        budget: the mean share of the matchings that are used in a round, over 0 and up to 1.
        seed: of the draws.

    Raises:
        ArgumentError: a link has no opposite one, or ``budget`` is out of range.

    Source: Wang, Sahu, Yang, Joshi, Kar 2019, arXiv:1905.09435.
    """
    plan = matcha_plan(graph, budget=budget)
    return Drawn(plan.label, lambda step: plan.links(seed, step))


def matcha_plan(graph: Topology | Links, *, budget: float = 0.5) -> Matcha:
    """The matchings, probabilities and weight behind ``matcha``."""
    links = as_links(graph)
    if not 0 < budget <= 1:
        raise ArgumentError(f"matcha: budget is {budget}; it must be over 0 and at most 1")
    matchings = _matchings(links)
    laplacians = [_laplacian(links.n, pair) for pair in matchings]
    label = f"matcha {links.label}"
    if not matchings:
        return Matcha(links.n, (), np.zeros(0), 0.0, 0.0 if links.n == 1 else 1.0, 0.0, label)
    p = _probabilities(np.array(laplacians), budget)
    mean = np.tensordot(p, laplacians, 1)
    spread = np.tensordot(p * (1 - p), laplacians, 1)

    def rate(alpha: float) -> float:
        moment = np.eye(links.n) - 2 * alpha * mean + alpha**2 * (mean @ mean + 2 * spread)
        return float(np.linalg.eigvalsh(moment - 1 / links.n)[-1])

    alpha = _lowest(rate, 2 / np.linalg.eigvalsh(mean)[-1])
    connectivity = float(np.linalg.eigvalsh(mean)[1])
    return Matcha(links.n, matchings, p, alpha, rate(alpha), connectivity, label)


def _matchings(links: Links) -> tuple[Pair, ...]:
    """The links, coloured so that those that meet differ; the fewest colours of several orders."""
    low, high = linked_pairs("matcha", links)
    meeting = nx.line_graph(nx.Graph(zip(low.tolist(), high.tolist(), strict=True)))
    found = [nx.greedy_color(meeting, strategy=order) for order in _ORDERS]
    colours = min(found, key=lambda colour: len(set(colour.values())))
    ends: dict[int, list[tuple[int, int]]] = {}
    for pair, colour in colours.items():
        ends.setdefault(colour, []).append((min(pair), max(pair)))
    columns = [np.array(sorted(ends[colour]), dtype=np.int64) for colour in sorted(ends)]
    return tuple((pairs[:, 0], pairs[:, 1]) for pairs in columns)


def _laplacian(n: int, pair: Pair) -> Real:
    incidence = np.zeros((len(pair[0]), n))
    row = np.arange(len(pair[0]))
    incidence[row, pair[0]], incidence[row, pair[1]] = 1, -1
    laplacian: Real = incidence.T @ incidence
    return laplacian


def _probabilities(laplacians: Real, budget: float) -> Real:
    """Those that maximise the second smallest eigenvalue of the mean Laplacian.

    It is concave in them: steps along a supergradient, back onto 0 <= p <= 1 with the given sum.
    """
    total = budget * len(laplacians)
    p = best = np.full(len(laplacians), budget)
    highest = -1.0
    for step in range(1, _STEPS + 1):
        values, vectors = np.linalg.eigh(np.tensordot(p, laplacians, 1))
        if values[1] > highest + 1e-12:
            highest, best = values[1], p
        v = vectors[:, 1]
        slope = np.einsum("i,jik,k->j", v, laplacians, v)
        slope -= slope.mean()
        length = np.linalg.norm(slope)
        if length < 1e-9 or budget == 1:
            break
        p = _onto_budget(p + 0.3 / np.sqrt(step) * slope / length, total)
    return best


def _onto_budget(p: Real, total: float) -> Real:
    low, high = p.min() - 1, p.max()
    for _ in range(60):
        shift = (low + high) / 2
        low, high = (shift, high) if np.clip(p - shift, 0, 1).sum() > total else (low, shift)
    clipped: Real = np.clip(p - shift, 0, 1)
    return clipped


def _lowest(function: Callable[[float], float], upper: float) -> float:
    """Where a convex function on [0, upper] is lowest, by thirds."""
    low, high = 0.0, float(upper)
    while high - low > 1e-10 * upper:
        third = (high - low) / 3
        if function(low + third) < function(high - third):
            high -= third
        else:
            low += third
    return (low + high) / 2
