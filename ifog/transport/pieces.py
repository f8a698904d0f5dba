"""Large messages between machines, in pieces of which few are under way at a time.

A message that is handed over whole fills the queues on its way faster than the link empties them.
What they drop is sent again, which costs a third of a 1 Gbit/s link and more of a slower one; in
pieces it goes at the rate of the link.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ifog.transport.base import Bytes, Request

__all__ = ["PIECE", "Pieces"]

PIECE = 1 << 18  # bytes


class Pieces:
    """One such message, which is sent or received; both ends cut it alike.

    Args:
        post: starts to send or receive one piece.
        data: all of the message.
        most: how many pieces may be under way.
    """

    __slots__ = ("_begun", "_most", "_post", "_under_way", "data")

    def __init__(self, post: Callable[[Bytes], Request], data: Bytes, most: int) -> None:
        self.data = data
        self._post = post
        self._most = most
        self._begun = 0  # bytes
        self._under_way: deque[Request] = deque()
        self._fill()

    def _fill(self) -> None:
        while self._begun < self.data.size and len(self._under_way) < self._most:
            piece = self.data[self._begun : self._begun + PIECE]
            self._under_way.append(self._post(piece))
            self._begun += PIECE

    def test(self) -> bool:
        """Whether all of it is through; starts the next piece where one is."""
        while self._under_way and self._under_way[0].test():
            self._under_way.popleft()
            self._fill()
        return not self._under_way
