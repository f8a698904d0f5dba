"""Local steps, and now and then one that all take together: few messages, each for everybody.

``mix.mean`` is the mean over all agents (an all-reduce on ranks); only Gossip-PGA and NoLoCo use
the graph. Descent between the common steps is plain: with different data the agents drift apart in
it, which leaves a bias that grows with ``every`` unless that is 1.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ifog.algorithms.base import Algorithm, Grad, Mix, Rate, descend

__all__ = ["diloco", "gossip_pga", "local_sgd", "noloco", "slow_mo"]


class LocalState(NamedTuple):
    """The State of local descent."""

    x: Tensor  # [n, ...] query point
    k: int


class OuterState(NamedTuple):
    """The State of methods with an outer step."""

    x: Tensor  # [n, ...] query point
    start: Tensor  # [n, ...] x after the last outer step
    m: Tensor  # [n, ...] outer momentum
    k: int


def local_sgd(lr: Rate, *, every: int) -> Algorithm:
    """Local descent with averaging over all agents (LocalSGD, federated averaging).

    ::

        x+ = J (x - a g(x))   in every ``every``-th step;   x+ = x - a g(x)   in the others

    No graph. Exact for ``every`` = 1 only.

    Args:
        lr: a.
        every: from one average to the next.

    Example:
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import iterate, local_sgd
        >>> from ifog.problems import quadratics
        >>> problem, mix = quadratics(4), MatrixMixer(ring(4))
        >>> iterate(local_sgd(0.5, every=2), problem.zeros(), problem, mix, 2).x.flatten().tolist()
        [1.125, 1.125, 1.125, 1.125]

    Source: Stich 2019, arXiv:1805.09767.
    """

    def step(s: LocalState, grad: Grad, mix: Mix) -> LocalState:
        x, k = descend(s.x, grad(s.x), lr), s.k + 1
        return LocalState(x if k % every else mix.mean(x), k)

    return Algorithm(_local, step, ("mean",))


def gossip_pga(lr: Rate, *, every: int) -> Algorithm:
    """Diffusion with an average over all agents now and then (Gossip-PGA).

    ::

        x+ = J (x - a g(x))   in every ``every``-th step;   x+ = W (x - a g(x))   in the others

    Doubly stochastic W, which may change. Exact for ``every`` = 1 only; always less biased than
    ``atc`` with the same W and than ``local_sgd``.

    Args:
        lr: a.
        every: from one average to the next.

    Example:
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import gossip_pga, iterate
        >>> from ifog.problems import quadratics
        >>> problem, mix = quadratics(8), MatrixMixer(ring(8))
        >>> state = iterate(gossip_pga(0.1, every=5), problem.zeros(), problem, mix, 400)
        >>> round(float(state.x.mean()), 6), float(state.x.std()) < 1e-12
        (3.5, True)

    Source: Chen, Yuan, Zhang, Pan, Xu, Yin 2021, arXiv:2105.09080.
    """

    def step(s: LocalState, grad: Grad, mix: Mix) -> LocalState:
        x, k = descend(s.x, grad(s.x), lr), s.k + 1
        return LocalState(mix(x) if k % every else mix.mean(x), k)

    return Algorithm(_local, step, ("mean",))


def slow_mo(lr: Rate, *, every: int, outer: Rate = 1.0, momentum: Rate = 0.7) -> Algorithm:
    """LocalSGD with momentum in the outer step (SlowMo).

    With x_r what the last outer step gave::

        x <- x - a g(x)                                           in every step
        u <- b u + (x_r - J x)/a;   x_r, x <- x_r - c a u         in every ``every``-th as well

    No graph. Ends where ``local_sgd`` does; with b = 0 and c = 1 it is that.

    Args:
        lr: a.
        every: from one outer step to the next.
        outer: c.
        momentum: b.

    Example:
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import iterate, slow_mo
        >>> from ifog.problems import quadratics
        >>> problem, mix = quadratics(8), MatrixMixer(ring(8))
        >>> state = iterate(slow_mo(0.1, every=4), problem.zeros(), problem, mix, 800)
        >>> float((state.x - problem.optimum()).abs().max()) < 1e-9  # equal curvatures: no bias
        True

    Source: Wang, Tantia, Ballas, Rabbat 2020, arXiv:1910.00643.
    """

    def step(s: OuterState, grad: Grad, mix: Mix) -> OuterState:
        x, k = descend(s.x, grad(s.x), lr), s.k + 1
        if k % every:
            return OuterState(x, s.start, s.m, k)
        u = momentum * s.m + (s.start - mix.mean(x)) / lr
        x = descend(s.start, u, outer * lr)
        return OuterState(x, x, u, k)

    return Algorithm(_outer, step, ("mean",))


def diloco(lr: Rate, *, every: int, outer: Rate = 0.7, momentum: Rate = 0.9) -> Algorithm:
    """LocalSGD whose outer step is Nesterov's on the mean change (DiLoCo).

    With x_r what the last outer step gave::

        x <- x - a g(x)                                                       in every step
        d = J (x_r - x);  u <- b u + d;  x_r, x <- x_r - c (d + b u)          in every ``every``-th

    No graph. Ends where ``local_sgd`` does; with b = 0 and c = 1 it is that. The published setting
    has AdamW for the local steps.

    Args:
        lr: a.
        every: from one outer step to the next.
        outer: c.
        momentum: b.

    Example:
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import diloco, iterate
        >>> from ifog.problems import quadratics
        >>> problem, mix = quadratics(8), MatrixMixer(ring(8))
        >>> state = iterate(diloco(0.1, every=4), problem.zeros(), problem, mix, 1600)
        >>> float((state.x - problem.optimum()).abs().max()) < 1e-9  # equal curvatures: no bias
        True

    Source: Douillard et al. 2023, arXiv:2311.08105.
    """

    def step(s: OuterState, grad: Grad, mix: Mix) -> OuterState:
        x, k = descend(s.x, grad(s.x), lr), s.k + 1
        if k % every:
            return OuterState(x, s.start, s.m, k)
        d = mix.mean(s.start - x)
        u = momentum * s.m + d
        x = descend(s.start, d + momentum * u, outer)
        return OuterState(x, x, u, k)

    return Algorithm(_outer, step, ("mean",))


def noloco(
    lr: Rate, *, every: int, outer: Rate = 0.7, momentum: Rate = 0.5, pull: Rate = 0.7
) -> Algorithm:
    """DiLoCo without an all-reduce: the outer step is between random pairs (NoLoCo).

    With x_r what the last outer step gave and W_k the averages of pairs::

        x <- x - a g(x)                                                       in every step
        m <- b m + c W_k (x - x_r) + p (W_k x_r - x_r);  x_r, x <- x_r + m    in every ``every``-th

    Averages of pairs, which may change and should, so that everybody meets everybody. Not exact: a
    bias of O(a). Without the pull, p = 0, the agents drift apart.

    Args:
        lr: a.
        every: from one outer step to the next.
        outer: c.
        momentum: b.
        pull: p, towards the partner's point.

    Example:
        >>> from ifog import MatrixMixer, one_peer
        >>> from ifog.algorithms import iterate, noloco
        >>> from ifog.problems import quadratics
        >>> problem, mix = quadratics(8), MatrixMixer(one_peer(8))
        >>> state = iterate(noloco(0.001, every=4), problem.zeros(), problem, mix, 20_000)
        >>> float((state.x - problem.optimum()).abs().max()) < 0.1
        True

    Source: Kolehmainen et al. 2025, arXiv:2506.10911.
    """

    def step(s: OuterState, grad: Grad, mix: Mix) -> OuterState:
        x, k = descend(s.x, grad(s.x), lr), s.k + 1
        if k % every:
            return OuterState(x, s.start, s.m, k)
        change, met = mix(x - s.start, s.start)
        m = momentum * s.m + outer * change + pull * (met - s.start)
        x = s.start + m
        return OuterState(x, x, m, k)

    return Algorithm(_outer, step)


def _local(x: Tensor) -> LocalState:
    return LocalState(x, 0)


def _outer(x: Tensor) -> OuterState:
    return OuterState(x, x, torch.zeros_like(x), 0)
