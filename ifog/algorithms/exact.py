"""Exact at a fixed step over undirected graphs, by using the last step's gradient once more.

One message a step, as for diffusion, and no bias however different the agents' data are. W must
be symmetric and doubly stochastic.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ifog.algorithms.base import Algorithm, Grad, Mix, Rate, descend

__all__ = ["d2", "exact_diffusion", "extra", "nids"]


class ExtraState(NamedTuple):
    """The State of EXTRA."""

    x: Tensor  # [n, ...] query point
    half: Tensor  # [n, ...] (x + W x) / 2 of the step before
    g: Tensor  # [n, ...] gradient of the step before


class ExactDiffusionState(NamedTuple):
    """The State of exact diffusion and D²."""

    x: Tensor  # [n, ...] query point
    psi: Tensor  # [n, ...] what descent alone made of the x before


class NidsState(NamedTuple):
    """The State of NIDS."""

    x: Tensor  # [n, ...] query point
    before: Tensor  # [n, ...] x - a g of the step before
    k: int


def extra(lr: Rate) -> Algorithm:
    """EXTRA: diffusion whose bias is taken away by the sum of all disagreements so far.

    ::

        x1     = W x0 - a g(x0)
        x[k+2] = (I + W) x[k+1] - (I + W)/2 x[k] - a (g(x[k+1]) - g(x[k]))

    Symmetric doubly stochastic W with eigenvalues above -1. Exact.

    Args:
        lr: a, up to about ``(1 + smallest eigenvalue of W) / L``.

    Example:
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import extra, iterate
        >>> from ifog.problems import quadratics
        >>> problem = quadratics(8)
        >>> state = iterate(extra(0.1), problem.zeros(), problem, MatrixMixer(ring(8)), 400)
        >>> float((state.x - problem.optimum()).abs().max()) < 1e-9
        True

    Source: Shi, Ling, Wu, Yin 2015, arXiv:1404.6264.
    """

    def init(x: Tensor) -> ExtraState:
        # With these the first step comes out as W x - a g(x).
        return ExtraState(x, x, torch.zeros_like(x))

    def step(s: ExtraState, grad: Grad, mix: Mix) -> ExtraState:
        g = grad(s.x)
        both = s.x + mix(s.x)
        return ExtraState(descend(both - s.half, g - s.g, lr), both / 2, g)

    return Algorithm(init, step)


def exact_diffusion(lr: Rate) -> Algorithm:
    """Exact diffusion: adapt, correct by what the last adaptation lost, combine.

    ::

        psi+ = x - a g(x);   phi = psi+ + x - psi;   x+ = (I + W)/2 phi;   psi0 = x0

    Symmetric doubly stochastic W. Exact.

    Args:
        lr: a.

    Example:
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import exact_diffusion, iterate
        >>> from ifog.problems import quadratics
        >>> problem, mix = quadratics(8), MatrixMixer(ring(8))
        >>> state = iterate(exact_diffusion(0.1), problem.zeros(), problem, mix, 400)
        >>> float((state.x - problem.optimum()).abs().max()) < 1e-9
        True

    Source: Yuan, Ying, Zhao, Sayed 2019, arXiv:1702.05122.
    """

    def init(x: Tensor) -> ExactDiffusionState:
        return ExactDiffusionState(x, x)

    def step(s: ExactDiffusionState, grad: Grad, mix: Mix) -> ExactDiffusionState:
        psi = descend(s.x, grad(s.x), lr)
        phi = psi + s.x - s.psi
        return ExactDiffusionState((phi + mix(phi)) / 2, psi)

    return Algorithm(init, step)


def d2(lr: Rate) -> Algorithm:
    """D²: exact diffusion that combines with W instead of (I + W)/2.

    ::

        psi+ = x - a g(x);   phi = psi+ + x - psi;   x+ = W phi;   psi0 = x0

    Symmetric doubly stochastic W with **eigenvalues of at least -1/3**; otherwise it diverges.
    Exact, and made for stochastic gradients.

    Args:
        lr: a.

    Example:
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import d2, iterate
        >>> from ifog.problems import quadratics
        >>> problem = quadratics(8)
        >>> state = iterate(d2(0.1), problem.zeros(), problem, MatrixMixer(ring(8)), 400)
        >>> float((state.x - problem.optimum()).abs().max()) < 1e-9
        True

    Source: Tang, Lian, Yan, Zhang, Liu 2018, arXiv:1803.07068.
    """

    def init(x: Tensor) -> ExactDiffusionState:
        return ExactDiffusionState(x, x)

    def step(s: ExactDiffusionState, grad: Grad, mix: Mix) -> ExactDiffusionState:
        psi = descend(s.x, grad(s.x), lr)
        return ExactDiffusionState(mix(psi + s.x - s.psi), psi)

    return Algorithm(init, step)


def nids(lr: Rate) -> Algorithm:
    """NIDS: exact, with a step that the graph does not limit.

    ::

        x1 = x0 - a g(x0);   x+ = (I + W)/2 (2 x - x- - a (g(x) - g(x-)))

    Symmetric doubly stochastic W. Exact for any step below 2/L. The first step is local.

    Args:
        lr: a, the same for all agents.

    Example:
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import iterate, nids
        >>> from ifog.problems import quadratics
        >>> problem = quadratics(8)
        >>> state = iterate(nids(1.0), problem.zeros(), problem, MatrixMixer(ring(8)), 400)
        >>> float((state.x - problem.optimum()).abs().max()) < 1e-9
        True

    Source: Li, Shi, Yan 2019, arXiv:1704.07807.
    """

    def init(x: Tensor) -> NidsState:
        return NidsState(x, torch.zeros_like(x), 0)

    def step(s: NidsState, grad: Grad, mix: Mix) -> NidsState:
        after = descend(s.x, grad(s.x), lr)
        if s.k == 0:
            return NidsState(after, after, 1)
        z = s.x + after - s.before
        return NidsState((z + mix(z)) / 2, after, s.k + 1)

    return Algorithm(init, step)
