"""Who of the ranks lives, and going on without those that died.

A rank that dies ends every operation under way on the others with ``PeerFailedError``. What comes
next is the user's choice: ``%bf heal`` or ``on_failure("heal")`` let the others go on in the next
cell, ``heal`` in the very same one.
"""

from __future__ import annotations

from typing import Literal

import torch

from ifog.context import current
from ifog.errors import ArgumentError, ParticipationError, PeerFailedError
from ifog.numbers import rank_ranges
from ifog.ops import allgather

__all__ = ["alive_ranks", "heal", "on_failure"]


def alive_ranks() -> list[int]:
    """The ranks that live, ascending; they keep their numbers when others die.

    A rank that died is among them until the others have healed.
    """
    return list(current().alive)


def heal(step: int = 0) -> int:
    """Go on without the ranks that died; every living rank must call it, in one cell.

    Blocks until all of them have. Operations that were under way are lost, windows too; all
    variables stay as they are. From then on everything is among the living: averages divide by
    their number, and the graph is thinned out by ``ifog.survival.surviving``, which keeps doubly
    stochastic weights so.

    When a rank dies in round k of a loop, some of the others may have ended that round and be in a
    later one. So each tells where it is, and all go on from the earliest::

        k = 0
        while k < rounds:
            try:
                x = bf.neighbor_allreduce(x, name="x")
                k += 1
            except PeerFailedError:
                k = bf.heal(k)

    Ranks that were ahead then take part in a round with a newer value. That is sound for what
    converges from any start: for averaging (to the mean of what the living hold at that moment)
    and for stochastic gradient methods. A method whose rounds must not be mixed keeps the state of
    each round until the next has ended everywhere, and takes up that of the returned one.

    Args:
        step: the round this rank was in.

    Returns:
        The smallest ``step`` of a living rank.

    Raises:
        ParticipationError: a living rank does not take part in this cell.
        PeerFailedError: a living rank has left this cell.
    """
    context = current()
    absent = set(context.alive) - set(context.participants)
    if absent:
        raise ParticipationError(
            f"heal on rank {context.rank} needs all ranks that live, and {rank_ranges(absent)} "
            "are not in this cell; let it end and type %bf heal, or run it on all ranks"
        )
    mine = torch.tensor([step], dtype=torch.int64, device="cpu")
    while True:
        try:
            context.heal()
            context.healing.require_no_deserter(context.alive)
            return int(allgather(mine).min())
        except PeerFailedError:
            context.healing.require_no_deserter(context.alive)
            continue  # one more died meanwhile


def on_failure(action: Literal["stop", "heal"]) -> None:
    """What follows when a rank died in a cell, after that cell has ended; call it on every rank.

    Args:
        action: "stop" (the beginning): no cell is run before ``%bf heal``, ``%bf respawn`` or
            ``%bf restart``. "heal": the others go on without it in the next cell.

    Raises:
        ArgumentError: another word.
    """
    if action not in ("stop", "heal"):
        raise ArgumentError(f'on_failure takes "stop" or "heal", got {action!r}')
    current().on_failure = action
