"""Who holds up whom?"""

from __future__ import annotations

from ifog.waits import Waits, fold_waits, view_waits
from ifog.widgets.bundle import module
from ifog.widgets.panel import Panel, Picture

__all__ = ["Waiting"]


class Waiting(Panel):
    """The cause of a wait past one second, and all who wait for it; one line while nobody does."""

    _esm = module("waiting.js")
    picture = Picture(Waits, fold_waits, view_waits)
