"""What the laws share: equal random values on every rank, and the dense W @ x to compare with."""

from __future__ import annotations

import numpy as np
import torch

import ifog

GRAPHS = ("ring", "exponential", "star", "grid", "complete", "symmetric_exponential")


def stack(shape=(3,), dtype=torch.float64, seed=0):
    """The same [n, *shape] values on every rank; row r is rank r's."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(ifog.size(), *shape, generator=generator, dtype=torch.float64).to(dtype)


def dense(graph, *, weighted):
    """W[v, u] of a graph, written out entry by entry."""
    n = graph.number_of_nodes()
    w = np.zeros((n, n))
    for u, v, weight in graph.edges(data="weight"):
        senders = [p for p in graph.predecessors(v) if p != v]
        w[v, u] = weight if weighted else 1 / (len(senders) + 1)
    if not weighted:
        for v in range(n):
            w[v, v] = 1 / (len([p for p in graph.predecessors(v) if p != v]) + 1)
    return torch.from_numpy(w)


def mixed(w, x):
    return torch.einsum("vu,u...->v...", w, x)


def raises(error, function, *words):
    try:
        function()
    except error as caught:
        missing = [word for word in words if word not in str(caught)]
        assert not missing, f"{caught!s} does not say {missing}"
    else:
        raise AssertionError(f"nothing raised; expected {error.__name__}")
