"""The mixer of many agents: on one rank all of them, on several a block on each.

It is what algorithms see of the graph: averages, and for those that need more the neighbours'
values one by one, messages per edge, and the mean over everybody.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import networkx as nx
import torch
from torch import Tensor

from ifog.algorithms.base import Neighbors, Slots, Under
from ifog.errors import ArgumentError
from ifog.hosting import Hosts, Share, Traffic, checked_links
from ifog.links import Links, Topology

__all__ = ["Carrier", "Graph", "MatrixMixer"]

Graph: TypeAlias = "Topology | Links | Callable[[int], Topology | Links]"
_KEPT = 1 << 22  # links whose matrices are kept, where a schedule repeats


class Carrier(Protocol):
    """How rows get from host to host.

    Attributes:
        me: the number of this host.
        count: how many there are.
    """

    me: int
    count: int

    def tables(self, xs: Sequence[Tensor], traffic: Traffic) -> Under:
        """Start to exchange rows of each x; gives each one's table: all rows, by host."""

    def sums(self, xs: Sequence[Tensor]) -> Under:
        """Start to add up tensors over all hosts; gives the sums."""

    def resumed(self, step: int) -> int:
        """The number of the next round: ``step``, or the furthest host's after a failure."""


class _Done:
    """A round that is through."""

    def __init__(self, result: Any) -> None:
        self._result = result

    def wait(self) -> Any:
        return self._result

    def done(self) -> bool:
        return True


class _After:
    """A round whose result follows from what another one gives."""

    def __init__(self, under_way: Under, finish: Callable[[Any], Any]) -> None:
        self._under_way, self._finish = under_way, finish

    def wait(self) -> Any:
        return self._finish(self._under_way.wait())

    def done(self) -> bool:
        return self._under_way.done()


class _Here:
    """All agents are in this process: nothing travels."""

    me, count = 0, 1

    def tables(self, xs: Sequence[Tensor], traffic: Traffic) -> Under:
        del traffic
        return _Done(list(xs))

    def sums(self, xs: Sequence[Tensor]) -> Under:
        return _Done(list(xs))

    def resumed(self, step: int) -> int:
        return step


