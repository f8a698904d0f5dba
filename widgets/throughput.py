"""Where does the time go?"""

from __future__ import annotations

from ifog import folds
from ifog.widgets.bundle import module
from ifog.widgets.panel import Panel, Picture

__all__ = ["Throughput"]


class Throughput(Panel):
    """Rounds and bytes a second, and each rank's time: computing, transferring, waiting."""

    _esm = module("throughput.js")
    span = 5
    picture = Picture(folds.Throughput, folds.fold_throughput, folds.view_throughput)
