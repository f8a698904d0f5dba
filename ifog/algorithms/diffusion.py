"""Gradient descent with averaging, uncorrected: simple, robust, and biased at a fixed step.

The agents end near the optimum of the mean, at a distance that is proportional to the step and to
how much their own optima differ. ``scheduled`` with a vanishing step takes the bias away.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ifog.algorithms.base import Algorithm, Grad, Mix, Rate, descend

__all__ = ["atc", "dgd", "local_dgd"]


class Diffusion(NamedTuple):
    """The State of descent with averaging."""

    x: Tensor  # [n, ...] query point


class LocalDiffusion(NamedTuple):
    """The State of descent with averaging now and then."""

    x: Tensor  # [n, ...] query point
    k: int


def dgd(lr: Rate) -> Algorithm:
    """Decentralized gradient descent: combine while adapting (AWC, CTA; D-PSGD when stochastic).

    ::

        x+ = W x - a g(x)

    Doubly stochastic W, which may change. Not exact: with symmetric W it ends at the minimum of
    ``sum_i f_i(x_i) + x'(I - W)x / (2 a)``, at a distance of O(a) from the optimum. The message
    can travel while the gradient is computed.

    Args:
        lr: a.

    Example:
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import dgd, iterate
        >>> from ifog.problems import quadratics
        >>> problem = quadratics(8)
        >>> state = iterate(dgd(0.1), problem.zeros(), problem, MatrixMixer(ring(8)), 400)
        >>> round(float(state.x.mean()), 6), round(float(state.x.std(correction=0)), 6)
        (3.5, 0.64318)

    Sources: Nedic, Ozdaglar 2009, doi:10.1109/TAC.2008.2009515; the bias: Yuan, Ling, Yin 2013,
    arXiv:1310.7063; stochastic: Lian, Zhang, Zhang, Hsieh, Zhang, Liu 2017, arXiv:1705.09056.
    """

    def init(x: Tensor) -> Diffusion:
        return Diffusion(x)

    def step(s: Diffusion, grad: Grad, mix: Mix) -> Diffusion:
        under_way = mix.start(s.x)
        g = grad(s.x)
        return Diffusion(descend(under_way.wait(), g, lr))

    return Algorithm(init, step)


def atc(lr: Rate) -> Algorithm:
    """Diffusion: adapt, then combine (ATC).

    ::

        x+ = W (x - a g(x))

    Doubly stochastic W, which may change. Not exact; its bias is a little below that of ``dgd``.

    Args:
        lr: a.

    Example:
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import atc, iterate
        >>> from ifog.problems import quadratics
        >>> problem = quadratics(8)
        >>> state = iterate(atc(0.1), problem.zeros(), problem, MatrixMixer(ring(8)), 400)
        >>> round(float(state.x.mean()), 6), round(float(state.x.std(correction=0)), 6)
        (3.5, 0.541602)

    Source: Chen, Sayed 2012, arXiv:1111.0034; survey: Sayed 2012, arXiv:1205.4220.
    """

    def init(x: Tensor) -> Diffusion:
        return Diffusion(x)

    def step(s: Diffusion, grad: Grad, mix: Mix) -> Diffusion:
        return Diffusion(mix(descend(s.x, grad(s.x), lr)))

    return Algorithm(init, step)


def local_dgd(lr: Rate, *, every: int) -> Algorithm:
    """Diffusion that averages in every ``every``-th step only.

    ::

        x+ = W (x - a g(x))   in steps every - 1, 2 every - 1, ...
        x+ = x - a g(x)       in the others

    Doubly stochastic W, which may change. Not exact; the bias grows about linearly in ``every``.

    Args:
        lr: a.
        every: from one message to the next.

    Example:
        >>> from ifog import MatrixMixer, complete
        >>> from ifog.algorithms import iterate, local_dgd
        >>> from ifog.problems import quadratics
        >>> problem, mix = quadratics(4), MatrixMixer(complete(4))
        >>> state = iterate(local_dgd(0.5, every=2), problem.zeros(), problem, mix, 2)
        >>> state.x.flatten().tolist(), mix.step
        ([1.125, 1.125, 1.125, 1.125], 1)

    Source: Koloskova, Loizou, Boreiri, Jaggi, Stich 2020, arXiv:2003.10422.
    """

    def init(x: Tensor) -> LocalDiffusion:
        return LocalDiffusion(x, 0)

    def step(s: LocalDiffusion, grad: Grad, mix: Mix) -> LocalDiffusion:
        x = descend(s.x, grad(s.x), lr)
        k = s.k + 1
        return LocalDiffusion(mix(x) if k % every == 0 else x, k)

    return Algorithm(init, step)
