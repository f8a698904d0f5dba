"""What a rank posts: which averages become part of a burst, and when a burst leaves."""

from __future__ import annotations

import torch

from ifog.bursts import Burst, Posted
from ifog.context import Context
from ifog.handle import Handle
from ifog.operation import entered
from ifog.plans import Plan
from ifog.postman import Postman

__all__ = ["Posting", "begin", "fits", "post"]

_SMALL = 1 << 14  # bytes of a tensor up to which a place in an envelope is cheaper than one's own
_ALONE = 1 << 18  # bytes of one that is waited for at once up to which copies cost less than a loan
_COPIED = 1 << 20  # bytes of all these copies together
_MOST = 1 << 20  # bytes of a burst
_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
_DIMENSIONS = 16


def fits(
    context: Context, x: torch.Tensor, plan: Plan, device: torch.device, *, alone: bool
) -> bool:
    """Whether the average of ``x``, which came from ``device``, may be part of a burst.

    Or, if it is to be ``alone``, whether it may begin by itself.
    """
    if not 0 < x.nbytes <= (_ALONE if alone else _SMALL):
        return False
    if plan is not context.static_plan and not (alone and plan.plain):
        return False
    if x.nbytes > _SMALL and x.nbytes * (len(plan.src) + len(plan.dst)) > _COPIED:
        return False
    if x.dtype not in _DTYPES or x.ndim > _DIMENSIONS or device != x.device or context.arriving:
        return False
    if context.posting is None:
        context.posting = Posting(context)
    return context.posting.room(plan) > 0


def begin(
    context: Context, op: str, name: str | None, x: torch.Tensor, plan: Plan
) -> Handle[torch.Tensor]:
    """Start the average of ``x``, which ``fits``, by itself, after all that has been posted."""
    posting = context.posting
    assert posting is not None
    posting.close()
    posted = _entered(context, op, name, x)
    posted.go_alone(plan, None)
    return posted


def post(
    context: Context, op: str, name: str | None, x: torch.Tensor, plan: Plan
) -> Handle[torch.Tensor]:
    """Add the average of ``x``, which ``fits``, to the burst that is being posted."""
    posting = context.posting
    assert posting is not None
    posted = _entered(context, op, name, x)
    with posting.lock:
        burst = posting.burst(op, plan, x.dtype)
        burst.add(posted)
        if burst.nbytes >= _MOST:
            posting.close()
    return posted


def _entered(context: Context, op: str, name: str | None, x: torch.Tensor) -> Posted:
    assert context.posting is not None
    key = entered(context, op, name, context.posting.peers)
    posted = Posted(context, op, name, x, key)
    if name is not None and posted.step == 0:
        context.watcher.look(x, name, 0)
    return posted


class Posting:
    """What one rank posts.

    Attributes:
        context: this rank's.
        under_way: the bursts that have not ended, in the order in which they began; the last one
            may still be posted.
        peers: all ranks of the plan that was asked about last.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.under_way: list[Burst] = []
        self.lock = context.progress.lock
        self.number = 0
        self.peers: tuple[int, ...] = ()
        self._open: Burst | None = None
        self._known: tuple[Plan | None, int, int] = (None, 0, 0)
        self._postman = Postman(self)

    def room(self, plan: Plan) -> int:
        """The most bytes that a message may have to any of this plan's ranks; 0: no envelopes."""
        known, healed, most = self._known
        if known is not plan or healed != self.context.healed:
            both = plan.src and plan.dst
            self.peers = (*plan.src, *plan.dst)
            most = self.context.transport.opens(self.peers) if both else 0
            self._known = (plan, self.context.healed, most)
        return most

    def burst(self, op: str, plan: Plan, dtype: torch.dtype) -> Burst:
        """The one that is posted now."""
        burst = self._open
        if burst is not None and burst.open and burst.plan is plan and burst.dtype is dtype:
            return burst
        self.close()
        burst = self._open = Burst(self, op, plan, dtype)
        self.under_way.append(burst)
        self.context.progress.active[id(burst)] = burst
        self.number += 1
        self._postman.call()
        return burst

    @property
    def unsent(self) -> bool:
        """Whether something that was posted has not left."""
        return any(burst.unsent for burst in list(self.under_way))

    def close(self) -> None:
        """Send what has been posted."""
        if self.under_way and self.unsent:
            with self.lock:
                for burst in list(self.under_way):
                    burst.advance()

    def part(self) -> None:
        """Send what has been posted, and let each operation go on by itself: the plan changes."""
        with self.lock:
            for burst in list(self.under_way):
                burst.part()
