"""Gradient tracking: every agent estimates the mean gradient and descends along that.

The trackers y keep ``sum_i y_i = sum_i g_i`` at every step, so they agree only on the gradient of
the mean: exact at a fixed step with any doubly stochastic W, directed or changing ones too.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ifog.algorithms.base import Algorithm, Grad, Mix, Rate, Samples, descend
from ifog.algorithms.draws import integers, keys

__all__ = ["aug_dgm", "diging", "gradient_tracking", "gt_saga", "k_gt"]


class TrackingState(NamedTuple):
    """The State of gradient tracking."""

    x: Tensor  # [n, ...] query point
    y: Tensor  # [n, ...] mixed tracker
    g: Tensor  # [n, ...] last gradient


class SagaState(NamedTuple):
    """The State of GT-SAGA."""

    x: Tensor  # [n, ...] query point
    y: Tensor  # [n, ...] mixed tracker
    g: Tensor  # [n, ...] last estimate of the gradient
    table: Tensor | None  # [n, m, ...] last gradient of each sample; None before the first step
    k: int


class LocalTrackingState(NamedTuple):
    """The State of K-GT."""

    x: Tensor  # [n, ...] query point
    c: Tensor  # [n, ...] what the mean gradient has that the own one lacks
    start: Tensor  # [n, ...] x after the last message
    k: int


def diging(lr: Rate) -> Algorithm:
    """Gradient tracking that adapts while combining (DIGing).

    ::

        y = W y- + g(x) - g(x-);   x+ = W x - a y;   y, g zero before the start

    Doubly stochastic W, which may change. Exact. One message carries both.

    Args:
        lr: a.

    Example:
        >>> from ifog import MatrixMixer, one_peer
        >>> from ifog.algorithms import diging, iterate
        >>> from ifog.problems import quadratics
        >>> problem = quadratics(8)
        >>> state = iterate(diging(0.1), problem.zeros(), problem, MatrixMixer(one_peer(8)), 400)
        >>> float((state.x - problem.optimum()).abs().max()) < 1e-9
        True

    Source: Nedic, Olshevsky, Shi 2017, arXiv:1607.03218.
    """

    def init(x: Tensor) -> TrackingState:
        return TrackingState(x, torch.zeros_like(x), torch.zeros_like(x))

    def step(s: TrackingState, grad: Grad, mix: Mix) -> TrackingState:
        g = grad(s.x)
        y = (s.y + g).sub_(s.g)
        wx, wy = mix(s.x, y)
        return TrackingState(descend(wx, y, lr), wy, g)

    return Algorithm(init, step)


def aug_dgm(lr: Rate) -> Algorithm:
    """Gradient tracking that adapts, then combines, in two messages (Aug-DGM).

    ::

        y+ = W (y + g(x) - g(x-));   x+ = W (x - a y+);   y, g zero before the start

    Doubly stochastic W. Exact. The second message needs what the first brought,
    so a step takes two rounds; ``gradient_tracking`` has the same fixed point in one.

    Args:
        lr: a; a tensor [n, 1, ...] gives each agent its own.

    Example:
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import aug_dgm, iterate
        >>> from ifog.problems import quadratics
        >>> problem = quadratics(8)
        >>> state = iterate(aug_dgm(0.1), problem.zeros(), problem, MatrixMixer(ring(8)), 400)
        >>> float((state.x - problem.optimum()).abs().max()) < 1e-9
        True

    Source: Xu, Zhu, Soh, Xie 2015, doi:10.1109/CDC.2015.7402509.
    """

    def init(x: Tensor) -> TrackingState:
        return TrackingState(x, torch.zeros_like(x), torch.zeros_like(x))

    def step(s: TrackingState, grad: Grad, mix: Mix) -> TrackingState:
        g = grad(s.x)
        y = mix((s.y + g).sub_(s.g))
        return TrackingState(mix(descend(s.x, y, lr)), y, g)

    return Algorithm(init, step)


def gradient_tracking(lr: Rate) -> Algorithm:
    """Gradient tracking that adapts, then combines, in one message (ATC-GT, NEXT).

    ::

        y' = y + g(x) - g(x-);   (x+, y) = W (x - a y', y');   y, g zero before the start

    Doubly stochastic W, which may change. Exact.

    Args:
        lr: a.

    Example:
        >>> from ifog import MatrixMixer, one_peer
        >>> from ifog.algorithms import gradient_tracking, iterate
        >>> from ifog.problems import quadratics
        >>> problem, mix = quadratics(8), MatrixMixer(one_peer(8))
        >>> state = iterate(gradient_tracking(0.1), problem.zeros(), problem, mix, 400)
        >>> float((state.x - problem.optimum()).abs().max()) < 1e-9
        True

    Sources: Di Lorenzo, Scutari 2016, arXiv:1602.00591; its rate: Nedic, Olshevsky, Shi 2017,
    arXiv:1607.03218; stochastic: Pu, Nedic 2021, arXiv:1805.11454.
    """

    def init(x: Tensor) -> TrackingState:
        return TrackingState(x, torch.zeros_like(x), torch.zeros_like(x))

    def step(s: TrackingState, grad: Grad, mix: Mix) -> TrackingState:
        g = grad(s.x)
        y = (s.y + g).sub_(s.g)
        x, wy = mix(descend(s.x, y, lr), y)
        return TrackingState(x, wy, g)

    return Algorithm(init, step)


def gt_saga(lr: Rate, *, seed: int = 0) -> Algorithm:
    """Gradient tracking of one sample a step, whose variance vanishes (GT-SAGA).

    With z_ij the last gradient of sample j of agent i, from x0 on, and j drawn from (seed, i, k)::

        g = grad f_ij(x) - z_ij + mean_j z_ij;   z_ij = grad f_ij(x)
        y' = y + g - g-;   (x+, y) = W (x - a y', y')

    Doubly stochastic W. Exact in spite of sampling. Takes an oracle with ``each`` and ``some``,
    such as ``ifog.problems.LeastSquares``, and memory for the gradients of all samples.

    Args:
        lr: a.
        seed: of the draws.

    Example:
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import gt_saga, iterate
        >>> from ifog.problems import least_squares
        >>> problem = least_squares(4, dimension=2, samples=10)
        >>> mix = MatrixMixer(ring(4))
        >>> state = iterate(gt_saga(0.03), problem.zeros(), problem, mix, 2000)
        >>> float((state.x - problem.optimum()).abs().max()) < 1e-9
        True

    Source: Xin, Khan, Kar 2020, arXiv:1912.04230.
    """

    def init(x: Tensor) -> SagaState:
        return SagaState(x, torch.zeros_like(x), torch.zeros_like(x), None, 0)

    def step(s: SagaState, grad: Samples, mix: Mix) -> SagaState:
        table = grad.each(s.x) if s.table is None else s.table
        which = integers(keys(seed, mix.agents.to(s.x.device), s.k), table.shape[1])
        here = (torch.arange(len(which), device=which.device), which)
        new = grad.some(s.x, which[:, None])
        g = new - table[here] + table.mean(1)
        y = (s.y + g).sub_(s.g)
        x, wy = mix(descend(s.x, y, lr), y)
        return SagaState(x, wy, g, table.index_put(here, new), s.k + 1)

    return Algorithm(init, step, ("samples",))


def k_gt(lr: Rate, *, every: int, outer: Rate = 1.0) -> Algorithm:
    """Gradient tracking with local steps (K-GT): K = ``every`` steps to a message.

    With x_r what the last message gave::

        x <- x - a (g(x) + c)                                    in every step
        z = (x_r - x)/(K a);  x_r, x <- W (x_r - K a b z);  c <- c - z + W z    in every K-th

    Doubly stochastic W. Exact for any K; c is zero at the start and sums to zero always.

    Args:
        lr: a, the local step.
        every: K.
        outer: b, how far to go along what the local steps found.

    Example:
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import iterate, k_gt
        >>> from ifog.problems import quadratics
        >>> problem, mix = quadratics(8), MatrixMixer(ring(8))
        >>> state = iterate(k_gt(0.02, every=5), problem.zeros(), problem, mix, 4000)
        >>> float((state.x - problem.optimum()).abs().max()) < 1e-9
        True

    Source: Liu, Lin, Koloskova, Stich 2024, arXiv:2301.01313.
    """

    def init(x: Tensor) -> LocalTrackingState:
        return LocalTrackingState(x, torch.zeros_like(x), x, 0)

    def step(s: LocalTrackingState, grad: Grad, mix: Mix) -> LocalTrackingState:
        x = descend(s.x, grad(s.x) + s.c, lr)
        k = s.k + 1
        if k % every:
            return LocalTrackingState(x, s.c, s.start, k)
        z = (s.start - x) / (every * lr)
        x, wz = mix(descend(s.start, z, every * lr * outer), z)
        return LocalTrackingState(x, s.c - z + wz, x, k)

    return Algorithm(init, step)
