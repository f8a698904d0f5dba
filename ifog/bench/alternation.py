"""Rounds of all contestants in turn on the ranks of one machine, timed from first to last.

A round takes from the moment the first rank begins to the moment the last one ends. Where ranks
share cores, the time of each rank by itself would not see those that have not had their turn yet.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
from mpi4py import MPI

__all__ = ["Contestant", "alternate", "block_of"]

_WARMING = 2  # rounds: the first ones make buffers, in both of two slots
_LEAST = 3
_MOST_CALLS = 40
_BLOCK_BYTES = 8 << 20
_ALONE = 8  # times more for what waits for nobody, so that all ranks are at it at once


class Contestant(NamedTuple):
    """What is called, and how often in a round.

    Attributes:
        call: what is timed.
        calls: of a block.
        scope: entered before each block and left after it, outside of the time.
    """

    call: Callable[[], object]
    calls: int = 1
    scope: Callable[[], AbstractContextManager[object]] = nullcontext


def block_of(
    call: Callable[[], object], nbytes: int, *, slowness: int = 1, alone: bool = False
) -> Contestant:
    """A contestant whose rounds have many calls where a call moves few bytes.

    Args:
        call: what it does.
        nbytes: of its tensor.
        slowness: how many times fewer calls a round gets because each takes longer.
        alone: whether it waits for no other rank.
    """
    more = _ALONE if alone else 1
    calls = min(_MOST_CALLS * more, max(1, _BLOCK_BYTES * more // nbytes))
    return Contestant(call, max(1, calls // slowness))


def alternate(
    contestants: Mapping[str, Contestant], rounds: int, seconds: float, *, warming: int = _WARMING
) -> dict[str, list[float]]:
    """Seconds of a call, from the first rank's start to the last one's end: an entry a round.

    Every rank must call it with the same contestants. A barrier precedes each block of calls; who
    begins, and in which direction they take turns, changes from round to round.

    Args:
        contestants: by name.
        rounds: how many, besides those that warm up.
        seconds: after which no further round is begun, if there have been three.
        warming: rounds that are not counted.
    """
    world, names = MPI.COMM_WORLD, list(contestants)
    rows: list[np.ndarray] = []
    begun = time.perf_counter()
    while True:
        row = np.empty((len(names), 2))
        for place in range(len(names)):
            turn = (len(rows) + (place if len(rows) % 2 else -place)) % len(names)
            contestant = contestants[names[turn]]
            with contestant.scope():
                world.Barrier()
                row[turn] = _block(contestant)
        rows.append(row)
        done = len(rows) - warming
        spent = time.perf_counter() - begun > seconds
        if world.bcast(done >= rounds or (spent and done >= _LEAST)):
            break
    times = np.array(rows[warming:])  # [rounds, contestants, minus the start and the end]
    world.Allreduce(MPI.IN_PLACE, times, MPI.MAX)
    calls = [contestants[name].calls for name in names]
    seconds_of_a_call = times.sum(-1) / calls
    return {name: seconds_of_a_call[:, place].tolist() for place, name in enumerate(names)}


def _block(contestant: Contestant) -> tuple[float, float]:
    """Minus the start and the end on a clock that all processes of the machine share."""
    call = contestant.call
    start = time.perf_counter()
    for _ in range(contestant.calls):
        call()
    return -start, time.perf_counter()
