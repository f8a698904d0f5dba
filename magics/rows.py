"""What a stream shows of lines that may still change, as a terminal would.

A carriage return takes a line back to its start, and progress bars within progress bars move up
and down between lines. A line is finished when nothing is to be expected to change it: plain text
by its end, a bar when it is full and something stands below it, or when text does.
"""

from __future__ import annotations

import re

from ifog.magics.bars import parsed
from ifog.magics.wording import plain

__all__ = ["Rows"]

_MOVES = re.compile(r"(\n|\r|\x1b\[A)")
_BROKEN = re.compile(r"\x1b(?:\[\d*)?\Z")  # an escape whose end is still to come
_MOST = 16  # lines that are kept open


class _Row:
    __slots__ = ("returned", "shown", "writing")

    def __init__(self) -> None:
        self.shown = ""
        self.writing = ""
        self.returned = False

    def back(self) -> None:
        """Take note of a carriage return: what is written next replaces what stands there."""
        self.returned = True
        if self.writing:
            self.shown, self.writing = self.writing, ""

    @property
    def text(self) -> str:
        text = self.writing or self.shown
        return text if text.strip() or not self.returned else ""  # blanks written over it

    @property
    def erased(self) -> bool:
        """Whether there was something, which is gone."""
        return self.returned and not self.text


class Rows:
    """The lines of one stream that may still change."""

    def __init__(self) -> None:
        self._rows = [_Row()]
        self._at = 0
        self._broken = ""

    def feed(self, text: str) -> list[str]:
        """Take what was written; returns the lines that are finished by it."""
        text = self._broken + text
        found = _BROKEN.search(text[-8:])
        self._broken = found[0] if found else ""
        for piece in _MOVES.split(text[: len(text) - len(self._broken)]):
            if piece == "\n":
                self._down()
            elif piece == "\r":
                self._rows[self._at].back()
            elif piece == "\x1b[A":
                self._at = max(0, self._at - 1)
            else:
                self._rows[self._at].writing += piece
        return self._finished()

    def open(self) -> list[str]:
        """The lines that are not finished and show something."""
        return [row.text for row in self._rows if row.text]

    def settle(self) -> list[str]:
        """The full bars at the top, finished now because something is written elsewhere."""
        full = 0
        while full < self._at and _is_full(self._rows[full].text):
            full += 1
        return self._take(full)

    def close(self) -> list[str]:
        """All that is left."""
        left = self.open()
        self.__init__()  # type: ignore[misc] # as it was at first
        return left

    def _down(self) -> None:
        self._at += 1
        if self._at == len(self._rows):
            self._rows.append(_Row())

    def _finished(self) -> list[str]:
        """Lines up to the last one of plain text that has ended, and the full bars below."""
        last = min(self._at, len(self._rows) - 1)
        ended = [place for place in range(last) if not self._is_bar(place)]
        count = max([0, len(self._rows) - _MOST, *(place + 1 for place in ended)])
        while count < last and _is_full(self._rows[count].text) and self._written(count + 1):
            count += 1
        return self._take(count)

    def _is_bar(self, place: int) -> bool:
        row = self._rows[place]
        return row.erased or (
            bool(row.shown or row.writing) and parsed(plain(row.text)) is not None
        )

    def _written(self, place: int) -> bool:
        return any(row.text for row in self._rows[place:])

    def _take(self, count: int) -> list[str]:
        taken, self._rows = self._rows[:count], self._rows[count:]
        self._at -= count
        return [row.text for row in taken if row.text or not row.erased]


def _is_full(text: str) -> bool:
    bar = parsed(plain(text))
    return bar is not None and bar.complete
