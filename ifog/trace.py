"""Reads the trace files of ranks and makes one of them, its clocks aligned, its messages drawn.

The files are read twice, line by line: once for the operations, which give the clocks' offsets and
the arrows, and once to be copied with their times shifted. Only what has not been matched yet and
six numbers an arrow are held meanwhile. A file that ends in the middle, because its rank was
killed, counts up to there. Standard library only.
"""

from __future__ import annotations

import json
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from ifog.clocks import Offset, offsets
from ifog.errors import ArgumentError
from ifog.messages import Matcher, Operation, Updates

__all__ = ["Clock", "Merged", "Source", "merge"]

_PROCESSES = 100_000  # more than a rank of BlueFog's has tensors
_SAME_CLOCK = 1e-6  # seconds by which ranks on one machine may read its clock differently


class Source:
    """One rank's file.

    Attributes:
        rank: whose it is.
        origin: what the rank said of itself; empty in a file of BlueFog's format.
        damage: what is wrong with the file, in words, once it has been read; else empty.

    Raises:
        ArgumentError: the file cannot be read, or is no timeline.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.damage = ""
        self.origin: dict[str, Any] = {}
        first = next(self.lines(), "")
        event = json.loads(first) if first else {}
        named = event.get("name")
        if named == "ifog_timeline":
            self.origin = event["args"]
            self.rank = int(self.origin["rank"])
        elif named == "process_name" and self._number() is not None:
            self.rank = self._number() or 0
        else:
            raise ArgumentError(
                f"{str(path)!r} is not the timeline of a rank; pass the files that ifog.timeline() "
                "or BLUEFOG_TIMELINE wrote, before any merging"
            )

    def _number(self) -> int | None:
        """The rank that BlueFog's name of the file ends in."""
        stem = self.path.stem
        digits = stem[len(stem.rstrip("0123456789")) :]
        return int(digits) if digits else None

    def lines(self) -> Iterator[str]:
        """The events, a JSON object each, up to the file's end or the first damaged line."""
        try:
            with self.path.open(encoding="utf-8", errors="replace") as file:
                yield from self._objects(file)
        except OSError as error:
            raise ArgumentError(f"cannot read the timeline {str(self.path)!r}: {error}") from error

    def _objects(self, file: TextIO) -> Iterator[str]:
        closed = False
        for number, line in enumerate(file, 1):
            text = line.strip().lstrip("[").rstrip(",")
            if text == "]":
                closed = True
            elif text and not (text.startswith("{") and text.endswith("}") and _is_whole(text)):
                self.damage = f"{self.path}: line {number} is damaged; read up to there"
                return
            elif text:
                yield text
        if self.origin and not closed:
            self.damage = f"{self.path}: not finished: its rank was killed, or still runs"


def _is_whole(text: str) -> bool:
    # Only a line that a kill cut short can end in the brace of an inner object.
    return text.count("{") == text.count("}") or _parses(text)


