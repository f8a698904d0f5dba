"""Folding: what many ranks printed, as the shortest list of blocks that says the same.

Lines that are equal on several ranks are one block; lines that are equal but for one number are
one block with a range. Lines of different text are never joined, and reading the blocks of one
rank from top to bottom gives that rank's lines in the order in which it wrote them. Pure: no
IPython, no clock, no display.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from ifog.magics.bars import parsed, together
from ifog.magics.rows import Rows
from ifog.magics.wording import NUMBER, order_of, plain, template

__all__ = ["Block", "Fold", "Spread", "Written"]

_INTEGER = re.compile(r"[-+]?\d+")
_CELL_FILE = re.compile(r"(?<!\S)\S*/ipykernel_\d+/\d+\.py(?=:\d)")
_RICH = ("text/html", "text/markdown", "image/svg+xml", "image/png", "image/jpeg")
_LOOK_AHEAD = 64  # lines of one form that are tried as partner
_GAP = 1 << 64  # between the places of neighbours, so that blocks can be put between


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


@dataclass(eq=False)
class Block:
    """One line (or one many-line value) with the ranks that wrote it.

    Blocks are ordered by ``place``, which only ``Fold`` changes. ``is_bar`` tells progress bars,
    which are one bar.
    """

    kind: str
    data: Mapping[str, Any] = field(default_factory=dict)
    is_bar: bool = False
    lines: dict[int, str] = field(default_factory=dict)
    numbers: tuple[str, ...] = ()
    place: int = 0
    _varying: int | None = None
    _spread: Spread | None = None

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
        if self.is_bar:
            return together(dict(self.in_order()))
        spread = self.spread
        if spread is None:
            return next(iter(self.lines.values()))
        low, high = spread.values[spread.low], spread.values[spread.high]
        return f"{spread.before}{low} … {high}{spread.after}"

    @property
    def spread(self) -> Spread | None:
        """Where the ranks differ, or None when they wrote the same."""
        if self._spread is None and self._varying is not None:
            self._spread = self._spread_at(self._varying)
        return self._spread

    def _spread_at(self, at: int) -> Spread:
        values = {rank: NUMBER.split(self.lines[rank])[2 * at + 1] for rank in self.ranks}
        order = sorted(values, key=lambda rank: order_of(values[rank]))
        pieces = NUMBER.split(next(iter(self.lines.values())))
        return Spread(
            before="".join(pieces[: 2 * at + 1]),
            after="".join(pieces[2 * at + 2 :]),
            values=values,
            low=order[0],
            high=next(r for r in order if order_of(values[r]) == order_of(values[order[-1]])),
            whole=all(_INTEGER.fullmatch(value) for value in values.values()),
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
        self._spread = None
        self.lines[rank] = text


class _Form(NamedTuple):
    """What lines are compared by: as a whole, without their numbers, and the numbers."""

    same: str | tuple[str, ...]
    frame: tuple[str, ...]
    numbers: tuple[str, ...]
    is_bar: bool = False

    @classmethod
    def of(cls, text: str, data: Mapping[str, Any]) -> _Form:
        bar = None if data else parsed(text)
        if bar is not None:  # however far it is
            return cls(("bar", bar.title), ("bar", bar.title), (), is_bar=True)
        return cls(text, *template(text))


def _place(block: Block) -> int:
    return block.place


class _Alike:
    """Blocks that share a text or a form, by place, with the last one of each rank."""

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.last: dict[int, Block] = {}

    def add(self, rank: int, block: Block) -> None:
        at = bisect_left(self.blocks, block.place, key=_place)
        if self.blocks[at : at + 1] != [block]:
            self.blocks.insert(at, block)
        self.last[rank] = block

    def insert(self, block: Block) -> None:
        self.blocks.insert(bisect_left(self.blocks, block.place, key=_place), block)

    def remove(self, block: Block) -> None:
        del self.blocks[bisect_left(self.blocks, block.place, key=_place)]

    def after(self, rank: int, place: float) -> Sequence[Block]:
        """The next blocks below ``place`` that ``rank`` may join."""
        if rank in self.last:
            place = max(place, self.last[rank].place)
        start = bisect_right(self.blocks, place, key=_place)
        return self.blocks[start : start + _LOOK_AHEAD]


class Fold:
    """Takes the output of the ranks piece by piece and keeps it folded.

    A line that no other rank wrote has no fixed place among the lines of the others. It stands
    last until its rank writes a line that another rank wrote as well, and then goes above that one.

    Attributes:
        blocks: the blocks of all finished lines, from top to bottom.
        version: changes whenever ``blocks`` or ``tail()`` do.
    """

    def __init__(self) -> None:
        self.blocks: list[Block] = []
        self.version = 0
        self._open: dict[tuple[int, str], Rows] = {}
        self._values: dict[int, Written] = {}
        self._alike: dict[tuple[Any, ...], _Alike] = {}
        self._shared: dict[int, Block] = {}  # each rank's last block with company
        self._alone: dict[int, deque[Block]] = {}  # its blocks below that one

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

    def tail(self) -> list[Block]:
        """Lines without an end yet (a progress bar) and values, folded among themselves.

        The value of a rank's last expression waits for those of the other ranks: together they
        are the last blocks, in the order of the ranks.
        """
        live = Fold()
        for (rank, kind), rows in self._open.items():
            for text in rows.open():
                live._add(rank, kind, text, {})
        live._values = dict(self._values)
        live.finish()
        return [block for block in live.blocks if block.text]

    def _stream(self, piece: Written) -> None:
        for (rank, kind), rows in self._open.items():
            if rank == piece.rank and kind != piece.kind:
                for line in rows.settle():
                    self._add(rank, kind, line, {})
        rows = self._open.setdefault((piece.rank, piece.kind), Rows())
        for line in rows.feed(piece.text):
            self._add(piece.rank, piece.kind, line, {})

    def _add_value(self, rank: int) -> None:
        value = self._values.pop(rank, None)
        if value is not None:
            rich = {mime: value.data[mime] for mime in _RICH if mime in value.data}
            self._add(rank, value.kind, value.text, rich)

    def _close(self, rank: int) -> None:
        for (writer, kind), rows in self._open.items():
            if writer == rank:
                for line in rows.close():
                    self._add(rank, kind, line, {})

    def _add(self, rank: int, kind: str, text: str, data: Mapping[str, Any]) -> None:
        text = plain(text)
        if "/ipykernel_" in text:
            text = _CELL_FILE.sub("cell", text)  # the path holds a process id
        form = _Form.of(text, data)
        same, like = self._lists(kind, form, data)
        block = self._partner(rank, form.numbers, same, like)
        if block is None:
            place = self.blocks[-1].place + _GAP if self.blocks else 0
            block = Block(kind, data, is_bar=form.is_bar, place=place)
            self.blocks.append(block)
            self._alone.setdefault(rank, deque()).append(block)
        else:
            self._meet(rank, block)
        block.join(rank, text, form.numbers)
        same.add(rank, block)
        like.add(rank, block)

    def _lists(self, kind: str, form: _Form, data: Mapping[str, Any]) -> tuple[_Alike, _Alike]:
        rich = repr(sorted(data.items())) if data else ""
        same = self._alike.setdefault((kind, rich, form.same), _Alike())
        return same, self._alike.setdefault((kind, rich, form.frame), _Alike())

    def _partner(
        self, rank: int, numbers: tuple[str, ...], same: _Alike, like: _Alike
    ) -> Block | None:
        """The block this line joins, below all lines that its rank shares with another.

        An equal line is the partner, however far ahead the other rank is: integers name things (a
        step, a rank). Measured values do not; there the first line of the same form keeps loops in
        step, so that the fifth loss of one rank meets the fifth of the others.
        """
        place = self._top(rank)
        equal = next(iter(same.after(rank, place)), None)
        if equal is not None and all(map(_INTEGER.fullmatch, numbers)):
            return equal
        for block in like.after(rank, place):
            if block is equal:
                return equal
            at = block.differing(numbers)
            if at is None or (equal is not None and _INTEGER.fullmatch(numbers[at])):
                continue
            return block
        return equal

    def _meet(self, rank: int, block: Block) -> None:
        """``rank`` joins the block of others: from now on what is above it stays there."""
        for other in block.lines:
            if self._top(other) < block.place:
                while self._alone[other].popleft() is not block:
                    pass
                self._shared[other] = block
        mine = self._alone.pop(rank, deque())
        self._raise(rank, [own for own in mine if own.place > block.place], block)
        self._shared[rank] = block

    def _top(self, rank: int) -> float:
        return self._shared[rank].place if rank in self._shared else -math.inf

    def _raise(self, rank: int, lonely: list[Block], above: Block) -> None:
        """Put lonely blocks of ``rank`` directly above another one."""
        if not lonely:
            return
        lists = [
            self._lists(own.kind, _Form.of(own.lines[rank], own.data), own.data) for own in lonely
        ]
        for own, pair in zip(lonely, lists, strict=True):
            for alike in pair:
                alike.remove(own)
            del self.blocks[bisect_left(self.blocks, own.place, key=_place)]
        above = self._in_order_of_ranks(rank, above)
        step = self._step(above, len(lonely))
        if step == 0:
            for index, block in enumerate(self.blocks):
                block.place = index * _GAP
            step = self._step(above, len(lonely))
        at = bisect_left(self.blocks, above.place, key=_place)
        self.blocks[at:at] = lonely
        for back, (own, pair) in enumerate(zip(reversed(lonely), reversed(lists), strict=True), 1):
            own.place = above.place - back * step
            for alike in pair:
                alike.insert(own)

    def _in_order_of_ranks(self, rank: int, above: Block) -> Block:
        """The highest of the lonely blocks of later ranks that stand directly above a block."""
        at = bisect_left(self.blocks, above.place, key=_place)
        while at and len(self.blocks[at - 1].lines) == 1 and rank < min(self.blocks[at - 1].lines):
            at -= 1
        return self.blocks[at]

    def _step(self, above: Block, number: int) -> int:
        at = bisect_left(self.blocks, above.place, key=_place)
        room = above.place - self.blocks[at - 1].place if at else _GAP
        return room // (number + 1)
