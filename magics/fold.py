"""Folding: what many ranks printed, as the shortest list of blocks that says the same.

Lines that are equal on several ranks are one block; lines that are equal but for one number are
one block with a range. Lines of different text are never joined, and reading the blocks of one
rank from top to bottom gives that rank's lines in the order in which it wrote them. Pure: no
IPython, no clock, no display.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["Block", "Fold", "Spread", "Written"]

_NUMBER = re.compile(
    r"((?<![\w.])[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![\d_]|\.\d)"
    r"|(?<![\w.])(?:nan|[-+]?inf)(?!\w))"
)
_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07")
_CELL_FILE = re.compile(r"\S*/ipykernel_\d+/\d+\.py(?=:\d)")
_RICH = ("text/html", "image/svg+xml", "image/png", "image/jpeg")
_LOOK_AHEAD = 64  # keeps a rank that lags by thousands of lines cheap


class Written(Protocol):
    """One piece of output of one rank, as the cluster delivers it."""

    @property
    def rank(self) -> int: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def text(self) -> str: ...  # noqa: D102
    @property
    def data(self) -> Mapping[str, Any]: ...  # noqa: D102


@dataclass(frozen=True)
class Spread:
    """The one number in which the lines of a block differ.

    Attributes:
        before: the text left of the number.
        after: the text right of it.
        values: the number as each rank wrote it.
        low: a rank with the smallest value.
        high: a rank with the largest value, or the first one with NaN.
        whole: whether all values are integers.
    """

    before: str
    after: str
    values: dict[int, str]
    low: int
    high: int
    whole: bool


@dataclass
class Block:
    """One line (or one many-line value) with the ranks that wrote it."""

    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)
    lines: dict[int, str] = field(default_factory=dict)
    numbers: tuple[str, ...] = ()
    _varying: int | None = None

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks that wrote it, ascending."""
        return tuple(sorted(self.lines))

    def in_order(self) -> list[tuple[int, str]]:
        """Each rank with the line it wrote, ascending."""
        return [(rank, self.lines[rank]) for rank in self.ranks]

    @property
    def text(self) -> str:
        """The line as the first rank wrote it; as a range where the ranks differ in a number."""
        spread = self.spread
        if spread is None:
            return next(iter(self.lines.values()))
        low, high = spread.values[spread.low], spread.values[spread.high]
        return f"{spread.before}{low} … {high}{spread.after}"

    @property
    def spread(self) -> Spread | None:
        """Where the ranks differ, or None when they wrote the same."""
        at = self._varying
        if at is None:
            return None
        values = {rank: _NUMBER.split(self.lines[rank])[2 * at + 1] for rank in self.ranks}
        order = sorted(values, key=lambda rank: _sort_key(values[rank]))
        pieces = _NUMBER.split(next(iter(self.lines.values())))
        return Spread(
            before="".join(pieces[: 2 * at + 1]),
            after="".join(pieces[2 * at + 2 :]),
            values=values,
            low=order[0],
            high=next(r for r in order if _sort_key(values[r]) == _sort_key(values[order[-1]])),
            whole=all(re.fullmatch(r"[-+]?\d+", value) for value in values.values()),
        )

    def differing(self, numbers: tuple[str, ...]) -> int | None:
        """The index of the only number in which a line differs from this block, or -1 for none.

        Returns None when the line cannot join: a second number would differ.
        """
        different = [
            i for i, (a, b) in enumerate(zip(self.numbers, numbers, strict=True)) if a != b
        ]
        if self._varying is not None:
            return self._varying if set(different) <= {self._varying} else None
        if not different:
            return -1
        return different[0] if len(different) == 1 else None

    def join(self, rank: int, text: str, numbers: tuple[str, ...]) -> None:
        """Add the line of one more rank; ``differing(numbers)`` was not None."""
        at = self.differing(numbers) if self.lines else -1
        if not self.lines:
            self.numbers = numbers
        elif at is not None and at >= 0:
            self._varying = at
        self.lines[rank] = text


def _sort_key(value: str) -> tuple[bool, float]:
    as_float = float(value)
    nan = math.isnan(as_float)
    return nan, 0.0 if nan else as_float


