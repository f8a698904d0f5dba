"""Averages that a few liars cannot spoil: what neighbours say is judged before it is used.

These rules look at every neighbour's value by itself, so they take ``mix.gather`` and memory for
all neighbours. ``attacked`` lets some agents lie, to see what that does to any algorithm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ifog.algorithms.base import (
    Algorithm,
    Grad,
    Mix,
    Neighbors,
    Rate,
    Slots,
    Under,
    descend,
    per_agent,
)

__all__ = ["Attacked", "attacked", "clipped_gossip", "trimmed_mean"]


class RobustState(NamedTuple):
    """The State of descent with robust averages."""

    x: Tensor  # [n, ...] query point


def clipped_gossip(lr: Rate, *, radius: float) -> Algorithm:
    """Diffusion in which nobody pulls further than ``radius`` (ClippedGossip).

    ::

        h = x - a g(x);   x_i+ = h_i + sum_j W_ij clip(h_j - h_i, r),   clip(z, r) = min(1, r/|z|) z

    Symmetric doubly stochastic W, which may change. Not exact: without liars and with a large
    radius it is ``atc``. A liar moves an honest agent by at most its weight times the radius.

    Args:
        lr: a.
        radius: r, about as far as honest neighbours are apart.

    Example:
        >>> from ifog import MatrixMixer, complete
        >>> from ifog.algorithms import attacked, clipped_gossip, iterate
        >>> from ifog.problems import quadratics
        >>> problem = quadratics(8)
        >>> mix = attacked(MatrixMixer(complete(8)), [7], lambda x, k: x + 1000)
        >>> state = iterate(clipped_gossip(0.1, radius=1.0), problem.zeros(), problem, mix, 400)
        >>> float((state.x[:7] - 3.0).abs().max()) < 3
        True

    Source: He, Karimireddy, Jaggi 2022, arXiv:2202.01545.
    """

    def step(s: RobustState, grad: Grad, mix: Mix) -> RobustState:
        h = descend(s.x, grad(s.x), lr)
        near = mix.gather(h)
        apart = near.values - h[:, None]
        length = per_agent(per_agent(torch.linalg.vector_norm))(apart)  # [n, degree]
        share = near.weights * (radius / length.clamp(min=radius))
        return RobustState(h + _combined(share, apart))

    return Algorithm(RobustState, step, ("neighbors",))


def trimmed_mean(lr: Rate, *, trim: int) -> Algorithm:
    """Diffusion with means that leave out the extremes of every entry.

    ::

        h = x - a g(x);   x_i+ = mean of the own h_i and of what is left of the neighbours' h_j

    where in every entry the ``trim`` largest and the ``trim`` smallest of the neighbours' values
    are left out. Agents with no more than 2 trim neighbours keep their own. Only the links of the
    graph count, not its weights, which may change. Not exact, also without liars: what is trimmed
    are often honest extremes.

    Args:
        lr: a.
        trim: how many liars to stand among the neighbours.

    Example:
        >>> from ifog import MatrixMixer, complete
        >>> from ifog.algorithms import attacked, iterate, trimmed_mean
        >>> from ifog.problems import quadratics
        >>> problem = quadratics(8)
        >>> mix = attacked(MatrixMixer(complete(8)), [7], lambda x, k: x + 1000)
        >>> state = iterate(trimmed_mean(0.1, trim=1), problem.zeros(), problem, mix, 400)
        >>> float((state.x[:7] - 3.0).abs().max()) < 3
        True

    Source: Yin, Chen, Ramchandran, Bartlett 2018, arXiv:1803.01498, there with a server.
    """

    def step(s: RobustState, grad: Grad, mix: Mix) -> RobustState:
        h = descend(s.x, grad(s.x), lr)
        near = mix.gather(h)
        there = near.weights != 0  # [n, degree]
        degree = there.sum(1)
        # Slots left over sort to the end, where they are beyond what is kept.
        order = torch.where(_wide(there, near.values), near.values, torch.inf).sort(1).values
        rank = torch.arange(there.shape[1], device=h.device)
        kept = (rank >= trim) & (rank < (degree - trim)[:, None])
        values = torch.where(_wide(kept, order), order, 0)
        count = 1 + kept.sum(1)
        return RobustState((h + values.sum(1)) / count.view(-1, *(1 for _ in h.shape[1:])))

    return Algorithm(RobustState, step, ("neighbors",))


class Attacked:
    """A mixer among whose agents some lie; see ``attacked``."""

    def __init__(
        self, mix: Mix, liars: Sequence[int], forge: Callable[[Tensor, int], Tensor]
    ) -> None:
        self.agents, self.total = mix.agents, mix.total
        self.step = 0
        self._mix, self._forge = mix, forge
        self._lies = torch.isin(mix.agents, torch.as_tensor(list(liars)))

    def start(self, *xs: Tensor) -> Under:
        """As of the mixer, with what the liars say in place of what they have."""
        return self._mix.start(*self._said(xs))

    def __call__(self, *xs: Tensor) -> Any:
        """``start(*xs).wait()``."""
        return self.start(*xs).wait()

    def mean(self, *xs: Tensor) -> Any:
        """As of the mixer, lies included."""
        return self._mix.mean(*self._said(xs))

    def gather(self, x: Tensor) -> Neighbors:
        """As of the mixer, lies included."""
        return self._mix.gather(*self._said([x]))

    def slots(self) -> Slots:
        """As of the mixer."""
        return self._mix.slots()

    def swap(self, *xs: Tensor) -> Any:
        """As of the mixer, lies included."""
        return self._mix.swap(*self._said(xs))

    def _said(self, xs: Sequence[Tensor]) -> list[Tensor]:
        step, self.step = self.step, self.step + 1
        lies = [self._lies.view(-1, *(1 for _ in x.shape[1:])).to(x.device) for x in xs]
        return [torch.where(lie, self._forge(x, step), x) for lie, x in zip(lies, xs, strict=True)]


def attacked(mix: Mix, liars: Sequence[int], forge: Callable[[Tensor, int], Tensor]) -> Attacked:
    """A mixer among whose agents some send whatever they like.

    Args:
        mix: the mixer.
        liars: their numbers among all agents.
        forge: (what all agents here have [n, ...], round) -> what the liars among them send.

    Example:
        >>> from ifog import MatrixMixer, complete
        >>> mix = attacked(MatrixMixer(complete(4)), [3], lambda x, k: x + 100 * (-1) ** k)
        >>> x = torch.zeros(4, 1)
        >>> mix(x)[0].item(), mix(x)[0].item()
        (25.0, -25.0)
    """
    return Attacked(mix, liars, forge)


def _combined(share: Tensor, values: Tensor) -> Tensor:
    """[n, ...] sum over slots of share [n, degree] times values [n, degree, ...]."""
    return torch.einsum("ns,ns...->n...", share, values)


def _wide(flags: Tensor, like: Tensor) -> Tensor:
    """[n, degree] flags, shaped to choose among values [n, degree, ...]."""
    return flags.view(*flags.shape, *(1 for _ in like.shape[2:]))
