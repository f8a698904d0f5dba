"""All panels of a run on one page, fed together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import ipywidgets
import traitlets

from ifog import folds
from ifog.errors import ArgumentError
from ifog.sources import EventSource, is_modelled, source_of
from ifog.tape import tape_of
from ifog.widgets.bundle import module
from ifog.widgets.carrier import Carrier
from ifog.widgets.consensus import Consensus
from ifog.widgets.feed import Feed
from ifog.widgets.graph import Graph
from ifog.widgets.page import write_page
from ifog.widgets.panel import Panel, Picture
from ifog.widgets.spectrum import Spectrum
from ifog.widgets.throughput import Throughput
from ifog.widgets.timeline import Timeline
from ifog.widgets.traffic import Traffic
from ifog.widgets.training import Training
from ifog.widgets.waiting import Waiting
from ifog.widgets.watch import Watch

__all__ = ["DEFAULT", "PANELS", "Bar", "Dashboard", "export", "spans"]

PANELS: Mapping[str, type[Panel]] = {
    "graph": Graph,
    "consensus": Consensus,
    "timeline": Timeline,
    "throughput": Throughput,
    "training": Training,
    "traffic": Traffic,
    "spectrum": Spectrum,
    "watch": Watch,
    "waiting": Waiting,
}
DEFAULT: tuple[type[Panel], ...] = tuple(PANELS.values())
_COLUMNS = 12


def spans(spans: Sequence[int]) -> list[int]:
    """Columns of each panel when rows of 12 fill in order and the last of a row grows."""
    widths: list[int] = []
    filled = 0
    for span in spans:
        if widths and filled + span > _COLUMNS:
            widths[-1] += _COLUMNS - filled
            filled = 0
        widths.append(span)
        filled += span
    if widths:
        widths[-1] += _COLUMNS - filled
    return widths


def _arranged(kinds: Sequence[type[Panel]] | None) -> tuple[Panel, ...]:
    """The panels of a page, each with its share of the columns; None for all."""
    panels = tuple(kind() for kind in (DEFAULT if kinds is None else kinds))
    for panel, width in zip(panels, spans([panel.span for panel in panels]), strict=True):
        panel.remove_class(f"ifog-span-{panel.span}")
        panel.add_class(f"ifog-span-{width}")
    return panels


class Bar(Panel):
    """The line above the panels: run, graph, ranks, round, seconds; of a replay also a scrubber."""

    _esm = module("bar.js")
    title = traitlets.Unicode("").tag(sync=True)
    modelled = traitlets.Bool(False).tag(sync=True)
    replay = traitlets.Dict().tag(sync=True)
    picture = Picture(folds.Status, folds.fold_status, folds.view_status)

    _played: Any = None

    def follow(self, source: EventSource, *, refresh: bool) -> None:
        """Show what is new in ``source``, and where in it the present is."""
        super().follow(source, refresh=refresh)
        self.modelled = is_modelled(source)
        if hasattr(source, "standing"):
            self._played = source
            self.replay = source.standing()

    def _receive(self, widget: Any, content: Any, buffers: Any) -> None:
        asked = content.get("replay") if isinstance(content, dict) else None
        if self._played is None or not isinstance(asked, dict):
            super()._receive(widget, content, buffers)
            return
        with suppress(ArgumentError):  # there is nobody who could be told
            self._played.do(asked)
        self.replay = self._played.standing()


class Dashboard(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets is not typed
    """A live page about a cluster; display it as the value of a cell.

    It goes on while a cell blocks the kernel, and a saved notebook keeps what it showed last.

    Args:
        source: a cluster, its ``events``, or any object with ``since(cursor)``.
        panels: the panels in reading order; each fills its share of 12 columns.
        title: the name of the run; by default the number of the cell.

    Raises:
        TypeError: ``source`` has no events.

    Example:
        >>> from ifog.telemetry import EventLog
        >>> page = Dashboard(EventLog())
        >>> [type(panel).__name__ for panel in page.panels][:3]
        ['Graph', 'Consensus', 'Timeline']
        >>> page.close()
    """

    _feed: Feed | None = None  # a dashboard that was refused its source is closed too

    def __init__(
        self, source: Any, panels: Sequence[type[Panel]] | None = None, title: str = ""
    ) -> None:
        self.source = source_of(source)
        self.bar = Bar(title=title)
        self.panels = _arranged(panels)
        self._grid = ipywidgets.Box(self.panels)
        self._grid.add_class("ifog-grid")
        super().__init__((self.bar, self._grid))
        self.add_class("ifog-dashboard")
        shown = (self.bar, *self.panels)
        carrier = Carrier(self.bar)
        for panel in shown:
            panel.carrier = carrier
        self.bar.observe(self._tell_again, "views")
        self._feed = Feed(source, shown, carrier.deliver)
        for panel in shown:
            panel.feed = self._feed
        self._feed.start()

    def _tell_again(self, change: Any) -> None:
        """Send every state by itself: what was carried before the bar was there has got lost."""
        if change["new"]:
            for panel in (self.bar, *self.panels):
                panel.send_state("state")

    def save(self, path: str | Path) -> Path:
        """Write the run so far, as these panels show it, into one HTML file that plays by itself.

        The file needs neither Python nor a network and has at most 3 MB: of a long run not every
        round is kept. Open it as ``run.html#12.5`` to begin at 12.5 s, ``run.html#0play`` to play.

        Args:
            path: where; another file of that name is replaced.

        Raises:
            ArgumentError: the name does not end in ``.html``, or nothing has happened yet.
            RecordingError: the file cannot be written.
        """
        return write_page(path, tape_of(self.source), self.bar, self.panels)

    def close(self) -> None:
        """Stop reading and remove the page; the cluster is not touched."""
        if self._feed is not None:
            self._feed.close()
            for widget in (*self.panels, self.bar, self._grid):
                widget.close()
        super().close()


def export(
    source: Any, path: str | Path, panels: Sequence[type[Panel]] | None = None, title: str = ""
) -> Path:
    """Write a run into one HTML file that plays by itself, as ``Dashboard.save`` does.

    Args:
        source: the path of a recording, or any source of events.
        path: the file to write.
        panels: the panels in reading order; by default all.
        title: the name of the run; by default what it was recorded under.

    Raises:
        ArgumentError, RecordingError, TypeError: as ``Dashboard.save`` and ``ifog.replay`` do.
    """
    bar, shown = Bar(title=title), _arranged(panels)
    try:
        return write_page(path, tape_of(source), bar, shown)
    finally:
        for widget in (bar, *shown):
            widget.close()
