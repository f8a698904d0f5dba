"""Events as bytes, on the way from a rank to whoever reads them: few of them, and made late.

A loop makes an event of an operation each round, all of which wait for the next message to leave.
As objects they would lie scattered over ten lines of the cache each, which the tensors between them
have long pushed out by then; packed, those of one form share what they have in common.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import lru_cache
from typing import Any

from ifog.telemetry import Event, OpEvent

__all__ = ["Deferred", "Packed", "Packer", "unpack"]

_MOST = 1000  # forms remembered: a loop whose weights change in every round makes one a round
Form = tuple[int, str, str, int, tuple[int, ...], tuple[int, ...], tuple[float, ...]]
Packed = tuple[Form, bytes]


@lru_cache(maxsize=64)
def _layout(arrivals: int) -> struct.Struct:
    return struct.Struct(f"<qqqddd{arrivals}d")  # seq, step, late, t0, t1, wait, arrivals


class Packer:
    """Packs the events of operations."""

    def __init__(self) -> None:
        self._forms: dict[Form, Form] = {}

    def pack(self, event: OpEvent) -> Packed:
        """The event as its form, which equal ones share, and the figures that are its own."""
        rank, seq, step, op, name, t0, t1, wait, late, nbytes, dst, src, weights, arrived = event
        form = (rank, op, name, nbytes, dst, src, weights)
        data = _layout(len(arrived)).pack(seq, step, late, t0, t1, wait, *arrived)
        if len(self._forms) > _MOST:
            self._forms.clear()
        return self._forms.setdefault(form, form), data


def unpack(row: Any) -> OpEvent:
    """The event of what ``Packer.pack`` gave.

    Raises:
        ValueError: the row is none of these.
    """
    try:
        (rank, op, name, nbytes, dst, src, weights), data = row
        layout = _layout((len(data) - _layout(0).size) // 8)
        seq, step, late, t0, t1, wait, *arrived = layout.unpack(data)
    except (struct.error, TypeError) as error:
        raise ValueError(f"not an operation: {str(row)[:80]!r}") from error
    figures = (rank, seq, step, op, name, t0, t1, wait, late, nbytes, dst, src, weights)
    return OpEvent(*figures, tuple(arrived))


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
