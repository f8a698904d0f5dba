"""Compressed messages: what is sent is what the neighbours do not know yet, or cannot know.

Compressing the points themselves stalls. Compressing how they differ from copies that the
neighbours keep does not, because the difference goes to zero. W is symmetric and doubly
stochastic; ``compress`` is a codec of ``ifog.compression`` or anything called like one.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ifog.algorithms.base import Algorithm, Compressor, Grad, Mix, Rate, descend
from ifog.errors import ArgumentError

__all__ = [
    "beer",
    "choco_gossip",
    "choco_sgd",
    "deep_squeeze",
    "lead",
    "motef",
    "naive_compressed",
]


class ChocoState(NamedTuple):
    """The State of CHOCO."""

    x: Tensor  # [n, ...] query point
    copy: Tensor  # [n, ...] what the neighbours know of x
    mixed: Tensor  # [n, ...] W copy
    k: int


class BeerState(NamedTuple):
    """The State of BEER and MoTEF."""

    x: Tensor  # [n, ...] query point
    v: Tensor  # [n, ...] tracker
    m: Tensor  # [n, ...] last gradient, or the moving average of gradients
    copy_x: Tensor  # [n, ...] what the neighbours know of x
    mixed_x: Tensor  # [n, ...] W copy_x
    copy_v: Tensor  # [n, ...] what the neighbours know of v
    mixed_v: Tensor  # [n, ...] W copy_v
    k: int


class LeadState(NamedTuple):
    """The State of LEAD."""

    x: Tensor  # [n, ...] query point
    d: Tensor  # [n, ...] dual: minus the own gradient, once at the optimum
    h: Tensor  # [n, ...] what the neighbours know
    mixed: Tensor  # [n, ...] W h
    k: int


class FeedbackState(NamedTuple):
    """The State of methods that compress points."""

    x: Tensor  # [n, ...] query point
    e: Tensor  # [n, ...] what compression has lost so far
    k: int


def choco_gossip(compress: Compressor, *, gamma: Rate) -> Algorithm:
    """Averaging by compressed messages; takes no gradients.

    ::

        q = Q(x - c);   c+ = c + q;   s+ = s + W q;   x+ = x + gamma (s+ - c+);   c0 = s0 = 0

    Symmetric doubly stochastic W. Exact for any contraction Q and small enough gamma: .4 is safe
    for the top 20 %, .15 for random 20 %, 1 for quantisers of at least 2 levels.

    Args:
        compress: Q.
        gamma: how far to go towards the neighbours.

    Example:
        >>> import torch
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import choco_gossip, iterate
        >>> from ifog.compression import top_k
        >>> x, method = torch.arange(40.0).double().view(8, 5), choco_gossip(top_k(0.2), gamma=0.4)
        >>> state = iterate(method, x, None, MatrixMixer(ring(8)), 400)
        >>> float((state.x - x.mean(0)).abs().max()) < 1e-9
        True

    Source: Koloskova, Stich, Jaggi 2019, arXiv:1902.00340.
    """

    def step(s: ChocoState, grad: Grad, mix: Mix) -> ChocoState:
        del grad
        return _choco(s, s.x, compress, gamma, mix)

    return Algorithm(_choco_init, step)


def choco_sgd(lr: Rate, compress: Compressor, *, gamma: Rate) -> Algorithm:
    """Diffusion by compressed messages.

    ::

        h = x - a g(x);   q = Q(h - c);   c+ = c + q;   s+ = s + W q;   x+ = h + gamma (s+ - c+)

    Symmetric doubly stochastic W. Not exact at a fixed step; with a_k = b/(k + c) the error
    vanishes like 1/k (see ``scheduled``). gamma as for ``choco_gossip``.

    Args:
        lr: a.
        compress: Q.
        gamma: how far to go towards the neighbours.

    Example:
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import choco_sgd, iterate, scheduled
        >>> from ifog.compression import top_k
        >>> from ifog.problems import quadratics
        >>> problem, mix, codec = quadratics(8, dimension=5), MatrixMixer(ring(8)), top_k(0.2)
        >>> vanishing = scheduled(lambda k: choco_sgd(5 / (k + 100), codec, gamma=0.4))
        >>> state = iterate(vanishing, problem.zeros(), problem, mix, 2000)
        >>> float((state.x - problem.optimum()).abs().max()) < 0.2
        True

    Sources: Koloskova, Stich, Jaggi 2019, arXiv:1902.00340; for deep learning: Koloskova, Lin,
    Stich, Jaggi 2020, arXiv:1907.09356.
    """

    def step(s: ChocoState, grad: Grad, mix: Mix) -> ChocoState:
        return _choco(s, descend(s.x, grad(s.x), lr), compress, gamma, mix)

    return Algorithm(_choco_init, step)


def beer(lr: Rate, compress: Compressor, *, gamma: Rate) -> Algorithm:
    """Gradient tracking by compressed messages (BEER).

    With c, s what the neighbours know of x and W of that, and d, t the same of v::

        v+ = v + gamma (t - d) + g(x) - g(x-);   q = Q(v+ - d);   d+ = d + q;   t+ = t + W q
        x+ = x + gamma (s - c) - a v+;           p = Q(x+ - c);   c+ = c + p;   s+ = s + W p

    All but x is zero at the start. Symmetric doubly stochastic W. Exact for any contraction Q,
    with small enough a and gamma. One message carries p and q.

    Args:
        lr: a.
        compress: Q.
        gamma: how far to go towards the neighbours.

    Example:
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import beer, iterate
        >>> from ifog.compression import top_k
        >>> from ifog.problems import quadratics
        >>> problem, mix = quadratics(8, dimension=5), MatrixMixer(ring(8))
        >>> method = beer(0.05, top_k(0.2), gamma=0.3)
        >>> state = iterate(method, problem.zeros(), problem, mix, 1500)
        >>> float((state.x - problem.optimum()).abs().max()) < 1e-9
        True

    Source: Zhao, Li, Li, Richtarik, Chi 2022, arXiv:2201.13320.
    """
    return _tracking(lr, compress, gamma, 1.0)


def motef(lr: Rate, compress: Compressor, *, gamma: Rate, momentum: Rate = 0.1) -> Algorithm:
    """BEER that tracks a moving average of the gradients, for stochastic ones (MoTEF).

    ::

        m+ = (1 - b) m + b g(x),   which takes the place of g(x) in BEER

    Symmetric doubly stochastic W. Exact without noise, as BEER is.

    Args:
        lr: a.
        compress: Q.
        gamma: how far to go towards the neighbours.
        momentum: b, the weight of the newest gradient.

    Example:
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import iterate, motef
        >>> from ifog.compression import top_k
        >>> from ifog.problems import quadratics
        >>> problem, mix = quadratics(8, dimension=5), MatrixMixer(ring(8))
        >>> method = motef(0.05, top_k(0.2), gamma=0.3)
        >>> state = iterate(method, problem.zeros(), problem, mix, 2000)
        >>> float((state.x - problem.optimum()).abs().max()) < 1e-9
        True

    Source: Islamov, Gao, Stich 2024, arXiv:2405.20114.
    """
    return _tracking(lr, compress, gamma, momentum)


def lead(lr: Rate, compress: Compressor, *, gamma: Rate = 1.0, alpha: Rate = 0.5) -> Algorithm:
    """A primal-dual method by compressed messages (LEAD).

    ::

        y = x - a g(x) - a d;   q = Q(y - h);   z = h + q;   w = s + W q
        d+ = d + gamma/(2 a) (z - w);   h+ = (1 - b) h + b z;   s+ = (1 - b) s + b w
        x+ = x - a g(x) - a d+;   d0 = h0 = s0 = 0

    Symmetric doubly stochastic W. Exact. Q must be **unbiased**: with a biased one it diverges.

    Args:
        lr: a.
        compress: Q.
        gamma: the dual step.
        alpha: b, how fast the neighbours' copies follow; 1 for the identity.

    Raises:
        ArgumentError: Q is biased.

    Example:
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import iterate, lead
        >>> from ifog.compression import dithered
        >>> from ifog.problems import quadratics
        >>> problem, mix = quadratics(8, dimension=5), MatrixMixer(ring(8))
        >>> state = iterate(lead(0.1, dithered(2)), problem.zeros(), problem, mix, 1000)
        >>> float((state.x - problem.optimum()).abs().max()) < 1e-9
        True

    Source: Liu, Li, Wang, Tang, Yan 2021, arXiv:2007.00232.
    """
    if not compress.unbiased:
        name = getattr(compress, "name", type(compress).__name__)
        raise ArgumentError(
            f"lead: the compressor {name!r} is biased, with which this method diverges; use an "
            "unbiased one, such as ifog.compression.dithered(2), or beer"
        )

    def init(x: Tensor) -> LeadState:
        zero = torch.zeros_like(x)
        return LeadState(x, zero, zero, zero, 0)

    def step(s: LeadState, grad: Grad, mix: Mix) -> LeadState:
        down = descend(s.x, grad(s.x), lr)
        q = compress(down - lr * s.d - s.h, mix.agents, s.k)
        z, w = s.h + q, s.mixed + mix(q)
        d = s.d + (gamma / (2 * lr)) * (z - w)
        h, mixed = torch.lerp(s.h, z, alpha), torch.lerp(s.mixed, w, alpha)
        return LeadState(descend(down, d, lr), d, h, mixed, s.k + 1)

    return Algorithm(init, step)


def deep_squeeze(lr: Rate, compress: Compressor, *, gamma: Rate) -> Algorithm:
    """Diffusion by compressed points, with error feedback (DeepSqueeze).

    ::

        h = x - a g(x);   v = h + e;   q = Q(v);   e+ = v - q;   x+ = h + gamma (W q - q);   e0 = 0

    Symmetric doubly stochastic W. Not exact: since points are compressed and not differences, the
    agents stay apart by O(gamma), also without gradients. It keeps nothing of the neighbours.

    Args:
        lr: a.
        compress: Q.
        gamma: how far to go towards the neighbours, small.

    Example:
        >>> import torch
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import deep_squeeze, iterate
        >>> from ifog.compression import sign
        >>> x, mix = torch.arange(40.0).double().view(8, 5), MatrixMixer(ring(8))
        >>> state = iterate(deep_squeeze(0.0, sign(), gamma=0.1), x, torch.zeros_like, mix, 100)
        >>> bool(torch.allclose(state.x.mean(0), x.mean(0)))
        True

    Source: Tang, Lian, Qiu, Yuan, Zhang, Zhang, Liu 2019, arXiv:1907.07346.
    """

    def init(x: Tensor) -> FeedbackState:
        return FeedbackState(x, torch.zeros_like(x), 0)

    def step(s: FeedbackState, grad: Grad, mix: Mix) -> FeedbackState:
        h = descend(s.x, grad(s.x), lr)
        q = compress(h + s.e, mix.agents, s.k)
        return FeedbackState(h + gamma * (mix(q) - q), h + s.e - q, s.k + 1)

    return Algorithm(init, step)


def naive_compressed(lr: Rate, compress: Compressor) -> Algorithm:
    """Diffusion by compressed points: **does not work**, and is here to show that.

    ::

        h = x - a g(x);   x+ = h + W Q(h) - Q(h)

    Symmetric doubly stochastic W. The mean is right, but the agents never agree: compression adds
    an error at every step that does not become smaller.

    Args:
        lr: a; 0 for averaging alone.
        compress: Q.

    Example:
        >>> import torch
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import iterate, naive_compressed
        >>> from ifog.compression import top_k
        >>> x, mix = torch.arange(40.0).double().view(8, 5), MatrixMixer(ring(8))
        >>> state = iterate(naive_compressed(0.0, top_k(0.2)), x, torch.zeros_like, mix, 2000)
        >>> float((state.x - x.mean(0)).abs().max()) > 0.1
        True

    Source: the scheme that is improved on in Koloskova, Stich, Jaggi 2019, arXiv:1902.00340.
    """

    def init(x: Tensor) -> FeedbackState:
        return FeedbackState(x, torch.zeros_like(x), 0)

    def step(s: FeedbackState, grad: Grad, mix: Mix) -> FeedbackState:
        h = descend(s.x, grad(s.x), lr)
        q = compress(h, mix.agents, s.k)
        return FeedbackState(h + mix(q) - q, s.e, s.k + 1)

    return Algorithm(init, step)


def _choco_init(x: Tensor) -> ChocoState:
    return ChocoState(x, torch.zeros_like(x), torch.zeros_like(x), 0)


def _choco(s: ChocoState, h: Tensor, compress: Compressor, gamma: Rate, mix: Mix) -> ChocoState:
    q = compress(h - s.copy, mix.agents, s.k)
    copy, mixed = s.copy + q, s.mixed + mix(q)
    return ChocoState(h + gamma * (mixed - copy), copy, mixed, s.k + 1)


def _tracking(lr: Rate, compress: Compressor, gamma: Rate, momentum: Rate) -> Algorithm:
    def init(x: Tensor) -> BeerState:
        zero = torch.zeros_like(x)
        return BeerState(x, zero, zero, zero, zero, zero, zero, 0)

    def step(s: BeerState, grad: Grad, mix: Mix) -> BeerState:
        m = torch.lerp(s.m, grad(s.x), momentum)
        v = s.v + gamma * (s.mixed_v - s.copy_v) + m - s.m
        x = descend(s.x + gamma * (s.mixed_x - s.copy_x), v, lr)
        p = compress(x - s.copy_x, mix.agents, 2 * s.k)
        q = compress(v - s.copy_v, mix.agents, 2 * s.k + 1)
        wp, wq = mix(p, q)
        copies = (s.copy_x + p, s.mixed_x + wp, s.copy_v + q, s.mixed_v + wq)
        return BeerState(x, v, m, *copies, s.k + 1)

    return Algorithm(init, step)
