"""The graph as it is used: who talks to whom, who is off?"""

from __future__ import annotations

from typing import Any

from ifog.traffic import DRAWN, Traffic, fold_traffic, view_traffic
from ifog.widgets.bundle import module
from ifog.widgets.layout import positions
from ifog.widgets.panel import Panel, Picture

__all__ = ["Graph"]


def _view(state: Traffic, time: float) -> dict[str, Any]:
    view = view_traffic(state, time)
    if view["empty"] or view["n"] > DRAWN:
        return view
    edges = tuple((u, v) for u, v in state.declared if u != v)
    round_layout, spots = positions(view["n"], edges, state.label)
    return view | {"round_layout": round_layout, "positions": spots}


class Graph(Panel):
    """Declared edges as hairlines, those of the newest round thick, nodes by distance to the mean.

    Above 64 ranks the graph is drawn as a matrix.
    """

    _esm = module("graph.js")
    span = 5
    picture = Picture(Traffic, fold_traffic, _view)
