"""All events of a run in the order of time, wherever they come from, to be read at any place.

The notebook hears the ranks one after the other, each with what it did in the last moments. Here
their events are in the order in which they happened, while those of one rank stay as they came.
What is in a file is read part by part when it is asked for, so a long run needs little memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ifog.numbers import count
from ifog.ranks import is_mixing
from ifog.runfile import RunFile, read_run
from ifog.sources import events_of, is_modelled, source_of
from ifog.telemetry import CellEnd, CellStart, DeathEvent, Event, OpEvent

__all__ = ["CellSpan", "Tape", "tape_of"]

_KEPT = 16  # parts of a file that are kept unpacked
_SHORT = 1.0  # seconds of playing that stand for a longer time between two cells
_SHARE = 0.05  # of all cells' time, which does where that is less


class CellSpan(NamedTuple):
    """When cell ``seq`` began on the first rank and ended on the last, and its rounds."""

    seq: int
    begin: float
    end: float
    rounds: int
    ended: bool


@dataclass
class _Cell:
    begin: float
    end: float = -math.inf
    seen: set[int] = field(default_factory=set)
    open: set[int] = field(default_factory=set)
    reached: dict[int, tuple[int, float]] = field(default_factory=dict)  # round: by how many, when
    mixing: dict[int, int] = field(default_factory=dict)  # rank: its rounds


class _Outline:
    """What a first look at all events finds: whose they are, when, and the cells."""

    def __init__(self) -> None:
        self.ranks: list[int] = []
        self.times: list[float] = []
        self.cells: list[tuple[int, _Cell]] = []
        self._newest: dict[int, _Cell] = {}
        self.n = 0
        self._latest: dict[int, float] = {}
        self._cell_of: dict[int, _Cell] = {}

    def add(self, event: Event) -> None:
        """Take the next event as it was heard."""
        rank = event.rank
        t = event.t1 if isinstance(event, OpEvent) else event.t
        t = max(t, self._latest.get(rank, -math.inf))  # what a rank tells stays in its order
        self._latest[rank] = t
        self.times.append(t)
        self.n = max(self.n, rank + 1, getattr(event, "n", 0))
        if isinstance(event, CellStart):
            self._start(event, t)
        cell = self._cell_of.get(rank)
        if cell is None:
            return
        cell.end = max(cell.end, t)
        if isinstance(event, OpEvent) and is_mixing(event.op):
            done = cell.mixing.setdefault(rank, 0)
            for step in range(done, event.step + 1):
                ranks, when = cell.reached.get(step + 1, (0, t))
                cell.reached[step + 1] = (ranks + 1, max(when, t))
            cell.mixing[rank] = max(done, event.step + 1)
        elif isinstance(event, CellEnd | DeathEvent):
            cell.open.discard(rank)
            del self._cell_of[rank]

    def _start(self, event: CellStart, t: float) -> None:
        cell = self._newest.get(event.seq)
        if cell is None or event.rank in cell.seen:  # another cluster counts its cells from 1 too
            cell = self._newest[event.seq] = _Cell(t)
            self.cells.append((event.seq, cell))
        cell.begin = min(cell.begin, t)
        cell.seen.add(event.rank)
        cell.open.add(event.rank)
        self._cell_of[event.rank] = cell


class Tape:
    """A run that can be read at any place.

    Attributes:
        title: what the run is called, "" when nobody said.
        modelled: whether its times are those of a model.
        n: how many ranks there are.
        times: when each event happened, in the order of time, in seconds.
        cells: the cells, in the order of their beginning.
        rounds: when a round was finished by the last of the ranks that mix, in seconds.
        lost: how many events came too fast to be there.
        notes: what is not known of the run, in words.
    """

    def __init__(
        self,
        parts: Sequence[Callable[[], list[Event]]],
        *,
        title: str = "",
        modelled: bool = False,
        lost: int = 0,
        notes: Sequence[str] = (),
    ) -> None:
        self.title, self.modelled, self.lost, self.notes = title, modelled, lost, tuple(notes)
        self._part = lru_cache(_KEPT)(lambda index: parts[index]())
        outline = _Outline()
        begins = [0]
        for part in range(len(parts)):
            for event in self._part(part):
                outline.add(event)
            begins.append(len(outline.times))
        times = np.array(outline.times)
        order = np.argsort(times, kind="stable")
        self.times = times[order]
        self._places = np.searchsorted(begins, order, side="right") - 1
        self._within = order - np.array(begins)[self._places]
        self.n = outline.n
        self.cells = tuple(_span(seq, cell) for seq, cell in outline.cells)
        self.rounds = np.sort(np.concatenate([_rounds(cell) for _, cell in outline.cells] or [[]]))
        self._run, self._play = self._clock()
        self.events = lru_cache(4)(self._events)  # panels ask for the same ones in turn

    def __len__(self) -> int:
        return len(self.times)

    @property
    def seconds(self) -> float:
        """How long the run plays; idle time between two cells is cut short."""
        return float(self._play[-1])

    def moment(self, seconds: float) -> float:
        """The time in the run after so many seconds of playing."""
        return float(np.interp(seconds, self._play, self._run))

    def played(self, moment: float) -> float:
        """The seconds of playing after which the run is at ``moment``."""
        return float(np.interp(moment, self._run, self._play))

    def place(self, moment: float) -> int:
        """How many events had happened by ``moment``."""
        return int(np.searchsorted(self.times, moment, side="right"))

    def _events(self, start: int, stop: int) -> list[Event]:
        parts = self._places[start:stop].tolist()
        within = self._within[start:stop].tolist()
        return [self._part(part)[index] for part, index in zip(parts, within, strict=True)]

    def _clock(self) -> tuple[np.ndarray, np.ndarray]:
        """Times of the run, and seconds of playing that stand for them."""
        first, last = (float(self.times[0]), float(self.times[-1])) if len(self) else (0.0, 0.0)
        busy = _merged((cell.begin, cell.end) for cell in self.cells) or [(first, last)]
        short = min(_SHORT, _SHARE * sum(end - begin for begin, end in busy) or _SHORT)
        run, play = [first], [0.0]
        for begin, end in [*busy, (last, last)]:
            idle = begin - run[-1]
            play.append(play[-1] + (short if idle > 2 * short else idle))
            play.append(play[-1] + end - begin)
            run += [begin, end]
        return np.array(run), np.array(play)


def _merged(spans: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same stretches of time, those that overlap joined."""
    joined: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], end))
        else:
            joined.append((begin, end))
    return joined


