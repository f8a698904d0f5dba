"""How long a run would take: a model of computing and sending, in which agents wait for each other.

A step computes for some time on each agent. A message takes a latency and its bytes over the rate
of the link, and an agent sends to its neighbours one after the other. A round is over for an agent
when all that it hears has arrived, so a straggler holds up its neighbours, then theirs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ifog.costs import Link
from ifog.errors import ArgumentError
from ifog.links import Links, Real, Whole

__all__ = ["Clocks", "CostModel", "RoundTimes"]


@dataclass(frozen=True, slots=True)
class CostModel:
    """What computing and sending cost.

    Attributes:
        compute: seconds of one step on one agent.
        link: what an agent can send: the latency of a message, and bytes a second.
        spread: sigma of the logarithm of compute times, drawn anew for each agent and step.
        slow: {agent: how many times longer it computes}, the stragglers.
    """

    compute: float = 1e-3
    link: Link = field(default_factory=lambda: Link(5e-5, 1.25e9))
    spread: float = 0.0
    slow: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        least = {"compute": self.compute, "latency": self.link.latency, "spread": self.spread}
        for name, value in least.items():
            if not 0 <= value < math.inf:
                raise ArgumentError(f"CostModel: {name} is {value}; it must be >= 0")
        if not self.link.rate > 0:
            raise ArgumentError(f"CostModel: the link's rate is {self.link.rate}; it must be > 0")


class RoundTimes(NamedTuple):
    """One round of each agent."""

    start: Real  # [n] seconds, when it began to send
    end: Real  # [n] when everything had arrived
    wait: Real  # [n] of these, until the last neighbour began to send
    late: Whole  # [n] whom it heard last, -1 where it waited for nobody
    messages: int  # of all agents


class Clocks:
    """The time of each agent, from 0 on.

    Attributes:
        now: [n] seconds.
        messages: how many were sent.
        nbytes: how many bytes.
    """

    def __init__(self, model: CostModel, n: int, seed: int) -> None:
        self._model, self._seed = model, seed
        self.now: Real = np.zeros(n)
        self.messages = 0
        self.nbytes = 0
        self._pace: Real = np.ones(n)
        for agent, factor in model.slow.items():
            if not 0 <= agent < n:
                raise ArgumentError(f"CostModel: slow names agent {agent}, of 0..{n - 1}")
            self._pace[agent] = factor
        self._orders: dict[int, tuple[Links, tuple[Whole, ...]]] = {}

    def compute(self, step: int) -> None:
        """Everybody takes a step."""
        time = self._model.compute * self._pace
        if self._model.spread:
            random = np.random.default_rng((self._seed, 3, step))
            time = time * np.exp(self._model.spread * random.standard_normal(len(time)))
        self.now = self.now + time

    def exchange(self, links: Links, nbytes: int) -> RoundTimes:
        """A round in which every link carries ``nbytes``."""
        source, target, first, listening, sends = self._order(links)
        self.messages += len(source)
        self.nbytes += nbytes * len(source)
        start = self.now
        sent = start + sends * self._model.link.one_peer(nbytes)
        end, wait, late = start.copy(), np.zeros(len(start)), np.full(len(start), -1)
        if len(source):
            arrives, begins = sent[source], start[source]
            last = np.maximum.reduceat(begins, first)
            end[listening] = np.maximum(start[listening], np.maximum.reduceat(arrives, first))
            wait[listening] = np.maximum(last - start[listening], 0)
            holding = np.flatnonzero(begins == last[_places(first, len(source))])
            late[target[holding]] = source[holding]
            late[wait == 0] = -1
        self.now = end
        return RoundTimes(start, end, wait, late, len(source))

    def reduce(self, nbytes: int) -> None:
        """Everybody gets a sum over all, in a ring."""
        n = len(self.now)
        self.messages += 2 * (n - 1) * n
        self.nbytes += 2 * (n - 1) * nbytes
        self.now = np.full(n, self.now.max() + self._model.link.allreduce(nbytes, n))

    def _order(self, links: Links) -> tuple[Whole, ...]:
        """Senders and receivers by receiver, where each begins, who hears, how many each tells."""
        key = id(links)
        if key not in self._orders:
            source, target = links.without_loops()
            by_target = np.argsort(target, kind="stable")
            source, target = source[by_target], target[by_target]
            listening, first = np.unique(target, return_index=True)
            sends = np.bincount(source, minlength=links.n)
            if len(self._orders) >= 32:
                self._orders.clear()
            # With the links themselves, so that no others get their id meanwhile.
            self._orders[key] = links, (source, target, first, listening, sends)
        return self._orders[key][1]


def _places(first: Whole, total: int) -> Whole:
    """For each entry of runs that begin at ``first``, the number of its run."""
    return np.repeat(np.arange(len(first)), np.diff(np.append(first, total)))
