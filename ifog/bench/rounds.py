"""The loops of ``ifog bench telemetry`` on the ranks, with events and without."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import psutil
import torch

from ifog.context import current
from ifog.iopub import IOPubSink
from ifog.neighborhood import set_topology
from ifog.neighbors import neighbor_allreduce
from ifog.ops import barrier, broadcast
from ifog.telemetry import Sink

__all__ = ["Cost", "alternate"]

_SETTLE = 0.03  # seconds in which the notebook's side takes in what was sent


class Cost(NamedTuple):
    """What a loop took on one rank.

    Attributes:
        wall: seconds, with those for handing on the events that are left at its end.
        processor: processor seconds of this rank, and on rank 0 also of the processes that take
            the events, until these have settled.
    """

    wall: float
    processor: float


def alternate(
    numel: int, rounds: int, pairs: int, takers: Sequence[int], seconds: float
) -> list[tuple[Cost, Cost]]:
    """The costs of a loop without and with events, up to ``pairs`` times in turn.

    Each loop pays for all that its own events cause: none are left when the next one begins.

    Args:
        numel: float64 entries of the tensor.
        rounds: rounds of a loop, each of which begins anew: its first ones are looked at one by
            one.
        pairs: how many loops of each kind; which kind goes first changes from pair to pair.
        takers: the processes that take the events.
        seconds: after which no further pair is begun, if there have been two.
    """
    context = current()
    set_topology("ring")
    sink, x = context.sink, torch.randn(numel, dtype=torch.float64)
    watching = [psutil.Process(pid) for pid in takers] if context.rank == 0 else []
    _loop(x, rounds, sink, watching, "warming up")
    costs: list[tuple[Cost, Cost]] = []
    begun = time.perf_counter()
    try:
        for pair in range(pairs):
            turns = (None, sink) if pair % 2 else (sink, None)
            found = {
                w is None: _loop(x, rounds, w, watching, f"{pair}, {w is None}") for w in turns
            }
            costs.append((found[True], found[False]))
            late = torch.tensor(pair > 0 and time.perf_counter() - begun > seconds)
            if broadcast(late, 0):
                break
    finally:
        context.sink = sink
    return costs


def _loop(
    x: torch.Tensor, rounds: int, sink: Sink | None, watching: Sequence[psutil.Process], name: str
) -> Cost:
    current().sink = sink
    barrier()
    used, begin = _used(watching), time.perf_counter()
    for _ in range(rounds):
        x = neighbor_allreduce(x, name=name)
    if isinstance(sink, IOPubSink):
        sink.flush()
    wall = time.perf_counter() - begin
    barrier()
    time.sleep(_SETTLE)
    return Cost(wall, _used(watching) - used)


def _used(others: Sequence[psutil.Process]) -> float:
    """Processor seconds so far of this process and of the others."""
    return time.process_time() + sum(sum(process.cpu_times()[:2]) for process in others)
