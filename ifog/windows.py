"""One-sided windows: put, get and accumulate into neighbours' memory without their taking part.

Rank i has its own tensor S_i and, for each in-neighbour j, a buffer B_i[j] that only j writes: by
``put`` and ``accumulate``, or, when i asks for it by ``get``, on j's behalf. ``update`` combines
what has arrived. No rank ever waits for another to call anything, so a slow one slows nobody.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from ifog.buffers import Buffers, Gift, Key, senders
from ifog.context import Context, current
from ifog.errors import ArgumentError
from ifog.exchange import Arrivals, Parcel, same
from ifog.handle import Handle, Moving, Operation
from ifog.kernels import mean, weighted_sum
from ifog.operation import Outcome, launch, to_all
from ifog.telemetry import now
from ifog.window_arguments import factor, factors, payload, require_holdable, row

__all__ = ["Window"]

_NOTHING = torch.empty(0, dtype=torch.uint8, device="cpu")


class Window:
    """A tensor that neighbours on the graph reach without this rank's help.

    Creating and freeing one are collective; the graph cannot change meanwhile. The memory of rank
    i: ``tensor`` itself is S_i, not a copy of it; B_i[j] for each in-neighbour j begins as a copy
    of S_i, or as zeros. While ``ifog.turn_on_win_ops_with_associated_p()`` is in force a number p,
    1 at first, goes through the same sums as the tensor: the push-sum weight.

    Each operation on one buffer is atomic: data, version and p change together. ``require_mutex``
    and ``mutex`` make whole sequences exclusive between two ranks.

    Args:
        tensor: [...] of the same shape and dtype on every rank, of any size: int32, int64 or
            floating point.
        name: matches the window across ranks; one window has it at a time.
        zero_init: begin with zeros in the buffers instead of copies of the own tensor.

    Raises:
        ArgumentError: the name is taken or the dtype cannot be used.
        MismatchError: the ranks' shapes or dtypes differ; on every rank.
        TransportError: a neighbour cannot be reached; on every rank.

    Source: Ying, Yuan, Hu, Chen, Pan, Yin 2021, arXiv:2111.04287, section 3.
    """

    def __init__(self, tensor: torch.Tensor, name: str, *, zero_init: bool = False) -> None:
        context = current()
        require_holdable(tensor)
        if name in context.windows:
            raise ArgumentError(f"there is a window {name!r} already; free it first")
        self.name = name
        self.tensor = tensor
        self.p = 1.0
        self._context = context
        self._waiting: deque[object] = deque()
        self._memory: Buffers | None = None

        def body(context: Context, tag: int) -> Operation[Outcome]:
            like = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")
            claim = Parcel(like)
            arrivals = yield from to_all(context, tag, claim)
            same("win_create", context.rank, claim, arrivals.parcels)
            memory = Buffers(context, like)
            first = None if zero_init else tensor.detach().cpu()
            self._memory = memory  # another rank may ask for the tensor before open returns here
            yield from memory.open(tag, first, lambda: self.tensor.detach().cpu())
            return Outcome(None, arrivals)

        launch("win_create", name, context.alive, body).wait()
        context.windows[name] = self

    def free(self) -> None:
        """Give the window up; every rank must call it, and none can use it afterwards."""
        memory = self._opened("win_free")

        def body(context: Context, tag: int) -> Operation[Outcome]:
            while self._waiting:
                yield tuple(context.weights.dst)
            arrivals = yield from to_all(context, tag, Parcel(_NOTHING))
            return Outcome(None, arrivals)

        launch("win_free", self.name, self._context.alive, body).wait()
        self._context.windows.pop(self.name, None)
        self._memory = None
        memory.close()

    def let_go(self) -> None:
        """Give back every mutex that this rank holds: the cell that took them has failed."""
        if self._memory is not None:
            self._memory.let_go()

    def abandon(self) -> None:
        """Let go of the window without the others: ranks died or came, and none fits any more."""
        memory, self._memory = self._memory, None
        self._context.windows.pop(self.name, None)
        if memory is not None:
            memory.close()

    def put(
        self,
        tensor: torch.Tensor,
        *,
        self_weight: float = 1.0,
        dst_weights: Mapping[int, float] | Iterable[int] | None = None,
        require_mutex: bool = False,
    ) -> Handle[None]:
        """Start ``B_d[i] <- w_d tensor`` on each out-neighbour d; then ``tensor *= self_weight``.

        Each d's version counter of this rank grows by 1. With associated p, p_d[i] becomes
        w_d p_i, and p_i is multiplied by ``self_weight`` as well.

        Args:
            tensor: [...] like the window's.
            self_weight: multiplies ``tensor`` in place after sending; 1 leaves it alone.
            dst_weights: {d: w_d}, or ranks, whose w_d is 1; by default all out-neighbours.
            require_mutex: hold d's mutex for this rank meanwhile.

        Returns:
            A handle, done once the data is there. ``tensor`` must not change before.

        Raises:
            ArgumentError: the tensor or the weights do not fit the window.
        """
        return self._send("win_put", tensor, self_weight, dst_weights, require_mutex)

    def accumulate(
        self,
        tensor: torch.Tensor,
        *,
        self_weight: float = 1.0,
        dst_weights: Mapping[int, float] | Iterable[int] | None = None,
        require_mutex: bool = False,
    ) -> Handle[None]:
        """Start ``B_d[i] += w_d tensor`` on each out-neighbour d; then ``tensor *= self_weight``.

        With associated p, p_d[i] grows by w_d p_i. Versions stay. The arguments, the handle and
        the errors are those of ``put``.
        """
        return self._send("win_accumulate", tensor, self_weight, dst_weights, require_mutex)

    def _send(
        self,
        op: str,
        tensor: torch.Tensor,
        self_weight: float,
        dst_weights: Mapping[int, float] | Iterable[int] | None,
        require_mutex: bool,
    ) -> Handle[None]:
        memory, context = self._opened(op), self._context
        x, me = payload(tensor, self.tensor, self.name, op), context.rank
        own = factor(self_weight, self.tensor.dtype, "self_weight", op)
        weights = self._factors(dst_weights, context.weights.dst, "dst_weights", op)
        clockwise = sorted(weights, key=lambda rank: (rank - me) % context.size)
        carries_p, adds = context.windows_carry_p, op == "win_accumulate"

        def gift(weight: float) -> Gift:
            return Gift(x, weight, adds, weight * self.p if carries_p else None)

        # Made when it is given: data and p must be of the same moment.
        gifts = {rank: partial(gift, weight) for rank, weight in weights.items()}

        def steps() -> Operation[Outcome]:
            waited, last = 0.0, -1
            for rank in clockwise:
                since = yield from memory.give(rank, gifts[rank], mutex=require_mutex)
                if since:
                    waited, last = since, rank
            if own != 1:
                tensor.detach().mul_(own)
                self.p *= own if carries_p else 1.0
            nbytes = x.numel() * x.element_size() * len(clockwise)
            return Outcome(None, Arrivals({}, waited, last), nbytes, tuple(clockwise))

        return launch(op, self.name, (), lambda *_: self._in_turn(steps()), matched=False)

    def get(
        self,
        *,
        src_weights: Mapping[int, float] | Iterable[int] | None = None,
        require_mutex: bool = False,
    ) -> Handle[None]:
        """Start ``B_i[s] <- w_s S_s`` from each in-neighbour s: what its tensor holds right now.

        The version counter of each s grows by 1; p does not travel. A thread of s answers, so it
        need not call anything; a computation there that keeps Python's lock delays the answer.

        Args:
            src_weights: {s: w_s}, or ranks, whose w_s is 1; by default all in-neighbours.
            require_mutex: hold this rank's mutex on s meanwhile.

        Returns:
            A handle, done once the data is here.

        Raises:
            ArgumentError: the weights do not fit the window.
        """
        op = "win_get"
        memory, context = self._opened(op), self._context
        weights = self._factors(src_weights, context.weights.src, "src_weights", op)

        def steps() -> Operation[Outcome]:
            arrived, source = 0.0, -1
            for source, weight in weights.items():
                yield from memory.fetch(source, weight, mutex=require_mutex)
                arrived = now()
            return Outcome(None, Arrivals({}, arrived, source), 0, (), tuple(weights))

        return launch(op, self.name, (), lambda *_: self._in_turn(steps()), matched=False)

    def update(
        self,
        *,
        self_weight: float | None = None,
        neighbor_weights: Mapping[int, float] | None = None,
        reset: bool = False,
        clone: bool = False,
        require_mutex: bool = False,
    ) -> torch.Tensor:
        """Combine what has arrived: ``T <- s T + sum_j w_j B_i[j]``, in place on the own tensor.

        With associated p, ``p_i <- s p_i + sum_j w_j p_i[j]``. All version counters become 0.

        Args:
            self_weight: s; by default that of ``neighbor_allreduce``: 1/(m + 1) for m
                in-neighbours, summed first and divided once, or the graph's.
            neighbor_weights: {j: w_j}; in-neighbours that are left out do not count.
            reset: afterwards empty the buffers of all j, and their p.
            clone: leave the own tensor as it is and return a new one.
            require_mutex: hold the mutexes of all j meanwhile.

        Returns:
            The very tensor the window was created with, or with ``clone`` a new one.

        Raises:
            ArgumentError: the weights do not fit the window.
        """
        op = "win_update"
        memory = self._opened(op)
        own, weights, uniform = row(
            self._context, self_weight, neighbor_weights, self.tensor.dtype, op
        )

        def body(context: Context, _: int) -> Operation[Outcome]:
            keys = memory.keys([(context.rank, j) for j in weights], mutex=require_mutex)
            waited = yield from memory.acquire(keys)
            try:
                result = self._combine(memory, own, weights, uniform)
                if reset:
                    self._reset(memory, weights)
            finally:
                memory.release(keys)
            if not clone:
                self.tensor.detach().copy_(result)
                result = self.tensor
            context.watcher.look(result, self.name, context.steps[op, self.name])
            row = (float(own), *map(float, weights.values()))
            last = context.rank if waited else -1
            result = result.to(self.tensor.device)
            return Outcome(result, Arrivals({}, waited, last), 0, (), tuple(weights), row)

        updated: torch.Tensor = launch(op, self.name, (), body, matched=False).wait()
        return updated

    def _combine(
        self, memory: Buffers, own: float, weights: Mapping[int, float], uniform: bool
    ) -> torch.Tensor:
        slots, mine = memory.own, self.tensor.detach().cpu()
        buffers = [slots.data[j] for j in weights]
        if uniform:
            total = mean(mine, buffers)
        else:
            total = weighted_sum(mine, own, buffers, list(weights.values()))
        if self._context.windows_carry_p:
            shares = [w * float(slots.p[slots.index[j]]) for j, w in weights.items()]
            self.p = math.fsum([own * self.p, *shares])
        slots.versions[:] = 0
        return total

    def _reset(self, memory: Buffers, weights: Iterable[int]) -> None:
        slots = memory.own
        for j in weights:
            slots.data[j].zero_()
            if self._context.windows_carry_p:
                slots.p[slots.index[j]] = 0.0

    def collect(self, *, require_mutex: bool = True) -> torch.Tensor:
        """Add all that has arrived to the own tensor, and empty the buffers.

        ``T <- T + sum_j B_i[j]``, ``B_i[j] <- 0``: after ``accumulate`` with weights that sum to
        1 together with ``self_weight``, nothing is ever lost or counted twice.
        """
        weights = dict.fromkeys(senders(self._context, self._context.rank), 1.0)
        return self.update(
            self_weight=1.0, neighbor_weights=weights, reset=True, require_mutex=require_mutex
        )

    def version(self) -> dict[int, int]:
        """How many puts of, or gets from, each in-neighbour came since the last ``update``."""
        slots = self._opened("win_version").own
        around = self._context.graph.predecessors(self._context.rank)
        return {j: int(slots.versions[slots.index[j]]) for j in around if j in slots.index}

    @contextmanager
    def mutex(
        self, *, for_self: bool = False, ranks: Iterable[int] | None = None
    ) -> Iterator[None]:
        """Hold mutexes: each rank has one for every peer, which only these two ever take.

        A rank's sends to this one with ``require_mutex`` and updates here that take in its buffer
        exclude each other; two peers never block each other. A rank that holds a mutex may call
        what requires it.

        Args:
            for_self: hold one's own mutexes for ``ranks``; otherwise those of ``ranks`` for this
                rank.
            ranks: by default all out-neighbours.
        """
        context = self._context
        chosen = set(context.weights.dst) if ranks is None else {int(rank) for rank in ranks}
        context.require(tuple(chosen), "win_mutex")
        me = context.rank
        keys: list[Key] = [(me, peer) if for_self else (peer, me) for peer in sorted(chosen)]

        with self._holding("win_mutex", keys):
            yield

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep every rank, this one included, out of this rank's buffers."""
        me = self._context.rank
        keys = self._opened("win_lock").keys((me, j) for j in senders(self._context, me))
        with self._holding("win_lock", keys):
            yield

    @contextmanager
    def _holding(self, op: str, keys: Sequence[Key]) -> Iterator[None]:
        memory = self._opened(op)

        def body(_: Context, __: int) -> Operation[Outcome]:
            waited = yield from memory.acquire(keys)
            return Outcome(None, Arrivals({}, waited, keys[-1][0] if waited else -1))

        launch(op, self.name, (), body, matched=False).wait()
        era = memory.era
        try:
            yield
        finally:
            if memory.era == era:
                memory.release(keys)

    def _factors(self, given: Any, around: Iterable[int], what: str, op: str) -> dict[int, float]:
        return factors(self._context.rank, given, around, self.tensor.dtype, what=what, op=op)

    def _in_turn(self, steps: Operation[Outcome]) -> Operation[Outcome]:
        """Run sends and gets of one window in the order in which they were called."""
        ticket = object()
        self._waiting.append(ticket)
        try:
            while self._waiting[0] is not ticket:
                yield Moving()  # for an earlier one of this rank
            return (yield from steps)
        finally:
            self._waiting.remove(ticket)

    def _opened(self, op: str) -> Buffers:
        if self._memory is None:
            raise ArgumentError(
                f"{op}: the window {self.name!r} has been freed, or lost when the set of living "
                "ranks changed; create it again"
            )
        return self._memory