def _last_state(line: str) -> str:
    """What a terminal shows of a line that carriage returns took back to its start."""
    return next((part for part in reversed(line.split("\r")) if part), "")


class Fold:
    """Takes the output of the ranks piece by piece and keeps it folded.

    Attributes:
        blocks: the blocks of all finished lines, in order of first appearance.
        version: changes whenever ``blocks`` or ``tail()`` do.
    """

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.version = 0
        self._open: dict[tuple[int, str], str] = {}
        self._values: dict[int, Written] = {}
        self._last: dict[int, int] = {}
        self._like: dict[tuple[Any, ...], list[int]] = {}
        self._floor = 0

    def feed(self, pieces: Iterable[Written]) -> None:
        """Take pieces in their order of arrival; a stream's piece may end within a line."""
        for piece in pieces:
            self.version += 1
            self._add_value(piece.rank)
            if piece.kind in ("stdout", "stderr"):
                self._stream(piece)
                continue
            self._close(piece.rank)
            self._values[piece.rank] = piece
            if piece.kind != "result":
                self._add_value(piece.rank)

    def finish(self) -> None:
        """Close lines that had no end yet: nothing more will come."""
        for rank, _ in list(self._open):
            self._close(rank)
        for rank in sorted(self._values):
            self._add_value(rank)
        self.version += 1

    def freeze(self, index: int) -> None:
        """No further line joins the blocks before ``index``: they have been shown for good."""
        self._floor = index

    def tail(self) -> list[Block]:
        """Lines without an end yet (a progress bar) and values, folded among themselves.

        The value of a rank's last expression waits for those of the other ranks: together they
        are the last blocks, in the order of the ranks.
        """
        live = Fold()
        for (rank, kind), text in self._open.items():
            live._add(rank, kind, _last_state(text), {})
        live._values = dict(self._values)
        live.finish()
        return [block for block in live.blocks if block.text]

    def _stream(self, piece: Written) -> None:
        key = (piece.rank, piece.kind)
        *whole, rest = _ESCAPE.sub("", self._open.pop(key, "") + piece.text).split("\n")
        for line in whole:
            self._add(piece.rank, piece.kind, _last_state(line), {})
        if rest:
            # A bar that redraws itself for hours must not grow: only its last states matter.
            self._open[key] = "\r".join(rest.split("\r")[-2:]) if "\r" in rest else rest

    def _add_value(self, rank: int) -> None:
        value = self._values.pop(rank, None)
        if value is not None:
            rich = {mime: value.data[mime] for mime in _RICH if mime in value.data}
            self._add(rank, value.kind, value.text, rich)

    def _close(self, rank: int) -> None:
        for key in [key for key in self._open if key[0] == rank]:
            self._add(rank, key[1], _last_state(self._open.pop(key)), {})

    def _add(self, rank: int, kind: str, text: str, data: Mapping[str, Any]) -> None:
        text = _CELL_FILE.sub("cell", _ESCAPE.sub("", text))  # the path holds a process id
        pieces = _NUMBER.split(text)
        frame, numbers = tuple(pieces[::2]), tuple(pieces[1::2])
        alike = self._like.setdefault((kind, frame, repr(sorted(data.items()))), [])
        index = self._partner(rank, alike, numbers)
        if index is None:
            index = len(self.blocks)
            alike.append(index)
            self.blocks.append(Block(kind, data))
        self.blocks[index].join(rank, text, numbers)
        self._last[rank] = index

    def _partner(self, rank: int, alike: list[int], numbers: tuple[str, ...]) -> int | None:
        """The block this line joins: below all earlier lines of its rank, and not frozen.

        The first block that fits keeps loops in step, so that the fifth loss of one rank meets
        the fifth of the others. Integers name things (a step, a rank): for them an equal line
        further down is the better partner.
        """
        start = bisect_right(alike, max(self._last.get(rank, -1), self._floor - 1))
        first = None
        for index in alike[start : start + _LOOK_AHEAD]:
            at = self.blocks[index].differing(numbers)
            if at is None:
                continue
            if numbers == self.blocks[index].numbers:
                return index
            if first is None:
                first = index
                if not re.fullmatch(r"[-+]?\d+", numbers[at]):
                    return first
        return first
