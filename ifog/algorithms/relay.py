"""Sums that travel along the edges of a tree: exact means after as many rounds as its diameter.

On an edge agent i says what all agents on its side of it have: its own value and what it heard
over its other edges. So messages differ from neighbour to neighbour and are kept per edge.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from ifog.algorithms.base import Algorithm, Grad, Mix, Rate, descend

__all__ = ["relay_sgd", "relay_sum"]


class RelayState(NamedTuple):
    """The State of RelaySGD."""

    x: Tensor  # [n, ...] query point
    heard: Tensor | None  # [n, degree, ...] last message over each edge; None before the first
    sizes: Tensor | None  # [n, degree, 1] of how many agents it is the sum


class RelaySumState(NamedTuple):
    """The State of RelaySum."""

    x: Tensor  # [n, ...] the mean as far as it is known
    value: Tensor  # [n, ...] what each agent puts in
    heard: Tensor | None  # [n, degree, ...] last message over each edge; None before the first
    sizes: Tensor | None  # [n, degree, 1] of how many agents it is the sum


def relay_sum() -> Algorithm:
    """The mean of the starting points by sums relayed along a tree; takes no gradients.

    ::

        m(i to j) = v_i + sum over k other than j of the m-(k to i);   likewise counts, of ones
        x_i+ = (v_i + sum_j m(j to i)) / (1 + sum_j count(j to i))

    A tree, whose weights do not matter. Exact after as many rounds as its diameter.

    Example:
        >>> import torch, ifog
        >>> from ifog.algorithms import iterate, relay_sum
        >>> chain = ifog.grid2d(4, shape=(1, 4))
        >>> x = torch.tensor([[0.0], [0.0], [0.0], [8.0]])
        >>> iterate(relay_sum(), x, None, ifog.MatrixMixer(chain), 3).x.flatten().tolist()
        [2.0, 2.0, 2.0, 2.0]

    Source: Vogels, He, Koloskova, Lin, Karimireddy, Stich, Jaggi 2021, arXiv:2110.04175.
    """

    def init(x: Tensor) -> RelaySumState:
        return RelaySumState(x, x, None, None)

    def step(s: RelaySumState, grad: Grad, mix: Mix) -> RelaySumState:
        del grad
        heard, count = _relay(s.value, s.heard, s.sizes, mix)
        known = (1 + count.sum(1)).view(-1, *(1 for _ in s.x.shape[1:]))
        return RelaySumState((s.value + heard.sum(1)) / known, s.value, heard, count)

    return Algorithm(init, step, ("edges",))


def relay_sgd(lr: Rate) -> Algorithm:
    """Descent whose points are averaged by sums relayed along a tree (RelaySGD).

    ::

        h = x - a g(x);   m(i to j) = h_i + sum over k other than j of the m-(k to i)
        x_i+ = (h_i + sum_j m(j to i) + (n - c_i) h_i) / n

    with c_i the number of agents, itself included, of which i has heard. A tree, whose weights do
    not matter. Exact: agents hear of others late, but of all equally often.

    Args:
        lr: a, the smaller the larger the diameter.

    Example:
        >>> from ifog import MatrixMixer, grid2d
        >>> from ifog.algorithms import iterate, relay_sgd
        >>> from ifog.problems import quadratics
        >>> problem, chain = quadratics(4), MatrixMixer(grid2d(4, shape=(1, 4)))
        >>> state = iterate(relay_sgd(0.05), problem.zeros(), problem, chain, 1000)
        >>> float((state.x - problem.optimum()).abs().max()) < 1e-9
        True

    Source: Vogels, He, Koloskova, Lin, Karimireddy, Stich, Jaggi 2021, arXiv:2110.04175.
    """

    def init(x: Tensor) -> RelayState:
        return RelayState(x, None, None)

    def step(s: RelayState, grad: Grad, mix: Mix) -> RelayState:
        h = descend(s.x, grad(s.x), lr)
        heard, count = _relay(h, s.heard, s.sizes, mix)
        missing = (mix.total - 1 - count.sum(1)).view(-1, *(1 for _ in h.shape[1:]))
        x = (h + heard.sum(1) + missing * h) / mix.total
        return RelayState(x, heard, count)

    return Algorithm(init, step, ("edges",))


def _relay(
    h: Tensor, heard: Tensor | None, count: Tensor | None, mix: Mix
) -> tuple[Tensor, Tensor]:
    """What comes over each edge now, and of how many agents it is the sum."""
    there = (mix.slots().ids >= 0).to(h)[..., None]  # [n, degree, 1], 0 in slots left over
    if heard is None or count is None:
        heard = h.new_zeros(*there.shape[:2], *h.shape[1:])
        count = there.new_zeros(there.shape)
    says = (h + heard.sum(1))[:, None] - heard
    of = there * ((1 + count.sum(1))[:, None] - count)
    heard, count = mix.swap(says, of)
    return heard, count
