"""Who waits for whom?"""

from __future__ import annotations

from typing import Any

from ifog.lanes import Lanes, fold_lanes, view_lanes
from ifog.widgets.bundle import module
from ifog.widgets.panel import Panel, Picture

__all__ = ["Timeline"]


class Timeline(Panel):
    """A lane a rank: computing, moving bytes, waiting and for whom; messages as arrows.

    The last rounds while a cell runs, all of it afterwards; with a window chosen in the browser
    every operation in it, however long the run.
    """

    _esm = module("timeline.js")
    span = 12
    picture = Picture(Lanes, fold_lanes, view_lanes)

    def _view(self, time: float) -> dict[str, Any]:
        return view_lanes(self._folded.state, time, self.look.get("window"))
