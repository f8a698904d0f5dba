"""Agents spread over hosts: which of them are where, and what one host must hear to mix its own.

Hosts have the agents in contiguous blocks, as even as can be. What a host needs of the others comes
as rows, and with its own rows, in the order of the agents, it makes the table that its rows of W
multiply. Sums so have the same terms in the same order on every number of hosts.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ifog import topology
from ifog.algorithms.base import Neighbors, Slots
from ifog.kernels import Product
from ifog.links import Links, Topology, Whole, as_links, stable_order
from ifog.slots import SlotTable, require_undirected, slot_table

__all__ = ["Hosts", "Share", "Traffic", "checked_links"]


def checked_links(graph: Topology | Links) -> Links:
    """The arrays of a graph over agents 0..n-1.

    Raises:
        ArgumentError: not a directed graph, or over other nodes.
    """
    if not isinstance(graph, Links):
        topology.check(graph, len(graph), nodes="agents")
    return as_links(graph)


class Hosts(NamedTuple):
    """Who hosts whom: host h has the agents ``first[h]`` to ``first[h + 1]``."""

    first: Whole
    me: int  # this host

    @classmethod
    def even(cls, agents: int, hosts: int, me: int) -> Hosts:
        """Blocks that differ by one agent at most, the larger ones first."""
        sizes = np.full(hosts, agents // hosts, dtype=np.int64)
        sizes[: agents % hosts] += 1
        return cls(np.concatenate([[0], np.cumsum(sizes)]), me)

    @property
    def mine(self) -> range:
        """The agents hosted here."""
        return range(int(self.first[self.me]), int(self.first[self.me + 1]))

    def of(self, agents: Whole) -> Whole:
        """The host of each agent."""
        return np.asarray(np.searchsorted(self.first, agents, side="right") - 1)


class Traffic(NamedTuple):
    """Rows that travel: which of the own ones to which host, and how many come from which."""

    send: Mapping[int, Tensor]  # {host: [rows] int64, places among the rows here, ascending}
    receive: Mapping[int, int]  # {host: rows}


class Share:
    """What one host needs of a graph: rows to send and to expect, its rows of W, its slots.

    Attributes:
        traffic: for rows that are agents.
        links: how many the graph has.
    """

    def __init__(self, graph: Links, hosts: Hosts) -> None:
        self._graph, self._hosts = graph, hosts
        self.links = len(graph.source)
        self._here = hosts.mine
        mine = np.arange(self._here.start, self._here.stop)
        # _heard: every agent whose row is in the table, in this order.
        if len(mine) == graph.n:
            self._near, self._heard = np.ones(len(graph.target), dtype=bool), mine
            self.traffic = Traffic({}, {})
        else:
            self._near = (graph.target >= self._here.start) & (graph.target < self._here.stop)
            self._heard = np.union1d(graph.source[self._near], mine)
            self.traffic = self._traffic()

    def _traffic(self) -> Traffic:
        graph, hosts = self._graph, self._hosts
        mine, start = self._here, self._here.start
        leaving = (graph.source >= mine.start) & (graph.source < mine.stop) & ~self._near
        source, host = graph.source[leaving], hosts.of(graph.target[leaving])
        send = {
            int(h): torch.from_numpy(np.unique(source[host == h]) - start) for h in np.unique(host)
        }
        owner, count = np.unique(hosts.of(self._heard), return_counts=True)
        receive = {int(h): int(c) for h, c in zip(owner, count, strict=True) if h != hosts.me}
        return Traffic(send, receive)

    @cached_property
    def product(self) -> Product:
        """The rows of W of the agents here."""
        source, weight = self._graph.source[self._near], self._graph.weight[self._near]
        target = self._graph.target[self._near] - self._here.start
        order = stable_order(target, len(self._here))
        first = np.zeros(len(self._here) + 1, dtype=np.int64)
        np.cumsum(np.bincount(target, minlength=len(self._here)), out=first[1:])
        place = source if len(self._heard) == self._graph.n else self._place(source)
        return Product(first, place[order], weight[order], len(self._heard))

    @cached_property
    def _table(self) -> SlotTable:
        graph = self._graph
        return slot_table(graph.n, graph.source, graph.target, graph.weight, self._here)

    @property
    def slots(self) -> Slots:
        """Whom the agents here hear."""
        return self._table.slots

    def gathered(self, table: Tensor) -> Neighbors:
        """What the neighbours have, from the table of agents' rows."""
        place = torch.from_numpy(self._place(self._table.source)).to(table.device)
        values = self._by_slot(table, place)
        weights, own = (w.to(table) for w in self.slots[1:])
        return Neighbors(values, weights, own)

    @cached_property
    def edge_traffic(self) -> Traffic:
        """For rows that are slots, agent by agent.

        Raises:
            ArgumentError: a link has no opposite link.
        """
        return self._edges[0]

    def swapped(self, table: Tensor) -> Tensor:
        """What the neighbours say, from the table of slots' rows."""
        return self._by_slot(table, self._edges[1].to(table.device))

    @cached_property
    def _edges(self) -> tuple[Traffic, Tensor]:
        table, degree, hosts = self._table, self.slots.ids.shape[1], self._hosts
        require_undirected(table)
        owner, place = hosts.of(table.source), np.zeros(len(table.source), dtype=np.int64)
        send, receive, offset = {}, {}, 0
        for host in range(len(hosts.first) - 1):
            with_host = np.flatnonzero(owner == host)
            if host == hosts.me:
                row = (table.source - self._here.start) * degree + table.back
                place[with_host] = offset + row[with_host]
                offset += len(self._here) * degree
            elif len(with_host):
                send[host] = torch.from_numpy((table.agent * degree + table.slot)[with_host])
                # The other host sends by its own agents and slots, ascending.
                order = np.lexsort((table.back[with_host], table.source[with_host]))
                place[with_host[order]] = offset + np.arange(len(order))
                receive[host] = len(order)
                offset += len(order)
        return Traffic(send, receive), torch.from_numpy(place)

    def _by_slot(self, table: Tensor, place: Tensor) -> Tensor:
        found = table.new_zeros(*self.slots.ids.shape, *table.shape[1:])
        agent, slot = torch.from_numpy(self._table.agent), torch.from_numpy(self._table.slot)
        found[agent.to(table.device), slot.to(table.device)] = table[place]
        return found

    def _place(self, agents: Whole) -> Whole:
        return np.asarray(np.searchsorted(self._heard, agents))
