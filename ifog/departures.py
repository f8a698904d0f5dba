"""Large payloads for other machines, which leave one after the other.

Sent together they would share this rank's link and meet on those of others, which is slower. One
whose receiver does not take it must not hold up the rest for good: after a while the next one
leaves as well.
"""

from __future__ import annotations

from collections import deque

from ifog.telemetry import now
from ifog.transport.base import Bytes, Request, Transport

__all__ = ["Departures"]

_BULKY = 1 << 18  # bytes of a payload that fills a link for a while
_PATIENCE = (0.05, 2e7)  # seconds, and bytes a second, after which the next one leaves anyhow


class Departures:
    """The payloads of one round that are for other machines; all others leave at once.

    Args:
        transport: takes them there.
        tag: of their messages.
    """

    def __init__(self, transport: Transport, tag: int) -> None:
        self._transport = transport
        self._tag = tag
        self._waiting: deque[tuple[int, Bytes]] = deque()
        self._last: Request | None = None
        self._until = 0.0

    def hold(self, destination: int, data: Bytes) -> bool:
        """Whether a payload is to wait for its turn here."""
        machines, rank = self._transport.machines, self._transport.rank
        if data.size < _BULKY or machines[destination] == machines[rank]:
            return False
        self._waiting.append((destination, data))
        return True

    def sort(self) -> None:
        """Let them leave clockwise: each rank then hears from one other at a time."""
        rank, size = self._transport.rank, self._transport.size
        self._waiting = deque(sorted(self._waiting, key=lambda item: (item[0] - rank) % size))

    def start(self, sends: list[tuple[int, Request]]) -> None:
        """Add to ``sends`` what may leave now."""
        while self._waiting:
            under_way = any(request is self._last for _, request in sends)
            if under_way and now() < self._until:
                return
            destination, data = self._waiting.popleft()
            self._until = now() + _PATIENCE[0] + data.size / _PATIENCE[1]
            self._last = self._transport.isend(data, destination, self._tag)
            sends.append((destination, self._last))
