"""Primal-dual methods: a price on disagreement, raised until nobody disagrees.

All are exact at fixed parameters over undirected graphs; W is symmetric and doubly stochastic.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ifog.algorithms.base import Algorithm, Grad, Mix, Prox, Rate, descend
from ifog.algorithms.draws import coin

__all__ = ["admm", "dlm", "led", "prox_skip"]


class AdmmState(NamedTuple):
    """The State of ADMM and DLM."""

    x: Tensor  # [n, ...] query point
    wx: Tensor | None  # [n, ...] W x; None before the first step
    price: Tensor  # [n, ...] dual


class LocalDualState(NamedTuple):
    """The State of LED and ProxSkip."""

    x: Tensor  # [n, ...] query point
    y: Tensor  # [n, ...] dual: minus a multiple of the own gradient, once at the optimum
    k: int


def admm(penalty: float) -> Algorithm:
    """Decentralized ADMM: every agent minimises its own function plus a pull to its neighbours.

    With c the penalty::

        x+ = argmin over z of f_i(z) + <p, z> + c |z - (x + W x)/2|^2
        p+ = p + c (x+ - W x+);   p0 = 0

    Symmetric doubly stochastic W. Exact. Takes an oracle with ``prox``.

    Args:
        penalty: c, any positive number; about the curvature is best.

    Example:
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import admm, iterate
        >>> from ifog.problems import quadratics
        >>> problem = quadratics(8)
        >>> state = iterate(admm(1.0), problem.zeros(), problem, MatrixMixer(ring(8)), 200)
        >>> float((state.x - problem.optimum()).abs().max()) < 1e-9
        True

    Source: Shi, Ling, Yuan, Wu, Yin 2014, arXiv:1307.5561, with the weights of W on the edges.
    """

    def step(s: AdmmState, grad: Prox, mix: Mix) -> AdmmState:
        wx = mix(s.x) if s.wx is None else s.wx
        x = grad.prox((s.x + wx) / 2 - s.price / (2 * penalty), 2 * penalty)
        wx = mix(x)
        return AdmmState(x, wx, s.price + penalty * (x - wx))

    return Algorithm(_init, step, ("prox",))


def dlm(penalty: Rate, *, proximity: Rate) -> Algorithm:
    """ADMM by gradient steps instead of minimisations (DLM).

    With c the penalty and r the proximity::

        x+ = x - (g(x) + c (x - W x) + p) / (2 c + r);   p+ = p + c (x+ - W x+);   p0 = 0

    Symmetric doubly stochastic W. Exact for r of at least L.

    Args:
        penalty: c.
        proximity: r, the inverse of a step.

    Example:
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import dlm, iterate
        >>> from ifog.problems import quadratics
        >>> problem, mix = quadratics(8), MatrixMixer(ring(8))
        >>> state = iterate(dlm(0.5, proximity=1.0), problem.zeros(), problem, mix, 400)
        >>> float((state.x - problem.optimum()).abs().max()) < 1e-9
        True

    Source: Ling, Shi, Wu, Ribeiro 2015, doi:10.1109/TSP.2015.2436358.
    """

    def step(s: AdmmState, grad: Grad, mix: Mix) -> AdmmState:
        g = grad(s.x)
        apart = s.x - (mix(s.x) if s.wx is None else s.wx)
        x = descend(s.x, g + penalty * apart + s.price, 1 / (2 * penalty + proximity))
        wx = mix(x)
        return AdmmState(x, wx, s.price + penalty * (x - wx))

    return Algorithm(_init, step)


def led(lr: Rate, *, every: int, dual: Rate) -> Algorithm:
    """Exact diffusion with local steps (LED, local exact diffusion).

    ::

        x <- x - a g(x) - b y                  in every step
        x, y <- W x, y + x - W x               in every ``every``-th as well;   y0 = 0

    Symmetric doubly stochastic W. Exact for any number of local steps.

    Args:
        lr: a.
        every: from one message to the next.
        dual: b, at most 1/``every``.

    Example:
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import iterate, led
        >>> from ifog.problems import quadratics
        >>> problem, mix = quadratics(8), MatrixMixer(ring(8))
        >>> state = iterate(led(0.05, every=5, dual=0.2), problem.zeros(), problem, mix, 2000)
        >>> float((state.x - problem.optimum()).abs().max()) < 1e-9
        True

    Source: Alghunaim 2024, arXiv:2302.00620.
    """

    def step(s: LocalDualState, grad: Grad, mix: Mix) -> LocalDualState:
        x, k = descend(s.x, grad(s.x), lr) - dual * s.y, s.k + 1
        if k % every:
            return LocalDualState(x, s.y, k)
        wx = mix(x)
        return LocalDualState(wx, s.y + x - wx, k)

    return Algorithm(_local, step)


def prox_skip(lr: Rate, *, probability: float, seed: int = 0) -> Algorithm:
    """Local steps, and messages at random (decentralized ProxSkip, Scaffnew).

    With q the probability, and a coin that all agents share::

        z = x - a g(x) - y
        x+ = (z + W z)/2;   y+ = y + q (z - x+)    with probability q
        x+ = z;             y+ = y                 otherwise;   y0 = 0

    Symmetric doubly stochastic W. Exact, with as few messages as the square root of the steps.

    Args:
        lr: a, below 2/L whatever q is.
        probability: q, of a message in a step.
        seed: of the coin.

    Example:
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import iterate, prox_skip
        >>> from ifog.problems import quadratics
        >>> problem, mix = quadratics(8), MatrixMixer(ring(8))
        >>> method = prox_skip(0.1, probability=0.3)
        >>> state = iterate(method, problem.zeros(), problem, mix, 2000)
        >>> float((state.x - problem.optimum()).abs().max()) < 1e-9
        True

    Sources: Mishchenko, Malinovsky, Stich, Richtarik 2022, arXiv:2202.09357; over a graph: Guo,
    Alghunaim, Yuan, Condat, Cao 2023, arXiv:2310.07983.
    """

    def step(s: LocalDualState, grad: Grad, mix: Mix) -> LocalDualState:
        z = descend(s.x, grad(s.x), lr) - s.y
        if coin(seed, s.k) >= probability:
            return LocalDualState(z, s.y, s.k + 1)
        x = (z + mix(z)) / 2
        return LocalDualState(x, s.y + probability * (z - x), s.k + 1)

    return Algorithm(_local, step)


def _init(x: Tensor) -> AdmmState:
    return AdmmState(x, None, torch.zeros_like(x))


def _local(x: Tensor) -> LocalDualState:
    return LocalDualState(x, torch.zeros_like(x), 0)
