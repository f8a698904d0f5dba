"""Momentum over a graph: it amplifies the bias of diffusion, unless it is applied with care.

At a fixed point DmSGD with step a and momentum b is as biased as ``atc`` with a / (1 - b). The
others are as biased as ``atc`` with a, or not at all.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ifog.algorithms.base import Algorithm, Grad, Mix, Rate, descend

__all__ = ["decent_lam", "dm_sgd", "momentum_tracking", "qg_dsgdm"]


class MomentumState(NamedTuple):
    """The State of diffusion with momentum."""

    x: Tensor  # [n, ...] query point
    m: Tensor  # [n, ...] momentum


class MomentumTrackingState(NamedTuple):
    """The State of Momentum Tracking."""

    x: Tensor  # [n, ...] query point
    u: Tensor  # [n, ...] local momentum
    y: Tensor  # [n, ...] mixed tracker of the momentum


def dm_sgd(lr: Rate, *, momentum: Rate = 0.9) -> Algorithm:
    """Diffusion with local momentum (DmSGD).

    ::

        m+ = b m + g(x);   x+ = W (x - a m+);   m0 = 0

    Doubly stochastic W, which may change. Not exact: the bias is that of ``atc`` with the step
    a / (1 - b), which is large where the agents' data differ.

    Args:
        lr: a.
        momentum: b.

    Example:
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import dm_sgd, iterate
        >>> from ifog.problems import quadratics
        >>> problem, mix = quadratics(8), MatrixMixer(ring(8))
        >>> state = iterate(dm_sgd(0.01), problem.zeros(), problem, mix, 1000)
        >>> round(float(state.x.std(correction=0)), 6)  # as atc(0.1)
        0.541602

    Sources: Yu, Jin, Yang 2019, arXiv:1905.03817; its bias: Yuan, Chen, Huang, Zhang, Pan, Xu, Yin
    2021, arXiv:2104.11981.
    """

    def step(s: MomentumState, grad: Grad, mix: Mix) -> MomentumState:
        m = momentum * s.m + grad(s.x)
        return MomentumState(mix(descend(s.x, m, lr)), m)

    return Algorithm(_init, step)


def decent_lam(lr: Rate, *, momentum: Rate = 0.9) -> Algorithm:
    """Momentum on the whole step of diffusion, mixing included (DecentLaM).

    ::

        d = (x - W (x - a g(x))) / a;   m+ = b m + d;   x+ = x - a m+;   m0 = 0

    Symmetric doubly stochastic W. Not exact: the bias is that of ``atc`` with the step a,
    whatever b is.

    Args:
        lr: a.
        momentum: b.

    Example:
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import decent_lam, iterate
        >>> from ifog.problems import quadratics
        >>> problem, mix = quadratics(8), MatrixMixer(ring(8))
        >>> state = iterate(decent_lam(0.1), problem.zeros(), problem, mix, 1000)
        >>> round(float(state.x.std(correction=0)), 6)  # as atc(0.1)
        0.541602

    Source: Yuan, Chen, Huang, Zhang, Pan, Xu, Yin 2021, arXiv:2104.11981.
    """

    def step(s: MomentumState, grad: Grad, mix: Mix) -> MomentumState:
        d = (s.x - mix(descend(s.x, grad(s.x), lr))) / lr
        m = momentum * s.m + d
        return MomentumState(descend(s.x, m, lr), m)

    return Algorithm(_init, step)


def qg_dsgdm(lr: Rate, *, momentum: Rate = 0.9) -> Algorithm:
    """Diffusion with momentum along the way that x really went (QG-DSGDm).

    ::

        x+ = W (x - a (b m + g(x)));   m+ = b m + (1 - b) (x - x+) / a;   m0 = 0

    Doubly stochastic W, which may change. Not exact: the bias is that of ``atc`` with the step a,
    whatever b is. (Some code scales the step by 1/(1 + b).)

    Args:
        lr: a.
        momentum: b.

    Example:
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import iterate, qg_dsgdm
        >>> from ifog.problems import quadratics
        >>> problem, mix = quadratics(8), MatrixMixer(ring(8))
        >>> state = iterate(qg_dsgdm(0.1), problem.zeros(), problem, mix, 1000)
        >>> round(float(state.x.std(correction=0)), 6)  # as atc(0.1)
        0.541602

    Source: Lin, Karimireddy, Stich, Jaggi 2021, arXiv:2102.04761.
    """

    def step(s: MomentumState, grad: Grad, mix: Mix) -> MomentumState:
        m = momentum * s.m + grad(s.x)
        x = mix(descend(s.x, m, lr))
        return MomentumState(x, momentum * s.m + ((1 - momentum) / lr) * (s.x - x))

    return Algorithm(_init, step)


def momentum_tracking(lr: Rate, *, momentum: Rate = 0.9) -> Algorithm:
    """Gradient tracking of the local momentum instead of the gradient (Momentum Tracking).

    ::

        u+ = b u + g(x);   y = W y- + u+ - u;   x+ = W x - a y;   u, y zero before the start

    Doubly stochastic W. Exact.

    Args:
        lr: a.
        momentum: b.

    Example:
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import iterate, momentum_tracking
        >>> from ifog.problems import quadratics
        >>> problem, mix = quadratics(8), MatrixMixer(ring(8))
        >>> state = iterate(momentum_tracking(0.01), problem.zeros(), problem, mix, 1000)
        >>> float((state.x - problem.optimum()).abs().max()) < 1e-9
        True

    Source: Takezawa, Bao, Niwa, Sato, Yamada 2023, arXiv:2209.15505.
    """

    def init(x: Tensor) -> MomentumTrackingState:
        return MomentumTrackingState(x, torch.zeros_like(x), torch.zeros_like(x))

    def step(s: MomentumTrackingState, grad: Grad, mix: Mix) -> MomentumTrackingState:
        u = momentum * s.u + grad(s.x)
        y = (s.y + u).sub_(s.u)
        wx, wy = mix(s.x, y)
        return MomentumTrackingState(descend(wx, y, lr), u, wy)

    return Algorithm(init, step)


def _init(x: Tensor) -> MomentumState:
    return MomentumState(x, torch.zeros_like(x))