def _span(seq: int, cell: _Cell) -> CellSpan:
    rounds = min(cell.mixing.values(), default=0)
    return CellSpan(seq, cell.begin, max(cell.end, cell.begin), rounds, not cell.open)


def _rounds(cell: _Cell) -> list[float]:
    return [when for ranks, when in cell.reached.values() if ranks == len(cell.mixing)]


def tape_of(source: Any) -> Tape:
    """The run of a file, or of an event source as far as it has got.

    Args:
        source: the path of a recording, a cluster, an event log, or any event source.

    Raises:
        RecordingError: the file cannot be read, or is no recording.
        TypeError: the source is neither a path nor has events.
    """
    if isinstance(source, Tape):
        return source
    if isinstance(source, str | Path):
        return _of_file(read_run(source))
    events = events_of(source_of(source))
    tape = getattr(events, "tape", None)
    if isinstance(tape, Tape):
        return tape
    cursor, past = events.since(0)
    gone = cursor - len(past)
    notes = [f"the first {count(gone)} events are no longer kept"] if gone > 0 else []
    lost = getattr(events, "lost", 0)
    return Tape([lambda: past], modelled=is_modelled(source), lost=lost, notes=notes)


def _of_file(file: RunFile) -> Tape:
    losses = [0] * file.parts

    def part(index: int) -> list[Event]:
        events, losses[index] = file.events(index)
        return events

    notes = [] if file.complete else ["the recording was cut off"]
    tape = Tape(
        [partial(part, index) for index in range(file.parts)],
        title=file.title,
        modelled=file.modelled,
        notes=notes,
    )
    tape.lost = sum(losses)
    return tape
