"""Live panels for notebooks: pictures of events, drawn while the ranks work."""

from __future__ import annotations

from ifog.widgets.consensus import Consensus
from ifog.widgets.dashboard import PANELS, Dashboard, export
from ifog.widgets.graph import Graph
from ifog.widgets.panel import Panel, Picture
from ifog.widgets.throughput import Throughput
from ifog.widgets.waiting import Waiting

__all__ = [
    "PANELS",
    "Consensus",
    "Dashboard",
    "Graph",
    "Panel",
    "Picture",
    "Throughput",
    "Waiting",
    "export",
]
