"""What stands under a running cell: the strip and the folded output, kept up to date.

In a notebook both are displays that are replaced in place, at most a few times a second. Long
output is many displays, of which only those are drawn that changed, and its middle is left out, so
that an update costs the same after an hour and the notebook stays small. A terminal cannot replace
what it has printed, so there everything is printed once, at the end.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from ifog.magics.failures import Failure, failures, released
from ifog.magics.fold import Block, Fold, Written
from ifog.magics.render import (
    Released,
    markdown,
    output_html,
    output_text,
    prefix_width,
    strip_html,
    strip_text,
)
from ifog.magics.report import report_html, report_of, report_text
from ifog.magics.strip import Outcome, Strip, StripView
from ifog.telemetry import EventLog, now
from ifog.why import Explanation

__all__ = ["Display", "Live", "NotebookScreen", "Screen", "TerminalScreen", "notice", "screen_of"]

_PERIOD = 0.25  # seconds between two updates
_PART = 200  # blocks that are one display
_HEAD = 2000  # blocks at the beginning that are shown
_TAIL = 1000  # blocks at the end that are shown
_MOVING = 200  # of these, while the cell runs


class Display(Protocol):
    """Something on the screen that can be replaced."""

    def update(self, html: str, text: str, markdown: str = "") -> None:
        """Show this instead; in a notebook Markdown, where there is some, in place of HTML."""


class Screen(Protocol):
    """Where displays appear; ``moves`` tells whether updates are seen at once."""

    moves: bool

    def show(self, html: str, text: str, markdown: str = "") -> Display:
        """Put a new display below the earlier ones."""


class _NotebookDisplay:
    def __init__(self, html: str, text: str, markdown: str) -> None:
        from IPython.display import display

        bundle = self._bundle(html, text, markdown)
        self._handle = display(bundle, raw=True, display_id=True)  # type: ignore[no-untyped-call]

    def update(self, html: str, text: str, markdown: str = "") -> None:
        self._handle.update(self._bundle(html, text, markdown), raw=True)

    @staticmethod
    def _bundle(html: str, text: str, markdown: str) -> dict[str, str]:
        if markdown:
            return {"text/markdown": markdown, "text/plain": text}
        return {"text/html": html, "text/plain": text}


class NotebookScreen:
    """A front end that replaces displays in place."""

    moves = True

    def show(self, html: str, text: str, markdown: str = "") -> Display:
        """Show a display with an id."""
        return _NotebookDisplay(html, text, markdown)


class TerminalScreen:
    """A terminal: what is shown is printed and stays."""

    moves = False

    def show(self, html: str, text: str, markdown: str = "") -> Display:  # noqa: ARG002 - text only
        """Print the text."""
        self.update("", text)
        return self

    def update(self, html: str, text: str, markdown: str = "") -> None:  # noqa: ARG002 - see show
        """Print the text below the earlier one."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def screen_of(shell: Any) -> Screen:
    """The screen of an IPython shell: kernels have a front end, terminals have not."""
    return NotebookScreen() if hasattr(shell, "kernel") else TerminalScreen()


def notice(word: str, text: str, elapsed: str = "") -> tuple[str, str]:
    """A strip, as HTML and text, for what ifog does outside of a cell."""
    view = StripView(word, (), (("", text),), (), "", elapsed)
    return strip_html(view), strip_text(view)


class RunningCell(Protocol):
    """What is read of a cell that runs on the ranks."""

    seq: int
    ranks: tuple[int, ...]
    outputs: Any

    @property
    def stall(self) -> Explanation | None: ...

    @property
    def stopping(self) -> str: ...


class Live:
    """The display of one cell; call ``tick`` while it runs and ``finish`` when it is done."""

    def __init__(
        self, screen: Screen, cell: RunningCell, n: int, events: EventLog, cursor: int
    ) -> None:
        self._screen = screen
        self._cell = cell
        self._events = events
        self._cursor = cursor
        self._strip = Strip(cell.seq, cell.ranks, n, now())
        self._strip_display: Display | None = None
        self._output = _Output(screen)
        self._read = 0
        self._due = 0.0

    def tick(self) -> None:
        """Take in what happened and redraw, if it is time to: many events at once cost least."""
        start = now()
        if start < self._due:
            return
        self._take()
        if self._screen.moves:
            self._show_strip(self._strip.view(start, self._cell.stall, self._cell.stopping))
            self._output.draw()
        # A slow front end is asked less often.
        self._due = now() + max(_PERIOD, 3 * (now() - start))

    def finish(self, outcome: Outcome) -> None:
        """Draw the final state: all output, the errors, the totals."""
        self._take()
        if self._screen.moves:
            self._show_strip(self._strip.close(outcome))
        self._output.finish(outcome)
        if not self._screen.moves:
            self._show_strip(self._strip.close(outcome))

    def abandon(self, error: BaseException) -> None:
        """Draw the end of a cell that gave no result."""
        self._take()
        self._output.draw()
        text = f"no answer from the ranks: {type(error).__name__}"
        self._draw_strip(*notice("stopped", text))

    def _take(self) -> None:
        self._cursor, events = self._events.since(self._cursor)
        self._strip.feed(events)
        pieces = self._cell.outputs[self._read :]
        self._read += len(pieces)
        self._output.feed(pieces)

    def _show_strip(self, view: StripView) -> None:
        self._draw_strip(strip_html(view), strip_text(view))

    def _draw_strip(self, html: str, text: str) -> None:
        if self._strip_display is None:
            self._strip_display = self._screen.show(html, text)
        else:
            self._strip_display.update(html, text)


