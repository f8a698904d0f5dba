"""Small averages that are posted one after the other: they travel together and end together.

What a rank posts before it waits is a burst. It goes to each neighbour in one envelope, as a list
of letters and their payloads in a row. Where the neighbours' lists say the same, as far as they go,
all tensors of that stretch are combined at once. Where they do not, because a rank posted in
another order, one by one or something else, each operation goes on by itself and takes its letters
out of the envelopes by their tags: it matches, and fails, exactly as if it had been alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import torch

from ifog.combining import combine, mix_small
from ifog.context import Context
from ifog.errors import PeerFailedError
from ifog.exchange import Arrivals, room_for, tag_of
from ifog.handle import Handle, Operation
from ifog.operation import Outcome, report
from ifog.parcels import Parcel, enclosed
from ifog.plans import Plan
from ifog.telemetry import now
from ifog.transport.base import Bytes, Request
from ifog.transport.envelopes import ENVELOPE, Envelope, Inbox, front, payload_at, record

if TYPE_CHECKING:
    from ifog.posting import Posting

__all__ = ["Burst", "Posted"]

_EMPTY = torch.empty(0, device="cpu")
_NONE: frozenset[int] = frozenset()
Sends = list[tuple[int, Request]]  # with their destinations


def _tested(sends: Sends) -> tuple[int, ...]:
    """Drop what has left; returns where the rest goes."""
    sends[:] = [send for send in sends if not send[1].test()]
    return tuple([send[0] for send in sends])


class Posted(Handle[torch.Tensor]):
    """One average of a burst.

    Attributes:
        burst: while it is part of one; None once it has ended or goes on by itself.
        x: [...] this rank's tensor.
        key: tells it from all others under way.
        tag: of its messages.
    """

    def __init__(
        self, context: Context, op: str, name: str | None, x: torch.Tensor, key: str
    ) -> None:
        super().__init__(context.progress, op, name or "", context.step_of(op, name or ""))
        self.burst: Burst | None = None
        self.x = x
        self.key = key
        self.tag = tag_of(key)
        self._context = context
        self._watched = name is not None
        self._seq, self._t0 = context.next_op(), now()

    def advance(self) -> None:
        """Move the whole burst, or this one alone."""
        burst = self.burst
        if burst is None:
            super().advance()
        else:
            burst.advance()
            self.peers = burst.peers

    def settle(self, outcome: Outcome) -> None:
        """End the operation with what came out."""
        context = self._context
        context.in_flight.discard(self.key)
        if self._watched:
            context.watcher.look(outcome.result, self.name, self.step + 1)
        report(context, self, self._seq, self._t0, outcome)
        self._result, self.finished, self.burst = outcome.result, True, None

    def fail(self, error: BaseException) -> None:
        """End the operation with ``error``."""
        self._context.in_flight.discard(self.key)
        self.burst = None
        super().fail(error)

    def go_alone(self, plan: Plan, sends: Sends | None) -> None:
        """Go on by itself; ``sends`` are what carries its letters, if they have been posted."""
        self.burst = None
        self.begin(self._alone(plan, sends))

    def _alone(self, plan: Plan, sends: Sends | None) -> Operation[torch.Tensor]:
        context, sent = self._context, sends is not None
        try:
            outcome = yield from mix_small(context, self.tag, self.op, self.x, plan, sent=sent)
            while sends and (late := _tested(sends)):
                yield late
        finally:
            self._context.in_flight.discard(self.key)
        self.settle(outcome)
        result: torch.Tensor = outcome.result
        return result


class Burst(Handle[None]):
    """What was posted without a wait in between, of one dtype and over one plan.

    Attributes:
        context: this rank's.
        plan: who sends what to whom.
        dtype: of all tensors.
        nbytes: of all tensors together.
        open: whether more can be posted.
    """

    def __init__(self, posting: Posting, op: str, plan: Plan, dtype: torch.dtype) -> None:
        super().__init__(posting.context.progress, op, "", 0)
        self.context = posting.context
        self.plan = plan
        self.dtype = dtype
        self.nbytes = 0
        self.open = True
        self._posting = posting
        self._members: list[Posted] = []
        self._listed = b""
        self._ends: list[int] = []  # of the members' records
        self._flat = _EMPTY
        self._tags: frozenset[int] = _NONE
        self._done = 0  # members that have ended
        self._read = 0  # bytes of their records
        self._sends: Sends = []

    @property
    def unsent(self) -> bool:
        """Whether something of it has not left."""
        return self.open or bool(self._sends)

    def add(self, posted: Posted) -> None:
        """Make ``posted`` its next member."""
        posted.burst = self
        self._members.append(posted)
        self.nbytes += posted.x.nbytes

    def advance(self) -> None:
        """Send it, and end those members whose letters are all here."""
        if self.finished:
            return
        try:
            if self.open:
                self._close()
            self._advance()
        except BaseException as error:
            for posted in self._left():
                posted.fail(error)
                if isinstance(error, Exception) and not isinstance(error, PeerFailedError):
                    self._progress.untold[id(posted)] = posted
            if not isinstance(error, Exception):
                raise

    def fail(self, error: BaseException) -> None:
        """End all members that are left with ``error``."""
        for posted in self._left():
            posted.fail(error)

    def part(self) -> None:
        """Send it, and let each member that is left go on by itself."""
        if self.open:
            self._close()
        self._part(self._sends)

    def _left(self) -> list[Posted]:
        """The members that have not ended, which are so no longer: the burst is over."""
        left, self._members = self._members[self._done :], []
        self.open, self._flat = False, _EMPTY
        if not self.finished:
            self._posting.under_way.remove(self)
            self._finish()
        return left

    def _part(self, sends: Sends | None) -> None:
        for posted in self._left():
            posted.go_alone(self.plan, sends)

    def _close(self) -> None:
        """Send what has been posted; it is complete."""
        self.open = False
        if len(self._members) == 1:
            self._part(None)
            return
        records = [record(each.tag, enclosed(each.x), each.x.nbytes) for each in self._members]
        self._listed = b"".join(records)
        self._ends = list(accumulate(map(len, records)))
        self._tags = frozenset([posted.tag for posted in self._members])
        if not self._send():
            self._part(None)

    def _send(self) -> bool:
        """Put the envelope together and send it; whether there was memory for it."""
        transport, listed = self.context.transport, len(self._listed)
        start, destinations = payload_at(listed), self.plan.destinations
        body = transport.room(start + self.nbytes)
        if body is None:
            body = np.empty(start + self.nbytes, np.uint8)
        body[:listed] = np.frombuffer(self._listed, np.uint8)
        # Of the tensor, not of the array, whose parts would let go of the memory.
        self._flat = torch.from_numpy(body)[start:].view(self.dtype)
        tensors = [posted.x for posted in self._members]
        torch.cat([x if x.ndim == 1 else x.view(-1) for x in tensors], out=self._flat)
        message = front(listed, self.nbytes, lent=False)
        if len(message) + body.size <= self._posting.room(self.plan):
            message += body.tobytes()
        else:
            loan = transport.lend(body, destinations, kept=True)
            if loan is None:
                return False
            message = front(listed, self.nbytes, lent=True) + loan.token
        for destination in destinations:
            self._sends.append((destination, transport.send(message, destination, ENVELOPE)))
        return True

    def _advance(self) -> None:
        while not self.finished:
            # Emptied in any case: whoever sends may wait for room.
            inboxes = [self.context.transport.inbox(source) for source in self.plan.src]
            late = _tested(self._sends)
            if self._differ(inboxes):
                self._part(self._sends)
                return
            ahead = self._posting.under_way[0]
            if ahead is not self:
                ahead.advance()
                if self.finished or self._posting.under_way[0] is ahead:
                    self.peers = ahead.peers
                    return
                continue
            missing = [
                source
                for source, inbox in zip(self.plan.src, inboxes, strict=True)
                if not inbox.envelopes
            ]
            if missing or late:
                self.peers = tuple(missing) or late
                return
            self._end([inbox.envelopes[0] for inbox in inboxes])
            for inbox in inboxes:
                inbox.tidy()
            if self._done == len(self._members):
                self._left()

    def _differ(self, inboxes: Sequence[Inbox]) -> bool:
        """Whether anything has come that does not fit into the row of what this rank posted."""
        first = self._posting.under_way[0] is self
        for inbox in inboxes:
            if inbox.letters and not self._tags.isdisjoint(inbox.letters):
                return True
            if first and inbox.envelopes:
                envelope = inbox.envelopes[0]
                if not envelope.arrived_at:
                    envelope.arrived_at = now()
                theirs = envelope.listed[envelope.read :]
                mine = self._listed[self._read : self._read + len(theirs)]
                if not theirs.startswith(mine):
                    return True
        return False

    def _end(self, envelopes: Sequence[Envelope]) -> None:
        """End the members that are in all of the ``envelopes``, one of each source."""
        listed = min(len(each.listed) - each.read for each in envelopes)
        listed = min(listed, len(self._listed) - self._read)
        end = bisect_left(self._ends, self._read + listed) + 1
        members = self._members[self._done : end]
        sizes = [posted.x.numel() for posted in members]
        x, self._flat = self._flat[: sum(sizes)], self._flat[sum(sizes) :]
        parcels: dict[int, Parcel] = {}
        for each in envelopes:
            like = torch.from_numpy(each.payloads(x.nbytes)).view(self.dtype)
            parcels[each.source] = Parcel(like, arrived_at=each.arrived_at)
        result, weights = combine(x, self.plan, parcels, room_for(self.context.transport, x))
        for each in envelopes:
            each.skip(listed, x.nbytes)
        last = max(envelopes, key=lambda each: each.arrived_at)
        arrivals = Arrivals(parcels, last.arrived_at, last.source)
        src, dst = self.plan.sources, self.plan.destinations
        self._read += listed
        for posted, piece in zip(members, _pieces(result, members, sizes), strict=True):
            self._done += 1
            nbytes = posted.x.nbytes * len(dst)
            posted.settle(Outcome(piece, arrivals, nbytes, dst, src, weights))


def _pieces(
    flat: torch.Tensor, members: Sequence[Posted], sizes: Sequence[int]
) -> list[torch.Tensor]:
    """The parts of ``flat`` in the shapes of the members, as tensors that know of no others."""
    # Views of one tensor would count their changes together, and be saved with all of it.
    half = flat.dtype is torch.bfloat16  # unknown to NumPy
    memory: Bytes = (flat.view(torch.int16) if half else flat).numpy()
    pieces, place = [], 0
    for posted, size in zip(members, sizes, strict=True):
        piece = torch.from_numpy(memory[place : place + size])
        place += size
        if half:
            piece = piece.view(torch.bfloat16)
        shape = posted.x.shape
        pieces.append(piece if len(shape) == 1 else piece.view(shape))
    return pieces
