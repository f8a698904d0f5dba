"""Neighbours by slot: what rules need that are no weighted average, or that keep state per edge.

Every agent numbers its neighbours 0, 1, ... in ascending order, so that a tensor per edge is
[agents, largest degree, ...] and still has the agents as axis 0. Self loops take no slot.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from ifog.algorithms.base import Slots
from ifog.errors import ArgumentError

__all__ = ["SlotTable", "slot_table"]

Whole = npt.NDArray[np.int64]


class SlotTable(NamedTuple):
    """The slots of some agents.

    Attributes:
        slots: their neighbours and weights.
        agent: [m] for each link to one of these agents, which of them it is, counted from 0.
        slot: [m] in which slot.
        source: [m] the neighbour.
        back: [m] in which slot of the neighbour this agent is; -1 where it is in none.
    """

    slots: Slots
    agent: Whole
    slot: Whole
    source: Whole
    back: Whole


def slot_table(
    n: int, source: Whole, target: Whole, weight: npt.NDArray[np.float64], agents: range
) -> SlotTable:
    """The slots of ``agents`` in the graph whose link k goes from source[k] to target[k].

    Args:
        n: how many agents there are in all.
        source: [all links], no link twice.
        target: [all links].
        weight: [all links].
        agents: whose slots are asked for.
    """
    loops = source == target
    own = np.zeros(n)
    own[target[loops]] = weight[loops]
    source, target, weight = source[~loops], target[~loops], weight[~loops]
    order = np.lexsort((source, target))
    source, target, weight = source[order], target[order], weight[order]
    degree = np.bincount(target, minlength=n)
    slot = np.arange(len(target)) - np.repeat(np.cumsum(degree) - degree, degree)
    # Link (u, v) has the key v n + u here, ascending; the opposite link is looked up by u n + v.
    keys, opposite = target * n + source, source * n + target
    place = np.minimum(np.searchsorted(keys, opposite), max(len(keys) - 1, 0))
    back = np.where(keys[place] == opposite, slot[place], -1) if len(keys) else slot
    here = (target >= agents.start) & (target < agents.stop)
    agent, slot, source, back = target[here] - agents.start, slot[here], source[here], back[here]
    shape = (len(agents), int(degree.max(initial=0)))
    ids = torch.full(shape, -1, dtype=torch.int64)
    weights = torch.zeros(shape, dtype=torch.float64)
    ids[agent, slot] = torch.from_numpy(source)
    weights[agent, slot] = torch.from_numpy(weight[here])
    mine = torch.from_numpy(own[agents.start : agents.stop])
    return SlotTable(Slots(ids, weights, mine), agent, slot, source, back)


def require_undirected(table: SlotTable) -> None:
    """Refuse links without an opposite link.

    Raises:
        ArgumentError: naming one.
    """
    lonely = np.flatnonzero(table.back < 0)
    if len(lonely):
        u, v = table.source[lonely[0]], table.agent[lonely[0]]
        raise ArgumentError(
            f"swap: agent {u} sends to agent {v}, but {v} does not send to {u}; use a graph whose "
            "links go both ways, such as ifog.ring(n)"
        )
