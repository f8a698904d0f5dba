"""Adam over a graph: each entry gets its own step, by the size of its gradients.

With local second moments, agents whose data differ pull with equal force however strongly they
feel about it: where one would expect the mean of their optima one gets the median, and no step
size cures that. ``mix_second`` does.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ifog.algorithms.base import Algorithm, Grad, Mix, Rate, descend
from ifog.errors import ArgumentError

__all__ = ["accum_adam", "adam"]


class AdamState(NamedTuple):
    """The State of Adam."""

    x: Tensor  # [n, ...] query point
    m: Tensor  # [n, ...] mean of gradients
    v: Tensor  # [n, ...] mean of their squares
    k: int


class AccumAdamState(NamedTuple):
    """The State of AccumAdam."""

    x: Tensor  # [n, ...] query point
    m: Tensor  # [n, ...] mean of window gradients
    v: Tensor  # [n, ...] mean of their squares
    window: Tensor  # [n, ...] this window's gradients, summed and divided by its length
    k: int


def adam(
    lr: Rate,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    decay: float = 0.0,
    order: Literal["atc", "awc"] = "atc",
    mix_second: bool = False,
) -> Algorithm:
    """Adam and AdamW with averaging over neighbours.

    ::

        m+ = b1 m + (1 - b1) g;   v+ = b2 v + (1 - b2) g^2;   m, v zero before the start
        r = m+ / (1 - b1^k) / (sqrt(v+ / (1 - b2^k)) + eps),   k = 1, 2, ...
        atc    x+ = W ((1 - a c) x - a r)
        awc    x+ = (1 - a c) W x - a r

    Doubly stochastic W, which may change. Not exact.

    Args:
        lr: a.
        betas: b1 and b2.
        eps: keeps the division finite.
        decay: c, the decoupled weight decay of AdamW.
        order: adapt, then combine; or adapt with combine, whose message can travel early.
        mix_second: average v+ over neighbours too, in the same message, and take the average in r
            from the next step on. Takes away most of the bias of different data.

    Raises:
        ArgumentError: no such order.

    Example:
        >>> import torch
        >>> from ifog import MatrixMixer, complete
        >>> from ifog.algorithms import adam, iterate
        >>> from ifog.problems import Quadratics
        >>> b = torch.tensor([[0.0], [0.0], [0.0], [0.0], [8.0]])
        >>> problem = Quadratics(torch.ones(5, 1), b, torch.arange(5))
        >>> method, mix = adam(0.01, betas=(0.9, 0.99)), MatrixMixer(complete(5))
        >>> state = iterate(method, problem.zeros(), problem, mix, 1000)
        >>> abs(float(state.x.mean())) < 0.1  # the median of b, while the optimum is 1.6
        True

    Sources: Nazari, Tarzanagh, Michailidis 2019, arXiv:1901.09109; with common second moments:
    Chen, Karimi, Zhao, Li 2021, arXiv:2109.03194; AdamW: Loshchilov, Hutter 2019,
    arXiv:1711.05101.
    """
    if order not in ("atc", "awc"):
        raise ArgumentError(f"adam: order is {order!r}; use 'atc' or 'awc'")
    b1, b2 = betas

    def init(x: Tensor) -> AdamState:
        return AdamState(x, torch.zeros_like(x), torch.zeros_like(x), 0)

    def step(s: AdamState, grad: Grad, mix: Mix) -> AdamState:
        g, k = grad(s.x), s.k + 1
        m, v = torch.lerp(g, s.m, b1), torch.lerp(g * g, s.v, b2)
        r = _direction(m, v, (1 - b1**k, 1 - b2**k), eps)
        sent = descend((1 - lr * decay) * s.x, r, lr) if order == "atc" else s.x
        mixed, v = mix(sent, v) if mix_second else (mix(sent), v)
        x = mixed if order == "atc" else descend((1 - lr * decay) * mixed, r, lr)
        return AdamState(x, m, v, k)

    return Algorithm(init, step)


def accum_adam(
    lr: Rate,
    *,
    every: int,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    decay: float = 0.0,
) -> Algorithm:
    """AdamW with averaging, whose moments see gradients averaged over ``every`` steps (AccumAdamW).

    With K = ``every`` and j = ceil(k / K), the moments of this step are used and forgotten::

        m' = b1 m + (1 - b1) g;   v' = b2 v + (1 - b2) g^2;   w = w + g / K
        r = m' / (1 - b1^j) / (sqrt(v' / (1 - b2^j)) + eps);   x+ = (1 - a c) W x - a r
        m = b1 m + (1 - b1) w;   v = b2 v + (1 - b2) w^2;   w = 0        in every K-th step

    Doubly stochastic W, which may change. Not exact. The second moment then has the noise of a
    batch K times as large, as it would on one machine with the data of K. For K = 1 it is AdamW
    that starts from the mixed point.

    Args:
        lr: a.
        every: K.
        betas: b1 and b2.
        eps: keeps the division finite.
        decay: c, the decoupled weight decay of AdamW.

    Example:
        >>> from ifog import MatrixMixer, ring
        >>> from ifog.algorithms import accum_adam, adam, iterate
        >>> from ifog.problems import quadratics
        >>> problem, methods = quadratics(8), (accum_adam(0.1, every=1), adam(0.1, order="awc"))
        >>> mixers = (MatrixMixer(ring(8)) for _ in range(2))
        >>> one, other = (iterate(a, problem.zeros(), problem, next(mixers), 50) for a in methods)
        >>> float((one.x - other.x).abs().max()) < 1e-12
        True

    Source: Wang, Zhang, Wu, Johansson 2024, arXiv:2410.11998, appendix C; epsilon stands outside of
    the root, as in its authors' code.
    """
    b1, b2 = betas

    def init(x: Tensor) -> AccumAdamState:
        zero = torch.zeros_like(x)
        return AccumAdamState(x, zero, zero, zero, 0)

    def step(s: AccumAdamState, grad: Grad, mix: Mix) -> AccumAdamState:
        under_way = mix.start(s.x)
        g, k = grad(s.x), s.k + 1
        now, window = (torch.lerp(g, s.m, b1), torch.lerp(g * g, s.v, b2)), s.window + g / every
        windows = -(-k // every)
        r = _direction(*now, (1 - b1**windows, 1 - b2**windows), eps)
        x = descend((1 - lr * decay) * under_way.wait(), r, lr)
        if k % every:
            return AccumAdamState(x, s.m, s.v, window, k)
        m, v = torch.lerp(window, s.m, b1), torch.lerp(window * window, s.v, b2)
        return AccumAdamState(x, m, v, torch.zeros_like(x), k)

    return Algorithm(init, step)


def _direction(m: Tensor, v: Tensor, corrections: tuple[float, float], eps: float) -> Tensor:
    return (m / corrections[0]) / ((v / corrections[1]).sqrt() + eps)
