"""Events as bytes, on the way from a rank to whoever reads them: few of them, and made late.

A loop makes an event of an operation each round, and all of them wait for the next message to
leave. They are packed then, in one go and by columns, those of one form sharing what they have in
common: the loop itself, whose tensors push everything else out of the caches, does not do it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import chain, islice
from typing import Any

from ifog.telemetry import Event, OpEvent

__all__ = ["Deferred", "pack", "unpack"]

Form = tuple[int, str, str, int, tuple[int, ...], tuple[int, ...], tuple[float, ...]]
Columns = tuple[tuple[Form, ...], bytes, bytes]
_WHOLE, _REAL = "q", "d"


def pack(events: Sequence[tuple[Any, ...]]) -> Columns:
    """The fields of ``OpEvent``s, at least one: their forms, and the columns that are their own."""
    rank, seq, step, op, name, t0, t1, wait, late, nbytes, dst, src, weights, arrived = zip(
        *events, strict=True
    )
    known: dict[Form, int] = {}
    number: list[int] = []
    last, place = None, 0
    for form in zip(rank, op, name, nbytes, dst, src, weights, strict=True):
        if form != last:  # a loop's are mostly equal, and to compare takes less time than to hash
            last, place = form, known.setdefault(form, len(known))
        number.append(place)
    whole = array(_WHOLE, [*number, *seq, *step, *late, *map(len, arrived)])
    real = array(_REAL, [*t0, *t1, *wait, *chain.from_iterable(arrived)])
    return tuple(known), whole.tobytes(), real.tobytes()


def unpack(columns: Any) -> list[OpEvent]:
    """The events of what ``pack`` gave.

    Raises:
        ValueError: these are no such columns.
    """
    try:
        forms, *both = columns
        whole, real = array(_WHOLE), array(_REAL)
        for column, data in zip((whole, real), both, strict=True):
            column.frombytes(data)
        count = len(whole) // 5
        number, seq, step, late, arrivals = _cut(whole, count, 5)
        t0, t1, wait = _cut(real, count, 3)
        rest = iter(real[3 * count :])
        arrived = [tuple(islice(rest, many)) for many in arrivals]
        rank, op, name, nbytes, dst, src, weights = zip(
            *map(forms.__getitem__, number), strict=True
        )
        rows = (rank, seq, step, op, name, t0, t1, wait, late, nbytes, dst, src, weights, arrived)
        return list(map(OpEvent._make, zip(*rows, strict=True)))
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"not operations: {type(error).__name__}: {error}") from error


def _cut(column: array[Any], size: int, parts: int) -> list[array[Any]]:
    return [column[size * part : size * (part + 1)] for part in range(parts)]


class Deferred(Collection[Event]):
    """Events that are on hand as bytes, and made only when somebody reads them.

    Args:
        count: how many they are.
        make: gives them; a ValueError says that they are unreadable, and there are none.
    """

    __slots__ = ("_count", "_events", "_make")

    def __init__(self, count: int, make: Callable[[], Sequence[Event]]) -> None:
        self._count = count
        self._make: Callable[[], Sequence[Event]] | None = make
        self._events: Sequence[Event] = ()

    def __contains__(self, event: object) -> bool:
        return any(event == each for each in self)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Event]:
        make = self._make
        if make is not None:
            try:
                self._events = make()
            except ValueError:
                self._events = ()
            self._make = None  # and with it the bytes
        return iter(self._events)
