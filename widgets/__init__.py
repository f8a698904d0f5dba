"""Live panels for notebooks: pictures of events, drawn while the ranks work."""

from __future__ import annotations

from ifog.widgets.benches import bench_figure
from ifog.widgets.consensus import Consensus
from ifog.widgets.dashboard import PANELS, Dashboard, export
from ifog.widgets.graph import Graph
from ifog.widgets.panel import Panel, Picture
from ifog.widgets.spectrum import Spectrum
from ifog.widgets.throughput import Throughput
from ifog.widgets.timeline import Timeline
from ifog.widgets.traffic import Traffic
from ifog.widgets.training import Training
from ifog.widgets.waiting import Waiting
from ifog.widgets.watch import Watch

__all__ = [
    "PANELS",
    "Consensus",
    "Dashboard",
    "Graph",
    "Panel",
    "Picture",
    "Spectrum",
    "Throughput",
    "Timeline",
    "Traffic",
    "Training",
    "Waiting",
    "Watch",
    "bench_figure",
    "export",
]
