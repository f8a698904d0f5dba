"""How ``ifog demo`` looks in a terminal: a table that updates, or plain lines elsewhere."""

from __future__ import annotations

import importlib.util
import time
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from ifog import numbers
from ifog.demo import METHODS, TOPOLOGIES, Consensus, Digits

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table

__all__ = ["LiveTables", "PlainLines", "open_screen"]

_SAY_AGAIN = 5.0  # seconds between two lines about the same row


def open_screen(stream: TextIO) -> LiveTables | PlainLines:
    """Tables for a terminal, lines for everything else, and where rich is not installed."""
    if importlib.util.find_spec("rich") is None:
        return PlainLines(stream)
    from rich.console import Console

    console = Console(file=stream)
    if console.is_terminal and not console.is_dumb_terminal:
        return LiveTables(console)
    return PlainLines(stream)


class PlainLines(AbstractContextManager["PlainLines"]):
    """One line for each thing that happened."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._said = time.monotonic()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing to close: lines are written at once."""

    def note(self, text: str) -> None:
        """Say what goes on now."""
        self._say(text)

    def running(self, label: str, step: int, value: float) -> None:
        """Say how far a slow row is, every few seconds."""
        if step and time.monotonic() - self._said > _SAY_AGAIN:
            self._say(f"  {label}: {step} {_steps(label)}, {_what(label)} {numbers.number(value)}")

    def finished(self, row: Consensus | Digits) -> None:
        """The row's numbers in one line."""
        if isinstance(row, Consensus):
            self._say(
                f"  {row.topology}: {row.rounds} {'round' if row.rounds == 1 else 'rounds'}, "
                f"error {numbers.number(row.error)}, factor per round "
                f"{_rate(row.measured_rate)} (predicted {_rate(row.spectral_rate)})"
            )
        else:
            self._say(
                f"  {row.method}: {row.accuracy:.1%} of the test images, "
                f"{numbers.size(row.bytes)} sent"
            )

    def _say(self, text: str) -> None:
        self._said = time.monotonic()
        self._stream.write(text.replace(numbers.SPACE, " ").replace(numbers.THIN, " ") + "\n")
        self._stream.flush()


class LiveTables(AbstractContextManager["LiveTables"]):
    """Two tables, redrawn in place while the demo runs, and a line that says what goes on."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live
        from rich.spinner import Spinner

        self._note = ""
        self._spinner = Spinner("dots")
        self._rows: dict[str, tuple[str, ...]] = {}
        self._live = Live(console=console, refresh_per_second=8, get_renderable=self._draw)

    def __enter__(self) -> LiveTables:
        """Take over the lower end of the terminal."""
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the last state of the tables on the terminal."""
        self._note = ""
        self._live.stop()

    def note(self, text: str) -> None:
        """Say what goes on now, in the line below the tables."""
        self._note = text

    def running(self, label: str, step: int, value: float) -> None:
        """Fill the row as far as it is known."""
        self._rows[label] = (str(step), numbers.number(value) if step else "…")

    def finished(self, row: Consensus | Digits) -> None:
        """Fill the row."""
        if isinstance(row, Consensus):
            rates = (_rate(row.measured_rate), _rate(row.spectral_rate))
            self._rows[row.topology] = (str(row.rounds), numbers.number(row.error), *rates)
        else:
            steps_and_loss = self._rows.get(row.method, ("", ""))[:2]
            cells = (f"{row.accuracy:.1%}", numbers.size(row.bytes))
            self._rows[row.method] = (*steps_and_loss, *cells)

    def _draw(self) -> Group:
        from rich.console import Group

        parts: list[Any] = [
            self._table(
                "Average consensus: 100,000 float64 on every rank",
                ("graph", "rounds", "error", "per round", "predicted"),
                TOPOLOGIES,
            ),
            self._table(
                "Training on digits: every rank sees only some of the ten",
                ("method", "steps", "own loss", "accuracy", "all sent"),
                METHODS,
            ),
        ]
        if self._note:
            self._spinner.update(text=self._note)
            parts.append(self._spinner)
        return Group(*parts)

    def _table(self, title: str, columns: tuple[str, ...], labels: tuple[str, ...]) -> Table:
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
        table.add_column(columns[0], min_width=22)
        for column in columns[1:]:
            table.add_column(column, justify="right", min_width=9)
        for label in labels:
            cells = self._rows.get(label, ())
            padding = ("",) * (len(columns) - 1 - len(cells))
            table.add_row(label, *cells, *padding, style=None if cells else "dim")
        return table


def _what(label: str) -> str:
    return "error" if label in TOPOLOGIES else "loss"


def _steps(label: str) -> str:
    return "rounds" if label in TOPOLOGIES else "steps"


def _rate(rate: float) -> str:
    return "exact" if rate == 0 else numbers.number(rate)
