"""The weights with which a given graph mixes fastest.

Source: Boyd, Diaconis, Xiao 2004, "Fastest mixing Markov chain on a graph": over symmetric W with
the zeros of the graph, no negative entry and rows that sum to 1, ``||W - J||_2`` is convex.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any, Literal

import numpy as np

from ifog.errors import ArgumentError, NotAvailableError
from ifog.links import Links, Real, Topology, Whole, as_links, exchanging, linked_pairs

__all__ = ["fastest_mixing"]


def fastest_mixing(
    graph: Topology | Links,
    *,
    solver: Literal["convex", "subgradient"] | None = None,
    steps: int = 2500,
) -> Topology:
    """The same links with the symmetric weights that minimise ``||W - J||_2``.

    Args:
        graph: the links, each in both directions.
        solver: "convex" solves the semidefinite program by cvxpy (``pip install 'ifog[convex]'``);
            "subgradient" walks there by itself, to within half a per cent, in about a second for
            tens of ranks. By default "convex" if cvxpy is installed; name one where all ranks must
            come to the same weights.
        steps: of the walk.

    Raises:
        ArgumentError: a link has no opposite link, or no such solver.
        NotAvailableError: "convex" without cvxpy.

    Example:
        >>> from ifog import ring, weights
        >>> W = weights.matrix(fastest_mixing(ring(8), solver="subgradient"))
        >>> round(weights.spectral_rate(W), 2)
        0.74
    """
    links = as_links(graph)
    low, high = linked_pairs("fastest_mixing", links)
    if solver is None:
        solver = "convex" if importlib.util.find_spec("cvxpy") else "subgradient"
    if solver not in ("convex", "subgradient"):
        raise ArgumentError(f"fastest_mixing: solver is {solver!r}; use 'convex' or 'subgradient'")
    if len(low) == 0:
        weight: Real = np.zeros(0)
    elif solver == "convex":
        weight = _by_program(links.n, low, high)
    else:
        weight = _by_walk(links.n, low, high, steps)
    kept = weight > 1e-9
    label = f"{links.label}, fastest mixing"
    return exchanging(links.n, low[kept], high[kept], weight[kept], label).graph()


def _by_walk(n: int, low: Whole, high: Whole, steps: int) -> Real:
    degree = np.bincount(low, minlength=n) + np.bincount(high, minlength=n)
    weight: Real = 1 / (1 + np.maximum(degree[low], degree[high]))
    best = weight
    least = np.inf
    for step in range(1, steps + 1):
        W = np.zeros((n, n))
        W[low, high] = W[high, low] = weight
        W[np.diag_indices(n)] = 1 - W.sum(axis=1)
        values, vectors = np.linalg.eigh(W - 1 / n)
        worst = int(np.argmax(np.abs(values)))
        if abs(values[worst]) < least:
            least, best = abs(values[worst]), weight
        v = vectors[:, worst]
        slope = -np.sign(values[worst]) * (v[low] - v[high]) ** 2
        length = np.linalg.norm(slope)
        if length < 1e-12:
            break
        weight = _feasible(weight - 0.25 / np.sqrt(step) * slope / length, n, low, high)
    return best


def _feasible(weight: Real, n: int, low: Whole, high: Whole) -> Real:
    """No weight below 0, and no node that gives away more than it has."""
    weight = np.maximum(weight, 0)
    given = np.bincount(low, weight, n) + np.bincount(high, weight, n)
    excess = np.maximum(given, 1)
    shared: Real = weight / np.maximum(excess[low], excess[high])
    return shared


def _by_program(n: int, low: Whole, high: Whole) -> Real:
    try:
        cvxpy: Any = importlib.import_module("cvxpy")
    except ImportError:
        raise NotAvailableError(
            "fastest_mixing: solver='convex' needs cvxpy, which is not installed; "
            "pip install 'ifog[convex]', or use solver='subgradient'"
        ) from None
    incidence = np.zeros((n, len(low)))
    incidence[low, np.arange(len(low))], incidence[high, np.arange(len(low))] = 1, -1
    weight, bound = cvxpy.Variable(len(low), nonneg=True), cvxpy.Variable()
    off = np.eye(n) - 1 / n - incidence @ cvxpy.diag(weight) @ incidence.T
    limits = [off << bound * np.eye(n), off >> -bound * np.eye(n), abs(incidence) @ weight <= 1]
    cvxpy.Problem(cvxpy.Minimize(bound), limits).solve(solver=cvxpy.CLARABEL)
    found: Real = np.maximum(weight.value, 0)
    return _feasible(found, n, low, high)
