"""Faults planted into this rank, for teaching: slow operations, and edges that lose messages.

They act where a real one would: a slow rank begins its operations late, and a lost message has left
its sender. So what the notebook shows of them is what it would show of the real thing.
"""

from __future__ import annotations

import threading
from typing import Any, cast

from ifog.context import Context, current
from ifog.errors import ArgumentError
from ifog.transport.base import Bytes, Request, Transport

__all__ = ["delay", "drop", "off"]

_SLICE = 0.05  # seconds between two looks whether the cell was stopped meanwhile


class _Sent:
    """A message that nobody will get; its sender cannot tell."""

    def test(self) -> bool:
        return True


_SENT = _Sent()


class _Leaky:
    """A transport that loses what is sent to some ranks, and is the real one in all else.

    Between cells nothing is lost, so that a cell which failed by it can be healed.
    """

    def __init__(self, context: Context) -> None:
        self.inner = context.transport
        self._context = context
        self.lost: set[int] = set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def send(self, data: bytes, destination: int, tag: int) -> Request:
        return _SENT if self._loses(destination) else self.inner.send(data, destination, tag)

    def isend(self, data: Bytes, destination: int, tag: int) -> Request:
        return _SENT if self._loses(destination) else self.inner.isend(data, destination, tag)

    def _loses(self, destination: int) -> bool:
        if destination not in self.lost or not self._context.cell:
            return False
        self.inner.check()
        return True


def delay(seconds: float) -> None:
    """Begin every operation of this rank ``seconds`` late from now on; 0 ends it.

    Raises:
        ArgumentError: not a time.
    """
    if not 0 <= seconds < 3600:
        raise ArgumentError(f"a delay of {seconds} s was asked for; give 0 to 3600 seconds")
    context = current()

    def late(_: str) -> None:
        pause = threading.Event()
        whole, rest = divmod(seconds, _SLICE)
        for _k in range(int(whole)):
            pause.wait(_SLICE)
            context.transport.check()
        pause.wait(rest)

    context.before = late if seconds else None


def drop(destination: int) -> None:
    """Lose what this rank sends to ``destination`` in cells from now on; windows are not touched.

    Raises:
        ArgumentError: no such rank, or this one.
    """
    context = current()
    if not 0 <= destination < context.size or destination == context.rank:
        raise ArgumentError(
            f"rank {context.rank} cannot lose messages to {destination}; the ranks are "
            f"0-{context.size - 1}"
        )
    if not isinstance(context.transport, _Leaky):
        context.transport = cast(Transport, _Leaky(context))
    cast(_Leaky, context.transport).lost.add(destination)


def off() -> None:
    """Take all that was planted out of this rank."""
    context = current()
    context.before = None
    if isinstance(context.transport, _Leaky):
        context.transport = context.transport.inner
