"""A panel: one synced ``state``, made by a pure fold and view, drawn by one ES module."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import anywidget
import traitlets

from ifog.folding import Folding
from ifog.sources import EventSource
from ifog.tape import Tape
from ifog.telemetry import Event, now
from ifog.widgets.bundle import STATIC
from ifog.widgets.feed import Feed

__all__ = ["Panel", "Picture"]

_log = logging.getLogger(__name__)


class Picture(NamedTuple):
    """Where a panel's numbers come from: a first state, a fold over events, a view of the state."""

    initial: Callable[[], Any]
    fold: Callable[[Any, Sequence[Event]], Any]
    view: Callable[[Any, float], dict[str, Any]]


class Panel(anywidget.AnyWidget):
    """One picture of a run.

    A subclass names its picture and its ES module; nothing else differs between panels.

    Args:
        source: a cluster, an event log, or any event source; None when a dashboard feeds it.

    Attributes:
        state: what is drawn, JSON-ready; kept by a saved notebook.
        selected: the rank clicked on, or None.
        table: whether numbers are shown instead of the picture.
    """

    state = traitlets.Dict().tag(sync=True)
    selected = traitlets.Int(None, allow_none=True).tag(sync=True)
    table = traitlets.Bool(False).tag(sync=True)
    _css = STATIC / "ifog.css"

    span: ClassVar[int] = 12
    _feed: Feed | None = None  # a panel that was refused its source is closed too
    picture: ClassVar[Picture]

    def __init__(self, source: Any = None, **traits: Any) -> None:
        feed = None if source is None else Feed(source, (self,))
        self._folding = threading.Lock()
        self._folded = Folding[Any](self.picture.initial, self.picture.fold)
        self._time = math.nan
        super().__init__(**traits)
        self.add_class(f"ifog-span-{self.span}")
        self.on_msg(self._receive)
        if feed is not None:
            self._feed = feed
            feed.start()

    @property
    def n(self) -> int:
        """How many ranks are shown."""
        return int(self.state.get("n") or 0)

    def follow(self, source: EventSource, *, refresh: bool) -> None:
        """Fold what is new in ``source`` and show it; an error is shown, never raised.

        With ``refresh`` clocks and rates of a running cell move on without news too.
        """
        with self._folding:
            if "error" in self.state:
                return
            try:
                moved = self._read(source)
                if not moved and self.state and not (refresh and self._moves()):
                    return
                time = now() if _tape(source) is None else self._time
                state = self.picture.view(self._folded.state, time)
            except Exception as error:
                _log.debug("a panel failed", exc_info=True)
                state = {"error": f"{type(error).__name__}: {error}"}
            self._show(state)

    def _read(self, source: Any) -> bool:
        """Fold up to the present of ``source``; whether there was anything to fold."""
        tape = _tape(source)
        if tape is None:
            cursor, events = source.since(self._folded.place)
            if events:
                self._folded.take(cursor, events)
            return bool(events)
        before = (self._folded.place, self._time)
        self._time = source.now()
        self._folded.go(tape, tape.place(self._time))
        return before != (self._folded.place, self._time)

    def _moves(self) -> bool:
        """Whether the picture changes without news: a cell runs, or the view says so."""
        return bool(self._folded.state.ranks.live or self.state.get("moves"))

    def prepare(self, source: EventSource) -> bool:
        """Place a bookmark in a run that is played; whether there are more to place."""
        tape = _tape(source)
        if tape is None or "error" in self.state:
            return False
        with self._folding:
            try:
                return self._folded.prepare(tape)
            except Exception:  # shown when the present gets there
                return False

    def _show(self, state: dict[str, Any]) -> None:
        with self.hold_sync():
            self.state = state

    def _receive(self, _widget: Any, content: Any, _buffers: Any) -> None:
        if isinstance(content, dict) and content.get("retry"):
            self.restart()

    def restart(self) -> None:
        """Forget everything and read the source again from its beginning."""
        with self._folding:
            self._folded.clear()
            self._time = math.nan
            self._show({})

    def close(self) -> None:
        """Stop reading and remove the panel from the page."""
        if self._feed is not None:
            self._feed.close()
        super().close()


def _tape(source: Any) -> Tape | None:
    """The run that ``source`` plays; None where events come as they happen."""
    tape = getattr(source, "tape", None)
    return tape if isinstance(tape, Tape) else None