class MatrixMixer:
    """Averages of n agents, ``y = W_k x`` in round k, with W_k sparse.

    Args:
        graph: a digraph whose weights are used, arrays of edges such as
            ``ifog.random_regular.links(10_000)``, or a schedule, round -> one of these.
        carrier: how rows get here that others host; by default all agents are here.

    Attributes:
        agents: [hosted here] int64, the numbers of the agents hosted here.
        total: n.
        step: the number of the next round.

    Raises:
        ArgumentError: not a graph, or fewer agents than hosts.

    Example:
        >>> import torch, ifog
        >>> mix = MatrixMixer(ifog.ring(4))
        >>> mix(torch.tensor([[0.0], [3.0], [6.0], [9.0]])).flatten().tolist()
        [4.0, 3.0, 6.0, 5.0]
    """

    def __init__(self, graph: Graph, carrier: Carrier | None = None) -> None:
        self._period: int | None = 1
        if isinstance(graph, nx.Graph | Links):
            self._schedule: Callable[[int], Any] = lambda _: graph
        elif callable(graph):
            self._schedule, self._period = graph, getattr(graph, "period", None)
        else:
            raise ArgumentError(
                f"MatrixMixer needs a graph or a schedule, got {type(graph).__name__}; pass for "
                "example ifog.ring(16) or ifog.one_peer(16)"
            )
        self._carrier: Carrier = carrier or _Here()
        self._shares: OrderedDict[int, Share] = OrderedDict()
        self._links = 0
        self.step = 0
        self.total = self._links_of(0).n
        if self.total < self._carrier.count:
            raise ArgumentError(
                f"{self.total} agents cannot be spread over {self._carrier.count} ranks; use a "
                "graph of at least as many agents as ranks"
            )
        self._hosts = Hosts.even(self.total, self._carrier.count, self._carrier.me)
        self.agents = torch.tensor(self._hosts.mine)

    def start(self, *xs: Tensor) -> Under:
        """Start a round; no tensor may change until it is done. One message for each neighbour."""
        share = self._next(xs)
        tables = self._carrier.tables(xs, share.traffic)
        return _After(tables, lambda found: _one_or_all([share.product(x) for x in found]))

    def __call__(self, *xs: Tensor) -> Any:
        """``start(*xs).wait()``: one new tensor [hosted here, ...], or a tuple of as many."""
        return self.start(*xs).wait()

    def mean(self, *xs: Tensor) -> Any:
        """The mean over all agents, in each row; on ranks an all-reduce. Not a round."""
        self._require_rows(xs)
        sums = self._carrier.sums([x.detach().sum(0) for x in xs]).wait()
        means = [total / self.total for total in sums]
        return _one_or_all([m.expand_as(x).clone() for m, x in zip(means, xs, strict=True)])

    def gather(self, x: Tensor) -> Neighbors:
        """What the neighbours of this round have, by slot. Memory: largest degree times x."""
        share = self._next([x])
        (table,) = self._carrier.tables([x], share.traffic).wait()
        return share.gathered(table)

    def slots(self) -> Slots:
        """The neighbours, by slot.

        Raises:
            ArgumentError: the graph changes from round to round.
        """
        return self._static("slots").slots

    def swap(self, *xs: Tensor) -> Any:
        """What the neighbours say to each agent: ``swap(x)[i, s] = x[j, t]``.

        Here j is in slot s of i, and i in slot t of j. Each edge carries its own rows.

        Raises:
            ArgumentError: the graph changes from round to round, or a link goes one way only.
        """
        share = self._static("swap")
        self._require_rows(xs)
        for x in xs:
            if x.shape[:2] != share.slots.ids.shape:
                raise ArgumentError(
                    f"swap: a tensor has shape {tuple(x.shape)}, but the slots of the agents here "
                    f"are {tuple(share.slots.ids.shape)}: a row for each agent and neighbour"
                )
        self.step = self._carrier.resumed(self.step) + 1
        tables = self._carrier.tables([x.flatten(0, 1) for x in xs], share.edge_traffic).wait()
        return _one_or_all([share.swapped(table) for table in tables])

    def _next(self, xs: Sequence[Tensor]) -> Share:
        self._require_rows(xs)
        step = self._carrier.resumed(self.step)
        self.step = step + 1
        return self._share(step)

    def _share(self, step: int) -> Share:
        round_ = step if self._period is None else step % self._period
        if round_ not in self._shares:
            share = self._shares[round_] = Share(self._links_of(round_), self._hosts)
            self._links += share.links
            while self._links > _KEPT and len(self._shares) > 1:
                self._links -= self._shares.popitem(last=False)[1].links
        return self._shares[round_]

    def _links_of(self, step: int) -> Links:
        of_links = getattr(self._schedule, "links", None)  # no digraph on the way
        graph = checked_links(self._schedule(step) if of_links is None else of_links(step))
        if step and graph.n != self.total:
            raise ArgumentError(
                f"round {step} is over {graph.n} agents, but round 0 was over {self.total}; a "
                "schedule must keep their number"
            )
        return graph

    def _static(self, what: str) -> Share:
        if self._period != 1:
            raise ArgumentError(
                f"{what} keeps something for each edge, but the graph changes from round to round; "
                "use a static graph"
            )
        return self._share(0)

    def _require_rows(self, xs: Sequence[Tensor]) -> None:
        for x in xs:
            if not x.is_floating_point() or not x.ndim or len(x) != len(self.agents):
                raise ArgumentError(
                    f"a tensor of shape {tuple(x.shape)} and {x.dtype} cannot be mixed: its first "
                    f"dimension must be the {len(self.agents)} agents hosted here, its dtype a "
                    "floating-point one"
                )


def _one_or_all(results: list[Tensor]) -> Any:
    return results[0] if len(results) == 1 else tuple(results)
