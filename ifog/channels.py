"""The mixer of the simulator: many runs side by side, messages that get lost, agents that are away.

R runs of n agents are R n agents of whom those of different runs never meet, so one product with a
sparse matrix mixes them all and no algorithm needs to know. In the run with seed s, agent i draws
as number ``s n + i`` and a random schedule is read from another place; the run with seed 0 is the
one that ranks would make.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ifog.agents import MatrixMixer
from ifog.algorithms.base import Neighbors, Slots, Under
from ifog.delays import DelayedMixer
from ifog.errors import ArgumentError
from ifog.links import Links
from ifog.rounds import Schedule, links_of

__all__ = ["Channel", "Churn", "Presence", "Weather", "frozen"]

_KEPT = 20_000_000  # links of rounds that come again
_APART = 1_000_003  # rounds between where two seeds read a random schedule
Mask = npt.NDArray[np.bool_]


class Churn(NamedTuple):
    """Agents that leave and come back, drawn anew each step.

    Attributes:
        leave: the probability with which an agent that is there leaves.
        join: the probability with which one that is away comes back, with what it had.
    """

    leave: float
    join: float = 0.1


class Weather(NamedTuple):
    """What happens to messages and agents.

    Attributes:
        loss: the probability with which a message is lost.
        delay: the largest delay of a link in rounds; each has its own, drawn from 0 on.
        churn: how agents come and go.
    """

    loss: float = 0.0
    delay: int = 0
    churn: Churn | None = None

    def check(self) -> None:
        """Refuse what is no probability.

        Raises:
            ArgumentError: naming the argument.
        """
        chances = {"loss": self.loss}
        if self.churn is not None:
            chances |= {"churn.leave": self.churn.leave, "churn.join": self.churn.join}
        for name, chance in chances.items():
            if not 0 <= chance <= 1:
                raise ArgumentError(f"simulate: {name} is {chance}; it must lie in 0..1")


class Presence:
    """Who is there, step by step, in each of R runs."""

    def __init__(self, n: int, seeds: Sequence[int], churn: Churn | None) -> None:
        self._n, self._seeds, self._churn = n, seeds, churn
        self.here: Mask | None = None if churn is None else np.ones(n * len(seeds), dtype=bool)

    def step(self, number: int) -> None:
        """Draw who comes and goes before step ``number``."""
        if self._churn is None or self.here is None:
            return
        draws = [np.random.default_rng((seed, 1, number)).random(self._n) for seed in self._seeds]
        u = np.concatenate(draws)
        self.here = np.where(self.here, u >= self._churn.leave, u < self._churn.join)


class Rounds:
    """The graph of each round of all runs together, without what is lost or away.

    Args:
        schedule: over n agents.
        seeds: of the runs side by side.
        weather: what happens on the way.
        presence: who is there.
        weigh: other weights for the links of each round.
    """

    def __init__(
        self,
        schedule: Schedule,
        seeds: Sequence[int],
        weather: Weather,
        presence: Presence,
        weigh: Callable[[Links], Links] | None = None,
    ) -> None:
        self._schedule, self.seeds, self.weather = schedule, seeds, weather
        self._presence, self._weigh = presence, weigh
        period = getattr(schedule, "period", None)
        still = weather.loss == 0 and weather.churn is None
        self.period: int | None = period if still else None
        self._drawn = period is None
        self._known: dict[int, Links] = {}  # of a schedule that repeats
        self._kept = 0
        self._rows = _sum_to_one(self.plain(0, 0))

    def plain(self, step: int, seed: int) -> Links:
        """The graph of one run, with all messages and agents."""
        period = getattr(self._schedule, "period", None)
        step = step + seed * _APART if period is None else step % period
        if step in self._known:
            return self._known[step]
        links = links_of(self._schedule, step)
        if self._weigh is not None:
            links = self._weigh(links)
        if period is not None and self._kept + len(links.source) <= _KEPT:
            self._known[step] = links
            self._kept += len(links.source)
        return links

    def __call__(self, step: int) -> Links:
        if self._drawn:
            links = _side_by_side([self.plain(step, seed) for seed in self.seeds])
        else:
            links = _side_by_side([self.plain(step, 0)] * len(self.seeds))
        gone = self._lost(links, step)
        here = self._presence.here
        if here is not None:
            gone |= ~(here[links.source] & here[links.target])
        return _without(links, gone, self._rows) if gone.any() else links

    def _lost(self, links: Links, step: int) -> Mask:
        if self.weather.loss == 0:
            return np.zeros(len(links.source), dtype=bool)
        run = links.source // (links.n // len(self.seeds))
        many = np.bincount(run, minlength=len(self.seeds)).tolist()  # links stand run by run
        draws = [
            np.random.default_rng((seed, 2, step)).random(count)
            for seed, count in zip(self.seeds, many, strict=True)
        ]
        return np.concatenate(draws) < self.weather.loss


class Channel:
    """What algorithms see of the graph in the simulator.

    Args:
        rounds: the graphs of all runs.
        heard: is told the graph of each round of the first run, or None of an average over
            everybody, and the tensors.
        device: where the tensors are.

    Attributes:
        agents: [R n] int64, the numbers by which agents draw.
        total: n.
        step: the number of the next round.
    """

    def __init__(
        self,
        rounds: Rounds,
        *,
        heard: Callable[[Links | None, Sequence[Tensor]], None] | None = None,
        device: torch.device | None = None,
    ) -> None:
        self._rounds, seeds = rounds, rounds.seeds
        self.total = n = rounds.plain(0, 0).n
        numbers = [torch.arange(n) + seed * n for seed in seeds]
        self.agents = torch.cat(numbers).to(device)
        self.step = 0
        self._runs, self._first = len(seeds), seeds[0]
        self._delay, self._heard = rounds.weather.delay, heard
        self._call = 0
        self._delayed: list[DelayedMixer] = []
        self._mixer = MatrixMixer(rounds)

    def begin(self) -> None:
        """A new step begins."""
        self._call = 0

    def seek(self, step: int) -> None:
        """Make ``step`` the number of the next round."""
        self.step = self._mixer.step = step

    def start(self, *xs: Tensor) -> Under:
        """Start a round; no tensor may change until it is done."""
        self._hear(xs)
        if not self._delay:
            return self._mixer.start(*xs)
        # Each message of a step is a stream of its own, whose old news is of the same kind.
        if self._call == len(self._delayed):
            late = DelayedMixer(self._rounds, self._delay, seed=0, agents=self.agents.cpu())
            self._delayed.append(late)
        self._call += 1
        return self._delayed[self._call - 1].start(*xs)

    def __call__(self, *xs: Tensor) -> Any:
        """``start(*xs).wait()``: one new tensor [R n, ...], or a tuple of as many."""
        return self.start(*xs).wait()

    def mean(self, *xs: Tensor) -> Any:
        """The mean over all agents of each run, in each of its rows."""
        self._tell(None, xs)
        found = [x.view(self._runs, self.total, *x.shape[1:]).mean(1, keepdim=True) for x in xs]
        means = [
            mean.expand(self._runs, self.total, *x.shape[1:]).reshape(x.shape)
            for mean, x in zip(found, xs, strict=True)
        ]
        return means[0] if len(means) == 1 else tuple(means)

    def gather(self, x: Tensor) -> Neighbors:
        """What the neighbours of this round have, by slot."""
        self._on_time("gather")
        self._hear([x])
        return self._mixer.gather(x)

    def slots(self) -> Slots:
        """The neighbours, by slot."""
        slots = self._mixer.slots()
        known = self.agents.to(slots.ids.device)
        return slots._replace(ids=torch.where(slots.ids >= 0, known[slots.ids], -1))

    def swap(self, *xs: Tensor) -> Any:
        """What the neighbours say to each agent, from what each says to its neighbours."""
        self._on_time("swap")
        self._hear([x[:, 0] for x in xs if x.shape[1]])
        return self._mixer.swap(*xs)

    def _on_time(self, what: str) -> None:
        if self._delay:
            raise ArgumentError(f"simulate: {what} knows no delay; leave delay=0 for this method")

    def _hear(self, xs: Sequence[Tensor]) -> None:
        step, self.step = self.step, self.step + 1
        if self._heard is not None:
            self._tell(self._rounds.plain(step, self._first), xs)

    def _tell(self, links: Links | None, xs: Sequence[Tensor]) -> None:
        if self._heard is not None:
            self._heard(links, xs)


def frozen(new: Any, old: Any, here: Tensor) -> Any:
    """A State in which the agents that are away have what they had.

    Args:
        new: what the step gave.
        old: what it was given.
        here: [agents] bool.
    """
    if isinstance(new, Tensor):
        if not isinstance(old, Tensor) or old.shape != new.shape:
            return new
        return torch.where(here.view(-1, *(1 for _ in new.shape[1:])), new, old)
    if isinstance(new, tuple) and isinstance(old, tuple) and len(new) == len(old):
        kept = [frozen(a, b, here) for a, b in zip(new, old, strict=True)]
        return type(new)(*kept) if hasattr(new, "_fields") else tuple(kept)
    return new


def _side_by_side(graphs: Sequence[Links]) -> Links:
    if len(graphs) == 1:
        return graphs[0]
    n = graphs[0].n
    return Links(
        n * len(graphs),
        np.concatenate([links.source + r * n for r, links in enumerate(graphs)]),
        np.concatenate([links.target + r * n for r, links in enumerate(graphs)]),
        np.concatenate([links.weight for links in graphs]),
        graphs[0].label,
    )


def _sum_to_one(links: Links) -> bool:
    rows = np.bincount(links.target, links.weight, links.n)
    return bool(np.allclose(rows, 1, rtol=0, atol=1e-9))


def _without(links: Links, gone: Mask, rows: bool) -> Links:
    """The links but for some, whose weight the receiver gives to its own value.

    Where rows do not sum to 1 the sender keeps it, so that columns still do.
    """
    loops = links.source == links.target
    lost = gone & ~loops
    keeper = links.target if rows else links.source
    own = np.bincount(links.source[loops], links.weight[loops], links.n)
    own += np.bincount(keeper[lost], links.weight[lost], links.n)
    kept, everyone = ~gone & ~loops, np.arange(links.n)
    return Links(
        links.n,
        np.concatenate([links.source[kept], everyone]),
        np.concatenate([links.target[kept], everyone]),
        np.concatenate([links.weight[kept], own]),
        links.label,
    )
