"""Asynchrony as a model: a step is an event, in which some agents meet and the others do not.

What really happens without a common clock depends on time and is not the same twice; on ranks
that is what window mixers do. Here the events are drawn, so a run can be repeated.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ifog.algorithms.base import Algorithm, Grad, Mix, Rate, descend
from ifog.algorithms.draws import keys, uniform

__all__ = ["ad_psgd"]


class EventState(NamedTuple):
    """The State of AD-PSGD."""

    x: Tensor  # [n, ...] query point: what the agents had ``delay`` events ago
    live: Tensor  # [n, ...] what they have
    past: tuple[Tensor, ...]  # [n, ...] each: what they had since, the oldest first
    k: int


def ad_psgd(lr: Rate, *, delay: int = 0, seed: int = 0) -> Algorithm:
    """Pairs average, and one of each pair descends along an old gradient (AD-PSGD, as a model).

    In event k agents i, j of each pair draw who of them woke, say i, and::

        live_i+ = (live_i + live_j)/2 - a g_i(live_i of ``delay`` events ago)
        live_j+ = (live_i + live_j)/2;   nothing happens to agents that are in no pair

    Averages of pairs that do not overlap, which may change and should. Not exact at a fixed step;
    the points fluctuate. The gradient is taken at ``state.x``, the old point; look at
    ``state.live``.

    Args:
        lr: a.
        delay: how old gradients are, in events.
        seed: of the draws.

    Example:
        >>> import numpy as np, ifog
        >>> from ifog.algorithms import ad_psgd, iterate
        >>> from ifog.problems import quadratics
        >>> def pairs(k):
        ...     order = np.random.default_rng(k).permutation(8).reshape(4, 2)
        ...     W = np.zeros((8, 8))
        ...     for pair in order:
        ...         W[np.ix_(pair, pair)] = 0.5
        ...     return ifog.from_matrix(W)
        >>> problem, mix = quadratics(8), ifog.MatrixMixer(pairs)
        >>> state = iterate(ad_psgd(0.01, delay=4), problem.zeros(), problem, mix, 1500)
        >>> float((state.live - problem.optimum()).abs().max()) < 0.5
        True

    Source: Lian, Zhang, Zhang, Liu 2018, arXiv:1710.06952.
    """

    def init(x: Tensor) -> EventState:
        return EventState(x, x, (x,) * delay, 0)

    def step(s: EventState, grad: Grad, mix: Mix) -> EventState:
        g = grad(s.x)
        # Who drew more of a pair is above the average of both; who is in no pair is the average.
        key = keys(seed, mix.agents.to(g.device), s.k)
        u = uniform(key, *(1 for _ in g.shape[1:]), dtype=g.dtype)
        met, mean = mix(s.live, u)
        live = torch.where(u > mean, descend(met, g, lr), met)
        x, *past = (*s.past, live)
        return EventState(x, live, tuple(past), s.k + 1)

    return Algorithm(init, step)
