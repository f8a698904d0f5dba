"""Old news as a model: each link brings what its sender had some rounds ago.

Real delays depend on time and differ from run to run; these are fixed numbers per link, so a run
can be repeated and its limit be predicted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ifog.agents import MatrixMixer
from ifog.algorithms.base import Under
from ifog.algorithms.draws import integers, keys
from ifog.errors import ArgumentError
from ifog.hosting import checked_links
from ifog.links import Links
from ifog.mixing import Round

__all__ = ["DelayedMixer"]


class DelayedMixer:
    """Averages of n agents of which neighbours know old values: for one process, and one run.

    ``y_i(t) = W_ii x_i(t) + sum_j W_ij x_j(t - d_ij)``, with ``x_j(s) = x_j(0)`` for s < 0. With
    doubly stochastic W averaging alone then tends, on every agent, to
    ``sum_j x_j(0) (1 + sum_i W_ij d_ij) / (n + sum_ij W_ij d_ij)``: equal delays keep the mean,
    others weight the agents.

    Args:
        graph: a digraph, arrays of edges, or a schedule.
        delay: d_ij of every link, or the largest delay of those drawn for each link, 0 included.
        seed: of the draws, which belong to the pair of agents; None gives every link ``delay``.
        agents: the numbers [n] by which draws know the agents; by default 0..n-1.

    Attributes:
        agents: [n] int64, all of them.
        total: n.
        step: the number of the next round.
        delays: {(receiver i, sender j): d_ij} of the links of round 0.

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

    def __init__(
        self, graph: Any, delay: int, *, seed: int | None = None, agents: Tensor | None = None
    ) -> None:
        if isinstance(delay, bool) or not isinstance(delay, int) or delay < 0:
            raise ArgumentError(f"DelayedMixer: delay is {delay!r}; it must be a whole number >= 0")
        first = checked_links(graph(0) if callable(graph) else graph)
        self.agents = torch.arange(first.n) if agents is None else agents
        self._delay, self._seed = delay, seed
        lags = range(delay + 1) if seed is not None else sorted({0, delay})
        self._by_lag = {lag: MatrixMixer(_Late(graph, self._lags, lag)) for lag in lags}
        pairs = zip(first.target.tolist(), first.source.tolist(), strict=True)
        self.delays = dict(zip(pairs, self._lags(first).tolist(), strict=True))
        self.total, self.step = first.n, 0
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

    def _lags(self, links: Links) -> npt.NDArray[np.int64]:
        lag = np.full(len(links.source), self._delay)
        if self._seed is not None:
            receiver, sender = (self.agents[ends] for ends in (links.target, links.source))
            pairs = (receiver << 32) + sender
            lag = integers(keys(self._seed, pairs, 0), self._delay + 1).numpy()
        lag[links.source == links.target] = 0
        return lag

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


class _Late:
    """The links of each round that are ``lag`` rounds late."""

    def __init__(
        self, graph: Any, lags: Callable[[Links], npt.NDArray[np.int64]], lag: int
    ) -> None:
        self.period = getattr(graph, "period", None) if callable(graph) else 1
        self._graph, self._lags, self._lag = graph, lags, lag

    def __call__(self, step: int) -> Links:
        links = checked_links(self._graph(step) if callable(self._graph) else self._graph)
        late = self._lags(links) == self._lag
        return Links(links.n, links.source[late], links.target[late], links.weight[late])
