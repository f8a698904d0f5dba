"""Where events come from: a cluster, a log, a recording that is played, a simulator's trace."""

from __future__ import annotations

from typing import Any, Protocol

from ifog.telemetry import Event

__all__ = ["EventSource", "events_of", "is_modelled", "source_of"]


class EventSource(Protocol):
    """What has events to be read at the reader's own pace.

    One whose times come from a model has an attribute ``modelled`` that is true.
    """

    def since(self, cursor: int) -> tuple[int, list[Event]]:
        """The new cursor and the events after ``cursor``; cursors count events from 0."""


def _tells(source: Any) -> bool:
    return callable(getattr(source, "since", None))


def source_of(source: Any) -> Any:
    """``source`` if it has events: an event source, or something with one as ``events``.

    Raises:
        TypeError: it has none.
    """
    if _tells(source) or _tells(getattr(source, "events", None)):
        return source
    raise TypeError(
        f"events come from a Cluster or an event log, not {type(source).__name__!r}: "
        "pass the cluster, its .events, or an object with since(cursor)"
    )


def events_of(source: Any) -> Any:
    """The event source behind ``source`` at present: a cluster may get another one."""
    return source if _tells(source) else source.events


def is_modelled(source: Any) -> bool:
    """Whether the times are those of a model rather than of clocks."""
    return bool(getattr(source, "modelled", False) or getattr(events_of(source), "modelled", False))
