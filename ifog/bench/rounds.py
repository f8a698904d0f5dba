"""Loops of rounds on the ranks, timed for the benches."""

from __future__ import annotations

import time

import torch

from ifog.context import current
from ifog.neighborhood import set_topology
from ifog.neighbors import neighbor_allreduce
from ifog.ops import barrier
from ifog.telemetry import Sink

__all__ = ["alternate"]


def alternate(numel: int, rounds: int, pairs: int) -> list[tuple[float, float]]:
    """Seconds of a block of rounds without and with events, ``pairs`` times in turn.

    Args:
        numel: float64 entries of the tensor.
        rounds: rounds of a block.
        pairs: how many blocks of each kind; which kind goes first changes from pair to pair.
    """
    context = current()
    set_topology("ring")
    sink = context.sink
    x = torch.randn(numel, dtype=torch.float64)
    _block(x, rounds, sink)
    seconds = []
    try:
        for pair in range(pairs):
            first, second = (None, sink) if pair % 2 else (sink, None)
            times = {which is None: _block(x, rounds, which) for which in (first, second)}
            seconds.append((times[True], times[False]))
    finally:
        context.sink = sink
    return seconds


def _block(x: torch.Tensor, rounds: int, sink: Sink | None) -> float:
    current().sink = sink
    barrier()
    start = time.perf_counter()
    for _ in range(rounds):
        x = neighbor_allreduce(x, name="x")
    return time.perf_counter() - start
