"""What the laws share: equal random values on every rank, and the dense W @ x to compare with."""

from __future__ import annotations

from contextlib import contextmanager, suppress

import numpy as np
import torch

import ifog
from ifog import errors
from ifog.context import current
from ifog.layout import Layout

GRAPHS = ("ring", "exponential", "star", "grid", "complete", "symmetric_exponential")


def layouts():
    """Ways in which the ranks may sit on machines, also unequally and out of order."""
    n = ifog.size()
    ways = [
        [0] * n,
        range(n),
        [r // 2 for r in range(n)],
        [r // 3 for r in range(n)],
        [r % 2 for r in range(n)],
        [max(0, r - n // 2) for r in range(n)],
    ]
    return sorted({tuple(way) for way in ways})


@contextmanager
def on(machines):
    """The ranks sit on these machines meanwhile; every rank must enter it."""
    context = current()
    before = context.layout
    context.arrange(Layout(tuple(machines)))
    try:
        yield
    finally:
        context.arrange(before)


def machine_means(machines, x):
    """[M, ...] the mean of x, [n, ...], over the ranks of every machine."""
    return torch.stack(
        [
            x[[r for r in range(len(machines)) if machines[r] == m]].mean(0)
            for m in range(max(machines) + 1)
        ]
    )


def stack(shape=(3,), dtype=torch.float64, seed=0):
    """The same [n, *shape] values on every rank; row r is rank r's."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(
        ifog.size(), *shape, generator=generator, dtype=torch.float64, device=generator.device
    )
    return x.to(torch.get_default_device(), dtype)


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
    return torch.from_numpy(w).to(torch.get_default_device())


def mixed(w, x):
    return torch.einsum("vu,u...->v...", w, x)


def near(got, expected, *, atol=1e-14):
    """Whether two tensors are the same up to rounding, their shapes included."""
    # torch.allclose forgives five digits by default, and shapes that broadcast.
    return got.shape == expected.shape and torch.allclose(got, expected, rtol=0, atol=atol)


def raises(error, function, *words):
    try:
        function()
    except error as caught:
        missing = [word for word in words if word not in str(caught)]
        assert not missing, f"{caught!s} does not say {missing}"
    else:
        raise AssertionError(f"nothing raised; expected {error.__name__}")


def fail_and_heal():
    """Rank 0 fails while the others may be in the middle of something."""
    if ifog.rank() == 0:
        current().abort("lost its way")
    else:
        with suppress(errors.PeerFailedError):
            ifog.barrier()
    current().heal()
