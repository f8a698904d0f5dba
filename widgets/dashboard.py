"""All panels of a run on one page, fed together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ipywidgets
import traitlets

from ifog import folds
from ifog.widgets.bundle import module
from ifog.widgets.consensus import Consensus
from ifog.widgets.feed import Feed, source_of
from ifog.widgets.graph import Graph
from ifog.widgets.panel import Panel, Picture
from ifog.widgets.spectrum import Spectrum
from ifog.widgets.throughput import Throughput
from ifog.widgets.timeline import Timeline
from ifog.widgets.traffic import Traffic
from ifog.widgets.training import Training
from ifog.widgets.waiting import Waiting
from ifog.widgets.watch import Watch

__all__ = ["DEFAULT", "PANELS", "Bar", "Dashboard", "spans"]

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


class Bar(Panel):
    """The line above the panels: run, graph, ranks, round, seconds."""

    _esm = module("bar.js")
    title = traitlets.Unicode("").tag(sync=True)
    picture = Picture(folds.Status, folds.fold_status, folds.view_status)


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
        source_of(source)
        self.bar = Bar(title=title)
        self.panels = tuple(panel() for panel in (DEFAULT if panels is None else panels))
        for panel, width in zip(
            self.panels, spans([panel.span for panel in self.panels]), strict=True
        ):
            panel.remove_class(f"ifog-span-{panel.span}")
            panel.add_class(f"ifog-span-{width}")
        self._grid = ipywidgets.Box(self.panels)
        self._grid.add_class("ifog-grid")
        super().__init__((self.bar, self._grid))
        self.add_class("ifog-dashboard")
        self._feed = Feed(source, (self.bar, *self.panels))
        self._feed.start()

    def close(self) -> None:
        """Stop reading and remove the page; the cluster is not touched."""
        if self._feed is not None:
            self._feed.close()
            for widget in (*self.panels, self.bar, self._grid):
                widget.close()
        super().close()
