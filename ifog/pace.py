"""Tells the ranks of a running cell how often to send events: often while somebody looks.

A cell starts with what held then. When a dashboard is opened or closed later, the control threads
of its ranks are told, which answer while the main threads compute. A rank that has not begun the
cell yet, because it still runs another one, is asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["Pace"]


class Pace:
    """What the ranks of one cell know of it.

    Args:
        seq: the cell.
        live: whether somebody looked when the cell was sent.
    """

    def __init__(self, seq: int, live: bool) -> None:
        self._seq = seq
        self._begun = live
        self._known: dict[int, bool] = {}
        self._asked: dict[int, tuple[bool, Any]] = {}  # what a rank is being told, and the answer

    def tell(self, live: bool, ranks: Iterable[int], send: Callable[..., Any]) -> None:
        """Tell those of the ranks that do not know it yet; returns at once.

        Args:
            live: whether somebody looks.
            ranks: those at work on the cell.
            send: ``send(rank, "pace", cell=..., live=...)`` gives a future of the answer.
        """
        for rank in ranks:
            if not self._is_answered(rank):
                continue
            if self._known.get(rank, self._begun) != live:
                self._asked[rank] = (live, send(rank, "pace", cell=self._seq, live=live))

    def _is_answered(self, rank: int) -> bool:
        told, answer = self._asked.get(rank, (False, None))
        if answer is None:
            return True
        if not answer.done():
            return False
        del self._asked[rank]
        if answer.exception() is None and answer.result()["content"].get("cell") == self._seq:
            self._known[rank] = told
        return True
