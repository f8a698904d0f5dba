"""A panel: one synced ``state``, made by a pure fold and view, drawn by one ES module."""

from __future__ import annotations

import json
import logging
import math
import sys
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
from ifog.widgets.carrier import Carrier
from ifog.widgets.feed import Feed
from ifog.widgets.paper import Theme, png_of, svg_of

__all__ = ["Panel", "Picture"]

_PAGE, _GUTTER = 864, 24  # pixels of a dashboard's columns, and between two
_MUCH = 20_000  # events that take a noticeable time to read
_log = logging.getLogger(__name__)


def _read(text: Any) -> Any:
    return json.loads(text) if isinstance(text, str) else text


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
        look: how the reader has set it up: its height, what was chosen; written by the browser.
        views: the places on pages where it is shown; written by the browser.
    """

    # As one text: what is between here and the browser would look at each number by itself.
    state = traitlets.Dict().tag(
        sync=True, to_json=lambda value, _: json.dumps(value), from_json=lambda text, _: _read(text)
    )
    selected = traitlets.Int(None, allow_none=True).tag(sync=True)
    table = traitlets.Bool(False).tag(sync=True)
    look = traitlets.Dict().tag(sync=True)
    views = traitlets.List(traitlets.Unicode()).tag(sync=True)
    _css = STATIC / "ifog.css"

    span: ClassVar[int] = 12
    carrier: Carrier | None = None  # what takes its states to the browser, on a page of panels
    _carried = False
    feed: Feed | None = None  # what keeps it up to date; a dashboard has one for all its panels
    _feed: Feed | None = None  # its own, also if it was refused its source
    picture: ClassVar[Picture]

    def __init__(self, source: Any = None, **traits: Any) -> None:
        feed = None if source is None else Feed(source, (self,))
        self._folding = threading.Lock()
        self._folded = Folding[Any](self.picture.initial, self.picture.fold)
        self._live: Folding[Any] | None = None  # where it was left, while a past is shown
        self._time = math.nan
        self._shown = self._anew = False
        super().__init__(**traits)
        self.observe(self._note_views, "views")
        self.observe(self._note_look, "look")
        self.add_class(f"ifog-span-{self.span}")
        self.on_msg(self._receive)
        if feed is not None:
            self._feed = self.feed = feed
            feed.start()

    @property
    def n(self) -> int:
        """How many ranks are shown."""
        return int(self.state.get("n") or 0)

    @property
    def asleep(self) -> bool:
        """Whether no page shows it any more; it then costs nothing, until one does again."""
        return self._shown and not self.views

    def _note_views(self, change: Any) -> None:
        self._shown = self._shown or bool(change["new"])
        if self._live is not None and set(change["new"]) - set(change["old"]):
            self.step_back(0)  # a page that was just opened is not paused

    def _note_look(self, _change: Any) -> None:
        self._anew = True  # a view may depend on it, such as on the window of a timeline

    def announce(self, source: EventSource) -> None:
        """Say so where there is much to read before the first picture."""
        if not self.state and _tape(source) is None and source.since(sys.maxsize)[0] > _MUCH:
            self._show({"empty": True, "why": ["Reading the run", "the picture comes soon"]})

    def take(self, source: EventSource) -> None:
        """Fold what is new in ``source``, which goes on; ``follow`` shows it later."""
        with self._folding:
            try:
                if "error" not in self.state and self._read(source):
                    self._anew = True
            except Exception as error:
                self._fail(error)

    def follow(self, source: EventSource, *, refresh: bool) -> None:
        """Fold what is new in ``source`` and show it; an error is shown, never raised.

        With ``refresh`` clocks and rates of a running cell move on without news too. Where events
        fell out of the source before they were read, what is left of it is read from the start.
        """
        with self._folding:
            if "error" in self.state:
                return
            try:
                moved = self._read(source) or self._anew
                if not moved and self.state and not (refresh and self._moves()):
                    return
                self._anew = False
                state = self._view(now() if _tape(source) is None else self._time)
                if self._live is not None:
                    state = state | {"past": True}  # what a paused page has asked for
            except Exception as error:
                self._fail(error)
            else:
                self._show(state)

    def _fail(self, error: Exception) -> None:
        _log.debug("a panel failed", exc_info=True)
        self._show({"error": f"{type(error).__name__}: {error}"})

    def _view(self, time: float) -> dict[str, Any]:
        return self.picture.view(self._folded.state, time)

    def _read(self, source: Any) -> bool:
        """Fold up to the present of ``source``; whether there was anything to fold."""
        tape = _tape(source)
        if tape is None:
            missed = getattr(source, "missed", None)
            if self._folded.place and missed is not None and missed(self._folded.place):
                self._folded.clear()
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
        if self.carrier is not None and self.carrier.ready and state != self.state:
            self.carrier.take(self.model_id, state)
            self._carried = True
        try:
            self.state = state
        finally:
            self._carried = False

    def _should_send_property(self, key: str, value: Any) -> bool:
        if key == "state" and self._carried:
            return False
        return bool(super()._should_send_property(key, value))

    def _receive(self, _widget: Any, content: Any, _buffers: Any) -> None:
        if not isinstance(content, dict):
            return
        if content.get("retry"):
            self.restart()
        elif isinstance(content.get("step"), int):
            place = (content.get(name) for name in ("cell", "round"))
            self.step_back(content["step"], *(p if isinstance(p, int) else 0 for p in place))

    def step_back(self, by: int, cell: int = 0, done: int = 0) -> None:
        """Show the run by rounds later or earlier, as ``Feed.step_back`` does; 0 is live again."""
        if self.feed is not None:
            self.feed.step_back(by, cell, done)

    def turn(self, *, back: bool) -> None:
        """Fold a past of the source from its beginning, or go on where the source was left."""
        with self._folding:
            if back:
                self._live = self._live or self._folded
                self._folded = Folding[Any](self.picture.initial, self.picture.fold)
            elif self._live is not None:
                self._folded, self._live = self._live, None
            self._time, self._anew = math.nan, True

    def to_svg(self, *, width: int = 0, theme: Theme = "light") -> str:
        """What the panel shows now, as the text of an SVG file; drawn by the very same module.

        Args:
            width: of the drawing, in pixels; by default what the panel has on a dashboard.
            theme: "light" or "dark".

        Raises:
            ArgumentError: ``ifog[pictures]`` is not installed, or there is no such theme.
        """
        columns = self.span / 12
        traits = self.get_state()
        wide = width or round(_PAGE * columns - _GUTTER * (1 - columns))
        return svg_of(f"{type(self).__name__.lower()}.js", traits, wide, theme)

    def to_png(self, *, width: int = 0, theme: Theme = "light", scale: float = 2) -> bytes:
        """``to_svg`` as a PNG with ``scale`` dots a pixel."""
        return png_of(self.to_svg(width=width, theme=theme), scale)

    def figure(self) -> Any:
        """What the panel shows now, as a Plotly figure to zoom, restyle and export.

        Raises:
            ArgumentError: it is no chart, or shows nothing yet.
        """
        from ifog.widgets.figures import figure_of

        return figure_of(type(self).__name__, self.state)

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
