"""The loops of ``ifog bench guard`` on the ranks: with the guard's checks and without."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ifog.context import Context, current
from ifog.handle import Handle, Operation
from ifog.neighborhood import in_neighbor_ranks, set_topology
from ifog.neighbors import neighbor_allreduce
from ifog.operation import Outcome, launch
from ifog.ops import barrier

__all__ = ["empty", "mixing"]

Pairs = list[tuple[float, float]]
Clock = Callable[[], float]


class _Nobody(set[str]):
    """A set that holds nothing, whatever is added."""

    def add(self, _: str) -> None:
        pass

    def discard(self, _: object) -> None:
        pass


def empty(rounds: int, pairs: int) -> Pairs:
    """Processor time of an operation with peers and no message, without and with the checks."""
    set_topology("ring")
    peers = in_neighbor_ranks()

    def body(_context: Context, _tag: int) -> Operation[Outcome]:
        yield from ()
        return _DONE

    return _alternate(
        lambda: launch("empty", "x", peers, body).wait(), rounds, pairs, time.thread_time
    )


def mixing(rounds: int, pairs: int) -> Pairs:
    """Seconds of a neighbour average of 1 kB over the ring, which all ranks call together."""
    set_topology("ring")
    x = torch.randn(128, dtype=torch.float64)
    return _alternate(lambda: neighbor_allreduce(x, name="x"), rounds, pairs, time.perf_counter)


def _alternate(call: Callable[[], Any], rounds: int, pairs: int, clock: Clock) -> Pairs:
    context, seconds = current(), []
    sink, context.sink = context.sink, None
    try:
        for pair in range(pairs):
            times: dict[bool, float] = {}
            for checked in (False, True) if pair % 2 else (True, False):
                barrier()
                if checked:
                    times[checked] = _block(call, rounds, clock)
                else:
                    with _unguarded(context):
                        times[checked] = _block(call, rounds, clock)
            seconds.append((times[False], times[True]))
    finally:
        context.sink = sink
    return seconds


def _block(call: Callable[[], Any], rounds: int, clock: Clock) -> float:
    start = clock()
    for _ in range(rounds):
        call()
    return (clock() - start) / rounds


@contextmanager
def _unguarded(context: Context) -> Iterator[None]:
    """Without the check of peers and names, the table of waits, and the look for deadlines."""
    progress, transport = context.progress, context.transport

    def wait(handle: Handle[Any]) -> None:
        polls = 0
        while True:
            handle.advance()
            if handle.finished:
                return
            polls += 1
            transport.idle(polls)

    names, context.in_flight = context.in_flight, _Nobody()
    vars(context)["require"] = lambda _peers, _op: None
    vars(progress)["wait"] = wait
    try:
        yield
    finally:
        del vars(context)["require"], vars(progress)["wait"]
        context.in_flight = names


def _nothing() -> Outcome:
    from ifog.exchange import Arrivals

    return Outcome(None, Arrivals({}, 0.0, -1))


_DONE = _nothing()