def _parses(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


class Clock(NamedTuple):
    """By how many ``seconds`` rank ``rank``'s clock was ahead of the first rank's, give or take.

    ``shared``: it is the same machine's clock, so no message had to be asked.
    """

    rank: int
    host: str
    seconds: float
    uncertainty: float
    shared: bool


class Merged(NamedTuple):
    """What ``merge`` wrote.

    ``unmatched`` operations have a message whose other end is in none of the files; ``backward``
    arrows go back in time, which only clocks that drift can make.
    """

    path: Path
    events: int
    arrows: int
    unmatched: int
    backward: int
    clocks: tuple[Clock, ...]
    damage: tuple[str, ...]


@dataclass
class _Arrows:
    """Six numbers an arrow: its beginning and its end, as rank, track and time in us."""

    rows: array[float] = field(default_factory=lambda: array("d"))

    def add(self, a: Operation, begin: float, b: Operation, end: float) -> None:
        self.rows.extend((a.rank, a.tid, begin, b.rank, b.tid, end))

    def __iter__(self) -> Iterator[tuple[float, ...]]:
        six = iter(self.rows)
        return zip(six, six, six, six, six, six, strict=True)

    def count(self, shifts: dict[int, float]) -> tuple[int, int]:
        """How many there are, and how many of them go back in time."""
        backward = sum(
            end + shifts[int(v)] < begin + shifts[int(u)] - 0.05 for u, _, begin, v, _, end in self
        )
        return len(self.rows) // 6, backward


@dataclass
class _Matched:
    """What the operations of all ranks say together.

    ``delays`` are, for each pair of ranks, the least arrival - departure in us, by their own files.
    """

    arrows: _Arrows = field(default_factory=_Arrows)
    delays: dict[tuple[int, int], float] = field(default_factory=dict)
    updates: Updates = field(default_factory=Updates)
    unmatched: int = 0


def merge(
    paths: Sequence[str | Path], output: str | Path, *, every_message: bool = False
) -> Merged:
    """Write one trace of the timelines of all ranks to ``output``.

    Files of BlueFog's format are put side by side as they are: they do not say who sent to whom.

    Args:
        paths: one file a rank.
        output: the file to write; gets the offsets of the clocks under ``otherData`` as well.
        every_message: draw arrows for collectives other than ``broadcast`` too, n (n - 1) a call.

    Raises:
        ArgumentError: a file cannot be read or written, is no timeline, or two are of one rank.
    """
    sources = sorted((Source(path) for path in paths), key=lambda source: source.rank)
    target = Path(output)
    _check(sources, target)
    matched = _match(sources, every_message) if sources[0].origin else _Matched()
    clocks, shifts = _align(sources, matched.delays) if sources[0].origin else ({}, {})
    matched.updates.join(shifts, matched.arrows.add)
    try:
        with target.open("w", encoding="utf-8") as file:
            events = _Events(file, clocks)
            for source in sources:
                copies = _shifted(source, shifts[source.rank]) if clocks else _renumbered(source)
                events.extend(copies)
            events.extend(_drawn(matched.arrows, shifts))
            file.write("\n]}\n")
    except OSError as error:
        raise ArgumentError(f"cannot write the merged trace to {str(output)!r}: {error}") from error
    damage = tuple(source.damage for source in sources if source.damage)
    arrows, backward = matched.arrows.count(shifts)
    return Merged(
        target,
        events.count,
        arrows,
        matched.unmatched,
        backward,
        tuple(clocks.values()),
        damage,
    )


def _check(sources: Sequence[Source], output: Path) -> None:
    if not sources:
        raise ArgumentError("no timelines to merge; pass one file for each rank")
    if len({bool(source.origin) for source in sources}) > 1:
        raise ArgumentError("some of the timelines are ifog's and some BlueFog's; merge one kind")
    for a, b in pairwise(sources):
        if a.rank == b.rank:
            raise ArgumentError(f"{a.path} and {b.path} are both of rank {a.rank}; pass one")
    if any(source.path.resolve() == output.resolve() for source in sources):
        raise ArgumentError(f"{output} is one of the timelines; write to another file")


def _interleaved(sources: Sequence[Source]) -> Iterator[Operation]:
    """The operations of all ranks, in turn, so that those that belong together come together."""
    turns = [_operations(source) for source in sources]
    while turns:
        going = []
        for turn in turns:
            operation = next(turn, None)
            if operation is not None:
                going.append(turn)
                yield operation
        turns = going


def _operations(source: Source) -> Iterator[Operation]:
    for line in source.lines():
        if '"cat": "op"' in line:
            yield Operation.of(source.rank, json.loads(line))


def _match(sources: Sequence[Source], every_message: bool) -> _Matched:
    matched, matcher = _Matched(), Matcher()
    for operation in _interleaved(sources):
        matched.updates.add(operation)
        for sender, receiver in matcher.add(operation):
            arrival = receiver.arrival(sender.rank)
            pair = sender.rank, receiver.rank
            least = matched.delays.get(pair, math.inf)
            matched.delays[pair] = min(least, arrival - sender.ts)
            if every_message or sender.shown:
                matched.arrows.add(sender, sender.ts, receiver, arrival)
    matched.unmatched = matcher.pending()
    return matched


def _align(
    sources: Sequence[Source], delays: dict[tuple[int, int], float]
) -> tuple[dict[int, Clock], dict[int, float]]:
    """Each rank's clock, and the microseconds to add to its times."""
    origins = {source.rank: source.origin for source in sources}
    reference = sources[0].rank
    for trusted in (True, False):
        assumed, ties = _assumed(origins, trusted=trusted)
        seconds = {
            (u, v): delay * 1e-6 + assumed[v] - assumed[u] for (u, v), delay in delays.items()
        }
        for pair in ties:
            seconds[pair] = min(seconds.get(pair, math.inf), _SAME_CLOCK)
        found, contradictory = offsets(origins, seconds, reference)
        if not (contradictory and ties):
            break
    starts = {rank: assumed[rank] - found[rank].seconds for rank in origins}
    first = min(starts.values())
    # Multiples of 0.1 us: what nested in its file nests afterwards.
    shifts = {rank: round((start - first) * 1e7) / 10 for rank, start in starts.items()}
    shared = {rank for pair in ties for rank in pair}
    clocks = {
        rank: _clock(rank, origin, assumed[rank], found[rank], rank in shared)
        for rank, origin in origins.items()
    }
    return clocks, shifts


def _clock(
    rank: int, origin: dict[str, Any], assumed: float, offset: Offset, shared: bool
) -> Clock:
    ahead = origin["wall"] - assumed + offset.seconds
    return Clock(rank, str(origin["host"]), ahead, offset.uncertainty, shared)


def _assumed(
    origins: dict[int, dict[str, Any]], *, trusted: bool
) -> tuple[dict[int, float], set[tuple[int, int]]]:
    """When each rank's time 0 was, and which ranks share a machine's clock, which is then used."""
    leaders: dict[str, int] = {}
    starts, ties = {}, set()
    for rank, origin in origins.items():
        leader = leaders.setdefault(origin["clock"], rank) if trusted else rank
        since = origin["monotonic"] - origins[leader]["monotonic"]
        starts[rank] = origins[leader]["wall"] + since if leader != rank else origin["wall"]
        if leader != rank:
            ties |= {(rank, leader), (leader, rank)}
    return starts, ties


class _Events:
    """The array of events in the merged file."""

    def __init__(self, file: TextIO, clocks: dict[int, Clock]) -> None:
        self.count = 0
        self._file = file
        told = {
            f"rank {rank}": {
                "host": clock.host,
                "clock_ahead_us": round(clock.seconds * 1e6, 1),
                "uncertainty_us": (
                    round(clock.uncertainty * 1e6, 1)
                    if math.isfinite(clock.uncertainty)
                    else "unknown"
                ),
            }
            for rank, clock in clocks.items()
        }
        other = {"merged_by": "ifog timeline merge", "clocks": told}
        text = json.dumps(other, ensure_ascii=False)
        file.write(f'{{"displayTimeUnit": "ms", "otherData": {text}, "traceEvents": [')

    def extend(self, lines: Iterable[str]) -> None:
        for line in lines:
            self._file.write(f",\n{line}" if self.count else f"\n{line}")
            self.count += 1


def _shifted(source: Source, shift: float) -> Iterator[str]:
    for line in source.lines():
        head, key, tail = line.partition('"ts": ')
        number, comma, rest = tail.partition(",")
        yield f"{head}{key}{float(number) + shift:.1f}{comma}{rest}" if key else line


def _drawn(arrows: _Arrows, shifts: dict[int, float]) -> Iterator[str]:
    # After all slices: an arrow's end is looked for among the slices read before it.
    for number, (u, tail, begin, v, head, end) in enumerate(arrows):
        both = f'"cat": "message", "name": "message", "id": {number}'
        ends = (("s", u, tail, begin, ""), ("f", v, head, end, ', "bp": "e"'))
        for phase, rank, tid, t, bind in ends:
            where = f'"pid": {int(rank) + 1}, "tid": {int(tid)}'
            yield f'{{"ph": "{phase}", {where}, "ts": {t + shifts[int(rank)]:.1f}, {both}{bind}}}'


def _renumbered(source: Source) -> Iterator[str]:
    """The events of a file of BlueFog's, where a process is a tensor, with numbers of its own."""
    for line in source.lines():
        event = json.loads(line)
        event["pid"] += _PROCESSES * source.rank
        event["tid"] += _PROCESSES * source.rank
        arguments = event.get("args", {})
        if event.get("name") == "process_name":
            arguments["name"] = f"rank {source.rank}: {arguments['name']}"
        elif event.get("name") == "process_sort_index":
            arguments["sort_index"] += _PROCESSES * source.rank
        yield json.dumps(event, ensure_ascii=False)
