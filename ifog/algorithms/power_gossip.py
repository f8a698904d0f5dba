"""Averaging of matrices by messages of rank one: two neighbours find out along what they differ.

The difference of two neighbours' matrices is multiplied by a vector from the left and from the
right in turn, which is a power iteration: it finds the direction that matters.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ifog.algorithms.base import Algorithm, Grad, Mix, Rate, descend
from ifog.algorithms.draws import keys, normal

__all__ = ["power_gossip"]


class PowerState(NamedTuple):
    """The State of PowerGossip."""

    x: Tensor  # [n, rows, columns] query point
    q: Tensor | None  # [n, degree, columns, or rows in every other step]; None before the first
    k: int


def power_gossip(lr: Rate, *, seed: int = 0) -> Algorithm:
    """Descent with averaging by rank-one messages (PowerGossip).

    With h = x - a g(x), D = h_i - h_j over the edge from i to j > i, and q kept per edge::

        u = D q/|q|;   h_i <- h_i - W_ij u q'/|q|;   h_j <- h_j + W_ij u q'/|q|;   q+ = u

    with D, q of the transposed matrices in every other step. Symmetric doubly stochastic W that
    does not change. Averaging alone (``lr=0``) is exact; with gradients it has a bias of O(a), as
    diffusion has. x is [n, rows, columns]; a message is a vector instead of a matrix.

    Args:
        lr: a.
        seed: of the first q, and of those that replace a q that has become zero.

    Example:
        >>> import torch
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import iterate, power_gossip
        >>> x = torch.arange(160.0).double().sin().view(8, 4, 5)
        >>> state = iterate(power_gossip(0.0), x, torch.zeros_like, MatrixMixer(ring(8)), 600)
        >>> float((state.x - x.mean(0)).abs().max()) < 1e-9
        True

    Source: Vogels, Karimireddy, Jaggi 2020, arXiv:2008.01425.
    """

    def init(x: Tensor) -> PowerState:
        return PowerState(x, None, 0)

    def step(s: PowerState, grad: Grad, mix: Mix) -> PowerState:
        h = descend(s.x, grad(s.x), lr)
        m = h.mT if s.k % 2 else h
        slots = mix.slots()
        upward = torch.where(slots.ids > mix.agents[:, None], 1.0, -1.0).to(h)  # [n, degree]
        q = _directions(s, m, mix, seed)
        own = torch.einsum("nrc,nsc->nsr", m, q)
        u = upward[..., None] * (own - mix.swap(own))
        share = upward * slots.weights.to(h)
        m = m - torch.einsum("ns,nsr,nsc->nrc", share, u, q)
        return PowerState(m.mT.contiguous() if s.k % 2 else m, u, s.k + 1)

    return Algorithm(init, step, ("edges", "matrices"))


def _directions(s: PowerState, m: Tensor, mix: Mix, seed: int) -> Tensor:
    """[n, degree, columns of m] a unit vector for each edge, the same at both ends."""
    ids, size = mix.slots().ids, m.shape[2]
    low, high = torch.minimum(ids, mix.agents[:, None]), torch.maximum(ids, mix.agents[:, None])
    q = s.q if s.q is not None else m.new_zeros(*ids.shape, size)
    found = q.norm(dim=2, keepdim=True) > 0
    if not bool(found.all()):
        # Equal neighbours leave no direction behind, and may differ again later.
        edges = (low * mix.total + high).flatten()
        drawn = normal(keys(seed, edges.to(m.device), s.k), size, dtype=m.dtype).view_as(q)
        q = torch.where(found, q, drawn)
    return torch.nn.functional.normalize(q, dim=2)
