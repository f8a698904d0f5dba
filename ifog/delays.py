"""Old news as a model: each link brings what its sender had some rounds ago.

Real delays depend on time and differ from run to run; these are fixed numbers per link, so a run
can be repeated and its limit be predicted.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ifog.agents import MatrixMixer
from ifog.algorithms.base import Under
from ifog.errors import ArgumentError
from ifog.hosting import Arrays, EdgeArrays, arrays
from ifog.mixing import Round

__all__ = ["DelayedMixer"]


class DelayedMixer:
    """Averages of n agents of which neighbours know old values: for one process, and one run.

    ``y_i(t) = W_ii x_i(t) + sum_j W_ij x_j(t - d_ij)``, with ``x_j(s) = x_j(0)`` for s < 0. With
    doubly stochastic W averaging alone then tends, on every agent, to
    ``sum_j x_j(0) (1 + sum_i W_ij d_ij) / (n + sum_ij W_ij d_ij)``: equal delays keep the mean,
    others weight the agents.

    Args:
        graph: a digraph or arrays of edges; it does not change.
        delay: d_ij of every link, or the largest delay of those drawn for each link, 0 included.
        seed: of the draws; None gives every link exactly ``delay``.

    Attributes:
        agents: [n] int64, all of them.
        total: n.
        step: the number of the next round.
        delays: {(receiver i, sender j): d_ij}.

    Raises:
        ArgumentError: a negative delay, or not a graph.

    Example:
        >>> import torch, ifog
        >>> mix = DelayedMixer(ifog.ring(4), 1)
        >>> x = torch.tensor([[0.0], [3.0], [6.0], [9.0]])
        >>> mix(x).flatten().tolist(), mix(0 * x).flatten().tolist()
        ([4.0, 3.0, 6.0, 5.0], [4.0, 2.0, 4.0, 2.0])

    Source: the limit follows from the invariant
    ``sum_i x_i(t) + sum_ij W_ij (x_j(t-1) + ... + x_j(t - d_ij))``.
    """

    def __init__(self, graph: Any, delay: int, *, seed: int | None = None) -> None:
        if isinstance(delay, bool) or not isinstance(delay, int) or delay < 0:
            raise ArgumentError(f"DelayedMixer: delay is {delay!r}; it must be a whole number >= 0")
        links = arrays(graph)
        lag = np.full(len(links.source), delay)
        if seed is not None:
            lag = np.random.default_rng(seed).integers(0, delay, len(lag), endpoint=True)
        lag[links.source == links.target] = 0
        self._by_lag = {
            int(d): MatrixMixer(_chosen(links, lag == d)) for d in np.unique(np.append(lag, 0))
        }
        pairs = zip(links.target.tolist(), links.source.tolist(), strict=True)
        self.delays = dict(zip(pairs, lag.tolist(), strict=True))
        self.agents, self.total, self.step = torch.arange(links.n), links.n, 0
        self._past: list[deque[Tensor]] = []

    def start(self, *xs: Tensor) -> Under:
        """Start a round; the tensors must not change for as many rounds as the longest delay."""
        self.step += 1
        results = [self._round(place, x.detach()) for place, x in enumerate(xs)]
        return Round((), lambda _: results[0] if len(results) == 1 else tuple(results))

    def __call__(self, *xs: Tensor) -> Any:
        """``start(*xs).wait()``: one new tensor [n, ...], or a tuple of as many."""
        return self.start(*xs).wait()

    def mean(self, *xs: Tensor) -> Any:
        """The mean over all agents, in each row, without delay."""
        return self._by_lag[0].mean(*xs)

    def _round(self, place: int, x: Tensor) -> Tensor:
        longest = max(self._by_lag)
        if place == len(self._past):
            self._past.append(deque([x] * longest, maxlen=longest + 1))
        past = self._past[place]
        past.append(x)  # past[-1 - d] is what there was d rounds ago
        parts: list[Tensor] = [mix(past[-1 - lag]) for lag, mix in self._by_lag.items()]
        total = parts[0]
        for part in parts[1:]:
            total = total.add_(part)
        return total


def _chosen(links: Arrays, which: npt.NDArray[np.bool_]) -> Arrays:
    return EdgeArrays(links.n, links.source[which], links.target[which], links.weight[which])