class _Part(NamedTuple):
    """What one display shows: ``left_out`` blocks that are not shown stand above the others."""

    blocks: Sequence[Block]
    left_out: int = 0
    failed: Sequence[Failure] = ()
    free: Sequence[Released] = ()

    def signature(self, width: int) -> tuple[Any, ...]:
        """Equal for parts that look the same: a block only changes when a rank joins it."""
        blocks = tuple((id(block), len(block.lines)) for block in self.blocks)
        return blocks, self.left_out, len(self.failed), len(self.free), width

    @property
    def is_markdown(self) -> bool:
        """Whether it is one block of Markdown."""
        return len(self.blocks) == 1 and bool(markdown(self.blocks[0]))

    def ranks(self) -> list[Sequence[int]]:
        """The ranks of each row."""
        rows = [*(b.ranks for b in self.blocks), *(f.ranks for f in self.failed)]
        return [*rows, *(ranks for ranks, _ in self.free)]


class _Output:
    """The folded output as displays, one below the other."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._fold = Fold()
        self._displays: list[Display] = []
        self._shown: list[tuple[Any, ...]] = []
        self._width = 0
        self._drawn = 0

    def feed(self, pieces: Sequence[Written]) -> None:
        self._fold.feed(pieces)

    def draw(self) -> None:
        if self._fold.version != self._drawn:
            self._drawn = self._fold.version
            # The tail is made anew each time, and with it the identity of its blocks.
            self._shown[-1:] = [()] * len(self._shown[-1:])
            self._show(self._parts(self._fold.tail(), _MOVING))

    def finish(self, outcome: Outcome) -> None:
        self._fold.finish()
        report = report_of(outcome)
        parts = self._parts([], _TAIL)
        failed = [] if report is not None else failures(outcome.errors)
        free = [] if report is not None else released(outcome.errors)
        if failed or free:
            last = parts.pop() if parts and not parts[-1].is_markdown else _Part(())
            parts.append(last._replace(failed=failed, free=free))
        self._shown[-1:] = [()] * len(self._shown[-1:])
        self._show(parts)
        if report is not None:
            self._screen.show(report_html(report), report_text(report))

    def _parts(self, tail: Sequence[Block], most: int) -> list[_Part]:
        blocks = self._fold.blocks
        left_out = max(0, len(blocks) - _HEAD - most)
        if not left_out:
            return _pieces([*blocks, *tail])
        rest = _pieces([*blocks[_HEAD + left_out :], *tail])
        return [*_pieces(blocks[:_HEAD]), _Part((), left_out), *rest]

    def _show(self, parts: Sequence[_Part]) -> None:
        ranks = [row for part in parts for row in part.ranks()]
        self._width = width = max(self._width, prefix_width(ranks))
        empty = [_Part(())] * (len(self._displays) - len(parts))
        for index, part in enumerate([*parts, *empty]):
            if self._shown[index : index + 1] != [part.signature(width)]:
                self._shown[index : index + 1] = [part.signature(width)]
                self._draw(index, part, width)

    def _draw(self, index: int, part: _Part, width: int) -> None:
        html = output_html(part.blocks, part.failed, part.free, width, part.left_out)
        text = output_text(part.blocks, part.failed, part.free, width, part.left_out)
        marked = {"markdown": markdown(part.blocks[0])} if part.is_markdown else {}
        if index < len(self._displays):
            self._displays[index].update(html, text, **marked)
        else:
            self._displays.append(self._screen.show(html, text, **marked))


def _pieces(blocks: Sequence[Block]) -> list[_Part]:
    """The blocks in parts; one that is Markdown is a part, because HTML cannot hold it."""
    parts: list[list[Block]] = []
    for block in blocks:
        alone = bool(markdown(block))
        if not parts or alone or len(parts[-1]) == _PART or markdown(parts[-1][0]):
            parts.append([])
        parts[-1].append(block)
    return [_Part(part) for part in parts]
