"""Directed graphs: what is shared out instead of averaged keeps its sum, and weights tell how much.

Where agents know how many hear them but not the reverse, W can be made column-stochastic, so sums
are kept but not means. The same happens to a one that travels along, and the ratio is an average.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ifog.algorithms.base import Algorithm, Both, Grad, Mix, Rate, descend

__all__ = ["push_diging", "push_pull", "push_sum", "sgp"]


class PushState(NamedTuple):
    """The State of push-sum."""

    x: Tensor  # [n, ...] query point, u / w
    u: Tensor  # [n, ...] what is shared out
    w: Tensor  # [n, 1, ...] how much of everybody it has


class PushTrackingState(NamedTuple):
    """The State of Push-DIGing."""

    x: Tensor  # [n, ...] query point, u / w
    u: Tensor  # [n, ...] what is shared out
    w: Tensor  # [n, 1, ...] how much of everybody it has
    y: Tensor  # [n, ...] shared-out tracker
    g: Tensor  # [n, ...] last gradient


class PushPullState(NamedTuple):
    """The State of Push-Pull."""

    x: Tensor  # [n, ...] query point
    y: Tensor  # [n, ...] shared-out tracker
    g: Tensor  # [n, ...] last gradient


def push_sum() -> Algorithm:
    """Averaging on a directed graph; takes no gradients.

    ::

        (u, w)+ = C (u, w);   x = u / w;   u0 = x0, w0 = 1

    Column-stochastic C, strongly connected, which may change. Exact: every x tends to the mean.

    Example:
        >>> import numpy as np, torch, ifog
        >>> from ifog.algorithms import iterate, push_sum
        >>> C = np.array([[0.5, 0, 0.5], [0.5, 0.5, 0], [0, 0.5, 0.5]])
        >>> mix = ifog.MatrixMixer(ifog.from_matrix(C))
        >>> x = torch.tensor([[0.0], [1.0], [5.0]], dtype=torch.float64)
        >>> iterate(push_sum(), x, lambda x: 0 * x, mix, 100).x.flatten().tolist()
        [2.0, 2.0, 2.0]

    Source: Kempe, Dobra, Gehrke 2003, doi:10.1109/SFCS.2003.1238221.
    """

    def step(s: PushState, grad: Grad, mix: Mix) -> PushState:
        del grad
        u, w = mix(s.u, s.w)
        return PushState(u / w, u, w)

    return Algorithm(_init, step)


def sgp(lr: Rate) -> Algorithm:
    """Stochastic gradient push: diffusion on a directed graph.

    ::

        (u, w)+ = C (u - a g(x), w);   x = u / w;   u0 = x0, w0 = 1

    Column-stochastic C, strongly connected, which may change. Not exact: a bias of O(a), but
    around the optimum of the plain mean, whatever the graph.

    Args:
        lr: a.

    Example:
        >>> import numpy as np, ifog
        >>> from ifog.algorithms import iterate, sgp
        >>> from ifog.problems import quadratics
        >>> C = np.array([[0.5, 0, 0.5], [0.5, 0.5, 0], [0, 0.5, 0.5]])
        >>> mix, problem = ifog.MatrixMixer(ifog.from_matrix(C)), quadratics(3)
        >>> state = iterate(sgp(0.01), problem.zeros(), problem, mix, 2000)
        >>> float((state.x - problem.optimum()).abs().max()) < 0.02
        True

    Source: Assran, Loizou, Ballas, Rabbat 2019, arXiv:1811.10792.
    """

    def step(s: PushState, grad: Grad, mix: Mix) -> PushState:
        u, w = mix(descend(s.u, grad(s.x), lr), s.w)
        return PushState(u / w, u, w)

    return Algorithm(_init, step)


def push_diging(lr: Rate) -> Algorithm:
    """Gradient tracking on a directed graph.

    ::

        y = C y- + g(x) - g(x-);   (u, w)+ = C (u - a y, w);   x = u / w;   u0 = x0, w0 = 1

    Column-stochastic C, strongly connected, which may change. Exact.

    Args:
        lr: a.

    Example:
        >>> import numpy as np, ifog
        >>> from ifog.algorithms import iterate, push_diging
        >>> from ifog.problems import quadratics
        >>> C = np.array([[0.5, 0, 1.0], [0.5, 0.5, 0], [0, 0.5, 0]])
        >>> mix, problem = ifog.MatrixMixer(ifog.from_matrix(C)), quadratics(3)
        >>> state = iterate(push_diging(0.1), problem.zeros(), problem, mix, 500)
        >>> float((state.x - problem.optimum()).abs().max()) < 1e-9
        True

    Source: Nedic, Olshevsky, Shi 2017, arXiv:1607.03218.
    """

    def init(x: Tensor) -> PushTrackingState:
        zero = torch.zeros_like(x)
        return PushTrackingState(*_init(x), zero, zero)

    def step(s: PushTrackingState, grad: Grad, mix: Mix) -> PushTrackingState:
        g = grad(s.x)
        y = (s.y + g).sub_(s.g)
        u, w, wy = mix(descend(s.u, y, lr), s.w, y)
        return PushTrackingState(u / w, u, w, wy, g)

    return Algorithm(init, step)


def push_pull(lr: Rate) -> Algorithm:
    """Gradient tracking on a directed graph without weights: points are pulled, trackers pushed.

    ::

        y = C y- + g(x) - g(x-);   x+ = R (x - a y)

    Row-stochastic R and column-stochastic C over the same links, strongly connected. Exact.
    Takes two mixers, ``Both(pull, push)``.

    Args:
        lr: a.

    Example:
        >>> import numpy as np, ifog
        >>> from ifog.algorithms import Both, iterate, push_pull
        >>> from ifog.problems import quadratics
        >>> C = np.array([[0.5, 0, 1.0], [0.5, 0.5, 0], [0, 0.5, 0]])
        >>> R = (C > 0) / (C > 0).sum(axis=1, keepdims=True)
        >>> mix = Both(*(ifog.MatrixMixer(ifog.from_matrix(W)) for W in (R, C)))
        >>> problem = quadratics(3)
        >>> state = iterate(push_pull(0.1), problem.zeros(), problem, mix, 500)
        >>> float((state.x - problem.optimum()).abs().max()) < 1e-9
        True

    Sources: Xin, Khan 2018, arXiv:1803.02503 (AB); Pu, Shi, Xu, Nedic 2021, arXiv:1810.06653.
    """

    def init(x: Tensor) -> PushPullState:
        return PushPullState(x, torch.zeros_like(x), torch.zeros_like(x))

    def step(s: PushPullState, grad: Grad, mix: Both) -> PushPullState:
        g = grad(s.x)
        y = (s.y + g).sub_(s.g)
        pulled, pushed = mix.pull.start(descend(s.x, y, lr)), mix.push.start(y)
        return PushPullState(pulled.wait(), pushed.wait(), g)

    return Algorithm(init, step, ("two mixers",))


def _init(x: Tensor) -> PushState:
    return PushState(x, x, x.new_ones(len(x), *(1 for _ in x.shape[1:])))
